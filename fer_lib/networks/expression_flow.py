"""The better expression GAN: a face is moved by a flow field and touched up by a residual, not repainted.

The generator returns where each pixel comes from and what is added to it, so that an untouched region stays
as it was and an intensity scales both. The discriminator judges a face together with its label.
Sources: Zhou et al., "View Synthesis by Appearance Flow", ECCV 2016 (arXiv 1605.03557); Perez et al., "FiLM",
AAAI 2018 (arXiv 1709.07871); Miyato and Koyama, "cGANs with Projection Discriminator", ICLR 2018
(arXiv 1802.05637); Timofte et al., "Seven Ways to Improve Example-based Single Image Super Resolution", CVPR 2016
(arXiv 1511.02228), the mean over mirrored inputs.
"""

import torch
import torch.nn.functional as F
from torch import nn

from fer_lib.networks import pooling

MAX_FLOW = 0.25  # of half the image: how far a pixel may be moved


class Block(nn.Module):
    """Two 3x3 convolutions beside the input, normalised and then scaled and shifted by a style."""

    def __init__(self, width, style_size):
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(8, width, affine=False) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.styles = nn.ModuleList(nn.Linear(style_size, 2 * width) for _ in range(2))

    def forward(self, x, style):
        y = x
        for norm, conv, linear in zip(self.norms, self.convs, self.styles):
            scale, shift = linear(style)[:, :, None, None].chunk(2, 1)
            y = conv(F.leaky_relu(norm(y) * (1 + scale) + shift, 0.2))
        return x + y


class Generator(nn.Module):
    """Imposes an expression on a face, as strongly as wanted and in as many ways as there are latents.

    channels : 1 grey, 3 RGB. n_labels : number of expressions. width : channels at full resolution, a multiple of 8.
    n_blocks : residual blocks at a quarter of the resolution. latent_size : numbers that vary how an expression is
    shown. residual_scale : 1 makes the residual at full resolution; 2 at half of it, then it is enlarged and cannot set
    single pixels, which a discriminator is easily fooled with. flow_scale : 4 makes the flow at a quarter of the
    resolution, which keeps it even; 2 at half of it, so that lips can part. mirrored : in evaluation mode a face and
    its mirror image are changed alike: by the mean of what the network says of either, in twice the time.
    """

    def __init__(self, *, channels=1, n_labels=7, width=16, n_blocks=4, latent_size=8, style_size=64, residual_scale=1,
                 flow_scale=4, mirrored=False):
        super().__init__()
        self.residual_scale, self.flow_scale, self.mirrored = residual_scale, flow_scale, mirrored
        widths = (2 * width, width)[:3 - residual_scale]
        self.latent_size = latent_size
        self.label = nn.Embedding(n_labels, style_size)
        self.style = nn.Sequential(nn.Linear(style_size + latent_size, style_size), nn.LeakyReLU(0.2),
                                   nn.Linear(style_size, style_size), nn.LeakyReLU(0.2))
        self.first = nn.Conv2d(channels + 2, width, 5, padding=2)
        self.downs = nn.ModuleList(nn.Conv2d(w, 2 * w, 4, stride=2, padding=1) for w in (width, 2 * width))
        self.blocks = nn.ModuleList(Block(4 * width, style_size) for _ in range(n_blocks))
        self.ups = nn.ModuleList(nn.Conv2d(2 * w, w, 3, padding=1) for w in widths)
        self.shown = nn.ModuleList(Block(w, style_size) for w in widths)
        self.flow = nn.Conv2d(flow_scale * width, 2, 3, padding=1)
        self.head = nn.Conv2d(widths[-1], channels, 3, padding=1)
        for layer in (self.flow, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, image, label, *, latent=None, intensity=1.0):
        """image : float [B, channels, H, W] in -1..1. label : int64 [B]. latent : float [B, latent_size],
        standard normal; None is the typical way, all zeros. intensity : 0 returns the input, 1 is full.
        Returns the image with that expression, float [B, channels, H, W], about -1..1."""
        flow, residual = self.change(image, label, latent=latent)
        return apply_change(image, flow, residual, intensity=intensity)

    def change(self, image, label, *, latent=None):
        """The flow is made at a lower resolution and enlarged.

        Returns flow float [B, 2, H, W] in units of half the image (x, y), and residual float [B, channels, H, W]."""
        if latent is None:
            latent = image.new_zeros(len(image), self.latent_size)
        if not self.mirrored or self.training:
            return self._change(image, label, latent)
        found = self._change(torch.cat([image, image.flip(3)]), label.repeat(2), latent.repeat(2, 1))
        (flow, flow_mirrored), (residual, residual_mirrored) = (each.chunk(2) for each in found)
        back = flow_mirrored.flip(3) * flow.new_tensor([-1, 1]).view(1, 2, 1, 1)  # left and right change places
        return (flow + back) / 2, (residual + residual_mirrored.flip(3)) / 2

    def _change(self, image, label, latent):
        style = self.style(torch.cat([self.label(label), latent], 1))
        x = F.leaky_relu(self.first(torch.cat([image, _grid(image)], 1)), 0.2)
        levels = []
        for down in self.downs:
            levels.append(x)
            x = F.leaky_relu(down(x), 0.2)
        for block in self.blocks:
            x = block(x, style)
        scale, coarse = 4, x
        for up, shown in zip(self.ups, self.shown):
            x = shown(up(F.interpolate(x, scale_factor=2, mode="nearest")) + levels.pop(), style)
            scale //= 2
            coarse = x if scale == self.flow_scale else coarse
        flow = F.interpolate(MAX_FLOW * torch.tanh(self.flow(coarse)), scale_factor=self.flow_scale, mode="bicubic",
                             align_corners=False)
        residual = self.head(x)
        if self.residual_scale > 1:
            residual = F.interpolate(residual, scale_factor=self.residual_scale, mode="bilinear", align_corners=False)
        return flow, residual


