"""The transformations around the multiplications of `winograd`, compiled for the processor.

Images are float32 [images, height, width, channels], channels a multiple of LANES. Tiles are float32 [36, tiles,
channels], band after band: a band is a row of tiles, and bands are numbered from the top of the first image to the
bottom of the last. What lies outside an image is zero. Each function takes `columns`, the tiles in a band, `first`, the
number of the first band of its tiles, and computes every `step`-th of their bands from `start` on, so that several
threads can share the work.
Source: Lavin and Gray, CVPR 2016 (arXiv 1509.09308), section 4.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

LANES = 16  # channels that are computed at once
TILE = 4  # pixels of a result along a side that are computed together
SIDE = 6  # pixels of the input along a side that they need

DATA = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
KERNEL = [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
          [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]
RESULT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]

CONSTANT = 7
"""The part of a transformed result that is the same for all pixels of a tile, and of a gradient their sum."""

CLIPPED = 4
"""In place of which of four pixels was the largest: none was above zero."""


# ---- instructions for LANES channels of one tile --------------------------------------------------------

_FLOATS, _BYTES = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.IntType(8), LANES)


def _transposed(matrix):
    return [list(column) for column in zip(*matrix, strict=True)]


def _constant(value, vector=_FLOATS):
    return ir.Constant(vector, [value] * LANES)


def _instructions(n_places, emit):
    """A function for compiled code.

    n_places : how many places it takes, each as a flat array, the index of a first vector, and the steps from row to
    row and from column to column. emit : called with the builder of instructions and, for each place, a function that
    returns the pointers to its vectors, [side][side], given the side and the type of a vector.
    """
    def codegen(context, builder, signature, arguments):
        def place(number):
            array, start, *steps = arguments[4 * number:4 * number + 4]
            data = context.make_array(signature.args[4 * number])(context, builder, array).data
            first = builder.gep(data, [start])

            def pointers(side, vector=_FLOATS):
                down, right = ([builder.mul(step, ir.Constant(step.type, n)) for n in range(side)] for step in steps)
                return [[builder.bitcast(builder.gep(first, [builder.add(row, column)]), vector.as_pointer())
                         for column in right] for row in down]
            return pointers

        emit(builder, *map(place, range(n_places)))
        return context.get_dummy_value()

    def signature(*arrays):
        if any(array.layout != "C" for array in arrays):
            return None
        return types.void(*(kind for array in arrays for kind in (array, types.intp, types.intp, types.intp)))

    if n_places == 2:
        def instructions(_, a, a_start, a_row, a_column, b, b_start, b_row, b_column):
            return signature(a, b), codegen
    else:
        def instructions(_, a, a_start, a_row, a_column, b, b_start, b_row, b_column, c, c_start, c_row, c_column):
            return signature(a, b, c), codegen
    return intrinsic(instructions)


def _combined(builder, factors, values):
    """The sum of products of numbers and vectors."""
    products = [value if factor == 1 else builder.fmul(value, _constant(float(factor)), flags=("contract",))
                for factor, value in zip(factors, values, strict=True) if factor]
    total = products[0]
    for product in products[1:]:
        total = builder.fadd(total, product, flags=("contract",))
    return total


def _sandwich(builder, matrix, values):
    """matrix @ values @ matrix.T"""
    rows = [[_combined(builder, factors, row) for factors in matrix] for row in values]
    return _transposed([[_combined(builder, factors, column) for factors in matrix] for column in _transposed(rows)])


def _load(builder, pointers):
    return [[builder.load(pointer, align=1) for pointer in row] for row in pointers]


def _store(builder, values, pointers):
    for row, places in zip(values, pointers, strict=True):
        for value, pointer in zip(row, places, strict=True):
            builder.store(value, pointer, align=1)


def _transformation(matrix, *, adds=False):
    """From a place [m, m] to one [n, n], given the matrix [n, m]; `adds` to what is there."""
    def emit(builder, source, target):
        values = _sandwich(builder, matrix, _load(builder, source(len(matrix[0]))))
        if adds:
            values = [[builder.fadd(*pair) for pair in zip(*rows, strict=True)]
                      for rows in zip(values, _load(builder, target(len(matrix))), strict=True)]
        _store(builder, values, target(len(matrix)))
    return _instructions(2, emit)


def _emit_pooled(builder, source, target, which):
    values = _sandwich(builder, RESULT, _load(builder, source(SIDE)))
    largest, places = [], []
    for row in (0, 2):
        for column in (0, 2):
            best, place = values[row][column], _constant(0, _BYTES)
            for number, value in enumerate((values[row][column + 1], *values[row + 1][column:column + 2]), start=1):
                above = builder.or_(builder.fcmp_ordered(">", value, best), builder.fcmp_unordered("uno", value, value))
                best = builder.select(above, value, best)
                place = builder.select(above, _constant(number, _BYTES), place)
            positive = builder.fcmp_unordered(">", best, _constant(0.0))  # or not a number, which stays so
            largest.append(builder.select(positive, best, _constant(0.0)))
            places.append(builder.select(positive, place, _constant(CLIPPED, _BYTES)))
    _store(builder, [largest[:2], largest[2:]], target(2))
    _store(builder, [places[:2], places[2:]], which(2, _BYTES))


def _emit_unpooled(builder, source, which, target):
    gradients, places = _load(builder, source(2)), _load(builder, which(2, _BYTES))
    values = [[builder.select(builder.icmp_unsigned("==", places[row // 2][column // 2],
                                                    _constant(2 * (row % 2) + column % 2, _BYTES)),
                              gradients[row // 2][column // 2], _constant(0.0))
               for column in range(TILE)] for row in range(TILE)]
    _store(builder, _sandwich(builder, _transposed(RESULT), values), target(SIDE))


_data, _result, _kernel = map(_transformation, (DATA, RESULT, KERNEL))
_gradient, _kernel_back = _transformation(_transposed(RESULT)), _transformation(_transposed(KERNEL))
_spread = _transformation(_transposed(DATA), adds=True)
_pooled, _unpooled = _instructions(3, _emit_pooled), _instructions(3, _emit_unpooled)


# ---- bands of tiles -------------------------------------------------------------------------------------

def _compiled(function):
    """Compiled when it is first called, and kept for later processes where there is a folder to write to."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:
        return njit(**options)(function)


