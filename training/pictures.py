"""Training pictures: each a pure function of a seed and an index.

`PictureMaker(photographs, seed)(index)` gives one picture in two sizes: large for the teachers,
small for the network that learns. Workers may make them in any order. Shown are photographs,
procedural textures and objects on grounds; a part of them bears small marks such as scratches and
dents; light, contrast, colour, noise, blur and compression vary. A view shows 256 to 512 pixels of
a scene, so that what is small in it is as large as in photographs of an inspection.
"""

import hashlib
import io
import json
import math
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from training.marks import add_marks
from training.textures import log_uniform, smooth_noise, texture

LARGE, SMALL = 448, 224
SCENE = 512  # pixels of a scene; views show 256 to 512 of them


class Photographs:
    """Photographs of a folder, decoded once into one file that processes share.

    Parameters
    ----------
    folder : path
        JPEG files, in subfolders too; taken in the order of their names.
    buffer : path
        The file of pixels, written where it is missing; beside it a JSON file of the shapes.
    """

    def __init__(self, folder, buffer):
        buffer = Path(buffer)
        listing = buffer.with_suffix(".json")
        if not listing.exists():
            _decode(Path(folder), buffer, listing)
        content = json.loads(listing.read_text())
        self.digest = content["digest"]
        self._places = content["places"]
        self._pixels = np.memmap(buffer, np.uint8, "r")

    def __len__(self):
        return len(self._places)

    def __getitem__(self, index):
        """Pixels of one photograph, (height, width, 3) uint8."""
        start, height, width = self._places[index]
        return np.asarray(self._pixels[start : start + height * width * 3]).reshape(
            height, width, 3
        )


def _decode(folder, buffer, listing):
    files = sorted(folder.rglob("*.jpg"))
    if not files:
        raise FileNotFoundError(
            f"no photographs (*.jpg) under {folder}; training/README.md says which are needed"
        )
    buffer.parent.mkdir(parents=True, exist_ok=True)
    digest, places, start = hashlib.sha256(), [], 0
    with open(f"{buffer}.part", "wb") as out:
        for file in files:
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB"))
            places.append((start, *pixels.shape[:2]))
            digest.update(pixels.tobytes())
            start += out.write(pixels.tobytes())
    os.replace(f"{buffer}.part", buffer)
    listing.write_text(json.dumps({"digest": digest.hexdigest(), "places": places}))


class PictureMaker:
    """Makes picture number `index` of a seed.

    Parameters
    ----------
    photographs : sequence of ndarray of shape (height, width, 3), uint8
    seed : int
    """

    def __init__(self, photographs, seed):
        self.photographs = photographs
        self.seed = seed

    def __call__(self, index):
        """The picture as (448, 448, 3) and as (224, 224, 3), uint8."""
        rng = np.random.default_rng([self.seed, index])
        kind = rng.random()
        if kind < 0.5:
            image = self._photograph(rng)
        elif kind < 0.75:
            image = view(rng, texture(rng, SCENE), 0.5, 1)
        else:
            image = self._objects(rng)
        if rng.random() < 0.35:
            image = add_marks(rng, image)
        image = change_light(rng, image)
        image = degrade(rng, image)
        method = (Image.BICUBIC, Image.BOX, Image.LANCZOS, Image.BILINEAR)[rng.integers(4)]
        return np.asarray(image), np.asarray(image.resize((SMALL, SMALL), method))

    def _photograph(self, rng):
        """A view of one photograph, or of two or four of them side by side."""
        if rng.random() < 0.75:
            return view(rng, self._any(rng), 0.5, 1.05)
        side = 224
        rows, columns = (2, 2) if rng.random() < 0.6 else (1, 2)
        scene = Image.new("RGB", (side * columns, side * rows))
        for row in range(rows):
            for column in range(columns):
                scene.paste(view(rng, self._any(rng), 0.7, 1, side), (side * column, side * row))
        return view(rng, np.asarray(scene), 0.6, 1)

    def _any(self, rng):
        return self.photographs[int(rng.integers(len(self.photographs)))]

    def _surface(self, rng, low, high):
        """A view of a photograph or of a texture."""
        if rng.random() < 0.4:
            return view(rng, self._any(rng), low, high)
        return view(rng, texture(rng, SCENE), low, high)

    def _objects(self, rng):
        """One object, or several alike, on a plain, a textured or a photographed ground."""
        ground = rng.random()
        if ground < 0.5:
            image = plain_ground(rng)
        else:
            image = self._surface(rng, *((0.15, 0.5) if ground < 0.75 else (0.5, 1)))
        if rng.random() < 0.3:  # a whole photograph, smaller: many things in full view
            side = int(LARGE * rng.uniform(0.3, 0.8))
            x, y = (int(v) for v in rng.integers(0, LARGE - side, 2))
            image.paste(view(rng, self._any(rng), 0.8, 1, side), (x, y))
            return image
        mask = object_mask(rng)
        surface = self._surface(rng, 0.3, 1)
        if rng.random() < 0.7:
            surface = shade(rng, surface, mask)
        if rng.random() < 0.5:  # the shadow it casts
            offset = tuple(int(v) for v in rng.normal(0, 8, 2))
            shadow = mask.filter(ImageFilter.GaussianBlur(rng.uniform(2, 12)))
            shadow = Image.fromarray(np.roll(np.asarray(shadow), offset, (0, 1)))
            dark = image.point([int(v * rng.uniform(0.4, 0.9)) for v in range(256)] * 3)
            image = Image.composite(dark, image, shadow)
        return Image.composite(surface, image, mask)


