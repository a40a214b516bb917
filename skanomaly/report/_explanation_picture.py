"""The picture of an explanation: the image, its worst place, and what that is compared to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from skanomaly._images import viewable_image
from skanomaly.inspection import Explanation
from skanomaly.inspection._displays import verdict_of
from skanomaly.inspection._explanation import Box
from skanomaly.report._picture import _FAINT, _INK, _PAPER, _VERDICT_INK, _Caption

_TILE = 320  # pixels: side of each picture
_GAP = 8
_AROUND = 2  # patches that a close-up shows on each side of the one in the middle
_FRAME = (176, 0, 160)  # violet, on white: it is seen over anything
_NOTHING = (238, 238, 238)


def explanation_picture(
    explanation: Explanation, score: float, threshold: float, p_value: float | None, name: str
) -> Image.Image:
    """The image, a close-up of its worst patch, and close-ups of the nearest training patches.

    Parameters
    ----------
    explanation : Explanation
        As from :func:`skanomaly.explain`.
    score, threshold : float
        Of the image: it is anomalous where its score is below the threshold.
    p_value : float or None
        Of the image.
    name : str
        Of the image, for the caption.

    Returns
    -------
    PIL.Image.Image
        In colour, above a caption with the explanation in words. In place of a training image that
        cannot be shown stands the reason.
    """
    photograph = _photograph(explanation.image)
    frames = [explanation.box]
    if explanation.region is not None:
        frames.insert(0, explanation.region.box)
    tiles = [
        (_whole(photograph, frames), "image, with the patch in its region"),
        (_close_up(photograph, explanation.box), "patch"),
    ]
    names = _short_names([near.path for near in explanation.neighbors])
    for near, named in zip(explanation.neighbors, names, strict=True):
        where = named or f"image {near.image_number}"
        label = f"{where}: distance {near.distance:.4g}"
        if near.path is None or near.box is None:
            tiles.append((_blank(near.problem or "the image was given as no file"), label))
        else:
            tiles.append((_close_up(_photograph(near.path), near.box), label))
    strips = [_labelled(tile, label) for tile, label in tiles]
    width = sum(strip.width for strip in strips) + _GAP * (len(strips) - 1)
    caption = _Caption(2 * _TILE, width)
    verdict = verdict_of(score, threshold)
    sign = "<" if verdict == "anomalous" else ">="
    chance = "" if p_value is None else f", p-value {p_value:.3g}"
    caption.write(
        f"{verdict}: score {score:.4g} {sign} threshold {threshold:.4g}{chance}",
        _VERDICT_INK[verdict],
    )
    caption.write(name, _FAINT)
    for line in _without_folders(explanation).lines():
        caption.write(line, _INK)
    text = caption.strip()
    height = max(strip.height for strip in strips)
    out = Image.new("RGB", (max(width, text.width), height + text.height), _PAPER)
    x = 0
    for strip in strips:
        out.paste(strip, (x, 0))
        x += strip.width + _GAP
    out.paste(text, (0, height))
    return out


def _without_folders(explanation: Explanation) -> Explanation:
    """With short names: a picture is passed on, and folders are those of one computer."""
    names = _short_names([near.path for near in explanation.neighbors])
    named = zip(explanation.neighbors, names, strict=True)
    neighbors = tuple(replace(near, path=name) for near, name in named)
    return replace(explanation, neighbors=neighbors)


def _short_names(paths: Sequence[str | None]) -> list[str | None]:
    """The names of files, each with as many folders as tell them from each other."""
    parts = [None if path is None else Path(path).parts for path in paths]
    different = {path for path in parts if path is not None}
    n_parts = 1
    while len({path[-n_parts:] for path in different}) < len(different):
        n_parts += 1
    return [None if path is None else str(Path(*path[-n_parts:])) for path in parts]


def _photograph(image: Any) -> Image.Image:
    pixels = viewable_image(image)
    if pixels.dtype != np.uint8:
        pixels = (pixels * 255 + 0.5).astype(np.uint8)
    return Image.fromarray(pixels)


def _whole(photograph: Image.Image, frames: list[Box]) -> Image.Image:
    """An image that fits into a tile, with frames."""
    scale = _TILE / max(photograph.size)
    size = [max(1, round(side * scale)) for side in photograph.size]
    picture = photograph.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    for box in frames:
        _frame(picture, [value * scale for value in box])
    return picture


def _close_up(photograph: Image.Image, box: Box) -> Image.Image:
    """A patch in a frame, with what is around it."""
    x, y, width, height = box
    side = (1 + 2 * _AROUND) * max(width, height)
    left = x + width / 2 - side / 2
    top = y + height / 2 - side / 2
    scale = _TILE / side
    # What lies beyond the image is grey: the patch stays in the middle.
    part = Image.new("RGB", (side, side), _NOTHING)
    part.paste(photograph, (-round(left), -round(top)))
    picture = part.resize((_TILE, _TILE), Image.Resampling.BICUBIC)
    corner = x - round(left), y - round(top)
    _frame(picture, [value * scale for value in (*corner, width, height)])
    return picture


def _frame(picture: Image.Image, box: list[float]) -> None:
    x, y, width, height = box
    draw = ImageDraw.Draw(picture)
    for grow, colour in ((2, (255, 255, 255)), (1, _FRAME)):
        corners = (x - grow, y - grow, x + width + grow - 1, y + height + grow - 1)
        draw.rectangle([round(corner) for corner in corners], outline=colour, width=grow)


def _blank(reason: str) -> Image.Image:
    picture = Image.new("RGB", (_TILE, _TILE), _NOTHING)
    caption = _Caption(_TILE, _TILE)
    caption.write(reason, _INK)
    picture.paste(caption.strip().crop((0, 0, _TILE, _TILE // 2)), (0, _TILE // 4))
    return picture


def _labelled(tile: Image.Image, label: str) -> Image.Image:
    caption = _Caption(_TILE, _TILE)
    caption.write(label, _INK)
    text = caption.strip()
    out = Image.new("RGB", (max(tile.width, text.width), _TILE + text.height), _PAPER)
    out.paste(tile, (0, 0))
    out.paste(text, (0, _TILE))
    return out
