"""The picture of one part: its image and its heat map, side by side, above a caption."""

from __future__ import annotations

import unicodedata

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from skanomaly._images import viewable_image
from skanomaly._typing import FloatArray, ImageLike
from skanomaly.inspection import overlay_map
from skanomaly.inspection._displays import verdict_of

# Smaller images are enlarged by a whole factor to at least so many pixels: a dot tells nothing.
_LEAST_SIDE = 192
_LEAST_TEXT = 13  # pixels
# The height of a text is this share of the longer side of the two images; a line of the caption
# holds at least so many text heights, and is at least as wide as the images.
_TEXT_SHARE, _LEAST_LINE = 1 / 58, 22
_PAPER, _INK, _FAINT = (255, 255, 255), (25, 25, 25), (105, 105, 105)
_VERDICT_INK = {"anomalous": (190, 0, 0), "normal": (0, 110, 45)}


def part_picture(
    image: ImageLike,
    heat_map: FloatArray,
    mask: NDArray[np.bool_] | None,
    score: float,
    threshold: float,
    limits: tuple[float, float],
    *,
    name: str | None = None,
    known: str | None = None,
    p_value: float | None = None,
) -> Image.Image:
    """Image and heat map side by side, above a caption with the verdict and a legend.

    Parameters
    ----------
    image : image
        Path, bytes, PIL image or array.
    heat_map : ndarray of shape (height, width)
        Of the image's size; higher is more anomalous.
    mask : ndarray of shape (height, width), bool, or None
        The known defect, which is outlined.
    score, threshold : float
        Of the image: it is anomalous where its score is below the threshold.
    limits : tuple of float
        ``(low, high)`` of the colours.
    name : str or None, default=None
        Of the image, for the caption.
    known : str or None, default=None
        What the part is known to be, such as "good" or a type of defect, for the caption.
    p_value : float or None, default=None
        Of the image, for the caption.

    Returns
    -------
    PIL.Image.Image
        In colour. At the top left stands the image, pixel by pixel, and right of it the same under
        its heat map; images of less than 192 pixels are enlarged by a whole factor. The caption
        below is as wide or, for narrow images, wider.

    Notes
    -----
    An image score is minus an aggregate of patch scores, so that an image at the threshold has
    patches of about minus the threshold: there the legend marks it, where that lies within the
    limits.

    Pillow's own font holds ASCII: accents are left out, and other characters escaped.
    """
    pixels = viewable_image(image)
    painted = overlay_map(pixels, heat_map, limits, mask)
    if pixels.dtype != np.uint8:
        pixels = (pixels * 255 + 0.5).astype(np.uint8)
    parts = np.hstack([pixels, painted])
    factor = -(-_LEAST_SIDE // max(heat_map.shape))
    parts = parts.repeat(factor, axis=0).repeat(factor, axis=1)
    caption = _Caption(max(parts.shape[:2]), parts.shape[1])
    verdict = verdict_of(score, threshold)
    sign = "<" if verdict == "anomalous" else ">="
    chance = "" if p_value is None else f", p-value {p_value:.3g}"
    caption.write(
        f"{verdict}: score {score:.4g} {sign} threshold {threshold:.4g}{chance}",
        _VERDICT_INK[verdict],
    )
    if name is not None or known is not None:
        told = "" if known is None else f"known: {known}"
        caption.write(", ".join(text for text in (name, told) if text), _FAINT)
    caption.draw_scale(limits, -threshold)
    if mask is not None and np.any(mask):
        caption.write("white and black outline: the known defect", _FAINT)
    strip = caption.strip()
    out = Image.new("RGB", (strip.width, parts.shape[0] + strip.height), _PAPER)
    out.paste(Image.fromarray(parts), (0, 0))
    out.paste(strip, (0, parts.shape[0]))
    return out


class _Caption:
    """A strip of lines of text, wrapped to its width, which grows downwards.

    Parameters
    ----------
    side : int
        Longer side of what it stands below, to which the text is in proportion.
    width : int
        Of what it stands below.
    """

    def __init__(self, side: int, width: int) -> None:
        self.size = max(_LEAST_TEXT, round(side * _TEXT_SHARE))
        self.font = ImageFont.load_default(size=self.size)
        self.margin = self.size // 2
        self.width = max(width, _LEAST_LINE * self.size)
        self.rows: list[Image.Image] = []

    def write(self, text: str, ink: tuple[int, int, int]) -> None:
        """Add text in as many lines as it takes."""
        for line in self._wrap(_printable(text)):
            self._draw(self._row(1.35), (self.margin, 0), line, ink)

    def draw_scale(self, limits: tuple[float, float], threshold: float) -> None:
        """Add the scale of colours, with its limits and the threshold where it lies within."""
        low, high = limits
        x = self.margin
        row = self._row(1.5)
        x = self._draw(row, (x, 0), f"map: {low:.3g} ", _FAINT)
        bar = np.broadcast_to(np.linspace(0, 1, 8 * self.size), (self.size, 8 * self.size))
        grey = np.full((*bar.shape, 3), 150, dtype=np.uint8)
        row.paste(Image.fromarray(overlay_map(grey, bar, (0, 1))), (x, self.margin // 2))
        self._draw(row, (x + bar.shape[1], 0), f" {high:.3g}", _FAINT)
        if low < threshold < high:
            at = x + round((threshold - low) / (high - low) * (bar.shape[1] - 1))
            row = self._row(1.35)
            tick = max(1, self.size // 10)
            ImageDraw.Draw(row).rectangle((at, 0, at + tick, self.size // 2), fill=_INK)
            label = "threshold"
            x = min(at + self.margin, self.width - self.margin - self._length(label))
            self._draw(row, (x, 0), label, _FAINT)

    def strip(self) -> Image.Image:
        """The strip so far."""
        height = sum(row.height for row in self.rows) + 2 * self.margin
        out, y = Image.new("RGB", (self.width, height), _PAPER), self.margin
        for row in self.rows:
            out.paste(row, (0, y))
            y += row.height
        return out

    def _row(self, height: float) -> Image.Image:
        row = Image.new("RGB", (self.width, round(height * self.size)), _PAPER)
        self.rows.append(row)
        return row

    def _draw(self, row, where, text, ink):
        """Draw text, and return where it ends."""
        ImageDraw.Draw(row).text(where, text, fill=ink, font=self.font)
        return where[0] + self._length(text)

    def _length(self, text):
        return int(np.ceil(self.font.getlength(text)))

    def _wrap(self, text):
        """Lines that fit: broken at spaces, and within a word only where it fills a line."""
        most, line = self.width - 2 * self.margin, ""
        for word in text.split():
            if line and self._length(f"{line} {word}") > most:
                yield line
                line = ""
            line = f"{line} {word}".strip()
            while self._length(line) > most:
                n = next(n for n in range(1, len(line)) if self._length(line[: n + 1]) > most)
                yield line[:n]
                line = line[n:]
        yield line


def _printable(text):
    """Text in ASCII: accents left out, and what cannot be shown escaped."""
    letters = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(letters).encode("ascii", "backslashreplace").decode("ascii")
