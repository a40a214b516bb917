"""Product surfaces for the generator of inspection images, before light and camera.

Lengths are in units of 1/256 of the shorter image side, so that a surface looks
the same at any image size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Floats = NDArray[np.floating[Any]]

_UNITS = 256
# Direction (x, y) towards the light, the same in all images.
LIGHT = np.array([-0.6, -0.8], dtype=np.float32)


class Scene(NamedTuple):
    """A surface before light and camera: colours are float32 around 0 to 1."""

    image: Floats  # (H, W, 3)
    part: Floats  # (H, W), how much of a pixel the part covers, 0 to 1
    floor: Floats  # (H, W, 3), what shows where the part is missing


def pixel_grid(size: tuple[int, int]) -> tuple[Floats, Floats]:
    """Coordinates of the pixels: a column of y and a row of x, in pixels."""
    y = np.arange(size[0], dtype=np.float32)[:, None]
    return y, np.arange(size[1], dtype=np.float32)[None, :]


def unit_pixels(size: tuple[int, int]) -> float:
    """Pixels per unit of length."""
    return min(size) / _UNITS


def local_grid(
    size: tuple[int, int], centre: Any, angle: float, scale: Any
) -> tuple[Floats, Floats]:
    """Coordinates (u, v) around a centre (y, x) in pixels, turned by an angle, in units."""
    y, x = pixel_grid(size)
    y, x = (y - np.float32(centre[0])) / scale, (x - np.float32(centre[1])) / scale
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return c * x + s * y, c * y - s * x


def _product_frame(rng, size, shift, turn):
    """Coordinates (u, v) of a product that lies slightly off and turned, and the turn."""
    angle = rng.normal(0, turn)
    centre = np.array(size) / 2 + rng.uniform(-shift, shift, 2) * unit_pixels(size)
    return *local_grid(size, centre, angle, np.float32(unit_pixels(size))), angle


def field(
    rng: np.random.Generator,
    size: tuple[int, int],
    along: float,
    across: float | None = None,
    angle: float = 0.0,
) -> Floats:
    """Smooth Gaussian random field of unit variance; correlation lengths in units."""
    scale = unit_pixels(size)
    across = along if across is None else across
    fy = fft.fftfreq(size[0])[:, None].astype(np.float32)
    fx = fft.rfftfreq(size[1])[None, :].astype(np.float32)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    a = (c * fx + s * fy) * np.float32(along * scale)
    b = (c * fy - s * fx) * np.float32(across * scale)
    transfer = np.exp(np.float32(-2 * np.pi**2) * (a * a + b * b))
    transfer[0, 0] = 0  # the mean of a field is zero
    noise = rng.standard_normal(size, dtype=np.float32)
    smooth = fft.irfft2(fft.rfft2(noise) * transfer, s=size)
    return smooth / max(float(smooth.std()), 1e-6)


def step(value: Floats, low: float, high: float) -> Floats:
    """Smooth step from 0 at low to 1 at high."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(a: Floats, b: Floats, weight: Floats) -> Floats:
    """Colours between a (weight 0) and b (weight 1)."""
    return a + (b - a) * weight[..., None]


def rgb(*values: float) -> Floats:
    """A colour, or what each channel is multiplied by."""
    return np.array(values, dtype=np.float32)


def _filling_scene(image, floor):
    """A surface that fills the image."""
    return Scene(
        image.astype(np.float32),
        np.ones(image.shape[:2], dtype=np.float32),
        floor.astype(np.float32),
    )


def _brushed_metal(rng, size):
    u, v, angle = _product_frame(rng, size, 20, 0.025)
    lines = (
        0.075 * field(rng, size, 45, 0.45, angle)
        + 0.05 * field(rng, size, 22, 1.1, angle)
        + 0.03 * field(rng, size, 110, 4, angle)
    )
    # brushed metal mirrors a lamp as a broad band across the brush lines
    band = 0.16 * np.exp(-(((u + 0.15 * v) / 95) ** 2)) + 0.02 * field(rng, size, 60)
    tone = (0.52 + band) * np.exp(lines)
    floor = 0.10 + 0.02 * field(rng, size, 3)
    return _filling_scene(tone[..., None] * rgb(0.97, 1.0, 1.03), floor[..., None] * rgb(1, 1, 1))


