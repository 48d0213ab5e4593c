"""Light on a painted face: wrapped diffuse and specular light, a shadow map, occlusion; then pixels."""
import math

import numpy as np

from fer_lib.rendering.head import deform, load_head
from fer_lib.rendering.layers import look
from fer_lib.rendering.raster import gaussian_blur, rasterise
from fer_lib.rendering.shot import draw_ground, place, project
from fer_lib.rendering.surface import GLOSSY, paint

SUPERSAMPLING = 2
WRAP = np.array([[0.35], [0.22], [0.18]], np.float32)     # light bleeds through skin, red the farthest
SHADOW_SPAN = 3.4                                         # scene units that the shadow map covers
SHADOW_TAPS = ((0, 0), (1.3, 0.4), (-1.3, -0.4), (0.4, -1.3), (-0.4, 1.3))


def render(identity, expression, shot, image_size):
    """Picture of one face before the camera degrades it. Returns linear float32 [size, size, 3]."""
    view, positions = see(identity, expression, shot, image_size)
    surface = paint(view, identity, expression, shot.gaze)
    occlusion = surface.occlusion * _depth_occlusion(view, shot)
    diffuse, specular = np.zeros_like(surface.colour), np.zeros_like(surface.specular)
    rough = _relief(view.normal, surface, identity.skin.relief)
    for light in shot.lights:
        received = _diffuse(rough, light)
        if light.shadow > 0:
            received *= 1 - np.float32(light.shadow) * _shadow(view, positions, light, image_size)
        diffuse += received * light.colour[:, None]
        specular += _highlight(view.normal, light, surface.specular)
    ambient = shot.ambient[:, None] * (np.float32(0.825) + np.float32(0.175) * view.normal[1])
    light = diffuse * (np.float32(0.4) + np.float32(0.6) * occlusion) + ambient * occlusion
    shine = np.where(surface.specular > GLOSSY, np.float32(0.7), np.float32(0.22))
    gloss = specular * surface.specular * shine
    return _compose(surface.colour * light + gloss * occlusion, view.pixel, shot, image_size)


def see(identity, expression, shot, image_size):
    """Deform, place and draw. Returns (View at SUPERSAMPLING times the size, positions [vertices, 3])."""
    width = image_size * SUPERSAMPLING
    positions = place(deform(identity.vertices, expression.weights), identity.eyes, shot)
    return look(positions, project(positions, shot, width), identity, width), positions


def _relief(normal, surface, amount):
    """Tilt the normals of skin by noise: pores and folds too small for the mesh."""
    coarse, middle, fine = surface.noise
    tilted = normal + np.float32(amount) * (np.stack([middle, fine, coarse]) - np.float32(0.5)) * surface.body
    return tilted / np.sqrt(tilted[0] * tilted[0] + tilted[1] * tilted[1] + tilted[2] * tilted[2])


def _diffuse(normal, light):
    """Lambert with the terminator moved, per colour: [3, m], 0 to 1. Source: wrap lighting, Green (2004)."""
    wrap = WRAP * np.float32(light.wrap)
    return np.clip((_along(normal, light.direction) + wrap) / (1 + wrap), 0, 1)


def _highlight(normal, light, specular):
    """Blinn-Phong with exponent 16, 64 on wet surfaces. Returns [m]. Source: Blinn (1977)."""
    x, y, z = (float(part) for part in light.direction)
    length = math.sqrt(x * x + y * y + (z + 1) ** 2)
    facing = np.maximum(_along(normal, np.array([x, y, z + 1]) / length), 0)
    power = _square(facing, 4)
    power = np.where(specular > GLOSSY, _square(power, 2), power)
    return power * np.float32(light.colour.astype(np.float64).mean())


def _square(value, times):
    for _ in range(times):
        value = value * value
    return value


def _along(vectors, axis):
    """Dot product with one axis, without BLAS. vectors : [3, m]. Returns float32 [m]."""
    x, y, z = np.float32(axis[0]), np.float32(axis[1]), np.float32(axis[2])
    return vectors[0] * x + vectors[1] * y + vectors[2] * z


def _shadow(view, positions, light, image_size):
    """Share of the light that the head itself keeps off, [m] in [0, 1]. Source: percentage-closer filtering,
    Reeves, Salesin & Cook (1987)."""
    size = 96 * max(1, image_size // 64)
    across, up = _light_axes(light.direction)

    def seen_by_light(points):
        scale = np.float32(size / SHADOW_SPAN)
        return np.stack([_along(points, across) * scale + np.float32(size / 2),
                         np.float32(size / 2) - (_along(points, up) + np.float32(0.25)) * scale,
                         -_along(points, light.direction)])

    caster = np.ascontiguousarray(seen_by_light(positions.T).T)
    _, _, nearest = rasterise(caster, load_head().triangles["body"], size)
    nearest = nearest + np.float32(0.035)
    u, v, depth = seen_by_light(view.position + view.normal * np.float32(0.03))
    hidden = np.zeros(len(depth), np.float32)
    for du, dv in SHADOW_TAPS:
        column = np.clip(u + np.float32(du), 0, size - 1).astype(np.int32)
        row = np.clip(v + np.float32(dv), 0, size - 1).astype(np.int32)
        hidden += depth >= nearest[row * size + column]
    return hidden * np.float32(1 / len(SHADOW_TAPS))


def _light_axes(direction):
    """Two unit axes across a light's direction, rounded. Returns (right, up), float64 [3]."""
    x, y, z = (float(part) for part in direction)
    length = math.sqrt(x * x + z * z)
    right = np.array([z, 0, -x]) / length
    up = np.array([y * right[2], z * right[0] - x * right[2], -y * right[0]])
    return np.round(right, 6), np.round(up, 6)


def _depth_occlusion(view, shot):
    """Darker where the surroundings are nearer, [m]. Source: unsharp depth buffer, Luft et al. (2006)."""
    width = math.isqrt(len(view.depth))
    depth = np.full(width * width, view.depth[view.pixel].max(), np.float32)
    depth[view.pixel] = view.depth[view.pixel]
    depth, hidden = depth.reshape(width, width), np.zeros(len(view.pixel), np.float32)
    for radius, strength in ((0.018, 0.9), (0.05, 0.8)):
        behind = depth - gaussian_blur(depth, radius * width * shot.eye_spacing / 0.37)
        behind = behind.ravel()[view.pixel] * np.float32(1 / (radius * 2.2))
        hidden += np.float32(strength) * np.clip(behind, 0, 1)
    return np.clip(1 - np.float32(0.75) * hidden, np.float32(0.12), 1)


def _compose(colour, pixel, shot, image_size):
    """Put the head on the ground and average the samples of each pixel."""
    n = SUPERSAMPLING
    ground = draw_ground(shot.ground, image_size)
    image = ground.repeat(n, 0).repeat(n, 1).reshape(-1, 3)
    image[pixel] = colour.T
    image = image.reshape(image_size, n, image_size, n, 3)
    total = sum(image[:, i, :, j] for i in range(n) for j in range(n))
    return total * np.float32(shot.exposure / (n * n))
