"""Rows of the fault matrix about labels and patch tokens."""

import datetime

import numpy as np
import pytest
from _fault_models import row_marks
from _fault_table import Table
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skanomaly import (
    LocalKNNScorer,
    PatchGaussianScorer,
    PatchKNNScorer,
    PatchSubspaceScorer,
    RetrievalKNNScorer,
)

ORDER = 4
TABLE = Table(
    "tokens",
    "Labels and patch tokens",
    "If something enters a model by mistake, the model can no longer find it as a defect. A\n"
    "label, a token or a number that is not what it seems is therefore refused, or has no\n"
    "effect.",
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


# ---------------------------------------------------------------- labels

KINDS = ["good", "good", "rust"] * 4
BAD_Y = {
    "bools": (Y == 1, "got bools: pass np.where(y, -1, 1) if True marks the anomalous images"),
    "words": (KINDS, "got text, 'good', 'rust': pass np.where(np.asarray(y) == 'good', 1, -1)"),
    "signs-as-text": (Y.astype(str), "pass np.asarray(y, dtype=float)"),
    "none": ([*Y[:11], None], "got None: leave out the images whose label is not known"),
    "nan": ([*Y[:11], np.nan], "got NaN: leave out the images whose label is not known"),
    "complex": (Y.astype(complex), "use +1 and -1|must hold +1 (normal) and -1 (anomalous) only"),
    "dates": ([datetime.date(2024, 1, 1)] * 12, "must hold +1 (normal) and -1 (anomalous) only"),
    "two-columns": (np.stack([Y, Y], axis=1), "y has shape (12, 2): pass one label for each image"),
    "a-number": (1, "y has shape (): pass one label for each image"),
    "too-few": (Y[:11], "y holds 11 labels, but there are 12 images: pass one for each"),
    "too-many": ([*Y, 1], "y holds 13 labels, but there are 12 images: pass one for each"),
    "zeros-beside": (np.where(Y == 1, 0, -1), "y holds -1 for anomalous images, but also 0"),
    "a-two": ([*Y[:11], 2], "y holds -1 for anomalous images, but also 2"),
    "no-normal": (-np.ones(12), "y holds no normal image (+1)"),
}
for name, (labels, says) in BAD_Y.items():
    TABLE.error(
        f"labels-{name}",
        f"labels: {name.replace('-', ' ')}",
        ValueError,
        (says.rpartition("|")[2],),
        lambda here, labels=labels: PatchKNNScorer().fit(TOKENS, labels),
    )


@TABLE.row(
    "labels-{kind}",
    "labels {kind}, as other packages have them",
    "a `UserWarning` names them and says what to pass; every image counts as normal",
    kind={"0-1": "0 and 1", "1-2": "1 and 2", "0": "0 alone"},
)
def _(here, kind):
    y = {"0-1": (Y < 0) * 1, "1-2": (Y < 0) + 1, "0": np.zeros(12)}[kind]
    with pytest.warns(UserWarning, match="are no labels of normal .* every image is taken for"):
        found = scores(PatchKNNScorer(), y=y)
    assert found.tolist() == scores(PatchKNNScorer()).tolist()


@TABLE.row(
    "labels-right-{kind}",
    "labels +1 and -1 as {kind}",
    "no image of -1 enters the model: the scores are those of a fit without them",
    kind=["int8", "float32", "list", "column", "object"],
)
def _(here, kind):
    y = {"list": Y.tolist(), "column": Y[:, None]}.get(kind)
    y = Y.astype(kind) if y is None else y
    without = scores(PatchKNNScorer(), TOKENS[Y == 1])
    assert scores(PatchKNNScorer(), y=y).tolist() == without.tolist()
    assert scores(PatchKNNScorer()).tolist() != without.tolist()


# ---------------------------------------------------------------- types of tokens


@TABLE.row(
    "tokens-{kind}",
    "patch tokens of {kind}",
    "the scores of the same numbers in float32",
    kind=["float16", "float64", "longdouble", "int8", "uint8", "int16", "int64", "uint64", "bool"],
)
def _(here, kind):
    shifted = np.round(TOKENS * 9) + (40 if kind[0] == "u" else 0)
    made = (shifted > 4) if kind == "bool" else shifted.astype(kind)
    new = np.round(NEW * 9) + (60 if kind[0] == "u" else 0)
    new = (new > 4) if kind == "bool" else new.astype(kind)
    found = scores(PatchKNNScorer(metric="euclidean"), made, new=new)
    expected = scores(
        PatchKNNScorer(metric="euclidean"), made.astype(np.float32), new=new.astype(np.float32)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def with_token(value, at=(2, 1, 1, 3)):
    X = TOKENS.copy()
    X[at] = value
    return X


def tensor(*, bfloat16=False, grad=False):
    import torch

    made = torch.tensor(TOKENS, requires_grad=grad)
    return made.bfloat16() if bfloat16 else made


ONE = "patch 4 of image 2"
BAD_TOKENS = {
    "complex": (lambda: TOKENS.astype(complex), ValueError, "Complex data not supported"),
    "text": (lambda: TOKENS.astype(str), ValueError, "holds strings. Patch tokens are"),
    "dates": (lambda: TOKENS.astype("datetime64[s]"), ValueError, "holds no numbers"),
    "durations": (lambda: TOKENS.astype("timedelta64[s]"), ValueError, "holds no numbers"),
    "records": (lambda: np.zeros(4, [("a", "f4")]), ValueError, "holds no numbers"),
    "sparse": (lambda: sparse.csr_array(TOKENS[:, 0, 0]), TypeError, "dense data is required"),
    "none": (lambda: None, ValueError, "Expected 2D array, got scalar"),
    "a-number": (lambda: 3.0, ValueError, "Expected 2D array, got scalar"),
    "empty": (lambda: TOKENS[:0], ValueError, "minimum of 1 is required"),
    "no-patch": (lambda: TOKENS[:, :0], ValueError, "holds no patch token"),
    "no-component": (lambda: TOKENS[..., :0], ValueError, "holds no patch token"),
    "one-dimension": (lambda: TOKENS[0, 0, 0], ValueError, "Expected 2D array, got 1D"),
    "six-dimensions": (lambda: TOKENS[None, None], ValueError, "too many dimensions"),
    "nan-in-part": (lambda: with_token(np.nan), ValueError, ONE),
    "infinity": (lambda: with_token(np.inf), ValueError, ONE),
    "minus-infinity": (lambda: with_token(-np.inf), ValueError, ONE),
    "all-masked": (lambda: with_token(np.nan, 2), ValueError, "every patch of image 2 is masked"),
    "masked-array": (lambda: np.ma.masked_less(TOKENS, 0), ValueError, "pass X.filled(np.nan)"),
    "images": (lambda: ["a.png", "b.png"], ValueError, "put an embedder before it for images"),
    "mixed-dims": (
        lambda: [TOKENS[0], TOKENS[1, ..., :5]],
        ValueError,
        "element 1 of X has tokens of dimension 5, element 0 of 8",
    ),
    "beyond-float32": (lambda: TOKENS * np.float64(1e200), ValueError, "beyond float32"),
    "below-float32": (lambda: TOKENS * np.float64(1e-300), ValueError, "brings them near 1"),
}
for name, (make, error, says) in BAD_TOKENS.items():
    TABLE.error(
        f"tokens-{name}",
        f"patch tokens: {name.replace('-', ' ')}",
        error,
        (says,),
        lambda here, make=make: PatchKNNScorer().fit(make()),
    )
for name, options in {"bfloat16": {"bfloat16": True}, "gradients": {"grad": True}}.items():
    TABLE.error(
        f"tokens-tensor-{name}",
        f"a tensor of torch with {name}",
        TypeError,
        ("X is a tensor that NumPy cannot read", "pass X.detach().float().cpu().numpy()"),
        lambda here, options=options: PatchKNNScorer().fit(tensor(**options)),
        row_marks("torch"),
    )


@TABLE.row(
    "tokens-tensor", "a tensor of torch in float32", "the scores of its array", row_marks("torch")
)
def _(here):
    assert scores(PatchKNNScorer(), tensor()).tolist() == scores(PatchKNNScorer()).tolist()


@TABLE.row(
    "masked-patches",
    "patches that are NaN in all components",
    "they enter no model, count for no score and are 0 in maps",
)
def _(here):
    held = TOKENS.copy()
    held[:, 0, 0] = np.nan
    scorer = PatchKNNScorer().fit(held)
    new = NEW.copy()
    new[1, 2, 2] = np.nan
    patches, found = scorer.score_patches(new, return_scores=True)
    assert patches[1, 2, 2] == 0 and np.isfinite(found).all()
    left = PatchKNNScorer().fit(held.reshape(12, 9, 8)[:, 1:])  # without them altogether
    assert scorer.score_samples(NEW).tolist() == left.score_samples(NEW.reshape(4, 9, 8)).tolist()


@TABLE.row(
    "size-{scorer}-{size}",
    "float32 tokens that are all multiplied by {size}, in {scorer}",
    "the scores in proportion, or a `ValueError` that says to scale them; not 0 throughout",
    scorer=list(SCORERS),
    size=["1e-30", "1e-12", "1e12", "1e30"],
)
def _(here, scorer, size):
    base, factor = scores(SCORERS[scorer]), float(size)
    X, new = (np.float32(factor) * tokens for tokens in (TOKENS, NEW))
    try:
        fitted = clone(SCORERS[scorer]).fit(X)
        patches, found = fitted.score_patches(new, return_scores=True)
    except ValueError as error:
        assert "brings them near 1" in str(error)
    else:
        ratio = found / base
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
        powers = [factor**power for power in (0, 1, 2)]
        assert np.isclose(ratio[0], powers, rtol=1e-4, atol=0).any()
        assert np.isfinite(patches).all()


@TABLE.row(
    "other-{what}",
    "new tokens of another {what} than those of `fit`",
    "`ValueError` that names both numbers",
    what={"dim": "dimension", "grid": "grid, where places count"},
)
def _(here, what):
    if what == "dim":
        with pytest.raises(ValueError, match="X has 7 features, but PatchKNNScorer is expecting 8"):
            PatchKNNScorer().fit(TOKENS).score_samples(NEW[..., :7])
    else:
        scorer = PatchGaussianScorer(n_components=None).fit(TOKENS)
        with pytest.raises(ValueError, match="grid of image 1 is .2, 3., that of the training"):
            scorer.score_samples([NEW[0], NEW[1][:2]])


@TABLE.row("views-to-score", "5-D tokens with views, to be scored", "`ValueError`: “only for fit”")
def _(here):
    scorer = PatchKNNScorer().fit(TOKENS[:, None])
    with pytest.raises(ValueError, match="views are only for fit"):
        scorer.score_samples(NEW[:, None])


@TABLE.row("not-fitted", "a scorer that was not fitted", "`NotFittedError`")
def _(here):
    for scorer in SCORERS.values():
        with pytest.raises(NotFittedError):
            clone(scorer).score_samples(NEW)


@TABLE.row(
    "changed-{name}",
    "`{name}` is set after `fit`",
    "`NotFittedError` that names it, and says to fit again; not the scores of before",
    name=["n_neighbors", "metric", "topk"],
)
def _(here, name):
    scorer = PatchKNNScorer().fit(TOKENS)
    scorer.set_params(**{name: {"n_neighbors": 2, "metric": "euclidean", "topk": 3}[name]})
    with pytest.raises(NotFittedError, match=f"{name} .*fit again"):
        scorer.predict(NEW)


@pytest.mark.parametrize("row", TABLE.params())
def test_row(row, tmp_path):
    row.check(tmp_path)
