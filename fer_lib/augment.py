"""Augmentation: differentiable, of what a discriminator sees; and classical, of what a classifier is trained on.

Source: Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020
(arXiv 2006.10738).
"""

import math

import torch
import torch.nn.functional as F


def classical(images, *, degrees=10.0, shift=0.08, scale=0.08, light=0.2):
    """What is done to photographs before GANs: mirror half, rotate, move, zoom, and change light and contrast.

    images : float [B, C, H, W] in 0..1. degrees : largest rotation. shift : largest move, share of the size.
    scale, light : largest relative change of size; of brightness (added) and contrast (factor).
    Draws from torch's random state. Returns float [B, C, H, W] in 0..1; what comes in repeats the border.
    """
    angle, zoom = (2 * _uniform(images, 1) - 1).squeeze(1) * math.radians(degrees), 1 + (2 * _uniform(images) - 1) * scale
    flip = torch.where(_uniform(images) < 0.5, -1.0, 1.0)
    move = (2 * _uniform(images, 2) - 1) * 2 * shift
    rows = torch.stack([torch.stack([zoom * flip * angle.cos(), -zoom * angle.sin(), move[:, 0]], 1),
                        torch.stack([zoom * flip * angle.sin(), zoom * angle.cos(), move[:, 1]], 1)], 1)
    places = F.affine_grid(rows, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, places, padding_mode="border", align_corners=False)
    contrast, brightness = (1 + (2 * _uniform(images, 1, 1, 1) - 1) * light for _ in range(2))
    mean = moved.mean([1, 2, 3], keepdim=True)
    return ((moved - mean) * contrast + mean + (brightness - 1)).clamp(0, 1)


def diff_augment(images, *, policy=("light", "shift", "cutout")):
    """Augment a batch with gradients, drawing from torch's random state.

    images : float [B, C, H, W] in -1..1.
    policy : any of "light" (brightness and contrast), "shift" (up to 1/8 of the size, zero padding),
        "cutout" (a grey square of half the size), "mirror" (left-right, half of the images).
    Returns float [B, C, H, W].
    """
    for name in policy:
        images = AUGMENTATIONS[name](images)
    return images


def _uniform(images, *shape):
    return torch.rand(len(images), *shape, device=images.device, dtype=images.dtype)


def light(images):
    """Brightness by -0.5..0.5 and contrast by 0.5..1.5."""
    images = images + _uniform(images, 1, 1, 1) - 0.5
    mean = images.mean([1, 2, 3], keepdim=True)
    return (images - mean) * (_uniform(images, 1, 1, 1) + 0.5) + mean


def shift(images, *, share=0.125):
    """Move by up to `share` of the size in whole pixels; what comes in is zero (mid-grey)."""
    n, channels, height, width = images.shape
    reach = max(1, round(height * share))
    padded = F.pad(images, [reach] * 4)
    rows = torch.randint(2 * reach + 1, (n, 1), device=images.device) + torch.arange(height, device=images.device)
    columns = torch.randint(2 * reach + 1, (n, 1), device=images.device) + torch.arange(width, device=images.device)
    index = torch.arange(n, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(images, *, share=0.5):
    """Set a square of `share` of the size, anywhere, to zero (mid-grey)."""
    size = images.shape[2]
    centre = (_uniform(images, 2) * size)[:, :, None]
    inside = (torch.arange(size, device=images.device) + 0.5 - centre).abs() < size * share / 2
    hole = inside[:, 0, :, None] & inside[:, 1, None, :]
    return images * ~hole[:, None]


def mirror(images):
    """Swap left and right in half of the images."""
    flip = _uniform(images, 1, 1, 1) < 0.5
    return torch.where(flip, images.flip(3), images)


AUGMENTATIONS = {"light": light, "shift": shift, "cutout": cutout, "mirror": mirror}
