"""Triangles to pixels: a z-buffer rasteriser and vertex normals, in numpy, without BLAS."""
import numpy as np


def vertex_normals(vertices, triangles):
    """Area-weighted unit normals.

    vertices : float [vertices, 3]; triangles : int [triangles, 3].
    Returns float32 [vertices, 3]; zero where no triangle touches the vertex. Sums are float64.
    """
    a, b, c = (np.ascontiguousarray(vertices[corner].T) for corner in triangles.T)
    u, v = b - a, c - a
    corners = triangles.ravel()
    total = np.empty((3, len(vertices)))
    for k, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
        total[k] = np.bincount(corners, np.repeat(u[i] * v[j] - u[j] * v[i], 3), len(vertices))
    length = np.sqrt(total[0] * total[0] + total[1] * total[1] + total[2] * total[2])
    return (total / np.maximum(length, 1e-12)).T.astype(np.float32)


def rasterise(points, triangles, width, *, double_sided=False):
    """Nearest triangle at every pixel centre of a square picture.

    points : float32 [vertices, 3], pixel x (right), pixel y (down) and depth (away from the camera).
    triangles : int [triangles, 3]; those that face away are left out unless double_sided.
    Returns (triangle int32 [width * width], -1 where none; barycentric float32 [width * width, 3];
    depth float32 [width * width], infinite where none).
    Edges are evaluated in double precision: a pixel centre practically never falls between two neighbours.
    Source: edge functions, Pineda (1988).
    """
    chosen, box, edges = _set_up(points, triangles, width, double_sided)
    count, px, py = _box_pixels(box)
    first, second = (np.repeat(a, count) * px + np.repeat(b, count) * py + np.repeat(c, count)
                     for a, b, c in edges)
    inside = np.flatnonzero((first >= 0) & (second >= 0) & (first + second <= 1))
    local = np.repeat(np.arange(len(chosen)), count)[inside]
    first, second = first[inside], second[inside]
    weights = np.stack([first, second, 1 - first - second], 1).astype(np.float32)
    pixel = (py[inside] * width + px[inside]).astype(np.intp)
    corner = points[triangles[chosen], 2][local]
    depth = weights[:, 0] * corner[:, 0] + weights[:, 1] * corner[:, 1] + weights[:, 2] * corner[:, 2]
    return _keep_nearest(pixel, depth, chosen[local], weights, width)


def _set_up(points, triangles, width, double_sided):
    """Triangles that can cover a pixel centre: indices, pixel boxes, and (a, b, c) of the first two
    barycentric coordinates a x + b y + c."""
    x, y = points[:, 0].astype(np.float64) - 0.5, points[:, 1].astype(np.float64) - 0.5
    (ax, bx, cx), (ay, by, cy) = x[triangles.T], y[triangles.T]
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    x0, x1 = np.ceil(np.minimum(np.minimum(ax, bx), cx)), np.floor(np.maximum(np.maximum(ax, bx), cx))
    y0, y1 = np.ceil(np.minimum(np.minimum(ay, by), cy)), np.floor(np.maximum(np.maximum(ay, by), cy))
    x0, y0 = np.maximum(x0, 0), np.maximum(y0, 0)
    x1, y1 = np.minimum(x1, width - 1), np.minimum(y1, width - 1)
    facing = np.abs(area) > 1e-9 if double_sided else area < -1e-9
    chosen = np.flatnonzero(facing & (x1 >= x0) & (y1 >= y0))
    ax, bx, cx, ay, by, cy = (v[chosen] for v in (ax, bx, cx, ay, by, cy))
    scale = 1 / area[chosen]
    edges = [((py - qy) * scale, (qx - px) * scale, (px * qy - py * qx) * scale)
             for px, py, qx, qy in ((bx, by, cx, cy), (cx, cy, ax, ay))]
    return chosen, [v[chosen] for v in (x0, y0, x1, y1)], edges


def _box_pixels(box):
    """All pixels of all boxes, one box after the other. Returns (pixels per box, x, y), x and y float64."""
    x0, y0, x1, y1 = box
    wide, high = (x1 - x0 + 1).astype(np.int32), (y1 - y0 + 1).astype(np.int32)
    count = wide * high
    before = np.cumsum(count, dtype=np.int32) - count
    within = np.arange(count.sum(), dtype=np.int32) - np.repeat(before, count)
    columns = np.repeat(wide, count)
    row = within // columns
    return count, np.repeat(x0, count) + (within - row * columns), np.repeat(y0, count) + row


def _keep_nearest(pixel, depth, triangle, weights, width):
    """The z-buffer test, for all fragments at once."""
    nearest = np.full(width * width, np.inf, np.float32)
    np.minimum.at(nearest, pixel, depth)
    wins = depth <= nearest[pixel]
    pixel = pixel[wins]
    winner = np.full(width * width, -1, np.int32)
    barycentric = np.zeros((width * width, 3), np.float32)
    winner[pixel], barycentric[pixel] = triangle[wins], weights[wins]
    return winner, barycentric, nearest


def gaussian_blur(image, sigma):
    """Blur the first two axes; edges are repeated. image : float32 [h, w] or [h, w, c]; sigma in pixels."""
    radius = max(1, int(3 * sigma + 0.5))
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = np.round(kernel / kernel.sum(), 7).astype(np.float32).tolist()
    for axis in (0, 1):
        pad = [(radius, radius) if k == axis else (0, 0) for k in range(image.ndim)]
        padded, size = np.pad(image, pad, mode="edge"), image.shape[axis]
        parts = (padded[k:k + size] if axis == 0 else padded[:, k:k + size] for k in range(2 * radius + 1))
        total = np.zeros_like(image)
        for weight, part in zip(kernel, parts):
            total += weight * part
        image = total
    return image
