"""Classical augmentation: what a classifier's training images are varied by without any GAN."""

import math

import torch
import torch.nn.functional as F


def vary(images, *, degrees=10.0, shift=0.08, scale=0.08, light=0.2):
    """What is done to photographs before GANs: mirror half, rotate, move, zoom, and change light and contrast.

    images : float [B, C, H, W] in 0..1. degrees : largest rotation. shift : largest move, share of the size.
    scale, light : largest relative change of size; of brightness (added) and contrast (factor).
    Draws from torch's random state. Returns float [B, C, H, W] in 0..1; what comes in repeats the border.
    """
    angle, zoom = ((2 * _uniform(images, 1) - 1).squeeze(1) * math.radians(degrees),
                   1 + (2 * _uniform(images) - 1) * scale)
    flip = torch.where(_uniform(images) < 0.5, -1.0, 1.0)
    move = (2 * _uniform(images, 2) - 1) * 2 * shift
    rows = torch.stack([torch.stack([zoom * flip * angle.cos(), -zoom * angle.sin(), move[:, 0]], 1),
                        torch.stack([zoom * flip * angle.sin(), zoom * angle.cos(), move[:, 1]], 1)], 1)
    places = F.affine_grid(rows, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, places, padding_mode="border", align_corners=False)
    contrast, brightness = (1 + (2 * _uniform(images, 1, 1, 1) - 1) * light for _ in range(2))
    mean = moved.mean([1, 2, 3], keepdim=True)
    return ((moved - mean) * contrast + mean + (brightness - 1)).clamp(0, 1)


def _uniform(images, *shape):
    return torch.rand(len(images), *shape, device=images.device)
