"""Plainer forms of the three large kernels, each pixel's own loads, one product per sum and step (so that wgmma is never
waited for within a step), twice the traffic from L2. Same arguments as together_kernels; for gpu_check.py only."""

import triton
from triton import language as tl

_kernel = triton.jit(do_not_specialize=["n", "steps"])


@_kernel
def pooled(x, weight, bias, result, which, n, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, O: tl.constexpr,
           WINDOWS: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr):
    model, count = tl.program_id(1).to(tl.int64), n * ((H - 2) // 2) * ((W - 2) // 2)
    channel = tl.program_id(0) % (O // WIDTH) * WIDTH + tl.arange(0, WIDTH)
    window = tl.program_id(0) // (O // WIDTH) * WINDOWS + tl.arange(0, WINDOWS)
    clipped = tl.minimum(window, count - 1)
    image, inside = clipped // ((H - 2) // 2 * ((W - 2) // 2)), clipped % ((H - 2) // 2 * ((W - 2) // 2))
    start = (image * H + inside // ((W - 2) // 2) * 2) * W + inside % ((W - 2) // 2) * 2
    depth = tl.arange(0, DEPTH)
    at = x + model * (n * H * W * C) + start[:, None] * C + depth[None, :]
    kernel = weight + model * (9 * C * O) + depth[:, None] * O + channel[None, :]
    sums0 = tl.zeros((WINDOWS, WIDTH), tl.float32)
    sums1 = tl.zeros((WINDOWS, WIDTH), tl.float32)
    sums2 = tl.zeros((WINDOWS, WIDTH), tl.float32)
    sums3 = tl.zeros((WINDOWS, WIDTH), tl.float32)
    for step in range(9 * C // DEPTH):
        tap = step // (C // DEPTH)
        moved = at + ((tap // 3 * W + tap % 3) * C + step % (C // DEPTH) * DEPTH)
        factors = tl.load(kernel + step * (DEPTH * O))
        sums0 = tl.dot(tl.load(moved), factors, sums0)
        sums1 = tl.dot(tl.load(moved + C), factors, sums1)
        sums2 = tl.dot(tl.load(moved + W * C), factors, sums2)
        sums3 = tl.dot(tl.load(moved + (W + 1) * C), factors, sums3)
    largest = tl.maximum(tl.maximum(sums0, sums1), tl.maximum(sums2, sums3))
    index = tl.where(sums0 == largest, 0, tl.where(sums1 == largest, 1, tl.where(sums2 == largest, 2, 3)))
    largest += tl.load(bias + model * O + channel)[None, :]
    index = tl.where(largest > 0, index, 4)
    to, valid = window[:, None] * O + channel[None, :], (window < count)[:, None]
    tl.store(result + model * (count * O) + to, tl.maximum(largest, 0).to(result.dtype.element_ty), mask=valid)
    tl.store(which + model * (count * O) + to, index.to(tl.uint8), mask=valid)


@_kernel
def to_input(slopes, weight, result, n, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, O: tl.constexpr,
             FOURS: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr):
    model, count = tl.program_id(1).to(tl.int64), n * (H * W)
    channel, depth = tl.program_id(0) % (C // WIDTH) * WIDTH + tl.arange(0, WIDTH), tl.arange(0, DEPTH)
    row = tl.program_id(0) // (C // WIDTH) * (4 * FOURS) + tl.arange(0, 4 * FOURS)
    at = slopes + (2 * W + 2 + model * count) * O + tl.minimum(row, count - 1)[:, None] * O + depth[None, :]
    kernel = weight + model * (9 * C * O) + channel[None, :] * O + depth[:, None]
    sums = tl.zeros((4 * FOURS, WIDTH), tl.float32)
    for step in range(9 * (O // DEPTH)):
        tap, part = step // (O // DEPTH), step % (O // DEPTH) * DEPTH
        values = tl.load(at + (part - (tap // 3 * W + tap % 3) * O))
        sums = tl.dot(values, tl.load(kernel + (tap * (C * O) + part)), sums)
    to = result + model * (count * C) + row[:, None] * C + channel[None, :]
    tl.store(to, sums.to(result.dtype.element_ty), mask=(row < count)[:, None])


@_kernel
def to_weight(x, slopes, parts, n, steps, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, O: tl.constexpr,
              FOURS: tl.constexpr, WIDTH: tl.constexpr):
    model, part, count = tl.program_id(2).to(tl.int64), tl.program_id(1), n * (H * W)
    dy, out = tl.program_id(0) % 3, tl.arange(0, O)
    channel = tl.program_id(0) // 3 * WIDTH + tl.arange(0, WIDTH)
    seen = x + model * (count * C) + channel[None, :]
    slopes += (2 * W + 2 + model * count) * O
    sums0 = tl.zeros((O, WIDTH), tl.float32)
    sums1 = tl.zeros((O, WIDTH), tl.float32)
    sums2 = tl.zeros((O, WIDTH), tl.float32)
    for step in range(steps):
        row = (part * steps + step) * (4 * FOURS) + tl.arange(0, 4 * FOURS)
        slope = tl.trans(tl.load(slopes + row[:, None] * O + out[None, :], mask=(row < count)[:, None], other=0))
        row += dy * W
        sums0 = tl.dot(slope, tl.load(seen + tl.minimum(row, count - 1)[:, None] * C), sums0)
        sums1 = tl.dot(slope, tl.load(seen + tl.minimum(row + 1, count - 1)[:, None] * C), sums1)
        sums2 = tl.dot(slope, tl.load(seen + tl.minimum(row + 2, count - 1)[:, None] * C), sums2)
    to = parts + ((model * tl.num_programs(1) + part) * 9 + 3 * dy) * (O * C) + out[:, None] * C + channel[None, :]
    tl.store(to, sums0)
    tl.store(to + O * C, sums1)
    tl.store(to + 2 * O * C, sums2)
