"""3x3 convolutions with a quarter of the multiplications, for training wide networks on processors.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016 (arXiv 1509.09308),
section 4: F(4x4, 3x3).
"""

import math

import torch
import torch.nn.functional as F
from torch.autograd import Function

from fer_lib.networks.convolution import conv2d

TILE = 4  # pixels of the result along a side that are computed together, from TILE + 2 pixels of the input
TILES = 256  # about so many are computed at a time: they stay in the cache


def _kronecker(rows):
    matrix = torch.tensor(rows, dtype=torch.float64)
    return torch.kron(matrix, matrix).float()


DATA = _kronecker([[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
                   [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]])  # [36, 36]
KERNEL = _kronecker([[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
                     [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]])  # [36, 9]
RESULT = _kronecker([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])  # [16, 36]


def conv3x3(x, weight, bias=None, *, padding=1):
    """As F.conv2d with a 3x3 kernel, with other rounding where it `pays` (some 1e-5 of the result's spread).

    x : float [B, C, H, W]. weight : float [K, C, 3, 3]. bias : float [K]. padding : 0 to 2 rows of zeros on every side.
    Returns float [B, K, H + 2 * padding - 2, W + 2 * padding - 2]. Can be differentiated any number of times.
    """
    if not pays(x, weight):
        return conv2d(x, weight, bias, padding=padding)
    return _Convolution.apply(x, weight, bias, padding, False)


def pays(x, weight):
    """Whether it is faster than the library's convolution: on a CPU, in float32, for many channels and pixels."""
    return (x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
            and min(weight.shape[:2]) >= 256 and min(x.shape[2:]) >= 8 and x[:, 0].numel() >= 1024)


class _Convolution(Function):
    """The convolution; `adjoint` makes of a gradient of the result that of the input."""

    @staticmethod
    def forward(ctx, x, weight, bias, padding, adjoint):
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.adjoint = padding, adjoint
        kernel = (KERNEL.flip(1) if adjoint else KERNEL) @ weight.permute(0, 2, 3, 1).flatten(1, 2)  # [K, 36, C]
        return _convolve(x, kernel.transpose(0, 1) if adjoint else kernel.permute(1, 2, 0), bias, padding)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        pair = (gradient, x, 2 - ctx.padding) if ctx.adjoint else (x, gradient, ctx.padding)
        to_x, to_weight, to_bias = ctx.needs_input_grad[:3]
        return (_Convolution.apply(gradient, weight, None, 2 - ctx.padding, not ctx.adjoint) if to_x else None,
                _WeightGradient.apply(*pair) if to_weight else None, gradient.sum((0, 2, 3)) if to_bias else None,
                None, None)


class _WeightGradient(Function):
    """The gradient of the weights, from the input and the gradient of the result."""

    @staticmethod
    def forward(ctx, x, gradient, padding):
        ctx.save_for_backward(x, gradient)
        ctx.padding = padding
        grid = _Grid(*gradient.shape[2:])
        x, gradient = grid.padded(x, padding, TILE + 2), grid.padded(gradient, 0, TILE)
        total = x.new_empty(gradient.shape[3], 36, x.shape[3])
        for number, images in enumerate(grid.batches(len(x))):
            ins, outs = grid.transformed(x[images], DATA), grid.transformed(gradient[images], RESULT.T)
            total.transpose(0, 1).baddbmm_(outs.mT, ins, beta=min(number, 1))
        return (KERNEL.T @ total).unflatten(1, (3, 3)).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, to_weight):
        x, gradient = ctx.saved_tensors
        to_x, to_gradient = ctx.needs_input_grad[:2]
        return (_Convolution.apply(gradient, to_weight, None, 2 - ctx.padding, True) if to_x else None,
                _Convolution.apply(x, to_weight, None, ctx.padding, False) if to_gradient else None, None)


def _convolve(x, kernel, bias, padding):
    """x : float [B, C, H, W]; kernel : [36, C, K], transformed; bias : [K] or None."""
    height, width = (side + 2 * padding - 2 for side in x.shape[2:])
    grid = _Grid(height, width)
    x = grid.padded(x, padding, TILE + 2)
    shape = len(x), kernel.shape[2], TILE * grid.rows, TILE * grid.columns
    result = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    tiles = result.permute(0, 2, 3, 1).view(len(x), grid.rows, TILE, grid.columns, TILE, -1)
    for images in grid.batches(len(x)):
        ins = grid.transformed(x[images], DATA)
        outs = x.new_empty(ins.shape[1], 36, kernel.shape[2])
        torch.bmm(ins, kernel, out=outs.transpose(0, 1))
        grid.restore(outs, 0 if bias is None else bias, tiles[images])
    return result if shape[2:] == (height, width) else result[:, :, :height, :width].clone()


class _Grid:
    """The tiles of a result of some height and width."""

    def __init__(self, height, width):
        self.rows, self.columns = (-(-side // TILE) for side in (height, width))

    def batches(self, n_images):
        """Slices of images with about TILES tiles each."""
        step = max(1, TILES // (self.rows * self.columns))
        return [slice(start, start + step) for start in range(0, n_images, step)]

    def padded(self, x, padding, side):
        """x [B, C, H, W] with zeros around it, as [B, height, width, C] that tiles of `side` pixels fill."""
        height, width = (TILE * (number - 1) + side for number in (self.rows, self.columns))
        x = x.permute(0, 2, 3, 1)
        if not padding and x.shape[1:3] == (height, width):
            return x.contiguous()
        return F.pad(x, (0, 0, padding, width - padding - x.shape[2], padding, height - padding - x.shape[1]))

    def transformed(self, x, matrix):
        """matrix, float [36, side * side], times each tile of x, float [B, H, W, C]: float [36, tiles, C]."""
        side, (n_images, _, _, channels) = math.isqrt(matrix.shape[1]), x.shape
        by_image, by_row, by_column, _ = x.stride()
        tiles = x.as_strided((n_images, self.rows, self.columns, side, side, channels),
                             (by_image, TILE * by_row, TILE * by_column, by_row, by_column, 1), x.storage_offset())
        return (matrix @ tiles.reshape(-1, side * side, channels)).transpose(0, 1)

    def restore(self, transformed, bias, result):
        """Write the pixels of transformed tiles, float [tiles, 36, K], to result, float [B, rows, 4, columns, 4, K]."""
        place = result.transpose(2, 3)
        torch.add((RESULT @ transformed).view(place.shape), bias, out=place)
