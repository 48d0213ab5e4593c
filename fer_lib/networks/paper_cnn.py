"""The simple convolutional classifier of the paper."""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F

from fer_lib.networks import winograd


class Dropout(nn.Dropout):
    """As nn.Dropout, but on a processor, where drawing takes a good part of an update, a byte decides about each value.

    p : below 1, a multiple of 1/256. alone : see `set_together`.
    """

    alone = True

    def __init__(self, p):
        super().__init__(p)
        if p >= 1 or 256 * p % 1:
            raise ValueError(f"dropout by bytes of a multiple of 1/256 below 1, got {p}")

    def forward(self, x):
        dense = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
        if not (self.training and self.alone and x.device.type == "cpu" and dense):
            return super().forward(x)
        drawn = torch.empty(x.numel() // 8 + 1, dtype=torch.int64).random_(-2**63, None)
        drawn = drawn.view(torch.uint8)[:x.numel()].as_strided(x.shape, x.stride())
        return x * ((drawn >= int(256 * self.p)).to(x.dtype) * (1 / (1 - self.p)))


class PooledConv2d(nn.Conv2d):
    """A 3x3 convolution, the largest of each 2x2 pixels, and a ReLU, which behind the pooling equals one before it and
    touches a quarter of the values; with fewer multiplications while it is trained, where that is faster.

    alone : see `set_together`.
    """

    alone = True

    def forward(self, x):
        if self.training and self.alone:
            return winograd.conv3x3_pool_relu(x, self.weight, self.bias)
        return F.relu(F.max_pool2d(super().forward(x), 2))


def set_together(model, together=True):
    """Prepare a network for torch.func.vmap, which cannot see the bytes and tiles of a network trained alone, or, with
    False, for being alone again."""
    for layer in model.modules():
        if isinstance(layer, Dropout | PooledConv2d):
            layer.alone = not together


class PaperCNN(nn.Module):
    """Four 3x3 convolutions without padding, two dense layers, dropout between.

    image_size : side of the square input in pixels, at least 32.
    channels : 1 (grey) or 3 (RGB).
    n_classes : number of logits.
    Raises ValueError for an image below 32 pixels: nothing would be left after the last pooling.
    Source: Gholipour Picha et al. (2023), arXiv 2303.15223, and the layer list of the authors' public
    repository; weights start as in Keras (Glorot uniform, zero bias).
    """

    def __init__(self, *, image_size=64, channels=1, n_classes=6):
        super().__init__()
        if image_size < 32:
            raise ValueError(f"PaperCNN needs images of at least 32 pixels, got {image_size}")
        # A 3x3 convolution without padding takes 2 pixels off the side, pooling halves it (rounding down).
        side = ((image_size - 4) // 2 - 2) // 2
        side = (side - 2) // 2
        # Named (not placed) as where pooling and ReLU are layers of their own, to fit weights that are kept.
        self.features = nn.Sequential(OrderedDict([
            ("0", nn.Conv2d(channels, 32, 3)), ("1", nn.ReLU()),
            ("2", PooledConv2d(32, 64, 3)), ("5", Dropout(0.25)),
            ("6", PooledConv2d(64, 128, 3)),
            ("9", PooledConv2d(128, 128, 3)), ("12", Dropout(0.25)),
        ]))
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(128 * side * side, 1024), nn.ReLU(), Dropout(0.5),
            nn.Linear(1024, n_classes),
        )
        self.apply(_initialise_as_keras)

    def forward(self, images):
        """images : float [n, channels, image_size, image_size] in [0, 1]. Returns logits [n, n_classes]."""
        return self.classifier(self.features(images))


def _initialise_as_keras(module):
    """Glorot-uniform weights and zero bias. Source: Glorot & Bengio (2010), eq. 16."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
