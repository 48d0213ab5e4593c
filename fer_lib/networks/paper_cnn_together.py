"""Many of the paper's CNNs trained together on an NVIDIA GPU of the Hopper kind, several times faster than by vmap.

A library's grouped convolutions do not fill such a GPU when each network has images of its own. Here one kernel
computes convolution, pooling and ReLU of all networks; what it keeps for the gradient is one byte per pooled value.
Values between layers are bfloat16 [K, n, H, W, channels], sums and gradients of weights float32. Equal seeds give
equal bits.
"""

import functools
import math
import shutil
import warnings

import torch
from torch.autograd import Function
from torch.nn import functional as F

try:
    import triton

    from fer_lib.networks import together_kernels as kernels
except ImportError:  # processors, and systems that Triton does not know
    triton = kernels = None

DTYPE = torch.bfloat16  # of values between layers
FIRST = {"ROWS": 128, "num_warps": 4}
UNPOOLED = {"num_warps": 4}
# Blocks by the number of channels that a kernel's program makes. num_stages: how many are loaded ahead, plus 1.
POOLED = {64: {"WINDOWS": 64, "DEPTH": 32, "WIDTH": 64, "num_warps": 4, "num_stages": 2},
          128: {"WINDOWS": 64, "DEPTH": 32, "WIDTH": 128, "num_warps": 8, "num_stages": 3}}
TO_INPUT = {32: {"FOURS": 64, "DEPTH": 32, "WIDTH": 32, "num_warps": 4, "num_stages": 2},
            64: {"FOURS": 64, "DEPTH": 32, "WIDTH": 64, "num_warps": 4, "num_stages": 2},
            128: {"FOURS": 64, "DEPTH": 32, "WIDTH": 128, "num_warps": 8, "num_stages": 3}}
TO_WEIGHT = {64: {"FOURS": 32, "WIDTH": 32, "num_warps": 4, "num_stages": 2},
             128: {"FOURS": 32, "WIDTH": 64, "num_warps": 8, "num_stages": 3}}
STEPS = 56  # of a program of to_weight
DENSE = {"OUT": 64, "IN": 64, "num_warps": 4, "num_stages": 4}
DENSE_TO_INPUT = {"OUT": 64, "IN": 64, "num_warps": 4, "num_stages": 4}
DENSE_TO_WEIGHT = {"OUT": 64, "IN": 128, "num_warps": 4}


def usable(device, precision):
    """Whether `forward` is made for a device and a precision, and what it needs is there; it warns where Triton is but
    fails."""
    return (precision == "bfloat16" and device.type == "cuda" and kernels is not None
            and torch.cuda.get_device_capability(device)[0] == 9 and _works(device))


@functools.lru_cache
def _works(device):
    """Whether a small kernel can be made and run: that takes a C compiler and Python's headers."""
    try:
        ones = torch.ones(1, 16, 128, dtype=DTYPE, device=device)
        return bool((linear(ones, ones.float(), torch.zeros(1, 16, device=device)) == 128).all())
    except Exception as error:  # whatever a compiler or driver says
        warnings.warn(f"Triton cannot be used ({type(error).__name__}: {error}): classifiers train more slowly.",
                      stacklevel=2)
        return False


def forward(states, images, *, training=True):
    """Logits of many networks.

    states : PaperCNN's parameters by name, stacked, float32 [K, ...], as torch.func.stack_module_state gives them.
    images : float [K, n, C, H, W] in [0, 1], C 1 or 3, H and W at least 32. training : whether values drop out.
    Returns float32 [K, n, classes].
    """
    weights = [state for name, state in states.items() if name.endswith("weight")]
    biases = [state for name, state in states.items() if name.endswith("bias")]
    with torch.autocast(images.device.type, enabled=False):
        x = images.permute(0, 1, 3, 4, 2).to(DTYPE).contiguous()
        x = conv_relu(x, weights[0], biases[0])
        x = F.dropout(conv_pool_relu(x, weights[1], biases[1]), 0.25, training)
        x = conv_pool_relu(x, weights[2], biases[2])
        x = F.dropout(conv_pool_relu(x, weights[3], biases[3]), 0.25, training)
        x = x.permute(0, 1, 4, 2, 3).flatten(2)  # the order of PaperCNN's flattening
        x = F.dropout(F.relu(linear(x, weights[4], biases[4])), 0.5, training)
        return linear(x, weights[5], biases[5]).float()


def conv_relu(x, weight, bias):
    """ReLU of a first layer: x [K, n, H, W, C] without gradient, weight float32 [K, O, C, 3, 3], bias [K, O].

    O : a power of 2 from 16 on. Returns [K, n, H - 2, W - 2, O].
    """
    networks, out, channels = weight.shape[:3]
    columns = max(triton.next_power_of_2(9 * channels + 1), 16)
    table = weight.permute(0, 3, 4, 2, 1).reshape(networks, 9 * channels, out)
    table = F.pad(torch.cat([table, bias[:, None]], 1), (0, 0, 0, columns - 9 * channels - 1))
    return _First.apply(x, table)


def conv_pool_relu(x, weight, bias):
    """3x3 convolution without padding, 2x2 maximum (an odd last row or column is left out), ReLU.

    x : [K, n, H, W, C] in DTYPE. weight : float32 [K, O, C, 3, 3]. bias : float32 [K, O]. C, O : powers of 2 from 16
    on. Returns [K, n, (H - 2) // 2, (W - 2) // 2, O].
    """
    return _Pooled.apply(x.contiguous(), weight, bias)


