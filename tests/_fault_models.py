"""Tiny images and models that the rows of the fault matrix share."""

import functools
import warnings

import numpy as np
import pytest
from _image_files import encode
from sklearn.pipeline import make_pipeline

from skanomaly import (
    Failure,
    FilterBankPatches,
    ImageReadError,
    PatchKNNScorer,
    iter_scores,
)
from skanomaly._images import load_image

SIZE = 32


def picture(seed: int = 0, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """A picture of which no two orientations are alike."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    smooth = 60 + 90 * rows / height + 60 * (columns > width / 3)
    noise = rng.normal(0, 6, (height, width, 3))
    return np.clip(smooth[..., None] + [0, 10, 20] + noise, 0, 255).astype(np.uint8)


GOOD = [picture(seed) for seed in range(1, 7)]


def embedder(**params) -> FilterBankPatches:
    return FilterBankPatches(**{"image_size": SIZE, **params})


@functools.cache
def fitted():
    """A pipeline that was fitted to GOOD; nobody changes it."""
    return make_pipeline(embedder(), PatchKNNScorer()).fit(GOOD)


@functools.cache
def scores_of_good() -> tuple[float, ...]:
    return tuple(fitted().score_samples(GOOD[:2]).tolist())


def is_refused(item, *says: str, path=None) -> None:
    """The image is refused, by number and path, wherever it is given; the others keep their scores.

    `says` is in the message. `path` is that of the item, where it has one.
    """
    for read in (
        lambda: load_image(item, 2),
        lambda: embedder().transform([*GOOD[:2], item]),
        lambda: fitted().score_samples([*GOOD[:2], item]),
    ):
        with warnings.catch_warnings(), pytest.raises(ImageReadError) as info:
            warnings.simplefilter("error")
            read()
        text = str(info.value)
        assert "image 2 (" in text, text
        for part in says if path is None else (*says, repr(str(path))):
            assert part in text, text
    *judged, failure = iter_scores(fitted(), [*GOOD[:2], item], on_error="record")
    assert isinstance(failure, Failure) and failure.index == 2
    assert "image 2 (" in failure.error and says[0] in failure.error
    assert tuple(decision.score for decision in judged) == scores_of_good()


def is_read_as(item, expected: np.ndarray, tolerance: float = 0) -> None:
    """The image is read as that array, and embedded as if that array had been given."""
    found = load_image(item)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64)).max()
    assert difference <= tolerance, difference
    if tolerance == 0:
        given = embedder().transform([item])
        np.testing.assert_array_equal(given, embedder().transform([expected]))


def saved(folder, image=None, name: str = "part.png", format: str = "PNG", **options):
    """Path of an image file."""
    path = folder / name
    path.write_bytes(encode(picture() if image is None else image, format, **options))
    return path


def row_marks(*libraries: str):
    """Skip a row where an extra is not installed."""
    import importlib.util

    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    return (pytest.mark.skip(reason=f"needs {missing[0]}"),) if missing else ()


HEADER = "image,split,y,mask"
ROWS = ["train0.png,train,1,", "train1.png,train,1,", "good.png,test,1,", "cut.png,test,-1,m.png"]


def folder_of_parts(here, extra=(), header=HEADER, rows=ROWS):
    """A data set of four pictures and a mask, with further rows in its list, `manifest.csv`."""
    root = here / "parts"
    root.mkdir()
    for seed, name in enumerate(("train0", "train1", "good", "cut")):
        saved(root, picture(seed), f"{name}.png")
    marked = np.zeros((32, 32), np.uint8)
    marked[4:9, 4:9] = 255
    saved(root, marked, "m.png")
    (root / "manifest.csv").write_text("\n".join([header, *rows, *extra]) + "\n", encoding="utf-8")
    return root
