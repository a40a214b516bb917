"""Distance of each patch to the nearest normal patches near its place."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Literal

import numpy as np

from skanomaly._docstrings import document
from skanomaly._patch_tokens import PatchTokens
from skanomaly._sklearn import Interval, RealNotInt, StrOptions
from skanomaly.core.coreset import coreset_size
from skanomaly.core.explanations import NeighborPatch, PatchExplanation, grid_sides
from skanomaly.core.local_bank import fit_local_bank
from skanomaly.core.local_held_out import (
    dominant_groups,
    held_out_distances,
    nearest_patches,
)
from skanomaly.core.local_places import nearest_places
from skanomaly.core.local_search import local_distances
from skanomaly.core.products import squared_norms
from skanomaly.scorers._docstrings import SCORER_DOCS
from skanomaly.scorers._explaining import LEFT_OUT
from skanomaly.scorers._growing import GrowingScorer
from skanomaly.scorers._local_model import (
    LocalModel,
    places_of,
    reference_of,
    rows_of_places,
    values_of,
)
from skanomaly.scorers._training_images import calibration_images

_WIDE = 12  # rows and columns around a place, where there are few images


@document(SCORER_DOCS)
class LocalKNNScorer(GrowingScorer):
    """Distance of each patch to the nearest normal patch near its place, in the place's own metric.

    A patch is compared with the patches of the normal images that lie within `radius` rows and
    columns of its place, in the metric of the inverse covariance of the normal patches at that
    place. For parts that lie in nearly the same place in every image; for others take
    :class:`PatchKNNScorer`.

    Parameters
    ----------
    radius : int, default=2
        Rows and columns around a patch's place in which it looks for normal patches.
    whitening : {"local", "shared"} or None, default="local"
        The metric: the inverse covariance of each place, shrunk towards the one pooled over all
        places; the pooled one alone; or none, which is the Euclidean distance of standardised
        components.
    shrinkage : float, default=0.1
        Share of the pooled covariance in that of a place, in [0, 1]; for ``whitening="local"``.
    regularization : float, default=0.02
        Added to the diagonal, in units of the variance of each component over all patches.
    prior : float, default=30.0
        Up to so many images the spread of each component over all patches counts as much as
        covariances, of more images less: ``min(1, prior / n_images) ** 2`` is added to the
        diagonal.
    unit_length : bool, default=False
        Whether a token counts by its direction alone, as the tokens of transformers should: it is
        divided by its length first.
    n_components : int or None, default=None
        So many principal components of the tokens within their places are compared, and nothing
        else of them; at most as many as tokens have. None for all of a token, standardised
        component by component.
    topk : float or int, default=0.005
        For ``aggregation="topk_mean"``: the share, in (0, 1], or the number of highest patch
        scores.
    %(aggregation)s
    %(contamination)s
    few : int, default=10
        So many images or fewer say little of how a place varies: their patches are compared within
        12 rows and columns, if `radius` is not more, by the Euclidean distance of tokens of unit
        length, which are neither standardised nor whitened. 0 for never.
    coreset : float, int or None, default=None
        Share (float in (0, 1]) or number (int) of training patches to keep at each place, chosen
        by greedy k-center; None for all. Covariances are those of all.

    Attributes
    ----------
    %(train_scores_bounded)s
    %(offset_)s
    %(calibration_)s
    %(patch_limits_)s
    %(features_in)s

    Notes
    -----
    The score of a token x at place p is the least ``sqrt((x - b)' C^-1 (x - b))`` over the normal
    tokens b around p, in units of standardised components. Of N images ``C = (1 - shrinkage) own +
    shrinkage pooled + (regularization + min(1, prior / N)^2) I``, where `own` is the covariance of
    the normal tokens at p, and `pooled` the mean of these over all places. A component that is
    constant in all training images has the mean variance of the others. Of `few` images or fewer
    it is the Euclidean distance of ``x / |x|`` and ``b / |b|``, in a wider window.

    With `n_components` tokens are not standardised, but projected onto the directions in which they
    vary most within places. For ``whitening="shared"`` C is the variance along these, plus what is
    added to the diagonal in units of the mean variance of all directions. For ``"local"`` each is
    divided by the root of that first, for None by nothing, and the rest is as above.

    Held-out scores are in closed form: an image, or a group with all its views, that is left out
    takes a few rows out of a covariance, which changes its inverse by a product with these rows,
    exactly; what the group has in the pooled covariance and in the standardisation is left out to
    first order. They agree with a refit without the image within 0.1%% in the median; `N` stays the
    number of all images. A group that has more than a fifth of the tokens or of a component's
    variance is left out by a fit without it. Of 10 groups or fewer, of `few` images or fewer, with
    more than 10 such groups, with `n_components` and with a coreset, models are fitted without
    each group, or by 10 folds.

    Images of one grid have a place for each patch. In images of other grids a patch has the place
    at which its centre lies; training images of several grids share one of the most rows and
    columns that one has. Tokens without a grid, (n_images, patches, dim), need ``radius=0``. At a
    place around which no training image has a patch, the nearest places that have some count.

    Scores do not depend on the other images of a call, nor on their order, to the last bit. The
    model takes 4 bytes for each component of each training token, for ``dim ** 2`` numbers a
    place, and for each pair of a place and a training token in its window: 150 MB for 200 images
    of 32 x 32 tokens of 102 components. `fit` takes twice the tokens and 8 bytes for each
    component of the tokens that are calibrated on. Scoring costs one product of a token with all
    those in its window; images that come together share the reading of the bank.

    Nearest patches within a window are what SPADE [1]_ and later works align images for; each
    place's own covariance is that of PaDiM [2]_. Their combination is our own.

    References
    ----------
    .. [1] Cohen and Hoshen, "Sub-Image Anomaly Detection with Deep Pyramid Correspondences", 2020.
    .. [2] Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection
       and Localization", ICPR 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly import LocalKNNScorer
    >>> rng = np.random.default_rng(0)
    >>> good = rng.normal(size=(40, 8, 8, 5)) + np.arange(8)[:, None]
    >>> bad = rng.normal(size=(1, 8, 8, 5)) + np.arange(8)[:, None]
    >>> bad[0, 2, 3] = good[0, 2, 7]  # a normal patch, in another place
    >>> scorer = LocalKNNScorer().fit(good)
    >>> scorer.predict(bad)
    array([-1])
    >>> np.argwhere(scorer.score_patches(bad)[0] == scorer.score_patches(bad).max())
    array([[2, 3]])
    """

    _parameter_constraints: dict = {
        **GrowingScorer._parameter_constraints,
        "radius": [Interval(Integral, 0, None, closed="left")],
        "whitening": [StrOptions({"local", "shared"}), None],
        "shrinkage": [Interval(Real, 0, 1, closed="both")],
        "regularization": [Interval(Real, 0, 1e6, closed="right")],
        "prior": [Interval(Real, 0, 1e6, closed="both")],
        "unit_length": ["boolean"],
        "n_components": [None, Interval(Integral, 1, None, closed="left")],
        "few": [Interval(Integral, 0, None, closed="left")],
        "coreset": [
            None,
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="right"),
        ],
    }

    _n_folds = 10
    _uses_positions = True

    def __init__(
        self,
        radius: int = 2,
        *,
        whitening: Literal["local", "shared"] | None = "local",
        shrinkage: float = 0.1,
        regularization: float = 0.02,
        prior: float = 30.0,
        unit_length: bool = False,
        n_components: int | None = None,
        topk: float = 0.005,
        aggregation: str | float = "topk_mean",
        contamination: float = 0.1,
        few: int = 10,
        coreset: float | None = None,
    ):
        self.radius = radius
        self.whitening = whitening
        self.shrinkage = shrinkage
        self.regularization = regularization
        self.prior = prior
        self.unit_length = unit_length
        self.n_components = n_components
        self.topk = topk
        self.aggregation = aggregation
        self.contamination = contamination
        self.few = few
        self.coreset = coreset

    def _fit_model(self, tokens: PatchTokens) -> LocalModel:
        return self._fit_bank(tokens, None)

    def _fit_held_out_model(self, tokens):
        # As many patches a place as the model has: fewer would cover them less densely.
        return self._fit_bank(tokens, self._model.bank.tokens.shape[1])

    def _fit_bank(self, tokens, n_kept):
        grid = reference_of(tokens, self.radius)
        sides = grid if len(grid) == 2 else (1, grid[0])
        if self.coreset is not None and n_kept is None:
            n_kept = coreset_size(self.coreset, tokens.n_images * tokens.n_views)
        # Those that are held out count, so that all models are measured alike.
        few = tokens.n_images <= self.few
        bank = fit_local_bank(
            tokens.values,
            tokens.valid,
            rows_of_places(tokens, sides),
            sides,
            radius=max(self.radius, _WIDE) if few and len(grid) == 2 else self.radius,
            whitening=None if few else self.whitening,
            shrinkage=self.shrinkage,
            ridge=self.regularization + min(1.0, self.prior / tokens.n_images) ** 2,
            unit_length=few or self.unit_length,
            standardise=not few,
            n_components=None if few else self.n_components,
            n_kept=n_kept if self.coreset is not None else None,
        )
        lengths = None
        if few and not self.unit_length:
            lengths = np.sqrt(squared_norms(np.where(tokens.valid[:, None], tokens.values, 0)))
        sides_of_images = grid_sides(tokens.grids)
        return LocalModel(
            bank, grid, tokens.group_of_image, tokens.n_views, sides_of_images, lengths
        )

    @property
    def _problem_of_growth(self):
        for name in ("coreset", "n_components"):
            if getattr(self, name) is not None:
                return (
                    f"with {name}={getattr(self, name)!r} it has not the tokens of its training "
                    f"images; take {name}=None"
                )
        return None

    def _kept_values(self):
        self._check_growth(self._layout)
        return values_of(self._model, self._layout)

    def _check_growth(self, layout):
        grids = sorted({*self._layout.grids, *layout.grids})
        if len(grids) > 1:
            raise ValueError(
                f"places of more images go with those of the model where all have one grid, got "
                f"images of the grids {grids}: make tokens by the same image_size, or fit again"
            )

    def _score_model(self, model, tokens, known):
        scores = np.zeros(len(tokens.values))
        places = places_of(model, tokens)
        new = np.flatnonzero(tokens.valid & (known < 0)[tokens.image_of_row()])
        if new.size:
            scores[new] = local_distances(model.bank, tokens.values[new], places[new])
        seen = np.flatnonzero(known >= 0)  # more training images than are calibrated on
        if seen.size:
            held_out = self._without_own(model, known[seen])
            for i, of_places in zip(seen, held_out, strict=True):
                scores[tokens.rows(i)] = of_places[places[tokens.rows(i)]]
        return scores

    def _held_out(self, tokens):
        # What is pooled over all places shows each of few images, and principal components flatter
        # all that they are learned from: both are learned anew, as is what a coreset keeps.
        few = tokens.n_images <= self.few or tokens.n_groups <= self._n_folds
        if self.coreset is not None or few or self.n_components is not None:
            return super()._held_out(tokens)
        images = calibration_images(tokens)
        base = tokens.select_view(0).select(images)
        dominant = self._dominant_groups(images)
        if len(dominant) > self._n_folds:
            return super()._held_out(tokens)
        scores = self._score_model(self._model, base, images)
        for group in dominant:
            rest = tokens.mask((tokens.group_of_image == group)[tokens.image_of_row()])
            part = np.flatnonzero(base.group_of_image == group)
            model, held_out = self._fit_held_out_model(rest), base.select(part)
            rows = np.isin(base.image_of_row(), part)
            scores[rows] = self._score_model(model, held_out, np.full(len(part), -1))
        return images, scores

    def _dominant_groups(self, images):
        """Groups, of those of some images, without which a model is fitted anew."""
        model = self._model
        groups = model.group_of_image[model.bank.sources[0] // model.n_views]
        return dominant_groups(model.bank, groups, np.unique(model.group_of_image[images]))

    def _without_own(self, model, images):
        """Distances of training images at each place to those of other groups."""
        sources = model.bank.sources[0]
        columns = np.searchsorted(sources, images * model.n_views)
        groups = model.group_of_image[sources // model.n_views]
        return held_out_distances(model.bank, columns, groups)

    def _explain_row(self, tokens, row, n_neighbors):
        model, known = self._model, int(self._fingerprints.match(tokens)[0])
        place, allowed = int(places_of(model, tokens)[row]), None
        sources = model.bank.sources
        if known >= 0:
            of_patch = model.group_of_image[sources // model.n_views]
            allowed = np.broadcast_to(
                of_patch != model.group_of_image[known], model.bank.valid.shape
            )
        places, columns, distances = nearest_patches(
            model.bank, tokens.values[row : row + 1], place, n_neighbors, allowed
        )
        found = []
        for near, number, distance in zip(places, columns, distances.tolist(), strict=True):
            image, view = divmod(
                int(sources[near if len(sources) > 1 else 0, number]), model.n_views
            )
            grid = (int(model.sides[image][0]), int(model.sides[image][1]))
            own = model.grid if len(model.grid) == 2 else (1, model.grid[0])
            patch = int(nearest_places(own, grid)[near])
            name = int(self._train_numbers[image])
            found.append(NeighborPatch(name, view, *divmod(patch, grid[1]), grid, distance))
        note = LEFT_OUT if known >= 0 else ""
        return PatchExplanation("neighbors", neighbors=tuple(found), note=note)
