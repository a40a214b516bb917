"""What every scorer of patch tokens shares: validation, calibration, signs and masks."""

import warnings
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin, _fit_context
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_consistent_length
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from skanomaly._tokens import check_tokens
from skanomaly.core.aggregation import aggregate_patch_scores
from skanomaly.core.calibration import conformal_p_values, contamination_offset
from skanomaly.core.fingerprints import ImageFingerprints
from skanomaly.scorers._cross_fitted import cross_fit


class BasePatchScorer(OutlierMixin, BaseEstimator):
    """Base of the scorers of patch tokens.

    A subclass says how a model is fitted to the tokens of normal images (`_fit_model`) and how
    that model scores patches (`_score_model`). The base validates, aggregates and calibrates: it
    scores training images by models that were fitted without them, and returns these held-out
    scores whenever a training image is scored again. A subclass that has them in closed form
    overrides `_held_out`.
    """

    _parameter_constraints: dict = {
        "topk": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="right"),
        ],
        "aggregation": [
            StrOptions({"topk_mean", "max", "mean"}),
            Interval(Real, 0, 1, closed="both"),
        ],
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
    }

    _n_folds = 5  # models fitted for the held-out scores
    _min_images = 1

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Fit to normal images, and calibrate the threshold on their held-out scores.

        Parameters
        ----------
        X : array-like
            Patch tokens of the training images: (n_images, dim), (n_images, patches, dim),
            (n_images, grid_h, grid_w, dim), (n_images, n_views, grid_h, grid_w, dim), or a 1-D
            object array of (grid_h, grid_w, dim).
        y : array-like of shape (n_images,), optional
            +1 for normal, -1 for anomalous images. Anomalous images never enter the model. A `y`
            without -1 that holds anything else than +1, such as class labels, is ignored.

        Returns
        -------
        self : object
            The fitted scorer.
        """
        tokens = self._check_tokens(X, reset=True)
        tokens = tokens.select(normal_images(y, tokens.n_images))
        if tokens.n_images < self._min_images:
            raise ValueError(
                f"{type(self).__name__} needs at least {self._min_images} normal images, got "
                f"n_samples = {tokens.n_images}"
            )
        self._calibrate(tokens)
        self._fitted_params = self._params_of_fit()
        return self

    def _calibrate(self, tokens):
        """Fit the model to normal images; set `train_scores_` and `offset_`."""
        if len(tokens.values) == 1:
            raise ValueError(
                "cannot calibrate on n_samples = 1 image of one patch: nothing can be held out; "
                "give more normal images"
            )
        if tokens.n_images == 1:
            stand_in = "its other views" if tokens.n_views > 1 else "its other quarters"
            warnings.warn(
                f"calibrated on a single image, scored against {stand_in} in place of other "
                "images: the threshold says how much that image varies in itself, not how parts "
                "differ, and holds no nominal false-positive rate. Give more normal images, or "
                "rank by score_samples",
                UserWarning,
                stacklevel=4,
            )
        self._model = self._fit_model(tokens)
        images, scores = self._held_out(tokens)
        base = tokens.select_view(0)
        self._fingerprints = ImageFingerprints(base, self._positional)
        base = base.select(images)
        self._held_out_scores = {
            int(image): scores[base.rows(i)][base.valid[base.rows(i)]][
                self._fingerprints.order(base, i)
            ]
            for i, image in enumerate(images)
        }
        self.train_scores_ = -self._aggregate(base, scores)
        self.offset_ = contamination_offset(self.train_scores_, self.contamination)

    def score_samples(self, X):
        """Score of each image: higher is more normal.

        A training image gets its held-out score.

        Parameters
        ----------
        X : array-like
            Patch tokens, in any form of :meth:`fit` but views.

        Returns
        -------
        ndarray of shape (n_images,), float64
            The negative aggregate of the image's patch scores.
        """
        return self._image_scores(self._check_tokens(X, reset=False))

    def decision_function(self, X):
        """``score_samples(X) - offset_``: negative for images that are called anomalous.

        Parameters
        ----------
        X : array-like
            Patch tokens.

        Returns
        -------
        ndarray of shape (n_images,), float64
            Signed distance to the threshold.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        """Call each image normal (+1) or anomalous (-1).

        Parameters
        ----------
        X : array-like
            Patch tokens.

        Returns
        -------
        ndarray of shape (n_images,), int
            -1 where the decision function is negative, else +1.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def fit_predict(self, X, y=None):
        """Fit, and call each training image by its held-out score.

        Parameters
        ----------
        X : array-like
            Patch tokens.
        y : array-like of shape (n_images,), optional
            As for :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_images,), int
            What ``fit(X, y).predict(X)`` returns.
        """
        self.fit(X, y)
        tokens = self._check_tokens(X, reset=False, views=True).select_view(0)
        return np.where(self._image_scores(tokens) < self.offset_, -1, 1)

    def score_patches(self, X, return_scores=False):
        """Anomaly score of each patch: higher is more anomalous; distances are at least 0.

        Parameters
        ----------
        X : array-like
            Patch tokens.
        return_scores : bool, default=False
            Return `score_samples` too, from the same computation.

        Returns
        -------
        patch_scores : ndarray of shape (n_images, grid_h, grid_w), float32
            In the shape of the tokens without `dim`; a 1-D object array where grids are mixed. 0
            for masked patches.
        scores : ndarray of shape (n_images,), float64
            Only with `return_scores`: as from :meth:`score_samples`.
        """
        tokens = self._check_tokens(X, reset=False)
        patch_scores, scores = self._scores(tokens)
        patches = tokens.restore(patch_scores)
        return (patches, scores) if return_scores else patches

    def p_values(self, X):
        """Conformal p-value of each image: how usual so low a score is among normal images.

        Parameters
        ----------
        X : array-like
            Patch tokens.

        Returns
        -------
        ndarray of shape (n_images,), float64
            ``(1 + #{held-out training images at least as anomalous}) / (n + 1)``, at least
            ``1 / (n + 1)``. Valid for new images that are exchangeable with the training images.
        """
        scores = self.score_samples(X)
        return conformal_p_values(self.train_scores_, scores)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    @property
    def _positional(self):
        """Whether a patch's score depends on its position."""
        return False

    def _fit_part(self, tokens):
        """Fit to a part of the training images a model that is otherwise as the fitted one."""
        return self._fit_model(tokens)

    def _held_out(self, tokens):
        """Numbers of the images to calibrate on, and held-out scores of all their patches."""
        scores = cross_fit(tokens, self._n_folds, self._fit_part, self._score_model)
        return np.arange(tokens.n_images), scores

    def _scores(self, tokens):
        """Patch scores, and `score_samples`, from one computation."""
        scores = self._patch_scores(tokens)
        return scores, -self._aggregate(tokens, scores)

    def _image_scores(self, tokens):
        """`score_samples` alone, where a subclass has it for less."""
        return self._scores(tokens)[1]

    def _patch_scores(self, tokens, score_model=None):
        """Scores of all patches, held-out ones for training images; undefined where masked.

        Those of new images are from `score_model`, or else from `_score_model`.
        """
        score_model = score_model or self._score_model
        known = self._fingerprints.match(tokens)
        scores = np.zeros(len(tokens.values))
        stored = np.array([image in self._held_out_scores for image in known.tolist()])
        new = np.flatnonzero(~stored)
        if new.size:
            rows = ~stored[tokens.image_of_row()]
            scores[rows] = score_model(self._model, tokens.select(new), known[new])
        for i in np.flatnonzero(stored):
            rows = np.arange(tokens.offsets[i], tokens.offsets[i + 1])
            rows = rows[tokens.valid[rows]][self._fingerprints.order(tokens, i)]
            scores[rows] = self._held_out_scores[known[i]]
        return scores

    def _aggregate(self, tokens, scores):
        out = np.empty(tokens.n_images)
        for i in range(tokens.n_images):
            rows = tokens.rows(i)
            try:
                out[i] = aggregate_patch_scores(
                    scores[rows][tokens.valid[rows]], self.aggregation, self.topk
                )
            except ValueError as exc:
                raise ValueError(f"image {i}: {exc}") from exc
        return out

    def _check_tokens(self, X, *, reset, views=None):
        if not reset:
            self._check_ready()
        # Only the names of the columns of a DataFrame: the number of features is checked below.
        validate_data(self, X, reset=reset, skip_check_array=True, ensure_2d=False)
        tokens = check_tokens(X, views=reset if views is None else views, estimator=self)
        if reset:
            self.n_features_in_ = tokens.dim
        elif tokens.dim != self.n_features_in_:
            raise ValueError(
                f"X has {tokens.dim} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input."
            )
        return tokens

    def _check_ready(self):
        """Raise where images cannot be scored yet."""
        self._check_calibrated()

    def _check_calibrated(self):
        """The model, its scores and the threshold belong to the parameters of `fit`."""
        check_is_fitted(self, "train_scores_")
        changed = self._changed_params()
        if changed:
            raise NotFittedError(
                f"{', '.join(changed)} of this {type(self).__name__} changed since fit; "
                "call fit again"
            )

    def _params_of_fit(self):
        return self.get_params(deep=False)

    def _changed_params(self):
        """Names of the parameters that are not what they were in `fit`."""
        params = self._params_of_fit()
        return [
            name
            for name, value in self._fitted_params.items()
            if not (name in params and _same(params[name], value))
        ]


def _same(left, right):
    if left is right:
        return True
    if hasattr(left, "__array__") or hasattr(right, "__array__"):
        return np.array_equal(left, right)
    if isinstance(left, (list, tuple)) and type(left) is type(right):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


def normal_images(y, n_images):
    """Numbers of the images that may enter a model."""
    if y is None:
        return np.arange(n_images)
    y = np.asarray(y)
    check_consistent_length(y, np.empty(n_images))
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    ours = np.isin(y, (-1, 1))
    if y.ndim != 1 or not ours.all():
        if y.ndim == 1 and np.isin(y, -1).any():
            other = y[~ours][0]
            raise ValueError(
                f"y holds -1 for anomalous images, but also {other!r}: use +1 and -1 only, so "
                "that no anomalous image enters the model"
            )
        return np.arange(n_images)
    normal = np.flatnonzero(y == 1)
    if normal.size == 0:
        raise ValueError("y holds no normal image (+1): a model needs at least 1 sample of them")
    return normal