def view(rng, pixels, low, high, side=LARGE):
    """A turned, stretched and perhaps mirrored part of an image, as a square of `side` pixels.

    The part is `low` to `high` times the shorter side of the image wide. What lies outside of the
    image is its mirror image.
    """
    height, width = pixels.shape[:2]
    size = min(height, width) * rng.uniform(low, high)
    stretch = math.exp(rng.uniform(-0.2, 0.2))
    turn = rng.random()
    if turn < 0.25:
        angle = rng.uniform(-math.pi, math.pi)
    else:
        angle = rng.normal(0, 0.08) + (rng.integers(4) * math.pi / 2 if turn < 0.5 else 0)
    matrix = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = matrix * np.array([stretch, 1 / stretch]) * size / side
    if rng.random() < 0.5:
        matrix[:, 0] *= -1
    reach = np.abs(matrix).sum(1) * side / 2  # half of the width and height that the part covers
    room = np.array([width, height], float)
    centre = rng.uniform(np.minimum(reach, room / 2), np.maximum(room - reach, room / 2))
    excess = int(np.ceil(np.maximum(reach - room / 2, 0).max()))
    if excess:
        excess = min(excess + 2, min(height, width) - 1)
        pixels = np.pad(pixels, ((excess, excess), (excess, excess), (0, 0)), mode="reflect")
    origin = centre - matrix @ [side / 2, side / 2] + excess
    data = (*matrix[0], origin[0], *matrix[1], origin[1])
    return Image.fromarray(pixels).transform((side, side), Image.AFFINE, data, Image.BICUBIC)


def plain_ground(rng):
    """An even ground, as in a light box or on a belt, with a slight run of brightness."""
    colour = np.clip(rng.uniform(0, 255) + rng.normal(0, 12, 3), 0, 255)
    run = smooth_noise(rng, LARGE, 1)[..., None] * rng.choice([0.0, 3.0, 12.0])
    return Image.fromarray(np.clip(colour + run, 0, 255).astype(np.uint8))


