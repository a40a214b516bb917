"""Tests of resizing with torch: Pillow is the oracle, to one grey level."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from skanomaly import FilterBankPatches, OpenClipPatches, TimmPatches
from skanomaly._images import resize_image
from skanomaly.embedders import _resize
from skanomaly.embedders._resize import fast_resize

torch = pytest.importorskip("torch")

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
SIDES = (1, 2, 3, 5, 14, 31, 64, 97, 200)


def pictures(height, width):
    """Noise, extreme noise, a chess board, stripes, a ramp, white: where roundings differ."""
    rng = np.random.default_rng([height, width])
    shape = (height, width, 3)
    y, x = np.mgrid[:height, :width]
    greys = [(x + y) % 2 * 255, x // 3 % 2 * 255, x * 255 // width, np.full_like(x, 255)]
    yield rng.integers(0, 256, shape, dtype=np.uint8)
    yield rng.integers(0, 2, shape, dtype=np.uint8) * np.uint8(255)
    for grey in greys:
        yield np.repeat(grey[:, :, np.newaxis], 3, axis=2).astype(np.uint8)


def by_pillow(image, size, interpolation):
    return np.array(Image.fromarray(image).resize(size[::-1], FILTERS[interpolation]))


@pytest.mark.parametrize("interpolation", sorted(FILTERS))
def test_pixels_are_pillows_to_one_grey_level(interpolation):
    rng = np.random.default_rng(0)
    cases = [tuple(map(int, rng.choice(SIDES, 4))) for _ in range(150)]
    cases += [(k * side, k * side, side, side) for k in range(2, 8) for side in (7, 14)]
    cases += [(700, 900, 224, 224), (50, 900, 14, 252), (900, 50, 252, 14), (60, 3000, 14, 14)]
    fast = 0
    for *old, height, width in cases:
        for image in pictures(*old):
            got = fast_resize(image, (height, width), interpolation, "a test")
            expected = by_pillow(image, (height, width), interpolation)
            assert got.dtype == np.uint8 and got.shape == expected.shape
            assert np.abs(got.astype(int) - expected).max() <= 1
            fast += _resize._torch_agrees(image, (height, width), interpolation)
    assert fast > 100


@pytest.mark.parametrize(
    "old, new, interpolation, dtype",
    [
        ((64, 64), (32, 32), "lanczos", np.uint8),
        ((64, 64), (32, 32), "nearest", np.uint8),
        ((64, 64), (32, 32), "bicubic", np.float32),
        ((64, 64), (64, 64), "bicubic", np.uint8),
        ((64, 64), (128, 128), "bicubic", np.uint8),
        ((64, 64), (50, 50), "bicubic", np.uint8),
        ((200, 60), (32, 32), "bicubic", np.uint8),
        ((64, 64), (1, 1), "bilinear", np.uint8),
    ],
)
def test_the_rest_is_left_to_pillow(old, new, interpolation, dtype):
    image = np.random.default_rng(0).integers(0, 256, (*old, 3), dtype=np.uint8)
    image = image if dtype == np.uint8 else (image / 255).astype(np.float32)
    got = fast_resize(image, new, interpolation, "a test")
    np.testing.assert_array_equal(got, resize_image(image, new, interpolation))


def test_refuses_what_pillow_refuses():
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    for size, interpolation in (((0, 8), "bicubic"), ((8, 0), "bilinear"), ((8, 8), "area")):
        with pytest.raises(ValueError):
            fast_resize(image, size, interpolation, "a test")


def test_pixels_do_not_depend_on_threads():
    image = next(pictures(300, 400))
    expected = fast_resize(image, (98, 126), "bicubic", "a test")
    before = torch.get_num_threads()
    try:
        for count in (1, 4):
            torch.set_num_threads(count)
            with ThreadPoolExecutor(4) as pool:
                calls = [
                    pool.submit(fast_resize, image, (98, 126), "bicubic", "a test")
                    for _ in range(8)
                ]
            for call in calls:
                np.testing.assert_array_equal(call.result(), expected)
    finally:
        torch.set_num_threads(before)


def test_pixels_do_not_depend_on_the_processor():
    code = (
        "import numpy as np, zlib; from skanomaly.embedders._resize import fast_resize as f;"
        "r = np.random.default_rng(0).integers(0, 256, (99, 140, 3), dtype=np.uint8);"
        "print([zlib.crc32(f(r, (h, w), m, '')) for m in ('bilinear', 'bicubic')"
        " for h, w in ((14, 14), (2, 2), (28, 42), (3, 2))])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "ATEN_CPU_CAPABILITY": capability},
            check=True,
            capture_output=True,
        ).stdout
        for capability in ("default", "avx2")
    }
    assert len(found) == 1


def test_who_resizes_with_torch(monkeypatch):
    image = next(pictures(64, 96))
    marked = np.zeros((32, 32, 3), dtype=np.uint8)
    monkeypatch.setattr("skanomaly.embedders._torch_base.fast_resize", lambda *args: marked)
    for kind in (TimmPatches, OpenClipPatches):
        monkeypatch.setattr(kind, "_interpolation", lambda self: "bicubic")
        assert kind()._resize(image, (32, 32)) is marked
    expected = by_pillow(image, (32, 32), "bicubic")
    np.testing.assert_array_equal(FilterBankPatches()._resize(image, (32, 32)), expected)
