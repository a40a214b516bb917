"""The picture of one part: the image to the pixel, its map, and a caption that says the verdict."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from skanomaly.inspection import overlay_map
from skanomaly.report._picture import part_picture

RED, GREEN = (190, 0, 0), (0, 110, 45)


def part(height, width):
    """An image, a map that is hot in one corner, and the mask of that corner."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    heat = np.zeros((height, width), dtype=np.float32)
    heat[height // 2 :, width // 2 :] = 5
    return image, heat, heat > 0


def has_ink(strip, ink):
    return (np.asarray(strip) == ink).all(axis=-1).any()


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 30), (40, 3), (100, 70), (191, 191), (192, 64), (300, 500), (20, 2000)]
)
@pytest.mark.parametrize("name", ["a.png", "x" * 300 + ".png", "word " * 60])
def test_any_size_keeps_the_image_and_all_of_the_caption(size, name):
    image, heat, mask = part(*size)
    picture = part_picture(image, heat, mask, -1.9, -1.2, (1, 3), name=name, known="scratch")
    factor = 1 if max(size) >= 192 else -(-192 // max(size))
    height, width = size[0] * factor, size[1] * factor
    pixels = np.asarray(picture)
    plain, painted = np.split(pixels[:height:factor, : 2 * width : factor], 2, axis=1)
    np.testing.assert_array_equal(plain, image)
    np.testing.assert_array_equal(painted, overlay_map(image, heat, (1, 3), mask))
    caption = pixels[height:]
    assert has_ink(caption, RED)
    # Nothing is cut: the rim of the caption is blank.
    for rim in (caption[:3], caption[-3:], caption[:, :3], caption[:, -3:]):
        assert (rim == 255).all()
    if width < pixels.shape[1] // 2:
        assert (pixels[:height, 2 * width :] == 255).all()


def written(monkeypatch, *args, **options):
    """The lines of a caption."""
    lines = []
    draw = ImageDraw.ImageDraw.text

    def note(self, xy, text, **rest):
        lines.append(text)
        draw(self, xy, text, **rest)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    part_picture(*args, **options)
    return lines


def test_the_caption_says_the_verdict_and_explains_the_colours(monkeypatch):
    image, heat, mask = part(200, 300)
    options = {"name": "007.png", "known": "scratch", "p_value": 0.0123}
    lines = written(monkeypatch, image, heat, mask, -1.934, -1.25, (0.5, 3.25), **options)
    assert lines == [
        "anomalous: score -1.934 < threshold -1.25, p-value 0.0123",
        "007.png, known: scratch",
        "map: 0.5 ",
        " 3.25",
        "threshold",
        "white and black outline: the known defect",
    ]
    # At the threshold an image is normal; a threshold beyond the colours is not on their scale.
    lines = written(monkeypatch, image, heat, None, -4.0, -4.0, (0.5, 3.25))
    assert lines == ["normal: score -4 >= threshold -4", "map: 0.5 ", " 3.25"]


def test_names_of_any_script_are_shown(monkeypatch):
    image, heat, _ = part(200, 300)
    name = "Stück 部品\udc80\n.png"
    lines = written(monkeypatch, image, heat, None, 1.0, 0.0, (0, 1), name=name)
    assert lines[1] == r"Stuck \u90e8\u54c1\udc80 .png"


def test_the_verdict_has_its_colour_and_the_scale_that_of_the_map():
    image, heat, _ = part(200, 300)
    normal = part_picture(image, heat, None, 1.0, 0.0, (0, 1))
    caption = np.asarray(normal)[200:]
    assert has_ink(caption, GREEN) and not has_ink(caption, RED)
    full = overlay_map(np.full((1, 1, 3), 150, dtype=np.uint8), np.ones((1, 1)), (0, 1))[0, 0]
    assert has_ink(caption, full)


def test_files_and_deep_images_are_shown(tmp_path):
    image, heat, mask = part(200, 300)
    Image.fromarray(image).save(tmp_path / "part.png")
    expected = np.asarray(part_picture(image, heat, mask, -1.0, 0.0, (0, 1)))
    given = part_picture(tmp_path / "part.png", heat, mask, -1.0, 0.0, (0, 1))
    np.testing.assert_array_equal(np.asarray(given), expected)
    deep = part_picture((image / 255).astype(np.float32), heat, mask, -1.0, 0.0, (0, 1))
    # The colour over it is rounded from float32.
    np.testing.assert_allclose(np.asarray(deep, dtype=int), expected, atol=1)
    np.testing.assert_array_equal(np.asarray(deep)[:200, :300], image)


def test_both_sides_show_an_image_of_12_bits_stretched(tmp_path):
    grey = np.random.default_rng(0).integers(0, 4096, (200, 300)).astype(np.uint16)
    grey[0, :2] = 0, 4095
    Image.fromarray(grey).save(tmp_path / "deep.png")
    clear = np.zeros((200, 300), dtype=np.float32)
    picture = np.asarray(part_picture(tmp_path / "deep.png", clear, None, 1.0, 0.0, (0, 1)))
    left, right = picture[:200, :300].astype(int), picture[:200, 300:600].astype(int)
    expected = np.rint(grey / 4095 * 255).astype(int)[..., None]
    assert np.abs(left - expected).max() <= 1 and np.abs(right - expected).max() <= 1


def test_text_grows_with_the_picture():
    heights = []
    for side in (400, 4000):
        image, heat, _ = part(side, side)
        picture = part_picture(image, heat, None, -1.0, 0.0, (0, 1))
        caption = np.asarray(picture)[side:]
        rows = np.flatnonzero((caption == RED).all(axis=-1).any(axis=1))
        heights.append(np.ptp(rows))
    assert 7 < heights[1] / heights[0] < 13
    assert heights[0] >= ImageFont.load_default(size=13).getbbox("l")[3] - 6
