"""Distance of patches from the principal subspace of normal ones."""

from __future__ import annotations

import numpy as np

from skanomaly._docstrings import document
from skanomaly._patch_tokens import PatchTokens
from skanomaly._sklearn import Interval, RealNotInt
from skanomaly.core.calibration import calibration_folds
from skanomaly.core.subspace import (
    Subspace,
    fit_subspace,
    measure_tokens,
    merge_statistics,
    squared_residuals,
)
from skanomaly.scorers._docstrings import SCORER_DOCS
from skanomaly.scorers._explaining import residuals_of
from skanomaly.scorers._growing_moments import GrowingMoments


@document(SCORER_DOCS)
class PatchSubspaceScorer(GrowingMoments):
    """Squared distance of each patch from the subspace in which normal patches vary.

    SubspaceAD [1]_: the principal components of all normal patches that explain a share of their
    variance, wherever the patches lie; a patch's score is what of it they do not explain. The model
    is a mean and these components: it does not grow with the number of images.

    Parameters
    ----------
    explained_variance : float, default=0.99
        Share of the variance of normal patches that the subspace explains, in (0, 1); as few
        components as do.
    %(topk)s
    %(aggregation)s
    %(contamination)s

    Attributes
    ----------
    n_components_ : int
        Dimension of the subspace; 0 where the training patches do not vary.
    %(train_scores_)s
    %(offset_)s
    %(calibration_)s
    %(patch_limits_)s
    %(features_in)s

    Notes
    -----
    The score is the published one, the squared reconstruction error. What differs: the paper means
    the pixels of the resized and smoothed map of which the highest 1% are averaged, here patches
    are, as in the other scorers; and the axes are kept in single precision, those within the
    subspace or those at right angles, whichever are fewer: ``2 * dim**2`` bytes at most.

    Tokens are to be the mean of several middle layers, without their largest components
    dominating: ``fusion="mean"`` of an embedder brings each layer to unit length first, after the
    network's last normalisation; the paper averages them as they leave the blocks.

    Training images are scored, in `fit` and whenever they are seen again, by cross-fitting with
    10 folds. Tokens are summed up once, fold by fold, in float64; the model of the other folds
    follows from their sums, exactly. Beyond the tokens `fit` takes 12 matrices of ``dim x dim``
    float64 and some 50 MB. The sums of all are kept, ``4 * dim**2`` bytes, so that
    :meth:`partial_fit` and :func:`skanomaly.merge_models` give the model of a fit to all images, to
    1e-6; held-out scores of old images stay as they are. Images cannot be forgotten.

    Scores do not depend on the other images of a call, nor on their order, to the last bit.

    References
    ----------
    .. [1] Lendering, Akdag and Bondarev, "SubspaceAD: Training-Free Few-Shot Anomaly Detection
       via Subspace Modeling", CVPR 2026.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly import PatchSubspaceScorer
    >>> rng = np.random.default_rng(0)
    >>> mixing = rng.normal(size=(3, 16))
    >>> good = rng.normal(size=(20, 8, 8, 3)) @ mixing  # three things vary
    >>> good += 0.01 * rng.normal(size=good.shape)
    >>> bad = good[:1] + 0.01 * rng.normal(size=good[:1].shape)
    >>> bad[0, 2, 3, 5] += 1
    >>> scorer = PatchSubspaceScorer().fit(good)
    >>> scorer.n_components_
    3
    >>> scorer.predict(bad)
    array([-1])
    >>> np.argwhere(scorer.score_patches(bad)[0] == scorer.score_patches(bad).max())
    array([[2, 3]])
    """

    _parameter_constraints: dict = {
        **GrowingMoments._parameter_constraints,
        "explained_variance": [Interval(RealNotInt, 0, 1, closed="neither")],
    }

    _n_folds = 10
    _model: Subspace

    def __init__(
        self,
        explained_variance: float = 0.99,
        *,
        topk: float = 0.01,
        aggregation: str | float = "topk_mean",
        contamination: float = 0.1,
    ):
        self.explained_variance = explained_variance
        self.topk = topk
        self.aggregation = aggregation
        self.contamination = contamination

    @property
    def n_components_(self) -> int:
        """Dimension of the subspace."""
        return self._model.n_components

    def _fit_model(self, tokens: PatchTokens) -> Subspace:
        return self._model_of(self._with_tokens(None, tokens))

    def _score_model(self, model, tokens, known):
        return squared_residuals(model, tokens.values, tokens.valid)

    def _fit_and_hold_out(self, tokens):
        if tokens.n_groups == 1:
            self._moments = self._kept(self._with_tokens(None, tokens))
            return super()._fit_and_hold_out(tokens)
        folds = calibration_folds(tokens.group_of_image, self._n_folds)
        fold_of_row = np.where(tokens.valid, folds[tokens.image_of_row()], -1)
        n_folds = folds.max() + 1
        parts = [
            measure_tokens(tokens.values, np.flatnonzero(fold_of_row == fold))
            for fold in range(n_folds)
        ]
        moments = self._joined(parts)
        self._moments, self._model = self._kept(moments), self._model_of(moments)
        base = tokens.select_view(0)
        fold_of_base_row = folds[base.image_of_row()]
        scores = np.empty(len(base.values))
        for fold in range(n_folds):
            model = self._model_of(self._joined(p for i, p in enumerate(parts) if i != fold))
            rows = fold_of_base_row == fold
            scores[rows] = squared_residuals(model, base.values[rows], base.valid[rows])
        return np.arange(tokens.n_images), scores

    def _with_tokens(self, moments, tokens):
        part = measure_tokens(tokens.values, np.flatnonzero(tokens.valid))
        return part if moments is None else merge_statistics([moments, part])

    def _joined(self, parts):
        return merge_statistics(part.unpacked() for part in parts)

    def _kept(self, moments):
        return moments.packed()

    def _model_of(self, moments):
        return fit_subspace(moments, self.explained_variance)

    def _explain_row(self, tokens, row, n_neighbors):
        is_known = bool(self._fingerprints.match(tokens)[0] >= 0)
        return residuals_of(self._model, tokens.values[row], is_known)