@_compiled
def _place(shape, band, column, side, padding):
    """Of a tile of `side` pixels: its image, its top and left, and the index of its first number, or -1 where it stands
    out of the image."""
    image, row = divmod(band, -(-(shape[1] + 2 * padding - side + TILE) // TILE))
    top, left = TILE * row - padding, TILE * column - padding
    inside = top >= 0 and left >= 0 and top + side <= shape[1] and left + side <= shape[2]
    return image, top, left, ((image * shape[1] + top) * shape[2] + left) * shape[3] if inside else -1


@_compiled
def _overlap(image, top, left, part):
    """The pixels that an image shares with a tile whose top and left are given: those of the image, and of the tile."""
    side = len(part)
    first_y, first_x, last_y, last_x = max(0, -top), max(0, -left), image.shape[0] - top, image.shape[1] - left
    return (image[max(0, top):top + side, max(0, left):left + side],
            part[first_y:min(side, last_y), first_x:min(side, last_x)])


@_compiled
def read(images, side, padding, tiles, columns, first, start, step):
    """Transform tiles of `images` and write them to `tiles`.

    side : SIDE for the input of a convolution, TILE for the gradient of its result. padding : pixels by which the first
    tiles stand out of an image.
    """
    pixels, part = images.reshape(-1), np.empty((side, side, images.shape[3]), np.float32)
    out, (_, n_tiles, channels) = tiles.reshape(-1), tiles.shape
    for band in range(start, n_tiles // columns, step):
        for column in range(columns):
            image, top, left, at = _place(images.shape, first + band, column, side, padding)
            source, down = pixels, images.shape[2] * channels
            if at < 0:
                part[:] = 0
                seen, own = _overlap(images[image], top, left, part)
                own[:] = seen
                source, at, down = part.reshape(-1), 0, side * channels
            to = (band * columns + column) * channels
            for channel in range(0, channels, LANES):
                if side == TILE:
                    _gradient(source, at + channel, down, channels,
                              out, to + channel, SIDE * n_tiles * channels, n_tiles * channels)
                else:
                    _data(source, at + channel, down, channels,
                          out, to + channel, SIDE * n_tiles * channels, n_tiles * channels)


@_compiled
def write(tiles, side, padding, images, columns, first, start, step):
    """Transform `tiles` back and write them to `images`, or add them where they overlap.

    side : TILE for the result of a convolution; SIDE for the gradient of its input, to which tiles are added: no two
    threads may have neighbouring bands at a time. padding : as in `read`.
    """
    pixels, part = images.reshape(-1), np.empty((side, side, images.shape[3]), np.float32)
    values, (_, n_tiles, channels) = tiles.reshape(-1), tiles.shape
    for band in range(start, n_tiles // columns, step):
        for column in range(columns):
            image, top, left, to = _place(images.shape, first + band, column, side, padding)
            inside, target, down = to >= 0, pixels, images.shape[2] * channels
            if not inside:
                part[:] = 0
                target, to, down = part.reshape(-1), 0, side * channels
            at = (band * columns + column) * channels
            for channel in range(0, channels, LANES):
                if side == TILE:
                    _result(values, at + channel, SIDE * n_tiles * channels, n_tiles * channels,
                            target, to + channel, down, channels)
                else:
                    _spread(values, at + channel, SIDE * n_tiles * channels, n_tiles * channels,
                            target, to + channel, down, channels)
            if not inside:
                seen, own = _overlap(images[image], top, left, part)
                seen[:] = own if side == TILE else seen + own


@_compiled
def write_pooled(tiles, images, which, columns, first, start, step):
    """Transform `tiles` back and write the largest of each 2x2 pixels to `images`, or 0 if that is larger.

    images : float32 [images, 2 * rows, 2 * columns, channels]. which : uint8 of the same shape, which of the four
    pixels was the largest, row by row, or CLIPPED.
    """
    pixels, places, values = images.reshape(-1), which.reshape(-1), tiles.reshape(-1)
    (_, _, width, channels), by_part = images.shape, tiles.shape[1] * tiles.shape[2]
    for band in range(start, tiles.shape[1] // columns, step):
        for column in range(columns):
            at, to = (band * columns + column) * channels, (2 * (first + band) * width + 2 * column) * channels
            for channel in range(0, channels, LANES):
                _pooled(values, at + channel, SIDE * by_part, by_part, pixels, to + channel, width * channels, channels,
                        places, to + channel, width * channels, channels)


@_compiled
def read_pooled(images, which, tiles, columns, first, start, step):
    """Transform the gradient of what `write_pooled` wrote to that of the convolution's result, and write it to `tiles`.
    """
    pixels, places, out = images.reshape(-1), which.reshape(-1), tiles.reshape(-1)
    (_, _, width, channels), by_part = images.shape, tiles.shape[1] * tiles.shape[2]
    for band in range(start, tiles.shape[1] // columns, step):
        for column in range(columns):
            to, at = (band * columns + column) * channels, (2 * (first + band) * width + 2 * column) * channels
            for channel in range(0, channels, LANES):
                _unpooled(pixels, at + channel, width * channels, channels, places, at + channel, width * channels,
                          channels, out, to + channel, SIDE * by_part, by_part)


@_compiled
def transform_weight(weight, kernel, start, step):
    """Write the transformed weight, float32 [K, 3, 3, C], to `kernel`, [36, K, C]; of every step-th of K."""
    values, out, (_, n_out, channels) = weight.reshape(-1), kernel.reshape(-1), kernel.shape
    for number in range(start, n_out, step):
        for channel in range(0, channels, LANES):
            _kernel(values, 9 * number * channels + channel, 3 * channels, channels,
                    out, number * channels + channel, SIDE * n_out * channels, n_out * channels)


@_compiled
def transform_kernel_gradient(kernel, weight, start, step):
    """Write the gradient of the weight to `weight` from that of what `transform_weight` wrote."""
    out, values, (_, n_out, channels) = weight.reshape(-1), kernel.reshape(-1), kernel.shape
    for number in range(start, n_out, step):
        for channel in range(0, channels, LANES):
            _kernel_back(values, number * channels + channel, SIDE * n_out * channels, n_out * channels,
                         out, 9 * number * channels + channel, 3 * channels, channels)
