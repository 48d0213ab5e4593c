"""Differentiable augmentation of what a discriminator sees, real and fake alike.

Source: Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020
(arXiv 2006.10738); the adaptive chance: Karras et al., "Training Generative Adversarial Networks with Limited Data",
NeurIPS 2020 (arXiv 2006.06676), section 3.1.
"""

import torch
import torch.nn.functional as F


def diff_augment(images, *, policy=("light", "shift", "cutout"), chance=None):
    """Augment a batch with gradients, drawing from torch's random state.

    images : float [B, C, H, W] in -1..1.
    policy : any of "light" (brightness and contrast), "shift" (up to 1/8 of the size, zero padding),
        "cutout" (a grey square of half the size), "mirror" (left-right, half of the images).
    chance : tensor, 0..1, how often each of them is applied to an image, independently; None: always.
    Returns float [B, C, H, W].
    """
    for name in policy:
        changed = AUGMENTATIONS[name](images)
        images = changed if chance is None else torch.where(_uniform(images, 1, 1, 1) < chance, changed, images)
    return images


class AdaptiveChance(torch.nn.Module):
    """How often images are augmented: the more, the better the discriminator tells given from generated ones apart.

    target : 0..1, of the mean sign of the discriminator's verdicts (of their differences, where it compares pairs): 0
    where it guesses, 1 where it is always right. kimg : thousands of images in which the chance can rise from 0 to 1.
    chance : float tensor, 0 at first. Source: Karras et al. 2020 (ADA), section 3.1 (r_t, target 0.6, 500 of 25,000
    kimg); here it moves at every update, not at every fourth.
    """

    def __init__(self, target, *, kimg=500.0):
        super().__init__()
        self.target, self.kimg = target, kimg
        self.register_buffer("chance", torch.zeros(()))

    @torch.no_grad()
    def observe(self, apart, n_images):
        """Move the chance. apart : tensor, the mean sign on n_images given images."""
        self.chance.add_((apart - self.target).sign() * (n_images / (1000 * self.kimg))).clamp_(0, 1)


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
    moved = padded.gather(2, rows[:, None, :, None].expand(-1, channels, -1, padded.shape[3]))
    moved = moved.gather(3, columns[:, None, None].expand(-1, channels, height, -1))
    return moved.contiguous(memory_format=torch.channels_last)


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