def _fabric(rng, size):
    u, v, angle = _product_frame(rng, size, 20, 0.03)
    period = max(7.0, 4.5 / unit_pixels(size))  # a finer weave than 4.5 pixels would alias
    a = (u + 1.3 * field(rng, size, 40)) / period
    b = (v + 1.3 * field(rng, size, 40)) / period
    i, j = np.floor(a).astype(int), np.floor(b).astype(int)
    fa, fb = a - i - 0.5, b - j - 0.5
    warp = (i + j) % 2 == 0
    across, along = np.where(warp, fa, fb), np.where(warp, fb, fa)
    # a thread is round across and bends down under its neighbours along
    height = np.sqrt(np.clip(1 - (1.85 * across) ** 2, 0, 1)) * np.cos(1.9 * along)
    slope = -np.where(warp, LIGHT[0], LIGHT[1]) * across
    thread = rng.normal(0, 0.045, (2, 512))  # every thread has its own shade
    shade = np.where(warp, thread[0][i % 512], thread[1][j % 512])
    fibres = np.where(warp, field(rng, size, 0.5, 1.6, angle), field(rng, size, 1.6, 0.5, angle))
    tone = (0.42 + 0.58 * height - 0.30 * slope) * (1 + shade + 0.07 * fibres)
    tone *= 1 + 0.03 * field(rng, size, 30)
    colour = np.where(warp[..., None], rgb(0.50, 0.57, 0.66), rgb(0.66, 0.68, 0.68))
    floor = 0.10 + 0.02 * field(rng, size, 1.5)
    return _filling_scene(tone[..., None] * colour, floor[..., None] * rgb(1.0, 0.95, 0.9))


def _wood(rng, size):
    u, v, angle = _product_frame(rng, size, 300, 0.035)
    bend = 9 * field(rng, size, 150, 38, angle) + 1.6 * field(rng, size, 70, 9, angle)
    depth = (v + bend) / 17
    ring = depth - np.floor(depth)
    # late wood darkens slowly over a year and ends at once
    late = ring**2.2 * (1 - step(ring, 0.90, 1.0))
    late *= 1 + 0.35 * np.sin(2.4 * np.floor(depth) + 1.0)
    fibre = 0.045 * field(rng, size, 28, 0.5, angle) + 0.03 * field(rng, size, 60, 2.5, angle)
    pores = step(field(rng, size, 9, 0.55, angle), 1.7, 2.8)
    tone = (1 + fibre + 0.03 * field(rng, size, 90, 45, angle)) * (1 - 0.28 * pores)
    image = mix(rgb(0.80, 0.63, 0.44), rgb(0.57, 0.37, 0.21), late) * tone[..., None]
    floor = 0.26 * (1 + 0.22 * field(rng, size, 9, 0.8, angle) + 0.1 * field(rng, size, 3))
    return _filling_scene(image, floor[..., None] * rgb(1.1, 0.85, 0.62))


def _tile(rng, size):
    image = np.empty((*size, 3), dtype=np.float32)
    image[:] = rgb(0.63, 0.61, 0.58)
    for length, low, colour in (
        (1.4, 0.75, rgb(0.57, 0.56, 0.55)),
        (1.8, 1.05, rgb(0.70, 0.68, 0.65)),
        (1.1, 1.60, rgb(0.44, 0.43, 0.43)),
        (1.2, 1.75, rgb(0.60, 0.53, 0.46)),
    ):
        grain = field(rng, size, length) + 0.25 * field(rng, size, length / 3)
        image = mix(image, colour, step(grain, low, low + 0.35))
    image *= (1 + 0.025 * field(rng, size, 0.6) + 0.02 * field(rng, size, 45))[..., None]
    floor = 0.36 * (1 + 0.10 * field(rng, size, 1.2) + 0.08 * field(rng, size, 7))
    return _filling_scene(image, floor[..., None] * rgb(1.02, 0.98, 0.92))


