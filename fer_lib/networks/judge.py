"""A small residual network that judges generated faces, unlike the classifier that is studied."""

import torch
from torch import nn
from torch.nn import functional as F


class Judge(nn.Module):
    """Classifier of expressions with batch normalisation, residual blocks and global average pooling.

    channels : 1 (grey) or 3 (RGB). n_classes : number of logits. width : channels of the first stage.
    Images may have any size of at least 16 pixels.
    Source: He et al. (2016), Deep residual learning (basic block); written for this study, in small.
    """

    def __init__(self, *, channels=1, n_classes=7, width=24):
        super().__init__()
        self.options = {"channels": channels, "n_classes": n_classes, "width": width}
        self.n_features = 4 * width
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            _Block(width, width), _Block(width, 2 * width, stride=2),
            _Block(2 * width, self.n_features, stride=2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )
        self.head = nn.Linear(self.n_features, n_classes)

    def features(self, images):
        """What the last layer sees: float [n, n_features] of images float [n, C, H, W] in [0, 1]."""
        return self.body(images - 0.5)

    def forward(self, images):
        """images : float [n, C, H, W] in [0, 1]. Returns logits [n, n_classes]."""
        return self.head(F.dropout(self.features(images), 0.3, self.training))


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, n_in, n_out, *, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        same = stride == 1 and n_in == n_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False)

    def forward(self, x):
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))
