"""Several scorers of the same tokens as one."""

from __future__ import annotations

import warnings
from numbers import Real
from typing import Any, Literal

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter

from skanomaly._docstrings import document
from skanomaly._pipelines import check_patch_scorer
from skanomaly._sklearn import Interval, StrOptions
from skanomaly._transductive import check_scores_new_images
from skanomaly._typing import ArrayLike
from skanomaly._unions import UnionEstimator
from skanomaly.core.unions import common_scale
from skanomaly.scorers._base import SINGLE
from skanomaly.scorers._docstrings import SCORER_DOCS
from skanomaly.scorers._explaining import members_of, with_inner
from skanomaly.scorers._groups import copies_told_elsewhere
from skanomaly.scorers._growing_union import GrowingUnion
from skanomaly.scorers._training_images import calibration_images


@document(SCORER_DOCS)
class ScoreUnion(GrowingUnion, UnionEstimator):
    """Combine scorers of the same tokens, on a common scale, with one threshold.

    Parameters
    ----------
    scorers : list of (str, scorer)
        Names and scorers: anything with the `fit` and the `score_patches` of this package's
        scorers, which give training images their held-out scores. Their parameters are set as
        ``name__parameter``. Clones of them are fitted.
    scorer_weights : array-like of shape (n_scorers,) or None, default=None
        Weights of the mean, at least 0; None: all equal. Only for ``combination="mean"``.
    normalization : {"quantile"} or None, default="quantile"
        Scale to which each scorer's patch scores are brought before they are combined.
        ``"quantile"``: 0 is the median and 1 the 99% quantile of the held-out patch scores of the
        training images. None: as they are.
    combination : {"mean", "max"}, default="mean"
        The weighted mean of the scorers' scores of a patch, or the highest.
    %(topk)s
    aggregation : {"topk_mean", "max", "mean", "members"} or float, default="topk_mean"
        From combined patch scores to the image score; a float in [0, 1] is a quantile.
        ``"members"`` combines the scorers' own image scores instead, on the scale of their patch
        scores; only then do their own `topk` and `aggregation` matter.
    contamination : float, default=0.1
        Share of normal images the threshold may flag, in (0, 0.5]. Thresholds of the scorers
        themselves are not used; those with ``contamination="auto"`` are fitted with this share.

    Attributes
    ----------
    scorers_ : dict of str to scorer
        The fitted scorers.
    location_, scale_ : ndarray of shape (n_scorers,)
        Patch scores enter as ``(score - location_) / scale_``.
    %(train_scores_bounded)s
    %(offset_)s
    %(calibration_)s
    %(patch_limits_)s
    %(features_in)s

    Notes
    -----
    Patch scores are higher where more anomalous; with ``"quantile"`` they are negative for patches
    that are more usual than the median one. Where the quantiles coincide, the highest held-out
    score is 1; where all held-out scores are the same, they are only shifted, to 0.

    All that is learned, scales and threshold, is learned from held-out scores. The two numbers of a
    scale are those of the held-out scores of all images, so that the `train_scores_` of an image
    owe to it what its own held-out patches move them; :doc:`/calibration` says how much that is.

    ``ScoreUnion([("prompt", PromptScorer(windows=(2, 3))), ("knn", PatchKNNScorer())])`` is a
    few-shot detector after WinCLIP+ [1]_. The paper searches the neighbours of patches and windows
    separately, spreads the windows' distances by harmonic means, and averages these maps and the
    prompts' without a common scale; here the neighbours are those of patch, windows and image in
    one token. For its image score, which is the mean of the class embedding's score and the highest
    of the neighbours' map, take ``PromptScorer(windows=(2, 3), aggregation="class_token")``,
    ``PatchKNNScorer(aggregation="max")`` and ``aggregation="members"``. Its distance is half the
    cosine distance: with ``normalization=None``, ``scorer_weights=(2, 1)`` weighs both as it does.

    References
    ----------
    .. [1] Jeong et al., "WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation", CVPR
       2023.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly import PatchGaussianScorer, PatchKNNScorer, ScoreUnion
    >>> rng = np.random.default_rng(0)
    >>> good = rng.normal(size=(20, 8, 8, 16)) + 3
    >>> bad = rng.normal(size=(1, 8, 8, 16)) + 3
    >>> bad[0, 2, 3] = -5
    >>> scorer = ScoreUnion([("knn", PatchKNNScorer()), ("gaussian", PatchGaussianScorer())])
    >>> scorer.fit(good).predict(bad)
    array([-1])
    >>> np.argwhere(scorer.score_patches(bad)[0] == scorer.score_patches(bad).max())
    array([[2, 3]])
    >>> scorer.set_params(knn__n_neighbors=3, combination="max").fit(good).predict(bad)
    array([-1])
    """

    _parameter_constraints: dict = {
        **GrowingUnion._parameter_constraints,
        "scorers": [list],
        "scorer_weights": [None, "array-like"],
        "normalization": [None, StrOptions({"quantile"})],
        "combination": [StrOptions({"mean", "max"})],
        "aggregation": [
            StrOptions({"topk_mean", "max", "mean", "members"}),
            Interval(Real, 0, 1, closed="both"),
        ],
    }

    _kind = "scorer"

    def __init__(
        self,
        scorers: list[tuple[str, Any]],
        *,
        scorer_weights: ArrayLike | None = None,
        normalization: Literal["quantile"] | None = "quantile",
        combination: Literal["mean", "max"] = "mean",
        topk: float = 0.01,
        aggregation: str | float = "topk_mean",
        contamination: float = 0.1,
    ):
        self.scorers = scorers
        self.scorer_weights = scorer_weights
        self.normalization = normalization
        self.combination = combination
        self.topk = topk
        self.aggregation = aggregation
        self.contamination = contamination

    def _single_image_warning(self, tokens):
        return (
            "scored against parts of itself: scales and threshold say how much one part varies "
            "in itself, not how parts differ, and hold no nominal false-positive rate. Give "
            "images of more parts, or rank by score_samples"
        )

    def _fit_tokens(self, tokens):
        self._check_scorers(groups=tokens.groups is not None)
        self._weights()
        self._layout = tokens.without_values()
        X = _as_array(tokens)
        groups = {} if tokens.groups is None else {"groups": tokens.groups}
        with warnings.catch_warnings(), copies_told_elsewhere():
            # One warning, that of the union, is enough.
            warnings.filterwarnings("ignore", SINGLE, UserWarning)
            self.scorers_ = {
                name: self._unfitted(scorer).fit(X, **groups) for name, scorer in self.scorers
            }
        base = tokens.select_view(0)
        base = base.select(calibration_images(base))
        return self._scaled_and_joined(base, *self._member_scores(base))[1]

    def _scaled_and_joined(self, base, patch_scores, image_scores):
        if self.normalization is None:
            self.location_ = np.zeros(len(self.scorers))
            self.scale_ = np.ones(len(self.scorers))
        else:
            self.location_, self.scale_ = np.transpose(
                [common_scale(scores[base.valid]) for scores in patch_scores]
            )
        return self._combined(base, patch_scores, image_scores)

    def _unfitted(self, scorer):
        scorer = clone(scorer)
        # Its threshold is not used, and so that it has none by itself must not prevent the fit.
        if scorer.get_params(deep=False).get("contamination") == "auto":
            scorer.set_params(contamination=self.contamination)
        return scorer

    def _score_tokens(self, tokens):
        return self._combined(tokens, *self._member_scores(tokens))

    def _member_scores(self, tokens):
        """Scores of all patches and of all images by each scorer; higher is more anomalous."""
        X, patch_scores, image_scores = _as_array(tokens), [], []
        for name, scorer in self.scorers_.items():
            grids = scorer.score_patches(X, return_scores=self.aggregation == "members")
            if self.aggregation == "members":
                grids, scores = grids
                if np.shape(scores) != (tokens.n_images,) or not np.isfinite(scores).all():
                    raise ValueError(
                        f"score_patches of scorer {name!r} must give a finite score for each image"
                    )
                image_scores.append(-scores)
            scores = np.concatenate([np.ravel(grid) for grid in grids]).astype(np.float64)
            if scores.shape != tokens.valid.shape or not np.isfinite(scores[tokens.valid]).all():
                raise ValueError(
                    f"score_patches of scorer {name!r} must give a finite number for each patch"
                )
            patch_scores.append(scores)
        return patch_scores, image_scores

    def _explain_row(self, tokens, row, n_neighbors):
        scores = np.array([patches[row] for patches in self._member_scores(tokens)[0]])
        scaled = (scores - self.location_) / self.scale_
        weights = self._weights()
        found = members_of(list(self.scorers_), scores, scaled, self.combination, weights)
        scorer = self.scorers_[found.members[0].name]
        if not hasattr(scorer, "explain_patch"):
            return found
        place = divmod(row, tokens.grids[0][1])
        inner = scorer.explain_patch(_as_array(tokens), *place, n_neighbors=n_neighbors)
        return with_inner(found, inner, self._train_numbers)

    def _combined(self, tokens, patch_scores, image_scores):
        scores = self._joined(patch_scores)
        if self.aggregation == "members":
            return scores, -self._joined(image_scores)
        return scores, -self._aggregate(tokens, scores)

    def _check_scorers(self, groups):
        for name, scorer in self._named_members():
            check_patch_scorer(scorer, f"scorer {name!r}")
            check_scores_new_images(scorer, f"scorer {name!r}")
            if groups and not has_fit_parameter(scorer, "groups"):
                raise TypeError(
                    f"groups cannot be held out: fit of scorer {name!r}, {type(scorer).__name__}, "
                    "takes no groups"
                )


def _as_array(tokens):
    """Tokens in a form that scorers accept, views included."""
    views = (tokens.n_views,) if tokens.n_views > 1 else ()
    if len(set(tokens.grids)) == 1:
        return tokens.values.reshape(tokens.n_images, *views, *tokens.grids[0], tokens.dim)
    out = np.empty(tokens.n_images, dtype=object)
    for i, grid in enumerate(tokens.grids):
        out[i] = tokens.values[tokens.rows(i)].reshape(*grid, tokens.dim)
    return out