def _disc(rng, size):
    # it lies in a nest with a pin, which leaves it a little play
    u, v, angle = _product_frame(rng, size, 2.5, 0.015)
    r = np.hypot(u, v)
    theta = np.arctan2(v, u)
    soft = max(0.8, 0.6 / unit_pixels(size))  # edges are about one pixel wide

    def inside(distance):
        return step(-distance, -soft, soft)

    # from the nearest of six holes on a circle
    turn = theta - np.round(theta * (3 / np.pi)) * (np.pi / 3)
    outwards, around = r * np.cos(turn) - 74, r * np.sin(turn)
    hole = np.hypot(outwards, around)
    lamp = np.arctan2(LIGHT[1], LIGHT[0]) - angle
    facing = np.cos(theta - lamp)  # +1 on the side towards the lamp
    # distance inwards to the nearest edge, and how that edge's chamfer faces the lamp: the wall
    # of a hole faces it on the far side
    edge = np.maximum.reduce([r - 100, 22 - r, 7 - hole])
    wall = np.cos(np.arctan2(around, outwards) + theta - turn - lamp)
    chamfer = np.where(edge == 7 - hole, -wall, np.where(edge == 22 - r, -facing, facing))
    part = inside(edge)

    turned = np.interp(r, np.arange(0, 105, 0.7), rng.normal(0, 1, 150))
    marks = 0.035 * turned + 0.012 * field(rng, size, 0.6)
    # turned metal mirrors a lamp as two opposite fans; they stay while the part turns
    shine = theta - lamp - rng.normal(0, 0.03)
    fan = 0.28 * np.abs(np.cos(shine)) ** 7 + 0.04 * np.cos(2 * shine + 1)
    tone = (0.46 + fan) * (1 + marks) * (1 + 0.02 * field(rng, size, 25))
    for radius, width, depth in ((51, 1.6, 0.45), (38, 1.2, 0.3)):  # grooves
        groove = (r - radius) / width
        tone *= 1 - depth * np.exp(-groove * groove) * (1 - 0.9 * groove * facing)
    tone *= 1 + 0.35 * chamfer * step(edge, -4.2, -3)
    # the stamped ring: a code of bars between the hub and the bolts
    code = np.float32([1, 0, 1, 1, 0, 1, 0, 0, 1, 1, 1, 0] * 3)
    cell = (theta / (2 * np.pi) + 0.5) * len(code)
    bar = np.abs(cell - np.floor(cell) - 0.5) * 2 * np.pi * r / len(code)
    stamp = inside(np.maximum(bar - 2.2, np.abs(r - 59) - 4)) * code[cell.astype(int) % len(code)]
    tone *= 1 - 0.45 * stamp

    plate = 0.15 * (1 + 0.10 * field(rng, size, 0.7) + 0.04 * field(rng, size, 20))
    floor = plate[..., None] * rgb(0.85, 0.98, 1.10)
    drop = np.array(-LIGHT * 5)  # the shadow falls away from the light
    c, s = np.cos(angle), np.sin(angle)
    du, dv = c * drop[0] + s * drop[1], c * drop[1] - s * drop[0]
    shadow = step(-(np.hypot(u - du, v - dv) - 101), -7, 7)
    floor *= (1 - 0.55 * shadow)[..., None]
    image = mix(floor, tone[..., None] * rgb(1.02, 1.0, 0.96), part)
    return Scene(image.astype(np.float32), part.astype(np.float32), floor.astype(np.float32))


SURFACES = {
    "brushed_metal": _brushed_metal,
    "disc": _disc,
    "fabric": _fabric,
    "tile": _tile,
    "wood": _wood,
}
