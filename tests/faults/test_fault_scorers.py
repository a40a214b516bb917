"""Rows of the fault matrix about scorers that are given too little, or too much alike."""

import warnings

import numpy as np
import pytest
from _fault_table import Table
from sklearn.base import clone

from skanomaly import (
    LocalKNNScorer,
    MutualScorer,
    PatchGaussianScorer,
    PatchKNNScorer,
    PatchSubspaceScorer,
    RetrievalKNNScorer,
    ScoreUnion,
)

ORDER = 4.5
TABLE = Table(
    "scorers",
    "Too little, and too much alike",
    "If there is too little data for a threshold, a message says so. Nothing is divided by zero.",
)
RNG = np.random.default_rng(0)
TOKENS = RNG.normal(size=(12, 3, 3, 8)).astype(np.float32)
NEW = (1.5 * RNG.normal(size=(4, 3, 3, 8))).astype(np.float32)
Y = np.array([1, 1, -1] * 4)
SCORERS = {
    "knn": PatchKNNScorer(),
    "knn-euclidean": PatchKNNScorer(metric="euclidean"),
    "local": LocalKNNScorer(few=3),
    "gaussian": PatchGaussianScorer(n_components=None),
    "subspace": PatchSubspaceScorer(),
    "retrieval": RetrievalKNNScorer(3),
}


def scores(scorer, X=TOKENS, y=None, new=NEW):
    return clone(scorer).fit(X, y).score_samples(new)


# ---------------------------------------------------------------- too little, and too much alike


def told(scorer, X):
    """Scores, or None for a ValueError, and what is said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = scores(scorer, X)
        except ValueError as error:
            return None, str(error)
    return found, " ".join(str(one.message) for one in caught)


@TABLE.row(
    "every-image-twice-{scorer}",
    "training images that are given twice, in {scorer}",
    "a `UserWarning` names them; a copy would vouch for itself",
    scorer=list(SCORERS),
)
def _(here, scorer):
    with pytest.warns(UserWarning, match="training images 0 and 12, 1 and 13, .* are copies"):
        clone(SCORERS[scorer]).fit(np.concatenate([TOKENS, TOKENS]))


@TABLE.row(
    "all-alike-{scorer}",
    "training images that are all the same, in {scorer}",
    "a `UserWarning` that they are copies, or a `ValueError`: “do not vary”; nothing is NaN",
    scorer=list(SCORERS),
)
def _(here, scorer):
    for value in (0.0, 1.0):
        found, said = told(SCORERS[scorer], np.full_like(TOKENS, value))
        if found is None:
            assert "do not vary" in said
        else:
            assert "are copies" in said and np.isfinite(found).all() and (found < 0).all()


@TABLE.row(
    "one-image-{scorer}",
    "a single training image, in {scorer}",
    "a `UserWarning` says what the threshold is worth, or a `ValueError` how many are needed",
    scorer=list(SCORERS),
)
def _(here, scorer):
    found, said = told(SCORERS[scorer], TOKENS[:1])
    if found is None:
        assert "needs at least" in said and "got n_samples = 1" in said
    else:
        assert "calibrated on a single image" in said
        assert np.isfinite(found).all() and len(set(found.tolist())) == 4


@TABLE.row(
    "constant-component-{scorer}",
    "a component that never varies, in {scorer}",
    "scores are finite; a new image in which it differs is anomalous",
    scorer=list(SCORERS),
)
def _(here, scorer):
    X, new = TOKENS.copy(), TOKENS[:1].copy()
    X[..., 3] = new[..., 3] = 5
    new += np.float32(0.01)
    new[..., 3] = -500
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = clone(SCORERS[scorer]).fit(X)
        assert fitted.predict(new).tolist() == [-1]


@TABLE.row(
    "zeros-under-the-cosine",
    "tokens of zeros, which have no direction, under the cosine distance",
    "they are at distance 1 from all others, and at 0 from each other; never NaN",
)
def _(here):
    scorer = PatchKNNScorer(metric="cosine").fit(TOKENS)
    assert scorer.score_samples(np.zeros_like(NEW)).tolist() == [-1] * 4
    some = TOKENS.copy()
    some[:, 1, 1] = 0
    patches = PatchKNNScorer(metric="cosine").fit(some).score_patches(np.zeros_like(NEW))
    assert (patches == 0).all()


@TABLE.row(
    "zeros-mutual", "images of zeros, scored by each other", "0 for each, and a `UserWarning`"
)
def _(here):
    with pytest.warns(UserWarning, match="are copies"):
        found = MutualScorer().fit(np.zeros_like(TOKENS)).train_scores_
    assert (found == 0).all()


@TABLE.row(
    "union-of-one-blind",
    "a union of which one scorer cannot be fitted",
    "`ValueError` of that scorer; not the scores of the others",
)
def _(here):
    union = ScoreUnion([("knn", PatchKNNScorer()), ("all", PatchGaussianScorer("shared"))])
    with pytest.raises(ValueError, match="do not vary"):
        union.fit(np.ones_like(TOKENS))


@pytest.mark.parametrize("row", TABLE.params())
def test_row(row, tmp_path):
    row.check(tmp_path)
