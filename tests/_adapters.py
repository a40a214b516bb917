"""Helpers of the embedders' tests."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from skanomaly import FilterBankPatches
from skanomaly._images import resize_image


class RowsToImages(TransformerMixin, BaseEstimator):
    """Tokens of images made of rows: brings an embedder before scikit-learn's 2-D checks.

    Parameters
    ----------
    embedder : estimator or None, default=None
        None: ``FilterBankPatches(image_size=16)``.
    """

    def __init__(self, embedder=None):
        self.embedder = embedder

    def fit(self, X, y=None):
        X = validate_data(self, X, dtype="numeric")
        embedder = FilterBankPatches(image_size=16) if self.embedder is None else self.embedder
        self.embedder_ = clone(embedder).fit(self._images(X))
        return self

    def transform(self, X):
        check_is_fitted(self)
        X = validate_data(self, X, dtype="numeric", reset=False)
        return self.embedder_.transform(self._images(X)).reshape(len(X), -1)

    @staticmethod
    def _images(X):
        grey = np.uint8(127.5 + 127 * np.tanh(np.asarray(X, dtype=np.float64)))
        return [np.resize(row, (16, 16)) for row in grey]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


def random_image(height, width, seed=0):
    """(height, width, 3) uint8 noise over a gradient."""
    rng = np.random.RandomState(seed)
    ramp = np.linspace(0, 150, height * width).reshape(height, width, 1)
    return (ramp + rng.randint(0, 100, (height, width, 3))).astype(np.uint8)


def random_images(*sizes, seed=0):
    return [random_image(*size, seed=seed + i) for i, size in enumerate(sizes)]


def cell_means(image):
    """(4, 4, 3) mean colours, an embedding that a user may write."""
    image = resize_image(image, (32, 32), "bilinear")
    scale = 255 if image.dtype == np.uint8 else 1
    return (image / scale).reshape(4, 8, 4, 8, 3).mean(axis=(1, 3))


def assert_close(actual, expected, rtol=1e-5):
    """Equal up to `rtol` of the largest absolute value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= rtol * np.abs(expected).max()


def assert_same(actual, expected):
    """Equal to the bit, in dtype and shape too."""
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    assert actual.tobytes() == expected.tobytes()


def told(caught):
    """What an error says, also where a Pipeline of scikit-learn 1.6 has words of its own for it."""
    return f"{caught.value} {caught.value.__cause__ or ''}"


def skip_without_openvino_bfloat16():
    openvino = pytest.importorskip("openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("OpenVINO has no bfloat16 on this processor")


def count_embedded(monkeypatch, cls):
    """Count the images that embedders of a class really embed: a list with one number a call."""
    calls = []
    original = cls._embed_batch

    def counting(self, images):
        calls.append(len(images))
        return original(self, images)

    monkeypatch.setattr(cls, "_embed_batch", counting)
    return calls


def deviation(tokens, reference):
    """Median of 1 - cosine over the tokens."""
    tokens, reference = np.asarray(tokens, np.float64), np.asarray(reference, np.float64)
    norms = np.linalg.norm(tokens, axis=-1) * np.linalg.norm(reference, axis=-1)
    return np.median(1 - (tokens * reference).sum(-1) / norms)


def deviation_of_bfloat16(n_blocks):
    """The most that 1 - cosine is where products round both factors to bfloat16, by 2**-9 at most.

    A block of a transformer has four products, and their errors are independent: their squares add
    up, and 1 - cosine is half of the sum.
    """
    return n_blocks * 4 * 2 * (2.0**-9) ** 2 / 2
