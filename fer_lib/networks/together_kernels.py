"""GPU kernels for 3x3 convolutions without padding, of many networks at once; paper_cnn_together calls them.

Each network is a second index of the grid. Pictures lie as [network, image, y, x, channel]; H and W are their sides
and R = n * H * W the number of pixels of a network's n images. Channels are powers of 2 from 16 on, other than those of
the first layer. Kernels lie as [network, 9, C, O], the 9 in the order (dy, dx). Sums are float32. All offsets within
one network fit into 31 bits, those of a network do not.
"""

import triton
from triton import language as tl

_kernel = triton.jit(do_not_specialize=["n", "steps"])  # one binary for all lengths of a batch


@triton.jit
def _pixels(pixels, rows, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, COLUMNS: tl.constexpr):
    """[rows, COLUMNS]: what a kernel sees at each pixel of the result, 9 * C values, then a 1, then 0."""
    image, inside = rows // ((H - 2) * (W - 2)), rows % ((H - 2) * (W - 2))
    start = ((image * H + inside // (W - 2)) * W + inside % (W - 2)) * C
    column = tl.arange(0, COLUMNS)
    offset = (column // C // 3 * W + column // C % 3) * C + column % C
    values = tl.load(pixels + start[:, None] + offset[None, :], mask=(column < 9 * C)[None, :], other=0)
    return tl.where((column == 9 * C)[None, :], tl.full(values.shape, 1, values.dtype), values)


@_kernel
def first(pixels, weight, result, n, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, COLUMNS: tl.constexpr,
          O: tl.constexpr, ROWS: tl.constexpr):
    """ReLU of a first layer. weight : [network, COLUMNS, O], row 9 * C the bias. result : [network, image, y, x, O]."""
    model, count = tl.program_id(1).to(tl.int64), n * (H - 2) * (W - 2)
    rows, channel = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, O)
    values = _pixels(pixels + model * (n * H * W * C), tl.minimum(rows, count - 1), H, W, C, COLUMNS)
    kernel = tl.load(weight + model * (COLUMNS * O) + tl.arange(0, COLUMNS)[:, None] * O + channel[None, :])
    sums = tl.maximum(tl.dot(values, kernel), 0)
    at = result + model * (count * O) + rows[:, None] * O + channel[None, :]
    tl.store(at, sums.to(result.dtype.element_ty), mask=(rows < count)[:, None])


@_kernel
def first_weight(pixels, result, gradient, parts, n, steps, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr,
                 COLUMNS: tl.constexpr, O: tl.constexpr, ROWS: tl.constexpr):
    """Gradient of a first layer's weight: parts float32 [network, part, O, COLUMNS] of `steps` times ROWS pixels."""
    model, part, count = tl.program_id(1).to(tl.int64), tl.program_id(0), n * (H - 2) * (W - 2)
    channel, sums = tl.arange(0, O), tl.zeros((O, COLUMNS), tl.float32)
    pixels += model * (n * H * W * C)
    result += model * (count * O)
    gradient += model * (count * O)
    for step in range(steps):
        rows = (part * steps + step) * ROWS + tl.arange(0, ROWS)
        values = _pixels(pixels, tl.minimum(rows, count - 1), H, W, C, COLUMNS)
        at, valid = rows[:, None] * O + channel[None, :], (rows < count)[:, None]
        passed = tl.load(result + at, mask=valid, other=0) > 0
        slope = tl.load(gradient + at, mask=valid, other=0)
        sums = tl.dot(tl.trans(tl.where(passed, slope, tl.zeros_like(slope))), values, sums)
    at = (model * tl.num_programs(0) + part) * (O * COLUMNS)
    tl.store(parts + at + channel[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :], sums)


@triton.jit
def _three(sums, a0, a1, a2, b0, b1, b2):
    return tl.dot(a2, b2, tl.dot(a1, b1, tl.dot(a0, b0, sums)))


@_kernel
def pooled(x, weight, bias, result, which, n, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, O: tl.constexpr,
           WINDOWS: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr):
    """ReLU of the largest of each 2x2 window of the convolution plus bias: result [network, image, y, x, O].

    which : uint8, the first of the four that is largest (0 to 3, row by row), or 4 where ReLU gives 0. A program does
    WINDOWS windows and WIDTH channels; each of a window's four pixels has its own sums, so that they need no exchange,
    and what is loaded serves up to three of a row's six (pixel, dx).
    """
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
    for step in range(3 * (C // DEPTH)):
        dy, part = step // (C // DEPTH), step % (C // DEPTH) * DEPTH
        upper = at + (dy * (W * C) + part)
        lower = upper + W * C
        factors = kernel + (dy * (3 * C * O) + part * O)
        b0, b1, b2 = tl.load(factors), tl.load(factors + C * O), tl.load(factors + 2 * C * O)
        a0, a1, a2, a3 = tl.load(upper), tl.load(upper + C), tl.load(upper + 2 * C), tl.load(upper + 3 * C)
        sums0 = _three(sums0, a0, a1, a2, b0, b1, b2)
        sums1 = _three(sums1, a1, a2, a3, b0, b1, b2)
        a0, a1, a2, a3 = tl.load(lower), tl.load(lower + C), tl.load(lower + 2 * C), tl.load(lower + 3 * C)
        sums2 = _three(sums2, a0, a1, a2, b0, b1, b2)
        sums3 = _three(sums3, a1, a2, a3, b0, b1, b2)
    largest = tl.maximum(tl.maximum(sums0, sums1), tl.maximum(sums2, sums3))
    index = tl.where(sums0 == largest, 0, tl.where(sums1 == largest, 1, tl.where(sums2 == largest, 2, 3)))
    largest += tl.load(bias + model * O + channel)[None, :]
    index = tl.where(largest > 0, index, 4)
    to, valid = window[:, None] * O + channel[None, :], (window < count)[:, None]
    tl.store(result + model * (count * O) + to, tl.maximum(largest, 0).to(result.dtype.element_ty), mask=valid)
    tl.store(which + model * (count * O) + to, index.to(tl.uint8), mask=valid)


@_kernel
def unpooled(gradient, which, slopes, bias_parts, n, H: tl.constexpr, W: tl.constexpr, O: tl.constexpr,
             CELLS: tl.constexpr):
    """Gradient of the convolution before pooling and ReLU: slopes [2 * W + 2 rows in front, network, image, H, W, O].

    It has the sides of the convolution's input, with 0 in the last rows and columns, so that a shift by the kernel's
    taps is one shift of the pixels' numbers for a whole network. bias_parts : float32 [network, programs, O].
    """
    model, channel = tl.program_id(1).to(tl.int64), tl.arange(0, O)
    cell = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    image, inside = cell // ((H + 1) // 2 * ((W + 1) // 2)), cell % ((H + 1) // 2 * ((W + 1) // 2))
    y, x = inside // ((W + 1) // 2), inside % ((W + 1) // 2)
    there = (image < n) & (y < (H - 2) // 2) & (x < (W - 2) // 2)
    at = ((image * ((H - 2) // 2) + y) * ((W - 2) // 2) + x)[:, None] * O + channel[None, :]
    before = model * (n * ((H - 2) // 2) * ((W - 2) // 2) * O)
    values = tl.load(gradient + before + at, mask=there[:, None], other=0)
    index = tl.load(which + before + at, mask=there[:, None], other=4)
    nothing = tl.zeros_like(values)
    to = slopes + (2 * W + 2 + model * (n * H * W)) * O
    to += ((image * H + 2 * y) * W + 2 * x)[:, None] * O + channel[None, :]
    right, below = 2 * x + 1 < W, 2 * y + 1 < H
    tl.store(to, tl.where(index == 0, values, nothing), mask=(image < n)[:, None])
    tl.store(to + O, tl.where(index == 1, values, nothing), mask=((image < n) & right)[:, None])
    tl.store(to + W * O, tl.where(index == 2, values, nothing), mask=((image < n) & below)[:, None])
    tl.store(to + (W + 1) * O, tl.where(index == 3, values, nothing), mask=((image < n) & right & below)[:, None])
    total = tl.sum(tl.where(index < 4, values.to(tl.float32), 0), axis=0)
    tl.store(bias_parts + (model * tl.num_programs(0) + tl.program_id(0)) * O + channel, total)


@_kernel
def to_input(slopes, weight, result, n, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, O: tl.constexpr,
             FOURS: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr):
    """Gradient of the convolution's input from `unpooled`: result [network, image, H, W, C].

    A program does FOURS times four pixels that follow each other, and WIDTH channels; six loads serve for twelve
    (pixel, dx).
    """
    model, count = tl.program_id(1).to(tl.int64), n * (H * W)
    channel = tl.program_id(0) % (C // WIDTH) * WIDTH + tl.arange(0, WIDTH)
    row = (tl.program_id(0) // (C // WIDTH) * FOURS + tl.arange(0, FOURS)) * 4
    depth = tl.arange(0, DEPTH)
    at = slopes + (2 * W + 2 + model * count) * O + tl.minimum(row, count - 1)[:, None] * O + depth[None, :]
    kernel = weight + model * (9 * C * O) + channel[None, :] * O + depth[:, None]
    sums0 = tl.zeros((FOURS, WIDTH), tl.float32)
    sums1 = tl.zeros((FOURS, WIDTH), tl.float32)
    sums2 = tl.zeros((FOURS, WIDTH), tl.float32)
    sums3 = tl.zeros((FOURS, WIDTH), tl.float32)
    for step in range(3 * (O // DEPTH)):
        dy, part = step // (O // DEPTH), step % (O // DEPTH) * DEPTH
        values, factors = at + (part - dy * (W * O)), kernel + (dy * (3 * C * O) + part)
        b0, b1, b2 = tl.load(factors), tl.load(factors + C * O), tl.load(factors + 2 * C * O)
        a0, a1, a2 = tl.load(values - 2 * O), tl.load(values - O), tl.load(values)
        a3, a4, a5 = tl.load(values + O), tl.load(values + 2 * O), tl.load(values + 3 * O)
        sums0 = _three(sums0, a0, a1, a2, b2, b1, b0)
        sums1 = _three(sums1, a1, a2, a3, b2, b1, b0)
        sums2 = _three(sums2, a2, a3, a4, b2, b1, b0)
        sums3 = _three(sums3, a3, a4, a5, b2, b1, b0)
    to = result + model * (count * C) + row[:, None] * C + channel[None, :]
    tl.store(to, sums0.to(result.dtype.element_ty), mask=(row < count)[:, None])
    tl.store(to + C, sums1.to(result.dtype.element_ty), mask=(row + 1 < count)[:, None])
    tl.store(to + 2 * C, sums2.to(result.dtype.element_ty), mask=(row + 2 < count)[:, None])
    tl.store(to + 3 * C, sums3.to(result.dtype.element_ty), mask=(row + 3 < count)[:, None])


@triton.jit
def _rows(at, row, count, WIDTH: tl.constexpr):
    """Pixels `row` of a network, or its last one."""
    return tl.load(at + tl.minimum(row, count - 1)[:, None] * WIDTH)


@triton.jit
def _slopes(at, row, count, WIDTH: tl.constexpr):
    """Gradients [WIDTH, pixel], 0 beyond the network's last pixel."""
    return tl.trans(tl.load(at + row[:, None] * WIDTH, mask=(row < count)[:, None], other=0))


@_kernel
def to_weight(x, slopes, parts, n, steps, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, O: tl.constexpr,
              FOURS: tl.constexpr, WIDTH: tl.constexpr):
    """Gradient of the weight from `unpooled`: parts float32 [network, part, 9, O, C].

    A part is `steps` times FOURS times four pixels. A program does the three taps of one dy, and WIDTH of the input's
    channels; ten loads serve for twelve (pixel, dx).
    """
    model, part, count = tl.program_id(2).to(tl.int64), tl.program_id(1), n * (H * W)
    dy, out = tl.program_id(0) % 3, tl.arange(0, O)
    channel = tl.program_id(0) // 3 * WIDTH + tl.arange(0, WIDTH)
    seen = x + model * (count * C) + channel[None, :]
    slope = slopes + (2 * W + 2 + model * count) * O + out[None, :]
    sums0 = tl.zeros((O, WIDTH), tl.float32)
    sums1 = tl.zeros((O, WIDTH), tl.float32)
    sums2 = tl.zeros((O, WIDTH), tl.float32)
    for step in range(steps):
        row = ((part * steps + step) * FOURS + tl.arange(0, FOURS)) * 4
        a0, a1 = _slopes(slope, row, count, O), _slopes(slope, row + 1, count, O)
        a2, a3 = _slopes(slope, row + 2, count, O), _slopes(slope, row + 3, count, O)
        row += dy * W  # where it lies beyond the last pixel, slopes are 0
        b0, b1, b2 = _rows(seen, row, count, C), _rows(seen, row + 1, count, C), _rows(seen, row + 2, count, C)
        b3, b4, b5 = _rows(seen, row + 3, count, C), _rows(seen, row + 4, count, C), _rows(seen, row + 5, count, C)
        sums0 = tl.dot(a3, b3, _three(sums0, a0, a1, a2, b0, b1, b2))
        sums1 = tl.dot(a3, b4, _three(sums1, a0, a1, a2, b1, b2, b3))
        sums2 = tl.dot(a3, b5, _three(sums2, a0, a1, a2, b2, b3, b4))
    to = parts + ((model * tl.num_programs(1) + part) * 9 + 3 * dy) * (O * C) + out[:, None] * C + channel[None, :]
    tl.store(to, sums0)
    tl.store(to + O * C, sums1)
    tl.store(to + 2 * O * C, sums2)


@_kernel
def dense(x, weight, bias, result, n, I: tl.constexpr, O: tl.constexpr, N: tl.constexpr, OUT: tl.constexpr,
          IN: tl.constexpr):
    """x [network, n, I] times weight float32 [network, O, I], plus bias: result [network, n, O].

    The weight is most of what is moved: it is read once, as it is. N : at least n. The same holds for the next two.
    """
    model, row, column = tl.program_id(1).to(tl.int64), tl.arange(0, N), tl.arange(0, IN)
    out = tl.program_id(0) * OUT + tl.arange(0, OUT)
    values = x + model * (n * I) + row[:, None] * I + column[None, :]
    factors = weight + model * (O * I) + tl.minimum(out, O - 1)[:, None] * I + column[None, :]
    sums = tl.zeros((OUT, N), tl.float32)
    for start in range(0, I, IN):
        seen = tl.load(values + start, mask=(row < n)[:, None], other=0)
        sums = tl.dot(tl.load(factors + start).to(x.dtype.element_ty), tl.trans(seen), sums)
    sums += tl.load(bias + model * O + tl.minimum(out, O - 1))[:, None]
    to = result + model * (n * O) + row[None, :] * O + out[:, None]
    tl.store(to, sums.to(result.dtype.element_ty), mask=(row < n)[None, :] & (out < O)[:, None])


@_kernel
def dense_to_input(gradient, weight, result, n, I: tl.constexpr, O: tl.constexpr, N: tl.constexpr,
                   OUT: tl.constexpr, IN: tl.constexpr):
    """gradient [network, n, O] times weight: result [network, n, I]."""
    model, row, out = tl.program_id(1).to(tl.int64), tl.arange(0, N), tl.arange(0, OUT)
    column = tl.program_id(0) * IN + tl.arange(0, IN)
    sums = tl.zeros((N, IN), tl.float32)
    for start in range(0, O, OUT):
        there = start + out < O
        slope = tl.load(gradient + model * (n * O) + row[:, None] * O + start + out[None, :],
                        mask=(row < n)[:, None] & there[None, :], other=0)
        factors = tl.load(weight + model * (O * I) + (start + out)[:, None] * I + column[None, :],
                          mask=there[:, None], other=0)
        sums = tl.dot(slope, factors.to(slope.dtype), sums)
    to = result + model * (n * I) + row[:, None] * I + column[None, :]
    tl.store(to, sums.to(result.dtype.element_ty), mask=(row < n)[:, None])


@_kernel
def dense_to_weight(x, gradient, result, n, I: tl.constexpr, O: tl.constexpr, N: tl.constexpr, OUT: tl.constexpr,
                    IN: tl.constexpr):
    """gradient [network, n, O], transposed, times x [network, n, I]: result float32 [network, O, I]."""
    model, row = tl.program_id(1).to(tl.int64), tl.arange(0, N)
    column = tl.program_id(0) % (I // IN) * IN + tl.arange(0, IN)
    out = tl.program_id(0) // (I // IN) * OUT + tl.arange(0, OUT)
    slope = tl.load(gradient + model * (n * O) + row[:, None] * O + out[None, :],
                    mask=(row < n)[:, None] & (out < O)[None, :], other=0)
    seen = tl.load(x + model * (n * I) + row[:, None] * I + column[None, :], mask=(row < n)[:, None], other=0)
    to = result + model * (O * I) + out[:, None] * I + column[None, :]
    tl.store(to, tl.dot(tl.trans(slope), seen), mask=(out < O)[:, None])
