"""Each of our checks fails for an estimator that is broken in just its way, and for no other."""

import copy
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.base import BaseEstimator, clone

from skanomaly import FilterBankPatches, FunctionPatches, PatchGaussianScorer, PatchKNNScorer
from skanomaly.estimator_checks import (
    EMBEDDER_CHECKS,
    SCORER_CHECKS,
    check_estimator,
    checks_of,
    parametrize_with_checks,
)


class Broken(PatchGaussianScorer):
    """A scorer that passes all checks, until one method is broken."""

    def __init__(self, *, topk=0.01, aggregation="topk_mean", contamination=0.1):
        super().__init__("shared", topk=topk, aggregation=aggregation, contamination=contamination)


class NotByForm(Broken):
    def score_samples(self, X):
        factor = 1 + (getattr(X, "ndim", 4) == 3)
        return factor * super().score_samples(X)


class NotByGrid(Broken):
    def fit(self, X, y=None):
        if isinstance(X, np.ndarray) and len({image.shape for image in X}) > 1:
            raise ValueError("images cannot be stacked")
        return super().fit(X, y)


class WithoutViews(Broken):
    def fit(self, X, y=None):
        if np.ndim(X) == 5:
            X = X.reshape(-1, *X.shape[2:])
        return super().fit(X, y)


class ByBatch(Broken):
    def _score_images(self, tokens):
        return super()._score_images(tokens) * (1 + 0.001 * tokens.n_images)


class CountsMasked(Broken):
    def _aggregate(self, tokens, scores):
        whole = copy.copy(tokens)
        object.__setattr__(whole, "valid", np.ones_like(tokens.valid))
        return super()._aggregate(whole, np.where(tokens.valid, scores, 0))


class TakesAnything(Broken):
    def score_samples(self, X):
        if np.ndim(X) == 4:
            X = np.nan_to_num(X, posinf=1)
        return super().score_samples(X)


class ForgetsTrainingImages(Broken):
    def fit(self, X, y=None, groups=None):
        super().fit(X, y, groups=groups)
        self._held_out_scores = {}
        return self


class OtherShare(Broken):
    def fit(self, X, y=None):
        super().fit(X, y)
        self.offset_ = float(np.quantile(self.train_scores_, self.contamination / 3))
        return self


class NeverHeldOut(PatchKNNScorer):
    """The threshold of an image's own patches."""

    def _held_out(self, tokens):
        base = tokens.select_view(0)
        new = np.full(tokens.n_images, -1)
        return np.arange(tokens.n_images), self._score_model(self._model, base, new)


class IgnoresGroups(PatchKNNScorer):
    def fit(self, X, y=None, groups=None):
        return super().fit(X, y)


class TakesDefects(Broken):
    def fit(self, X, y=None):
        return super().fit(X)


class OtherSign(Broken):
    def _score_model(self, model, tokens, known):
        return -super()._score_model(model, tokens, known)


class SinglePrecision(Broken):
    def decision_function(self, X):
        return super().decision_function(X).astype(np.float32)


class OtherPair(Broken):
    def score_patches(self, X, return_scores=False):
        out = super().score_patches(X, return_scores=return_scores)
        return (out[0], -out[1]) if return_scores else out


class WritesToTokens(Broken):
    def _score_model(self, model, tokens, known):
        scores = super()._score_model(model, tokens, known)
        tokens.values[:, 0] *= 1 + 1e-6
        return scores


class KeepsItsInput(Broken):
    def fit(self, X, y=None):
        self.kept_ = X
        self.mean_ = np.mean(X[0]) if np.ndim(X) == 4 else None
        return super().fit(X, y)

    def score_samples(self, X):
        scores = super().score_samples(X)
        if self.mean_ is not None and not np.isnan(self.mean_):
            scores = scores + np.mean(self.kept_[0]) - self.mean_
        return scores


class TakesBools(Broken):
    def _validate_params(self):
        self.contamination = float(self.contamination)


class FittedClone(Broken):
    def __sklearn_clone__(self):
        return copy.deepcopy(self)


class WithoutMaps(Broken):
    def score_patches(self, X, return_scores=False):
        out = super().score_patches(X, return_scores=return_scores)
        return (out[0] + np.inf, out[1]) if return_scores and np.shape(X)[1:3] == (4, 4) else out


class OwnEmbedder(FilterBankPatches):
    """An embedder that passes all checks, until one method is broken."""

    def __init__(self, image_size=32, *, augmentation=None, batch_size=8):
        super().__init__(image_size=image_size, augmentation=augmentation, batch_size=batch_size)


class DoublePrecision(OwnEmbedder):
    def transform(self, X):
        return super().transform(X).astype(np.float64)


class TokensByBatch(OwnEmbedder):
    def _embed(self, items, numbers, views, spans):
        for of_image in super()._embed(items, numbers, views, spans):
            yield [tokens * np.float32(len(numbers)) for tokens in of_image]


class WithoutPillow(OwnEmbedder):
    def transform(self, X):
        if any(isinstance(image, Image.Image) for image in X):
            raise TypeError("arrays only")
        return super().transform(X)


class StacksBySize(OwnEmbedder):
    def transform(self, X):
        tokens = super().transform(X)
        if len({np.shape(image) for image in X}) == 1:
            return tokens
        out = np.empty(len(tokens), dtype=object)
        out[:] = list(tokens)
        return out


