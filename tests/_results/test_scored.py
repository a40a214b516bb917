"""Images that a fitted detector judged, with and without labels."""

import numpy as np
import pytest
from PIL import Image
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, PatchKNNScorer, create_model
from skanomaly._results.scored import scored_images
from skanomaly.datasets import ImageSet, make_surfaces
from skanomaly.inspection import p_values, score_images


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    made = make_surfaces(9, 2, surface="fabric", image_size=64, random_state=0)
    for i, image in enumerate(made.images):
        Image.fromarray(image).save(folder / f"{i:02}.png")
    return sorted(folder.glob("*.png"))


@pytest.fixture(scope="module")
def pipe(files):
    return create_model("filterbank", scorer="knn", image_size=64).fit(files[:8])


def test_paths(files, pipe):
    new = files[8:]
    found = scored_images(pipe, list(map(str, new)))
    grids, scores = score_images(pipe, new)
    assert found.images == new and len(found) == 3 and found.name == str(files[0].parent)
    np.testing.assert_array_equal(found.scores, scores)
    np.testing.assert_array_equal(found.patch_scores, grids)
    np.testing.assert_array_equal(found.p_values, p_values(pipe, new))
    assert found.threshold == pipe[-1].offset_ and found.contamination == 0.1
    assert found.estimator is pipe
    assert found.y is found.defect_types is found.test is None
    assert repr(found).endswith(f"3 images, {(scores < pipe[-1].offset_).sum()} called anomalous)")


def test_labels(files, pipe):
    known = ImageSet(files[8:], [1, -1, -1], [None] * 3, ["good", "dent", "dent"], "parts/new")
    found = scored_images(pipe, known)
    assert found.test is known and found.y is known.y and found.name == "parts/new"
    assert found.defect_types == ("good", "dent", "dent")
    assert scored_images(pipe, known, "line 3").name == "line 3"


def test_what_cannot_be_scored(files, pipe):
    with pytest.raises(ValueError, match="there is no image"):
        scored_images(pipe, [])
    with pytest.raises(TypeError, match="takes patch tokens, not images"):
        scored_images(PatchKNNScorer(), files)
    with pytest.raises((NotFittedError, TypeError)):
        scored_images(create_model("filterbank"), files)


class _NoPValues(OutlierMixin, BaseEstimator):
    """The protocol of scorers, no more."""

    offset_ = -1.0

    def fit(self, X, y=None):
        return self

    def score_samples(self, X):
        return self.score_patches(X, return_scores=True)[1]

    def decision_function(self, X):
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        return np.where(self.decision_function(X) < 0, -1, 1)

    def score_patches(self, X, return_scores=False):
        patches = np.asarray(X)[..., 0]
        return (patches, -patches.max(axis=(1, 2))) if return_scores else patches

    def __sklearn_is_fitted__(self):
        return True


def test_a_scorer_without_p_values(files):
    embedder = FilterBankPatches(image_size=64)
    none = make_pipeline(embedder, _NoPValues()).fit(files[:8])
    assert scored_images(none, files[8:]).p_values is None
