"""Small marks such as defects leave, drawn into a picture: scratches, spots, dents, cuts."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from training.textures import log_uniform, smooth_noise


def add_marks(rng, image):
    """One to four small marks such as defects leave: scratches, spots, dents, cuts, stains."""
    for _ in range(rng.integers(1, 5)):
        kind = rng.integers(5)
        centre = rng.uniform(0.05, 0.95, 2) * image.width
        if kind == 0:
            image = _scratch(rng, image, centre)
        elif kind == 1:
            image = _spot(rng, image, centre)
        elif kind == 2:
            image = _dent(rng, image, centre)
        elif kind == 3:
            image = _cut(rng, image, centre)
        else:
            image = _stain(rng, image, centre)
    return image


def _path(rng, centre, length):
    """Points of a slightly bent line."""
    angle, bend = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.4)
    t = np.linspace(-0.5, 0.5, 12)
    angles = angle + bend * t + np.cumsum(rng.normal(0, 0.04, 12))
    steps = np.stack([np.cos(angles), np.sin(angles)], 1) * length / 12
    points = centre + np.cumsum(steps, 0)
    return [tuple(p) for p in points - steps.sum(0) / 2]


def _blend(image, mask, colour, strength):
    """The colour laid over the image where the mask is white."""
    mask = mask.point([int(v * strength) for v in range(256)])
    return Image.composite(Image.new("RGB", image.size, colour), image, mask)


def _some_colour(rng, image, centre):
    """A colour that is darker, lighter or quite another than that of the place."""
    here = np.array(image.getpixel(tuple(int(v) for v in centre)), float)
    kind = rng.random()
    if kind < 0.7:
        here = here + rng.choice([-1, 1]) * rng.uniform(25, 120) + rng.normal(0, 6, 3)
    else:
        here = rng.uniform(0, 255, 3)
    return tuple(int(v) for v in np.clip(here, 0, 255))


def _scratch(rng, image, centre):
    mask = Image.new("L", image.size)
    draw = ImageDraw.Draw(mask)
    width = int(rng.choice([1, 1, 2, 2, 3, 5]))
    for _ in range(rng.integers(1, 4)):
        points = _path(rng, centre + rng.normal(0, 10, 2), log_uniform(rng, 15, 250))
        draw.line(points, fill=255, width=width, joint="curve")
    if rng.random() < 0.5:
        mask = mask.filter(ImageFilter.GaussianBlur(0.7))
    return _blend(image, mask, _some_colour(rng, image, centre), rng.uniform(0.4, 1))


def _spot(rng, image, centre):
    mask = Image.new("L", image.size)
    draw = ImageDraw.Draw(mask)
    for _ in range(rng.integers(1, 6)):
        place = centre + rng.normal(0, 12, 2)
        radius = log_uniform(rng, 1, 18) * rng.uniform(0.5, 1, 2)
        draw.ellipse((*(place - radius), *(place + radius)), fill=255)
    mask = mask.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 2)))
    return _blend(image, mask, _some_colour(rng, image, centre), rng.uniform(0.4, 1))


def _dent(rng, image, centre):
    """Light on one side, dark on the other, as of a hollow or a bump."""
    radius = log_uniform(rng, 5, 40)
    low = np.clip((centre - 3 * radius).astype(int), 0, image.width)
    high = np.clip((centre + 3 * radius).astype(int), 0, image.width)
    y, x = np.mgrid[low[1] : high[1], low[0] : high[0]].astype(np.float32)
    x, y = (x - centre[0]) / radius, (y - centre[1]) / radius
    angle, flat = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1)
    u = x * math.cos(angle) + y * math.sin(angle)
    v = (y * math.cos(angle) - x * math.sin(angle)) / flat
    light = rng.uniform(60, 180) * u * np.exp(-(u * u + v * v))
    pixels = np.array(image)
    part = pixels[low[1] : high[1], low[0] : high[0]]
    part[:] = np.clip(part + light[..., None], 0, 255)
    return Image.fromarray(pixels)


def _cut(rng, image, centre):
    """A dark slit, wide in its middle, often with a bright rim."""
    points = np.array(_path(rng, centre, log_uniform(rng, 20, 160)))
    along = np.gradient(points, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], 1) / np.linalg.norm(along, axis=1)[:, None]
    width = rng.uniform(1, 7) * np.sin(np.linspace(0, np.pi, len(points)))[:, None]
    outline = [
        tuple(p) for p in np.concatenate([points + across * width, (points - across * width)[::-1]])
    ]
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).polygon(outline, fill=255)
    if rng.random() < 0.6:
        rim = mask.filter(ImageFilter.MaxFilter(5))
        image = _blend(image, rim, (235, 235, 230), rng.uniform(0.2, 0.8))
    mask = mask.filter(ImageFilter.GaussianBlur(0.6))
    shade_of_slit = int(rng.uniform(0, 60))
    return _blend(image, mask, (shade_of_slit,) * 3, rng.uniform(0.6, 1))


def _stain(rng, image, centre):
    """A blot with a ragged edge that tints what is below it."""
    rows, columns = np.mgrid[: image.width, : image.width].astype(np.float32)
    radius = log_uniform(rng, 10, 70)
    distance = np.hypot(columns - np.float32(centre[0]), rows - np.float32(centre[1]))
    edge = distance / np.float32(radius) + np.float32(0.4) * smooth_noise(rng, image.width, 25)
    mask = np.clip((1 - edge) * np.float32(rng.uniform(1, 12)), 0, 1)
    mask = Image.fromarray((mask * 255).astype(np.uint8))
    return _blend(image, mask, _some_colour(rng, image, centre), rng.uniform(0.15, 0.6))
