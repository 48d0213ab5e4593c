"""Convolutions whose gradients' gradients are convolutions, too.

Penalties on gradients need them. The library computes the weight's part as a convolution with a kernel as large as the
picture; here it is computed as what it is, the gradient of a weight.
Source: Karras et al. 2020 (StyleGAN2-ADA), whose code does the same (conv2d_gradfix).
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Function


class Conv2d(nn.Conv2d):
    """As nn.Conv2d, without dilation and groups."""

    def forward(self, x):
        return conv2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding)


def conv2d(x, weight, bias=None, *, stride=1, padding=0):
    """As F.conv2d, on a GPU with gradients that suit penalties on gradients; elsewhere it is F.conv2d.

    x : float [B, C, H, W]. weight : float [K, C, h, w]. bias : float [K] or None. stride, padding : int or (int, int).
    """
    suited = x.is_cuda and torch.is_grad_enabled()
    return (suited_conv2d if suited else F.conv2d)(x, weight, bias, stride, padding)


def suited_conv2d(x, weight, bias, stride, padding):
    """What `conv2d` does on a GPU, on any device."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        x, weight = (each.to(torch.get_autocast_dtype(kind)) for each in (x, weight))
    result = _Convolution.apply(x, weight, _pair(stride), _pair(padding))
    return result if bias is None else result + bias.to(result.dtype)[:, None, None]


def _pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


def _gradients(gradient, x, weight, stride, padding, *wanted):
    return torch.ops.aten.convolution_backward(gradient, x, weight, None, stride, padding, (1, 1), False, (0, 0), 1,
                                               (*wanted, False))


class _Convolution(Function):
    @staticmethod
    def forward(ctx, x, weight, stride, padding):
        ctx.save_for_backward(x, weight)
        ctx.options = stride, padding
        return F.conv2d(x, weight, None, stride, padding)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        to_x, to_weight = ctx.needs_input_grad[:2]
        return (_ToInput.apply(gradient, weight, x, *ctx.options) if to_x else None,
                _ToWeight.apply(gradient, x, weight, *ctx.options) if to_weight else None, None, None)


class _ToInput(Function):
    """The gradient of a convolution's input; of `like`, which is as the input, the shape alone counts."""

    @staticmethod
    def forward(ctx, gradient, weight, like, stride, padding):
        ctx.save_for_backward(gradient, weight)
        ctx.options = stride, padding
        return _gradients(gradient, like, weight, stride, padding, True, False)[0]

    @staticmethod
    def backward(ctx, seen):
        gradient, weight = ctx.saved_tensors
        to_gradient, to_weight = ctx.needs_input_grad[:2]
        return (_Convolution.apply(seen, weight, *ctx.options) if to_gradient else None,
                _ToWeight.apply(gradient, seen, weight, *ctx.options) if to_weight else None, None, None, None)


class _ToWeight(Function):
    """The gradient of a convolution's weight; of `like`, which is as the weight, the shape alone counts."""

    @staticmethod
    def forward(ctx, gradient, x, like, stride, padding):
        ctx.save_for_backward(gradient, x)
        ctx.options = stride, padding
        return _gradients(gradient, x, like, stride, padding, False, True)[1]

    @staticmethod
    def backward(ctx, seen):
        gradient, x = ctx.saved_tensors
        to_gradient, to_x = ctx.needs_input_grad[:2]
        return (_Convolution.apply(x, seen, *ctx.options) if to_gradient else None,
                _ToInput.apply(gradient, seen, x, *ctx.options) if to_x else None, None, None, None)