class ImageLast(OwnEmbedder):
    def fit_transform(self, X, y=None):
        tokens = super().fit_transform(X, y)
        return tokens[:, ::-1].copy() if tokens.ndim == 5 else tokens


class FitsAnything(OwnEmbedder):
    def fit(self, X, y=None):
        return self


class SaysNotWhich(OwnEmbedder):
    def transform(self, X):
        try:
            return super().transform(X)
        except OSError:
            raise ValueError("cannot be read") from None


class WritesToImages(OwnEmbedder):
    def fit_transform(self, X, y=None):
        tokens = super().fit_transform(X, y)
        X[0][:] = 0
        return tokens


class FitsTrue(OwnEmbedder):
    def _validate_params(self):
        pass


class HoldsWeights(OwnEmbedder):
    def fit(self, X, y=None):
        self.weights_ = np.ones(10**5)
        return super().fit(X, y)


class NeverRefuses(OwnEmbedder):
    def transform(self, X):
        return OwnEmbedder.transform(clone(self), X)


class OneName(OwnEmbedder):
    def get_feature_names_out(self, input_features=None):
        return ["token"]


BROKEN_SCORERS = {
    "forms": NotByForm,
    "mixed_grids": NotByGrid,
    "views": WithoutViews,
    "batches": ByBatch,
    "masks": CountsMasked,
    "not_finite": TakesAnything,
    "training_images": ForgetsTrainingImages,
    "contamination": OtherShare,
    "new_images": NeverHeldOut,
    "groups": IgnoresGroups,
    "labels": TakesDefects,
    "signs": OtherSign,
    "output": SinglePrecision,
    "return_scores": OtherPair,
    "writes": WritesToTokens,
    "input": KeepsItsInput,
    "bools": TakesBools,
    "persistence": FittedClone,
    "maps": WithoutMaps,
}
BROKEN_EMBEDDERS = {
    "output": DoublePrecision,
    "batches": TokensByBatch,
    "containers": WithoutPillow,
    "grids": StacksBySize,
    "augmentation": ImageLast,
    "refusals": FitsAnything,
    "broken_images": SaysNotWhich,
    "input": WritesToImages,
    "bools": FitsTrue,
    "persistence": HoldsWeights,
    "changes": NeverRefuses,
    "output_config": OneName,
}
# What else goes wrong with it.
BESIDES = {
    ByBatch: {
        *("contamination", "maps", "masks", "mixed_grids", "new_images", "return_scores"),
        *("groups", "training_images", "views"),
    },
    ForgetsTrainingImages: {"groups", "views"},
    NeverHeldOut: {"contamination", "groups"},
    WritesToTokens: {"input", "persistence", "signs"},
    SinglePrecision: {"signs"},
    OtherPair: {"maps", "masks", "mixed_grids"},
    DoublePrecision: {"grids"},
    TokensByBatch: {"grids"},
    FitsAnything: {"bools", "changes"},
    WritesToImages: {"augmentation"},
}


def failing(estimator):
    """Names of the checks that an estimator fails."""
    names = set()
    for check in checks_of(estimator):
        try:
            check(estimator)
        except (AssertionError, TypeError, ValueError):
            names.add(short(check))
    return names


def short(check):
    return check.__name__.removeprefix("check_patch_scorer_").removeprefix("check_embedder_")


def test_there_is_a_broken_estimator_for_each_check():
    assert list(BROKEN_SCORERS) == [short(check) for check in SCORER_CHECKS]
    assert list(BROKEN_EMBEDDERS) == [short(check) for check in EMBEDDER_CHECKS]


@pytest.mark.parametrize(
    "check, broken",
    [
        *zip(SCORER_CHECKS, BROKEN_SCORERS.values(), strict=True),
        *zip(EMBEDDER_CHECKS, BROKEN_EMBEDDERS.values(), strict=True),
    ],
    ids=lambda value: value.__name__,
)
def test_the_check_fails(check, broken):
    with pytest.raises((AssertionError, TypeError, ValueError)):
        check(broken())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, broken",
    [*BROKEN_SCORERS.items(), *BROKEN_EMBEDDERS.items()],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_no_other_check_fails(name, broken):
    assert failing(broken()) == {name} | BESIDES.get(broken, set())


def test_what_is_not_broken_passes():
    check_estimator(Broken())


def test_checks_of():
    assert checks_of(Broken()) == list(SCORER_CHECKS)
    assert checks_of(OwnEmbedder()) == list(EMBEDDER_CHECKS)
    with pytest.raises(TypeError, match="neither a scorer, with score_patches, nor an embedder"):
        checks_of(BaseEstimator())
    with pytest.raises(TypeError, match="an instance, not the class PatchKNNScorer"):
        check_estimator(PatchKNNScorer)


def test_names_of_cases_hold_no_address():
    mark = parametrize_with_checks([FunctionPatches(failing), PatchKNNScorer()])
    ids = [case.id for case in mark.args[1]]
    assert ids[0] == "FunctionPatches(func=<functionfailing>)-check_embedder_output"
    assert ids[-1] == "PatchKNNScorer()-check_patch_scorer_maps"


def test_pytest_is_not_needed():
    code = "import sys; sys.modules['pytest'] = None; import skanomaly.estimator_checks"
    subprocess.run([sys.executable, "-c", code], check=True)
