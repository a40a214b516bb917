"""Defects for the generator of inspection images.

Each function draws one defect of random size, place, orientation and contrast into a
scene and returns the new colours, shape (H, W, 3). It leaves the background of the part
as it is. `strength` is 1 or, where the defect would not show, more.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from skanomaly.datasets._textures import LIGHT, field, local_grid, mix, rgb, step, unit_pixels


def _defect_scale(size):
    # below 128 pixels a defect in proportion would be less than a pixel wide
    return np.float32(max(unit_pixels(size), 0.5))


def _place(rng, where):
    """A random pixel (y, x) of a boolean array, away from the border of the image."""
    y0, x0 = (side // 8 for side in where.shape)
    points = np.argwhere(where[y0:-y0, x0:-x0])
    return points[rng.integers(len(points))] + (y0, x0)


def _blob(rng, size, centre, radius, ragged, soft):
    """Weight 0 to 1 of an irregular round patch with a rim of relative width `soft`."""
    u, v = local_grid(size, centre, rng.uniform(0, np.pi), _defect_scale(size))
    r = np.hypot(u / radius, v / (radius * rng.uniform(0.6, 1.0)))
    relative = float(_defect_scale(size)) / unit_pixels(size)
    wobble = field(rng, size, 0.5 * radius * relative) + 0.4 * field(
        rng, size, 0.15 * radius * relative
    )
    return step(1 - r + ragged * wobble * np.minimum(r, 1), -soft, soft)


def _apply(scene, image, weight):
    return mix(scene.image, image, np.asarray(weight * scene.part, dtype=np.float32))


def _scratch(rng, scene, strength):
    size = scene.part.shape
    u, v = local_grid(
        size, _place(rng, scene.part > 0.99), rng.uniform(0, np.pi), _defect_scale(size)
    )
    half = rng.uniform(16, 60)
    t = u / half
    knots = np.linspace(-1, 1, 9)
    path = rng.normal(0, 0.10) * half * t * t + np.interp(t, knots, rng.normal(0, 0.5, 9))
    width = rng.uniform(0.8, 1.5) * np.sqrt(np.clip(1 - t * t, 0.02, 1))
    pressure = np.interp(t, knots, rng.uniform(0.55, 1.0, 9)) * step(1 - np.abs(t), 0, 0.12)
    d = (v - path) / width
    bright = rng.choice([-1, 1])
    # the furrow, and the burr which it pushes up on one side
    relief = np.exp(-d * d) - 0.45 * np.exp(-((d - 1.9) ** 2))
    tone = bright * strength * rng.uniform(0.30, 0.50) * relief * pressure
    return _apply(scene, scene.image + tone[..., None], np.float32(1))


def _spot(rng, scene, strength):
    size = scene.part.shape
    radius = rng.uniform(4.0, 9.0)
    centre = _place(rng, scene.part > 0.99)
    weight = _blob(rng, size, centre, radius, 0.16, 0.16)
    for _ in range(rng.integers(0, 3)):  # droplets beside it
        beside = centre + rng.normal(0, 1.6, 2) * radius * _defect_scale(size)
        near = _blob(rng, size, beside, radius * rng.uniform(0.2, 0.4), 0.1, 0.25)
        weight = np.maximum(weight, near)
    tints = rgb(0.10, 0.08, 0.07), rgb(0.32, 0.17, 0.08), rgb(0.92, 0.91, 0.86)
    dirt = tints[rng.integers(len(tints))] * (1 + 0.1 * field(rng, size, 2)[..., None])
    return _apply(scene, dirt, weight * min(1, strength * rng.uniform(0.65, 0.95)))


def _dent(rng, scene, strength):
    size = scene.part.shape
    angle = rng.uniform(0, np.pi)
    u, v = local_grid(size, _place(rng, scene.part > 0.99), angle, _defect_scale(size))
    a = rng.uniform(6, 15)
    b = a * rng.uniform(0.6, 1.0)
    # light in the frame of the dent; the slope of a Gaussian bump towards it
    c, s = np.cos(angle), np.sin(angle)
    lu, lv = c * LIGHT[0] + s * LIGHT[1], c * LIGHT[1] - s * LIGHT[0]
    bump = np.exp(-0.5 * ((u / a) ** 2 + (v / b) ** 2))
    slope = (lu * u / a + lv * v / b) * bump
    shade = rng.choice([-1, 1]) * strength * rng.uniform(0.45, 0.75) * slope
    gloss = 0.6 * np.maximum(shade, 0) ** 2
    return _apply(scene, scene.image * (1 + shade + gloss)[..., None], np.float32(1))


def _stain(rng, scene, strength):
    size = scene.part.shape
    radius = rng.uniform(14, 34)
    weight = _blob(rng, size, _place(rng, scene.part > 0.99), radius, 0.16, 0.35)
    # a liquid leaves more at its rim than inside
    weight = weight * (0.75 + weight * (1 - weight))
    tints = rgb(0.80, 0.74, 0.60), rgb(0.76, 0.80, 0.82), rgb(0.78, 0.66, 0.60)
    tint = tints[rng.integers(len(tints))] ** (strength * rng.uniform(0.7, 1.2))
    return _apply(scene, scene.image * tint, weight)


def _missing_piece(rng, scene, strength):
    size = scene.part.shape
    radius = rng.uniform(7, 18) * min(strength, 2)
    solid = scene.part > 0.99
    # a part breaks at an edge; a surface that fills the image has none and breaks anywhere
    rim = solid & ~ndimage.binary_erosion(solid, border_value=1)
    centre = _place(rng, rim if rim.any() else solid)
    weight = _blob(rng, size, centre, radius, 0.22, min(0.5, 0.8 / radius))
    # the wall of the break: dark on the side of the light, bright opposite
    gy, gx = np.gradient(ndimage.gaussian_filter(weight * scene.part, 1.2 * _defect_scale(size)))
    wall = np.clip(1.6 * (gx * LIGHT[0] + gy * LIGHT[1]) * _defect_scale(size), -0.5, 0.5)
    return mix(scene.image, scene.floor, weight) * (1 - 0.7 * wall * scene.part)[..., None]


DEFECTS = {
    "dent": _dent,
    "missing_piece": _missing_piece,
    "scratch": _scratch,
    "spot": _spot,
    "stain": _stain,
}
