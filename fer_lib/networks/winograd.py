"""3x3 convolutions with a quarter of the multiplications, for training on processors.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016 (arXiv 1509.09308),
section 4: F(4x4, 3x3).
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
import torch.nn.functional as F
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fer_lib.networks import tiles
from fer_lib.networks.convolution import conv2d

CACHE = 2**21  # bytes of the tiles that are computed at a time, so that they stay in a core's cache, but at least
TILES = 128  # so many, as the kernel is read anew for each lot


def conv3x3(x, weight, bias=None, *, padding=1):
    """As F.conv2d with a 3x3 kernel, with other rounding where it `pays` (some 1e-5 of the result's spread; values
    above about 1e35 overflow).

    x : float [B, C, H, W]. weight : float [K, C, 3, 3]. bias : float [K]. padding : 0 to 2 rows of zeros on every side.
    Returns float [B, K, H + 2 * padding - 2, W + 2 * padding - 2]. Can be differentiated any number of times.
    """
    if not pays(x, weight):
        return conv2d(x, weight, bias, padding=padding)
    return _Convolution.apply(x, weight, bias, padding)


def conv3x3_pool_relu(x, weight, bias):
    """The ReLU of the largest of each 2x2 pixels of a convolution without padding, in one go where that `pays`.

    x, weight, bias : as in `conv3x3`. Returns float [B, K, (H - 2) // 2, (W - 2) // 2]. Can be differentiated once, and
    any number of times where it does not pay.
    """
    if not pays(x, weight):
        return F.relu(F.max_pool2d(F.conv2d(x, weight, bias), 2))
    if any((side - 2) % tiles.TILE for side in x.shape[2:]):
        return F.relu(F.max_pool2d(_Convolution.apply(x, weight, bias, 0), 2))
    return _PooledConvolution.apply(x, weight, bias)


def pays(x, weight):
    """Whether it is faster than the library's convolution: on a CPU, in float32, for enough channels and pixels.

    As the tiles of narrow layers are soon computed, to share them between threads takes longer than it saves; so does
    transforming a wide layer's weight for few pixels.
    """
    narrowest = 32 if torch.get_num_threads() == 1 else 256
    return (x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
            and not any(channels % tiles.LANES for channels in weight.shape[:2])
            and min(weight.shape[:2]) >= narrowest and max(weight.shape[:2]) >= 64
            and min(x.shape[2:]) >= 8 and x[:, 0].numel() >= max(1024, 8 * min(weight.shape[:2])))


class _Convolution(Function):
    @staticmethod
    def forward(ctx, x, weight, bias, padding):
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        x, kernel = _channels_last(x), _for_products(_transformed(weight))
        result = _empty(len(x), *(side + 2 * padding - 2 for side in x.shape[1:3]), len(weight))
        target = _channels_last(result)
        for band, ins, outs in _bands(target.shape, x.shape[3]):
            _share(tiles.read, x, tiles.SIDE, padding, ins, *band)
            _multiply(ins, kernel, bias, outs)
            _share(tiles.write, outs, tiles.TILE, 0, target, *band)
        return result

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = _Gradients.apply(x, weight, gradient, ctx.padding, ctx.needs_input_grad[:2])
        return to_x, to_weight, to_bias if ctx.needs_input_grad[2] else None, None


class _Gradients(Function):
    """The gradients of input, weight and bias from that of the result; wanted : whether those of the first two."""

    @staticmethod
    def forward(ctx, x, weight, gradient, padding, wanted):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, gradient)
        ctx.padding = padding
        gradient = _channels_last(gradient)

        def read(outs, band):
            _share(tiles.read, gradient, tiles.TILE, 0, outs, *band)

        return _gradients(_channels_last(x), weight, gradient.shape, read, padding, wanted)

    @staticmethod
    def backward(ctx, of_x, of_weight, of_bias):
        """Each gradient is linear in the result's, and a convolution is linear in each of its factors."""
        x, weight, gradient = ctx.saved_tensors
        to_x = to_weight = to_gradient = None
        if of_weight is not None and ctx.needs_input_grad[0]:
            to_x = _Gradients.apply(x, of_weight, gradient, ctx.padding, (True, False))[0]
        if of_x is not None and ctx.needs_input_grad[1]:
            to_weight = _Gradients.apply(of_x, weight, gradient, ctx.padding, (False, True))[1]
        if ctx.needs_input_grad[2]:
            parts = [_Convolution.apply(*pair, None, ctx.padding) for pair in ((of_x, weight), (x, of_weight))
                     if all(tensor is not None for tensor in pair)]
            parts += [] if of_bias is None else [of_bias[:, None, None].expand_as(gradient)]
            to_gradient = sum(parts[1:], start=parts[0]) if parts else None
        return to_x, to_weight, to_gradient, None, None


class _PooledConvolution(Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.shape = len(x), x.shape[2] - 2, x.shape[3] - 2, len(weight)
        source, kernel = _channels_last(x), _for_products(_transformed(weight))
        result = _empty(len(x), ctx.shape[1] // 2, ctx.shape[2] // 2, len(weight))
        target = _channels_last(result)
        which = torch.empty_like(target, dtype=torch.uint8)
        for band, ins, outs in _bands(ctx.shape, source.shape[3]):
            _share(tiles.read, source, tiles.SIDE, 0, ins, *band)
            _multiply(ins, kernel, bias, outs)
            _share(tiles.write_pooled, outs, target, which, *band)
        ctx.save_for_backward(x, weight, which)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        x, weight, which = ctx.saved_tensors
        gradient = _channels_last(gradient)

        def read(outs, band):
            _share(tiles.read_pooled, gradient, which, outs, *band)

        return _gradients(_channels_last(x), weight, ctx.shape, read, 0, ctx.needs_input_grad[:2])


def _gradients(x, weight, shape, read, padding, wanted):
    """See _Gradients; shape : of the convolution's result. read : writes the transformed gradient of bands of it."""
    kernel = _transformed(weight)
    to_x = to_weight = None
    if wanted[0]:
        to_x = _empty(len(x), *x.shape[1:]).zero_()
    to_kernel, to_bias = torch.zeros_like(kernel), x.new_zeros(shape[3])
    for band, ins, outs in _bands(shape, x.shape[3]):
        read(outs, band)
        to_bias += outs[tiles.CONSTANT].sum(0)
        if wanted[1]:
            _share(tiles.read, x, tiles.SIDE, padding, ins, *band)
            torch.baddbmm(to_kernel, outs.mT, ins, out=to_kernel)
        if wanted[0]:
            torch.bmm(outs, kernel, out=ins)
            _share(tiles.write, ins, tiles.SIDE, padding, _channels_last(to_x), *band, turns=2)
    if wanted[1]:
        to_weight = _empty(len(weight), 3, 3, x.shape[3])
        _share(tiles.transform_kernel_gradient, to_kernel, _channels_last(to_weight))
    return to_x, to_weight, to_bias


def _empty(n, height, width, channels):
    """float [n, channels, height, width], with the channels last in memory."""
    return torch.empty(n, channels, height, width, memory_format=torch.channels_last, **_KIND)


_KIND = {"dtype": torch.float32, "device": "cpu"}


def _channels_last(x):
    return x.detach().permute(0, 2, 3, 1).contiguous()


def _transformed(weight):
    """float [K, C, 3, 3] to [36, K, C]."""
    if any(channels % tiles.LANES for channels in weight.shape[:2]):
        raise ValueError(f"channels in lots of {tiles.LANES} only, got a weight of {tuple(weight.shape)}")
    kernel = torch.empty(tiles.SIDE**2, *weight.shape[:2], **_KIND)
    _share(tiles.transform_weight, _channels_last(weight), kernel)
    return kernel


def _for_products(kernel):
    """[36, K, C] as [36, C, K], in the order in which products are the fastest where copying it is not the longer part.
    """
    kernel = kernel.mT
    return kernel.contiguous() if kernel.numel() <= 2**20 else kernel


def _multiply(ins, kernel, bias, outs):
    torch.bmm(ins, kernel, out=outs)
    if bias is not None:
        outs[tiles.CONSTANT] += bias


def _bands(shape, n_in):
    """Parts of the tiles of a result of shape [B, H, W, K]: ((columns, first band), tiles of the input, of the result).
    """
    n_images, rows, columns = shape[0], *(-(-side // tiles.TILE) for side in shape[1:3])
    size = 4 * tiles.SIDE**2 * (n_in + shape[3])
    total, step = n_images * rows, max(CACHE // size, TILES) // columns or 1
    for first in range(0, total, step):
        n_tiles = min(step, total - first) * columns
        ins, outs = (torch.empty(tiles.SIDE**2, n_tiles, channels, **_KIND) for channels in (n_in, shape[3]))
        yield (columns, first), ins, outs


def _share(function, *arguments, turns=1):
    """Call a function of `tiles` on as many threads as the library uses; in two turns, for every other band each.

    arguments : those before `start` and `step`.
    """
    arguments = [argument.numpy() if isinstance(argument, torch.Tensor) else argument for argument in arguments]
    n_threads = min(torch.get_num_threads(), 8)  # more would wait longer than they work
    for turn in range(turns):
        others = [_threads().submit(function, *arguments, turn + turns * number, turns * n_threads)
                  for number in range(1, n_threads)]
        function(*arguments, turn, turns * n_threads)
        for other in others:
            other.result()


@cache
def _threads():
    return ThreadPoolExecutor()


if hasattr(os, "register_at_fork"):  # a child has no threads of its parent's
    os.register_at_fork(after_in_child=_threads.cache_clear)
