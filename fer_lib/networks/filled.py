"""Convolutions of few channels on a GPU, whose matrix units take eight at a time and leave fewer to slow code."""

import torch.nn.functional as F
from torch import nn

TOGETHER = 8


class FilledConv2d(nn.Conv2d):
    """As nn.Conv2d, with `filled_conv2d` on a GPU."""

    def forward(self, x):
        if x.is_cuda:
            return filled_conv2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding)
        return super().forward(x)


def filled_conv2d(x, weight, bias=None, **options):
    """As F.conv2d, computed with zeros beside, up to a multiple of TOGETHER channels of the input and of the result.

    x : float [B, C, H, W]. weight : float [K, C, h, w]. bias : float [K] or None. options : stride and padding.
    Returns float [B, K, ...].
    """
    n_out, n_in = weight.shape[:2]
    more_in, more_out = -n_in % TOGETHER, -n_out % TOGETHER
    if more_in or more_out:
        weight = F.pad(weight, (0, 0, 0, 0, 0, more_in, 0, more_out))
        x = F.pad(x, (0, 0, 0, 0, 0, more_in)) if more_in else x
        bias = F.pad(bias, (0, more_out)) if more_out and bias is not None else bias
    return F.conv2d(x, weight, bias, **options)[:, :n_out]