def object_mask(rng):
    """Where objects are: 1 to 12 outlines of one kind, edges a little soft; image of mode L."""
    image = Image.new("L", (LARGE, LARGE))
    draw = ImageDraw.Draw(image)
    several = rng.random() < 0.3
    number = int(rng.integers(2, 13)) if several else 1
    kind = rng.integers(5)
    radius = LARGE * (rng.uniform(0.05, 0.15) if several else rng.uniform(0.12, 0.45))
    ratio = rng.uniform(0.15, 1)
    corners = int(rng.integers(3, 10))
    radii = rng.uniform(0.5, 1.2, corners)
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    turn = rng.uniform(0, np.pi)
    for _ in range(number):
        centre = rng.uniform(0.15, 0.85, 2) * LARGE
        if number == 1:
            centre = (centre + LARGE) / 3  # nearer to the middle
        turned = turn + (rng.uniform(0, 2 * np.pi) if several else 0)
        if kind == 4:  # a ring
            box = (*(centre - radius), *(centre + radius))
            draw.ellipse(box, outline=255, width=int(radius * rng.uniform(0.15, 0.7)) + 1)
            continue
        t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        if kind == 0:  # ellipses
            outline = np.stack([np.cos(t), ratio * np.sin(t)], 1)
        elif kind == 1:  # boxes with round corners, pills: between an ellipse and a rectangle
            power = 0.25 if ratio > 0.5 else 0.5
            outline = np.stack([np.cos(t), ratio * np.sin(t)], 1)
            outline *= np.maximum(np.abs(np.cos(t)), np.abs(np.sin(t)))[:, None] ** -power
        elif kind == 2:  # polygons
            outline = np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)
        else:  # rods: pins, screws, wires; a head at one end
            head = 1.6 if ratio > 0.5 else 1.0
            x = np.array([-1, 0.7, 0.7, 1, 1, 0.7, 0.7, -1])
            y = np.array([-1, -1, -head, -head, head, head, 1, 1]) * 0.25 * ratio
            outline = np.stack([x, y], 1)
        c, s = math.cos(turned), math.sin(turned)
        outline = outline @ np.array([[c, s], [-s, c]]) * radius + centre
        draw.polygon([tuple(p) for p in outline], fill=255)
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2.5)))


def shade(rng, surface, mask):
    """Light on a rounded object: its height is the blurred outline, lit from one side."""
    small = mask.resize((112, 112), Image.BOX).filter(ImageFilter.GaussianBlur(rng.uniform(2, 10)))
    height = np.asarray(small, np.float32) / 255
    down, right = np.gradient(height)
    angle = rng.uniform(0, 2 * np.pi)
    light = rng.uniform(1, 8) * (math.cos(angle) * right + math.sin(angle) * down)
    light = light + rng.uniform(0, 0.6) * (height - 0.6)
    light = Image.fromarray(light.astype(np.float32)).resize(surface.size, Image.BILINEAR)
    factor = np.exp(np.clip(np.asarray(light), -1.2, 1))[..., None]
    return Image.fromarray(np.clip(np.asarray(surface) * factor, 0, 255).astype(np.uint8))


def change_light(rng, image):
    """Exposure, colour of light, saturation, contrast, gamma, uneven light; a fifth is grey."""
    grey = rng.random() < 0.2
    if rng.random() < 0.8 or grey:
        gains = math.exp(rng.normal(0, 0.2)) * np.exp(rng.normal(0, 0.06, 3))
        saturation = math.exp(rng.normal(0, 0.3))
        if grey:
            gains, saturation = np.full(3, gains[0]), 0.0
        matrix = (saturation * np.eye(3) + (1 - saturation) / 3) * gains
        if grey:  # the rows are equal but for rounding: the channels shall be equal to the bit
            matrix[:] = matrix[0]
        image = image.convert("RGB", tuple(float(v) for row in matrix for v in (*row, 0.0)))
        mean = np.asarray(image.resize((16, 16), Image.BOX)).mean() / 255
        levels = np.arange(256) / 255
        levels = mean + (levels - mean) * math.exp(rng.normal(0, 0.3)) + rng.normal(0, 0.04)
        levels = np.clip(levels, 0, 1) ** math.exp(rng.normal(0, 0.2))
        image = image.point([int(v) for v in levels * 255 + 0.5] * 3)
    if rng.random() < 0.2:
        light = smooth_noise(rng, LARGE, 1)[..., None] * np.float32(rng.uniform(0.05, 0.25))
        pixels = np.asarray(image) * np.exp(light)
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return image


def degrade(rng, image):
    """Blur, noise of the sensor and JPEG, each in some pictures."""
    if rng.random() < 0.12:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2.5)))
    if rng.random() < 0.25:
        pixels = np.asarray(image)
        grey = (pixels[..., :1] == pixels).all()  # a grey camera's noise is grey
        shape = (LARGE, LARGE, 1 if grey else 3)
        noise = rng.standard_normal(shape, dtype=np.float32) * np.float32(log_uniform(rng, 1, 14))
        image = Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))
    if rng.random() < 0.15:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(rng.integers(40, 96)))
        image = Image.open(file).convert("RGB")
    return image
