"""Mahalanobis distance to Gaussians of normal patches."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal

import numpy as np
from numpy.random import RandomState
from sklearn.utils import check_random_state

from skanomaly._docstrings import document
from skanomaly._faults import of_an_image
from skanomaly._patch_tokens import PatchTokens
from skanomaly._sklearn import Interval, StrOptions
from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.gaussian import (
    PatchGaussian,
    choose_components,
    fit_gaussians,
    fit_shared_gaussian,
    mahalanobis,
    reduce_components,
)
from skanomaly.core.gaussian_moments import GaussianMoments, join_moments
from skanomaly.scorers._docstrings import SCORER_DOCS
from skanomaly.scorers._explaining import components_of
from skanomaly.scorers._growing_moments import GrowingMoments

_PART_BYTES = 2**22  # of tokens whose sums are taken at a time


@dataclass(frozen=True)
class _GaussianModel:
    """Gaussians of patches.

    Attributes
    ----------
    components : ndarray or None
        Those that are kept, for :func:`skanomaly.core.gaussian.reduce_components`; None where all
        are.
    grid : tuple of int or None
        Of the training images, for one Gaussian a position; None for one shared Gaussian.
    gaussian : PatchGaussian
        For :func:`skanomaly.core.gaussian.mahalanobis`.
    """

    components: FloatArray | IntArray | None
    grid: tuple | None
    gaussian: PatchGaussian


@document(SCORER_DOCS)
class PatchGaussianScorer(GrowingMoments):
    """Mahalanobis distance of each patch to a Gaussian of normal patches at its position.

    PaDiM [1]_, with the covariance of each position shrunk towards the one pooled over all
    positions. For parts that lie in the same place in every image; for others take one shared
    Gaussian, or :class:`PatchKNNScorer`.

    Parameters
    ----------
    covariance : {"position", "shared"}, default="position"
        One Gaussian for each position of the grid, or one for all.
    neighborhood : int, default=1
        Odd. The Gaussian of a position is fitted to the patches of a square of so many positions
        around it, which tolerates parts that are misplaced by that much. More than 1 needs tokens
        of shape (n_images, grid_h, grid_w, dim).
    shrinkage : float, default=0.0
        Share of the pooled covariance in that of a position, in [0, 1].
    regularization : float, default=0.1
        Added to the diagonal, in units of the variance of each component.
    n_components : int or None, default=128
        Components of a token that are kept; None for all. Memory grows with their square times
        the number of positions.
    reduction : {"random", "pca"}, default="random"
        How: components at random (PaDiM), or the principal ones.
    %(topk)s
    %(aggregation)s
    %(contamination)s
    random_state : int, RandomState instance or None, default=None
        Only for ``reduction="random"`` of tokens with more than `n_components` components. None
        draws anew at each fit.

    Attributes
    ----------
    %(train_scores_)s
    %(offset_)s
    %(calibration_)s
    %(patch_limits_)s
    %(features_in)s

    Notes
    -----
    Training images are scored, in `fit` and whenever they are seen again, by cross-fitting with
    10 folds: by Gaussians that were fitted without them. `fit` therefore costs eleven fits.

    Per-position Gaussians need three normal images, of different groups and all of one grid.

    Scores do not depend on the other images of a call, nor on their order, to the last bit: entries
    are rounded, to 22 or 23 bits, before they are multiplied, so that no sum is. Beyond the tokens
    `fit` takes memory for the components that are kept, if not all are, and five times the
    Gaussians. Their sums are kept beside them, which take as much, so that :meth:`partial_fit` and
    :func:`skanomaly.merge_models` give the model of a fit to all images, to 1e-6; held-out scores
    of old images stay as they are. Images cannot be forgotten, nor does a model grow that keeps
    principal components.

    References
    ----------
    .. [1] Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection
       and Localization", ICPR 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly import PatchGaussianScorer
    >>> rng = np.random.default_rng(0)
    >>> good = rng.normal(size=(40, 8, 8, 5))
    >>> bad = rng.normal(size=(1, 8, 8, 5))
    >>> bad[0, 2, 3] += 5
    >>> scorer = PatchGaussianScorer().fit(good)
    >>> scorer.predict(bad)
    array([-1])
    >>> np.argwhere(scorer.score_patches(bad)[0] == scorer.score_patches(bad).max())
    array([[2, 3]])
    """

    _parameter_constraints: dict = {
        **GrowingMoments._parameter_constraints,
        "covariance": [StrOptions({"position", "shared"})],
        "neighborhood": [Interval(Integral, 1, None, closed="left")],
        "shrinkage": [Interval(Real, 0, 1, closed="both")],
        "regularization": [Interval(Real, 0, None, closed="neither")],
        "n_components": [None, Interval(Integral, 1, None, closed="left")],
        "reduction": [StrOptions({"random", "pca"})],
        "random_state": ["random_state"],
    }

    _n_folds = 10

    def __init__(
        self,
        covariance: Literal["position", "shared"] = "position",
        *,
        neighborhood: int = 1,
        shrinkage: float = 0.0,
        regularization: float = 0.1,
        n_components: int | None = 128,
        reduction: Literal["random", "pca"] = "random",
        topk: float = 0.01,
        aggregation: str | float = "topk_mean",
        contamination: float = 0.1,
        random_state: int | RandomState | None = None,
    ):
        self.covariance = covariance
        self.neighborhood = neighborhood
        self.shrinkage = shrinkage
        self.regularization = regularization
        self.n_components = n_components
        self.reduction = reduction
        self.topk = topk
        self.aggregation = aggregation
        self.contamination = contamination
        self.random_state = random_state

    @property
    def _uses_positions(self):
        return self.covariance == "position"

    @property
    def _min_images(self):
        return 3 if self._uses_positions else 1

    def _fit_model(self, tokens: PatchTokens) -> _GaussianModel:
        return self._fit_gaussians(tokens, self._components(tokens))

    def _components(self, tokens):
        """Which components are kept; None for all."""
        if self.n_components is None or self.n_components >= tokens.dim:
            return None
        rng = check_random_state(self.random_state)
        return choose_components(
            tokens.values, tokens.valid, self.n_components, self.reduction, rng
        )

    def _fit_held_out_model(self, tokens):
        # Components drawn at random have to be those of the model; principal ones, which the
        # held-out images have shaped, must not.
        if self.reduction == "random":
            return self._fit_gaussians(tokens, self._model.components)
        return self._fit_model(tokens)

    def _fit_gaussians(self, tokens, components):
        """A model of tokens of some components, or of all of them where that is None."""
        values = tokens.values
        if components is not None:
            values = reduce_components(values, tokens.valid, components)
        if not self._uses_positions:
            gaussian = fit_shared_gaussian(values, tokens.valid, self.regularization)
            return _GaussianModel(components, None, gaussian)
        grid = self._checked_grid(tokens)
        shape = (tokens.n_images * tokens.n_views, int(np.prod(grid)))
        x, valid = values.reshape(*shape, -1), tokens.valid.reshape(shape)
        return _GaussianModel(components, grid, fit_gaussians(x, valid, *self._settings(grid)))

    def _settings(self, grid):
        """What Gaussians of positions depend on but the tokens."""
        sides = grid if len(grid) == 2 else (1, int(np.prod(grid)))
        return sides, self.shrinkage, self.regularization, self.neighborhood

    def _checked_grid(self, tokens):
        grid = self._one_grid(tokens)
        if self.neighborhood % 2 == 0:
            raise ValueError(f"neighborhood must be odd, got {self.neighborhood}")
        if self.neighborhood > 1 and len(grid) == 1:
            raise ValueError(
                "neighborhood > 1 needs the grid: tokens of shape (n_images, grid_h, grid_w, dim)"
            )
        return grid

    @property
    def _problem_of_streams(self):
        if self.reduction == "pca" and self.n_components is not None:
            return (
                "the principal components of all tokens have to be known before the Gaussians; "
                "take reduction='random', or n_components=None"
            )
        return None

    @property
    def _problem_of_growth(self):
        if self._problem_of_streams is None:
            return None
        return (
            "its principal components would be others with other images; take "
            "reduction='random', or n_components=None"
        )

    def _fit_and_hold_out(self, tokens):
        found = super()._fit_and_hold_out(tokens)
        self._form = self._model.components, self._model.grid
        moments = None
        for part in tokens.parts(_PART_BYTES):
            moments = self._with_tokens(moments, part)
        self._moments = self._kept(moments)
        return found

    def _kept(self, moments):
        return moments.rounded()

    def _start(self, tokens):
        grid = self._checked_grid(tokens) if self._uses_positions else None
        self._form = self._components(tokens), grid

    def _check_growth(self, layout):
        if self._uses_positions:
            self._check_grid(self._model, layout)

    def _with_tokens(self, moments, tokens):
        components, grid = self._form
        if grid is not None and self._one_grid(tokens) not in _same_positions(grid):
            raise ValueError(
                f"per-position Gaussians need images of one grid, got {tokens.grids[0]} and {grid}"
                "; use resize='squash' in the embedder, or covariance='shared'"
            )
        values = _finite(tokens, components)
        shape = (-1, 1 if grid is None else int(np.prod(grid)))
        if moments is None:
            moments = GaussianMoments(shape[1], values.shape[1])
        valid = tokens.valid.reshape(shape)
        moments.add(values.reshape(*valid.shape, -1), valid)
        return moments

    def _joined(self, parts):
        return join_moments(parts)

    def _model_of(self, moments):
        components, grid = self._form
        if grid is None:
            return _GaussianModel(components, grid, moments.shared_gaussian(self.regularization))
        return _GaussianModel(components, grid, moments.gaussians(*self._settings(grid)))

    def _score_model(self, model, tokens, known):
        values = _finite(tokens, model.components)
        if model.grid is None:
            return mahalanobis(model.gaussian, values[:, None]).ravel()
        self._check_grid(model, tokens)
        values = values.reshape(tokens.n_images, -1, values.shape[1])
        return mahalanobis(model.gaussian, values).ravel()

    def _check_grid(self, model, tokens):
        right = _same_positions(model.grid)
        for number, grid in enumerate(tokens.grids):
            if grid not in right:
                raise of_an_image(
                    ValueError(
                        f"the grid of image {tokens.first + number} is {grid}, that of the "
                        f"training images was {model.grid}: per-position Gaussians need one grid; "
                        "use resize='squash' in the embedder, or covariance='shared'"
                    )
                )

    def _explain_row(self, tokens, row, n_neighbors):
        if self._model.grid is not None:
            self._check_grid(self._model, tokens)
        is_known = bool(self._fingerprints.match(tokens)[0] >= 0)
        model, token = self._model, tokens.values[row : row + 1]
        return components_of(model.gaussian, model.components, token, row, is_known)

    def _one_grid(self, tokens):
        grids = set(tokens.grids)
        if len(grids) > 1:
            raise ValueError(
                f"per-position Gaussians need images of one grid, got {sorted(grids)}; use "
                "resize='squash' in the embedder, or covariance='shared'"
            )
        return tokens.grids[0]


def _finite(tokens, components):
    """Tokens of some components, or of all, with 0 for masked ones; no copy where there is none."""
    if components is not None:
        return reduce_components(tokens.values, tokens.valid, components)
    if tokens.valid.all():
        return tokens.values
    return np.where(tokens.valid[:, None], tokens.values, 0)


def _same_positions(grid):
    """The forms in which the same patches may come."""
    n_patches = int(np.prod(grid))
    return {grid, (n_patches,)} | ({(), (1,), (1, 1)} if n_patches == 1 else set())