def linear(x, weight, bias):
    """x [K, n, I] in DTYPE times weight float32 [K, O, I] plus bias float32 [K, O]: [K, n, O]. I: a multiple of 128."""
    if x.shape[1] > 128:
        return torch.baddbmm(bias[:, None].to(DTYPE), x, weight.to(DTYPE).transpose(1, 2))
    return _Dense.apply(x.contiguous(), weight.contiguous(), bias.contiguous())


class _First(Function):
    @staticmethod
    def forward(ctx, x, table):
        networks, n, height, width, channels = x.shape
        ctx.shape = {"H": height, "W": width, "C": channels, "COLUMNS": table.shape[1], "O": table.shape[2], **FIRST}
        result = x.new_empty(networks, n, height - 2, width - 2, table.shape[2])
        count = n * (height - 2) * (width - 2)
        kernels.first[triton.cdiv(count, FIRST["ROWS"]), networks](
            x, table.to(DTYPE).contiguous(), result, n, **ctx.shape)
        ctx.save_for_backward(x, result)
        return result

    @staticmethod
    def backward(ctx, gradient):
        x, result = ctx.saved_tensors
        count = math.prod(result.shape[1:4])
        steps = 16
        parts = triton.cdiv(count, FIRST["ROWS"] * steps)
        sums = x.new_empty(len(x), parts, ctx.shape["O"], ctx.shape["COLUMNS"], dtype=torch.float32)
        kernels.first_weight[parts, len(x)](x, result, gradient.contiguous(), sums, x.shape[1], steps, **ctx.shape)
        return None, sums.sum(1).transpose(1, 2)


class _Pooled(Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        networks, n, height, width, channels = x.shape
        out = weight.shape[1]
        shape = {"H": height, "W": width, "C": channels, "O": out}
        blocks = _fitting(POOLED, out, DEPTH=channels, WIDTH=out)
        table = weight.permute(0, 3, 4, 2, 1).to(DTYPE).contiguous()
        result = x.new_empty(networks, n, (height - 2) // 2, (width - 2) // 2, out)
        which = torch.empty_like(result, dtype=torch.uint8)
        windows = math.prod(result.shape[1:4])
        kernels.pooled[triton.cdiv(windows, blocks["WINDOWS"]) * (out // blocks["WIDTH"]), networks](
            x, table, bias.contiguous(), result, which, n, **shape, **blocks)
        ctx.save_for_backward(x, table, which)
        ctx.shape = shape
        return result

    @staticmethod
    def backward(ctx, gradient):
        x, table, which = ctx.saved_tensors
        networks, n, height, width, channels = x.shape
        shape, out, pixels = ctx.shape, ctx.shape["O"], n * height * width
        slopes = x.new_empty(2 * width + 2 + networks * pixels + 4, out)
        slopes[:2 * width + 2] = 0
        cells = max(2048 // out, 1)
        programs = triton.cdiv(n * ((height + 1) // 2) * ((width + 1) // 2), cells)
        to_bias = x.new_empty(networks, programs, out, dtype=torch.float32)
        kernels.unpooled[programs, networks](gradient.contiguous(), which, slopes, to_bias, n, H=height, W=width,
                                             O=out, CELLS=cells, **UNPOOLED)
        blocks = _fitting(TO_INPUT, channels, DEPTH=out, WIDTH=channels)
        to_x = torch.empty_like(x)
        kernels.to_input[triton.cdiv(pixels, 4 * blocks["FOURS"]) * (channels // blocks["WIDTH"]), networks](
            slopes, table, to_x, n, **shape, **blocks)
        blocks = _fitting(TO_WEIGHT, out, WIDTH=channels)
        steps = triton.cdiv(pixels, 4 * blocks["FOURS"])
        parts = triton.cdiv(steps, STEPS)
        sums = x.new_empty(networks, parts, 9, out, channels, dtype=torch.float32)
        kernels.to_weight[3 * (channels // blocks["WIDTH"]), parts, networks](
            x, slopes, sums, n, triton.cdiv(steps, parts), **shape, **blocks)
        to_weight = sums.sum(1).permute(0, 2, 3, 1).reshape(networks, out, channels, 3, 3)
        return to_x, to_weight, to_bias.sum(1)


def _fitting(table, channels, **largest):
    """Blocks for a number of channels, each no larger than what there is."""
    blocks = table[min(max(channels, min(table)), max(table))]
    return blocks | {name: min(blocks[name], limit) for name, limit in largest.items()}


class _Dense(Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        networks, n, inputs = x.shape
        outputs, rows = weight.shape[1], max(triton.next_power_of_2(n), 16)
        ctx.shape = {"I": inputs, "O": outputs, "N": rows}
        result = x.new_empty(networks, n, outputs)
        kernels.dense[triton.cdiv(outputs, DENSE["OUT"]), networks](x, weight, bias, result, n, **ctx.shape, **DENSE)
        ctx.save_for_backward(x, weight)
        return result

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        networks, n, inputs = x.shape
        gradient, outputs = gradient.contiguous(), weight.shape[1]
        to_x, to_weight = torch.empty_like(x), torch.empty_like(weight)
        kernels.dense_to_input[inputs // DENSE_TO_INPUT["IN"], networks](
            gradient, weight, to_x, n, **ctx.shape, **DENSE_TO_INPUT)
        blocks = DENSE_TO_WEIGHT
        kernels.dense_to_weight[inputs // blocks["IN"] * triton.cdiv(outputs, blocks["OUT"]), networks](
            x, gradient, to_weight, n, **ctx.shape, **blocks)
        return to_x, to_weight, gradient.float().sum(1)
