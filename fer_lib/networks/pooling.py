"""A small discriminator, and a classifier of the same kind: convolutions with average pooling, initialised for
their leaky ReLUs.

On a few thousand faces it tells more in a minute of a CPU than a residual discriminator with strided or filtered
convolutions.
Source: He et al., "Delving Deep into Rectifiers", ICCV 2015 (arXiv 1502.01852), for the initial weights.
"""

import torch
import torch.nn.functional as F
from torch import nn

from fer_lib.networks.convolution import Conv2d


class Features(nn.Module):
    """From an image to features [B, 8 * critic_width].

    image_size : pixels, divisible by 16. channels : 1 grey, 3 RGB. critic_width : channels of the first layer; each
    next one has twice as many. residual : whether each but the first is followed by a `Residual`.
    """

    def __init__(self, *, image_size, channels=1, critic_width=16, residual=False):
        super().__init__()
        widths = [critic_width * 2 ** level for level in range(4)]
        layers = []
        for level, (n_in, n_out) in enumerate(zip([channels, *widths], widths)):
            second = [Residual(n_out)] if residual and level else []
            layers += [Conv2d(n_in, n_out, 3, padding=1), nn.LeakyReLU(0.2), *second, nn.AvgPool2d(2)]
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        self.hidden = nn.Linear(widths[-1] * (image_size // 16) ** 2, widths[-1])

    def forward(self, image):
        """image : float [B, channels, H, W] in -1..1."""
        return F.leaky_relu(self.hidden(self.trunk(image)), 0.2)


class Residual(nn.Module):
    """Adds to features [B, width, H, W] what one more convolution makes of them, at first nothing."""

    def __init__(self, width):
        super().__init__()
        self.convolution = Conv2d(width, width, 3, padding=1)

    def forward(self, features):
        return features + F.leaky_relu(self.convolution(features), 0.2)


class Discriminator(nn.Module):
    """Features and a verdict; arguments as in Features."""

    def __init__(self, *, image_size, channels=1, critic_width=16, residual=False):
        super().__init__()
        self.features = Features(image_size=image_size, channels=channels, critic_width=critic_width,
                                 residual=residual)
        self.output = nn.Linear(8 * critic_width, 1)
        initialise(self)

    def forward(self, image):
        """image : float [B, channels, H, W] in -1..1. Returns logits [B], high for real."""
        return self.output(self.features(image))[:, 0]

    def pair(self, real, fake):
        """The logits of real and of generated images, [B] each, at once."""
        return self(torch.cat([real, fake])).chunk(2)


class Classifier(nn.Module):
    """Features and one logit per class; other arguments as in Features."""

    def __init__(self, *, image_size, channels=1, n_classes=6, critic_width=16):
        super().__init__()
        self.options = {"image_size": image_size, "channels": channels, "n_classes": n_classes,
                        "critic_width": critic_width}
        self.features = Features(image_size=image_size, channels=channels, critic_width=critic_width)
        self.output = nn.Linear(8 * critic_width, n_classes)
        initialise(self)

    def forward(self, image):
        """image : float [B, channels, H, W] in 0..1. Returns logits [B, n_classes]."""
        return self.output(F.dropout(self.features(2 * image - 1), 0.4, self.training))


def initialise(network):
    """Kaiming initialisation of every convolution and linear layer, biases zero; a Residual's weights are zero too."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, a=0.2)
            nn.init.zeros_(layer.bias)
    for layer in network.modules():
        if isinstance(layer, Residual):
            nn.init.zeros_(layer.convolution.weight)
