"""The expression GAN: StarGAN, as the paper used it.

Source: Choi et al., "StarGAN: Unified Generative Adversarial Networks for Multi-Domain Image-to-Image
Translation", CVPR 2018 (arXiv 1711.09020), tables 4 and 5.
"""

import logging
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from fer_lib.errors import FerError
from fer_lib.networks import winograd
from fer_lib.networks.convolution import Conv2d

log = logging.getLogger(__name__)


def _norm(channels):
    return _InstanceNorm(channels, affine=True)


class _InstanceNorm(nn.InstanceNorm2d):
    """Compiled while a GPU trains it, as the library's own copies the channels, which are last, to the
    front and back."""

    def forward(self, x):
        compiled = x.is_cuda and self.training and compiled_norm()
        return compiled(x, self.weight, self.bias, self.eps) if compiled else super().forward(x)


def _normalised(x, weight, bias, eps):
    """Instance normalisation of x, float [B, C, H, W]; computed in float32. Source: Ulyanov et al. 2016, equation 1."""
    variance, mean = torch.var_mean(x.float(), (2, 3), correction=0, keepdim=True)
    scale = weight.view(1, -1, 1, 1) * (variance + eps).rsqrt()
    return ((x - mean) * scale + bias.view(1, -1, 1, 1)).to(x.dtype)


@cache
def compiled_norm():
    """`_normalised`, compiled for GPUs, or None where the compiler does not work (it needs Triton and a C compiler)."""
    torch._dynamo.config.recompile_limit = max(
        torch._dynamo.config.recompile_limit, 64)  # one for each size, with and without gradients
    compiled = torch.compile(_normalised, dynamic=False)
    try:
        compiled(torch.ones(1, 8, 4, 4, device="cuda"), *torch.ones(2, 8, device="cuda"), 1e-5)
    except Exception as error:  # of many types, from compilers that are not there to errors of the system
        log.info("StarGAN's normalisation is not compiled (%s): training is slower", type(error).__name__)
        return None
    return compiled


class _Conv3x3(nn.Conv2d):
    """Computed with fewer multiplications while it is trained, where that is faster."""

    def forward(self, x):
        return winograd.conv3x3(x, self.weight) if self.training else super().forward(x)


class _ToPixels(nn.Conv2d):
    """A convolution of odd size to few channels; on a CPU it computes 2x2 pixels as one of four times as many channels,
    as the library computes channels in sixteens."""

    def forward(self, x):
        if x.device.type != "cpu" or x.shape[2] % 2 or x.shape[3] % 2:
            return super().forward(x)
        shifted = [F.pad(self.weight, (right, 1 - right, down, 1 - down)) for down in (0, 1) for right in (0, 1)]
        weight = torch.stack(shifted, 1).flatten(0, 1)
        return F.pixel_shuffle(F.conv2d(x, weight, stride=2, padding=self.padding), 2)


class _Halving(Conv2d):
    """A convolution of stride 2; on a CPU one to few pixels is a matrix product, for which the library is slow."""

    def forward(self, x):
        size, n_pixels = [side // 2 for side in x.shape[2:]], x.shape[2] * x.shape[3] // 4
        if x.device.type != "cpu" or n_pixels > 16:
            return super().forward(x)
        patches = F.unfold(x, self.kernel_size, stride=2, padding=self.padding).transpose(1, 2)
        return F.linear(patches, self.weight.flatten(1), self.bias).transpose(1, 2).unflatten(2, size)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with instance normalisation, added to the input."""

    def __init__(self, width):
        super().__init__()
        self.main = nn.Sequential(
            _Conv3x3(width, width, 3, padding=1, bias=False), _norm(width), nn.ReLU(),
            _Conv3x3(width, width, 3, padding=1, bias=False), _norm(width))

    def forward(self, x):
        return x + self.main(x)


class Generator(nn.Module):
    """Imposes an expression on a face.

    channels : 1 grey, 3 RGB. n_labels : number of expressions. conv_dim : channels of the first layer
    (paper: 64). n_blocks : residual blocks at a quarter of the resolution (paper: 6).
    """

    def __init__(self, *, channels=1, n_labels=7, conv_dim=64, n_blocks=6):
        super().__init__()
        self.n_labels = n_labels
        width = conv_dim
        layers = [nn.Conv2d(channels + n_labels, width, 7, padding=3, bias=False), _norm(width), nn.ReLU()]
        for _ in range(2):
            layers += [nn.Conv2d(width, width * 2, 4, stride=2, padding=1, bias=False), _norm(width * 2), nn.ReLU()]
            width *= 2
        layers += [ResidualBlock(width) for _ in range(n_blocks)]
        for _ in range(2):
            layers += [nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1, bias=False),
                       _norm(width // 2), nn.ReLU()]
            width //= 2
        layers += [_ToPixels(width, channels, 7, padding=3, bias=False), nn.Tanh()]
        self.main = nn.Sequential(*layers)

    def forward(self, image, label):
        """image : float [B, channels, H, W] in -1..1. label : int64 [B]. Returns the image with that expression."""
        codes = F.one_hot(label, self.n_labels).to(image.dtype)
        if image.device.type == "cpu":
            return self.main[1:](self._first(image, codes))
        planes = codes[:, :, None, None].expand(-1, -1, *image.shape[2:])
        return self.main(torch.cat([image, planes], 1))

    def _first(self, image, codes):
        """The first convolution: what it makes of the labels' even planes does not depend on the image."""
        first, channels = self.main[0], image.shape[1]
        weight = first.weight[:, channels:].transpose(0, 1).flatten(0, 1)[:, None]
        planes = F.conv2d(image.new_ones(1, 1, *image.shape[2:]), weight, padding=first.padding)
        features = F.conv2d(image, first.weight[:, :channels], padding=first.padding)
        return features + (codes @ planes.view(self.n_labels, -1)).view(features.shape)


class Discriminator(nn.Module):
    """PatchGAN critic with a class head.

    image_size : pixels, divisible by 2**n_layers. conv_dim : channels of the first layer (paper: 64).
    n_layers : convolutions of stride 2; None takes the paper's 6, or as many as leave at least 2x2 features.
    Raises FerError when the size is not divisible.
    """

    def __init__(self, *, image_size, channels=1, n_labels=7, conv_dim=64, n_layers=None):
        super().__init__()
        n_layers = n_layers or next(n for n in range(6, 0, -1) if image_size % 2**n == 0 and image_size // 2**n >= 2)
        if image_size % 2**n_layers:
            raise FerError(f"The image size {image_size} cannot be halved {n_layers} times: use fewer layers.")
        layers, width = [_Halving(channels, conv_dim, 4, stride=2, padding=1), nn.LeakyReLU(0.01)], conv_dim
        for _ in range(1, n_layers):
            layers += [_Halving(width, width * 2, 4, stride=2, padding=1), nn.LeakyReLU(0.01)]
            width *= 2
        self.main = nn.Sequential(*layers)
        self.critic = Conv2d(width, 1, 3, padding=1, bias=False)
        self.classify = Conv2d(width, n_labels, image_size // 2**n_layers, bias=False)

    def forward(self, image):
        """image : float [B, channels, H, W] in -1..1. Returns (critic [B, 1, h, w], class logits [B, n_labels])."""
        features = self.main(image)
        return self.critic(features), self.classify(features).flatten(1)
