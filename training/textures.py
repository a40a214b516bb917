"""Procedural textures: what surfaces look like that are inspected, from random numbers alone.

Each kind is a function `(rng, side) -> (side, side) float32`, the brightness of the surface with a
mean of about 0 and a deviation of about 1; `texture` picks a kind and colours it. Every number is
drawn from `rng`, so that the same generator state gives the same texture.
"""

import math

import numpy as np
from scipy import fft

_GRIDS: dict[int, tuple] = {}


def _grid(side):
    """Rows, columns of a square picture, and the frequencies of its Fourier transform."""
    if side not in _GRIDS:
        rows, columns = np.mgrid[:side, :side].astype(np.float32)
        vertical = fft.fftfreq(side).astype(np.float32)[:, None]
        horizontal = fft.rfftfreq(side).astype(np.float32)[None]
        _GRIDS[side] = rows, columns, vertical, horizontal
    return _GRIDS[side]


def log_uniform(rng, low, high):
    """A number between the two whose logarithm is uniform."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def standardise(field):
    """The field with mean 0 and deviation 1; constant fields become 0."""
    field = field - field.mean()
    return (field / max(float(field.std()), 1e-6)).astype(np.float32, copy=False)


def filtered_noise(rng, side, gain):
    """White noise whose spectrum is multiplied by `gain`, standardised, float32."""
    noise = rng.standard_normal((side, side), dtype=np.float32)
    return standardise(fft.irfft2(fft.rfft2(noise) * gain.astype(np.float32), s=(side, side)))


def smooth_noise(rng, side, cells):
    """Noise that varies over `side / cells` pixels: cubic interpolation of a coarse grid."""
    n = max(int(cells), 1) + 3
    coarse = rng.standard_normal((n, n), dtype=np.float32)
    # The interpolation is separable: one small matrix for rows, the same for columns.
    place = np.linspace(1, n - 2 - 1e-4, side, dtype=np.float32)
    whole = place.astype(int)
    t = place - whole
    weights = np.zeros((side, n), np.float32)
    cubic = (
        -0.5 * t + t**2 - 0.5 * t**3,
        1 - 2.5 * t**2 + 1.5 * t**3,
        0.5 * t + 2 * t**2 - 1.5 * t**3,
        -0.5 * t**2 + 0.5 * t**3,
    )
    for shift, weight in enumerate(cubic):
        weights[np.arange(side), whole - 1 + shift] += weight
    return weights @ coarse @ weights.T


def _turned_axes(rng, side, wobble=0.0):
    """Coordinates along and across a random direction, bent by up to about `wobble` pixels."""
    rows, columns, *_ = _grid(side)
    angle = rng.uniform(0, np.pi)
    if rng.random() < 0.4:  # cloth, tiles and rolled sheets often lie straight
        angle = rng.integers(2) * np.pi / 2 + rng.normal(0, 0.03)
    along = columns * np.float32(np.cos(angle)) + rows * np.float32(np.sin(angle))
    across = rows * np.float32(np.cos(angle)) - columns * np.float32(np.sin(angle))
    if wobble:
        cells = rng.uniform(1, 6)
        along = along + np.float32(wobble) * smooth_noise(rng, side, cells)
        across = across + np.float32(wobble) * smooth_noise(rng, side, cells)
    return along, across


def power_noise(rng, side):
    """Noise with a power-law spectrum, stretched in a direction; sometimes cut or folded."""
    _, _, vertical, horizontal = _grid(side)
    stretch = math.exp(rng.normal(0, 0.7))
    frequency = np.hypot(vertical * stretch, horizontal / stretch) + 1e-4
    field = filtered_noise(rng, side, frequency ** -rng.uniform(0.3, 1.8))
    fold = rng.integers(4)
    if fold == 0:
        return standardise(np.tanh(rng.uniform(1, 20) * (field - rng.normal(0, 0.5))))
    return standardise(np.abs(field)) if fold == 1 else field


def band_noise(rng, side):
    """Noise of one spatial frequency: pebbled plastic, orange peel, ripples."""
    _, _, vertical, horizontal = _grid(side)
    stretch = math.exp(rng.normal(0, 0.5))
    frequency = np.hypot(vertical * stretch, horizontal / stretch)
    centre = log_uniform(rng, 0.01, 0.25)
    width = rng.uniform(0.1, 0.5) * centre
    return filtered_noise(rng, side, np.exp(-(((frequency - centre) / width) ** 2)))


def grating(rng, side):
    """Stripes and meshes: one or two waves, round or square, a little bent."""
    period = log_uniform(rng, 5, 90)
    along, across = _turned_axes(rng, side, wobble=rng.uniform(0, 0.3) * period)
    field = np.sin(2 * np.pi / period * along + rng.uniform(0, 6))
    if rng.random() < 0.6:
        other = np.sin(2 * np.pi / (period * rng.uniform(0.5, 2)) * across)
        field = field * other if rng.random() < 0.5 else np.maximum(field, other)
    if rng.random() < 0.5:
        field = np.tanh(rng.uniform(2, 12) * (field - rng.uniform(-0.7, 0.7)))
    return standardise(field + rng.uniform(0, 0.3) * power_noise(rng, side))


def cells(rng, side):
    """Cells around scattered points: leather, tiles, pebbles, foam, crystals.

    The points lie one to each square of a lattice, moved at random, so that the nearest two of a
    pixel are among the nine squares around it.
    """
    size = log_uniform(rng, 7, 70)
    disorder = rng.uniform(0.1, 1)
    along, across = _turned_axes(rng, side, wobble=rng.uniform(0, 0.5) * size)
    u, v = along / np.float32(size), across / np.float32(size)
    u0, v0 = np.floor(u).astype(np.int32), np.floor(v).astype(np.int32)
    u0, v0 = u0 - u0.min() + 1, v0 - v0.min() + 1
    u, v = u - np.floor(u), v - np.floor(v)
    shape = (u0.max() + 2, v0.max() + 2)
    moves = (0.5 + disorder * (rng.random((*shape, 2), dtype=np.float32) - 0.5)).astype(np.float32)
    values = rng.standard_normal(shape, dtype=np.float32)
    nearest = np.full((side, side), np.inf, np.float32)
    second = nearest.copy()
    value = np.zeros_like(nearest)
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            move = moves[u0 + i, v0 + j]
            distance = (move[..., 0] + i - u) ** 2 + (move[..., 1] + j - v) ** 2
            closer = distance < nearest
            second = np.where(closer, nearest, np.minimum(second, distance))
            value = np.where(closer, values[u0 + i, v0 + j], value)
            nearest = np.where(closer, distance, nearest)
    nearest, second = np.sqrt(nearest), np.sqrt(second)
    joint = np.tanh((second - nearest) / np.float32(rng.uniform(0.05, 0.5)))
    return standardise(
        rng.uniform(0, 1) * value + rng.uniform(0.3, 3) * joint - rng.uniform(0, 2) * nearest
    )


def _threads(rng, number, shape_of):
    """One value for each thread, by its number."""
    values = rng.standard_normal(int(number.max() - number.min()) + 1, dtype=np.float32)
    return (shape_of * values)[number - number.min()]


def woven(rng, side):
    """Cloth: threads over and under each other in plain, twill or satin weave."""
    period = log_uniform(rng, 4, 26)
    along, across = _turned_axes(rng, side, wobble=rng.uniform(0, 0.5) * period)
    u, v = along / np.float32(period), across / np.float32(period * rng.uniform(0.7, 1.4))
    i, j = np.floor(u).astype(np.int32), np.floor(v).astype(np.int32)
    repeat, step, over = [(2, 1, 1), (3, 1, 1), (4, 1, 2), (4, 1, 3), (5, 2, 1), (8, 3, 1)][
        rng.integers(6)
    ]
    warp_on_top = (i + step * j) % repeat < over
    # A thread is a cylinder, brightest along its middle, and sinks where it goes under.
    warp = np.cos(np.pi * (u - i - 0.5)) * (0.7 + 0.3 * np.cos(np.pi * (v - j - 0.5)))
    weft = np.cos(np.pi * (v - j - 0.5)) * (0.7 + 0.3 * np.cos(np.pi * (u - i - 0.5)))
    uneven = rng.uniform(0, 0.25)
    warp = warp + _threads(rng, i, uneven)
    weft = weft + _threads(rng, j, uneven) + rng.normal(0, 0.6)
    field = standardise(np.where(warp_on_top, warp, weft))
    fibres = rng.standard_normal((side, side), dtype=np.float32)
    return standardise(field + rng.uniform(0, 0.4) * fibres)


def knit(rng, side):
    """Knitted cloth: columns of stitches, each a V of two legs."""
    width = log_uniform(rng, 7, 45)
    along, across = _turned_axes(rng, side, wobble=rng.uniform(0, 0.3) * width)
    u = along / np.float32(width)
    column = np.floor(u)
    leg = np.abs(u - column - 0.5)
    v = across / np.float32(width * rng.uniform(0.5, 0.9)) + rng.uniform(0.8, 2) * leg
    legs = np.abs(np.cos(np.pi * v)) * np.maximum(8 * leg * (1 - 2 * leg), 0) ** rng.uniform(0.3, 1)
    field = standardise(legs) + _threads(rng, column.astype(np.int32), rng.uniform(0, 0.3))
    return standardise(field + rng.uniform(0, 0.4) * band_noise(rng, side))


def brushed_metal(rng, side):
    """Long parallel strokes of a brush under a smooth band of light."""
    _, _, vertical, horizontal = _grid(side)
    angle = rng.integers(2) * np.pi / 2 if rng.random() < 0.6 else rng.uniform(0, np.pi)
    along = horizontal * np.cos(angle) + vertical * np.sin(angle)
    across = vertical * np.cos(angle) - horizontal * np.sin(angle)
    length = log_uniform(rng, 20, 300)
    gain = np.exp(-((along * length) ** 2)) * (np.abs(across) + 0.01) ** -rng.uniform(0, 0.6)
    strokes = filtered_noise(rng, side, gain)
    light = standardise(smooth_noise(rng, side, 2))
    return standardise(strokes + rng.uniform(0, 3) * light)


def turned_metal(rng, side):
    """Rings of a lathe around a point, with the fan of light that they throw."""
    rows, columns, *_ = _grid(side)
    y, x = rng.uniform(-0.3, 1.3, 2) * side
    radius = np.hypot(rows - np.float32(y), columns - np.float32(x))
    radius = radius + np.float32(rng.uniform(0, 1)) * smooth_noise(rng, side, 8)
    angle = np.arctan2(rows - np.float32(y), columns - np.float32(x))
    pitch = rng.uniform(0.8, 6)
    profile = rng.standard_normal(int(radius.max() / pitch) + 3, dtype=np.float32)
    profile += rng.uniform(0, 2) * np.sin(np.arange(profile.size) * rng.uniform(0.05, 3))
    place = np.maximum(radius, 0) / np.float32(pitch)
    whole = place.astype(np.int32)
    part = place - whole
    rings = standardise(profile[whole] * (1 - part) + profile[whole + 1] * part)
    fan = np.abs(np.cos(angle * rng.integers(1, 3) + rng.uniform(0, 6))) ** rng.uniform(2, 12)
    return standardise(rings * (0.4 + fan) + rng.uniform(0, 4) * fan)


def wood(rng, side):
    """Grain of planks: rings of a trunk that are cut lengthwise, with pores."""
    along, across = _turned_axes(rng, side)
    bend = smooth_noise(rng, side, rng.uniform(1, 3)) * np.float32(rng.uniform(0.1, 1))
    period = log_uniform(rng, 8, 60)
    phase = across / np.float32(period) + np.float32(side / period) * 0.2 * bend
    phase = phase + 0.1 * smooth_noise(rng, side, 40)
    rings = (phase - np.floor(phase)) ** np.float32(rng.uniform(1, 4))
    # Pores run along the grain: noise that is looked up far more coarsely that way.
    table = rng.standard_normal((256, 256), dtype=np.float32)
    pores = table[
        (across * np.float32(rng.uniform(0.4, 1))).astype(np.int32) & 255,
        (along * np.float32(rng.uniform(0.02, 0.1))).astype(np.int32) & 255,
    ]
    return standardise(standardise(rings) + rng.uniform(0, 0.6) * pores)


def grain(rng, side):
    """Granules: sand, cast iron, terrazzo, foil with specks, at one to three sizes."""
    _, _, vertical, horizontal = _grid(side)
    squared = vertical**2 + horizontal**2
    field = np.zeros((side, side), np.float32)
    for _ in range(rng.integers(1, 4)):
        size = log_uniform(rng, 0.7, 7)
        layer = filtered_noise(rng, side, np.exp(-squared * np.float32(2 * np.pi**2 * size**2)))
        level = rng.uniform(-0.5, 2)
        field += rng.choice([-1, 1]) * np.tanh(rng.uniform(1, 8) * (layer - level))
    return standardise(field)


KINDS = (
    power_noise,
    band_noise,
    grating,
    cells,
    woven,
    knit,
    brushed_metal,
    turned_metal,
    wood,
    grain,
)
# Surfaces that are inspected most are made most often: cloth and metal.
_SHARES = np.array([3, 1, 2, 2, 3, 1.5, 2.5, 2, 1, 2])


def colour(rng, field):
    """A coloured picture of a brightness field: (side, side, 3) uint8.

    The colour runs through two or three colours along the brightness. Metal, paper and plastic
    are nearly grey: so are half of the palettes.
    """
    n = rng.integers(2, 4)
    spread = log_uniform(rng, 0.04, 0.6) * rng.choice([-1, 1])
    grey = rng.uniform(0.15, 0.85) + np.linspace(-spread, spread, n) + rng.normal(0, 0.05, n)
    tint = rng.normal(0, 0.02 if rng.random() < 0.5 else 0.1, 3)
    palette = grey[:, None] + tint + rng.normal(0, rng.choice([0.005, 0.06]), (n, 3))
    levels = np.linspace(-2, 2, n)
    table = np.stack([np.interp(np.linspace(-3, 3, 256), levels, p) for p in palette.T], 1)
    table = (np.clip(table, 0, 1) * 255 + 0.5).astype(np.uint8)
    return table[np.clip(field * np.float32(42.5) + 128, 0, 255).astype(np.uint8)]


def texture(rng, side):
    """A coloured texture of a random kind.

    Parameters
    ----------
    rng : numpy.random.Generator
    side : int
        Width and height in pixels.

    Returns
    -------
    ndarray of shape (side, side, 3), uint8
    """
    field = KINDS[rng.choice(len(KINDS), p=_SHARES / _SHARES.sum())](rng, side)
    if rng.random() < 0.15:  # prints and coats on a structured ground
        field = standardise(field + rng.uniform(0.2, 1) * power_noise(rng, side))
    return colour(rng, field)