def _grid(image):
    """Coordinates of the pixels' centres, -1..1: float [B, 2, H, W], x then y."""
    rows, columns = (torch.linspace(-1 + 1 / n, 1 - 1 / n, n, device=image.device, dtype=image.dtype)
                     for n in image.shape[2:])
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))
    return grid.expand(len(image), -1, -1, -1)


def apply_change(image, flow, residual, *, intensity=1.0):
    """The image after each pixel is fetched from where `flow` points and `residual` is added.

    intensity : float, or float [B], factor on both.
    """
    if torch.is_tensor(intensity):
        intensity = intensity.view(-1, 1, 1, 1)
    places = (_grid(image) + intensity * flow).permute(0, 2, 3, 1)
    moved = F.grid_sample(image, places, mode="bilinear", padding_mode="border", align_corners=False)
    return moved + intensity * residual


class Encoder(nn.Module):
    """Tells from two frames of one sequence how the second shows its expression; used in training alone.

    image_size, channels, critic_width : as of pooling.Features. latent_size : of the Generator.
    Source: Zhu et al., "Toward Multimodal Image-to-Image Translation", NeurIPS 2017 (arXiv 1711.11586), the
    encoder of cVAE-GAN.
    """

    def __init__(self, *, image_size, channels=1, latent_size=8, critic_width=16):
        super().__init__()
        self.features = pooling.Features(image_size=image_size, channels=2 * channels, critic_width=critic_width)
        self.output = nn.Linear(8 * critic_width, 2 * latent_size)
        pooling.initialise(self)
        nn.init.zeros_(self.output.weight)

    def forward(self, frame, shown):
        """frame, shown : float [B, channels, H, W] in -1..1. Returns mean and logarithm of the spread of the latent,
        float [B, latent_size] each."""
        return self.output(self.features(torch.cat([frame, shown - frame], 1))).chunk(2, 1)


class Discriminator(nn.Module):
    """A pooling.Features, a verdict on the face, and a projection on its label; arguments as there."""

    def __init__(self, *, image_size, channels=1, n_labels=7, critic_width=16):
        super().__init__()
        self.features = pooling.Features(image_size=image_size, channels=channels, critic_width=critic_width)
        self.output, self.label = (nn.Linear(8 * critic_width, n) for n in (1, n_labels))
        pooling.initialise(self)

    def forward(self, image):
        """image : float [B, channels, H, W] in -1..1. Returns (logits [B] that ignore the label,
        logits [B, n_labels] of each label); their sum at a label is the verdict on image and label."""
        x = self.features(image)
        return self.output(x)[:, 0], self.label(x)
