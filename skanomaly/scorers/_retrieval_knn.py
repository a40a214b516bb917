"""Nearest-neighbour distance to the patches of the most similar normal images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from skanomaly._docstrings import document
from skanomaly._faults import of_an_image
from skanomaly._patch_tokens import PatchTokens
from skanomaly._sklearn import Interval, StrOptions
from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.class_tokens import class_tokens
from skanomaly.core.explanations import grid_sides
from skanomaly.core.parts import part_slices
from skanomaly.core.prepared import unit_rows
from skanomaly.core.retrieval import nearest_within, similar_images
from skanomaly.core.search.brute_force import nearest_patches, prepare_bank
from skanomaly.scorers._cross_fitted import CrossFittedScorer
from skanomaly.scorers._docstrings import SCORER_DOCS
from skanomaly.scorers._explaining import explain_by_neighbors
from skanomaly.scorers._training_images import calibration_images


@dataclass(frozen=True)
class _TrainingImages:
    """Patches of normal images, and by what the most similar images are found.

    Attributes
    ----------
    values : ndarray of shape (n_rows, n_components)
        Prepared tokens, each part by itself, without the class token.
    valid : ndarray of shape (n_rows,), bool
    descriptors : ndarray of shape (n_images, dim)
        Unit vectors.
    has_patches : ndarray of shape (n_images,), bool
        False for images that are all masked.
    offsets : ndarray of shape (n_images + 1,), int
    sides : ndarray of shape (n_images, 2), int
    group_of_image : ndarray of shape (n_images,), int
    grid : tuple of int, or None
        That of all images, if there is one.
    """

    values: FloatArray
    valid: NDArray[np.bool_]
    descriptors: FloatArray
    has_patches: NDArray[np.bool_]
    offsets: IntArray
    sides: IntArray
    group_of_image: IntArray
    grid: tuple[int, ...] | None


@document(SCORER_DOCS)
class RetrievalKNNScorer(CrossFittedScorer):
    """Distance of each patch to its nearest patches in the most similar normal images.

    One model serves many products, which need no labels: an image is compared to the patches of
    the `n_retrieved` training images that are most like it as a whole, so that a patch of one
    product cannot excuse a defect of another. With `radius`, the layers of a network as `parts`
    and its class token this is RAD [1]_.

    Parameters
    ----------
    n_retrieved : int, default=50
        How many training images, at most, an image is compared to: enough to show all that is
        normal of one product. More costs time, and lets other products in.
    n_neighbors : int, default=1
        A patch's score is the mean distance to so many nearest patches of these images.
    metric : {"cosine", "euclidean"}, default="cosine"
        As of :class:`skanomaly.PatchKNNScorer`.
    radius : int or None, default=None
        A patch is compared to patches whose places differ by no more than so many rows and
        columns; None for all. Needs images of one grid, and two of them.
    parts : int or sequence of int, default=1
        Where tokens are several tokens side by side, as of several layers with
        ``fusion="concat"``: how many equal ones, or the size of each. The score is the mean of the
        distances of all parts.
    class_token : bool, default=False
        Whether the last of the parts is the class token of the image, by which images are then
        retrieved and patches are not compared. Else they are retrieved by their mean token.
    %(topk)s
    %(aggregation)s
    %(contamination)s

    Attributes
    ----------
    %(train_scores_bounded)s
    %(offset_)s
    %(calibration_)s
    %(patch_limits_)s
    %(features_in)s

    Notes
    -----
    Held-out scores are exact: a training image is scored by the most similar ones of the others,
    without those of its group. The images of all products share one threshold.

    The search is exact, by products with all patches of the retrieved images, or with those near
    the same place: its time does not grow with the number of training images. That of
    :class:`skanomaly.PatchKNNScorer` rules most of a bank out: with 199 training images, of which
    50 were retrieved, it was six times as fast. Beyond the tokens `fit` takes their memory once
    more; scoring, that of the retrieved ones, and once more with `radius`.

    Scores do not depend on the other images of a call, nor on their order, to the last bit. Views
    add patches to compare to, but images are retrieved by how they are seen without augmentation.

    What differs from RAD: images are retrieved by their mean token where there is no class token;
    scores are aggregated before the map is brought to the size of the image and smoothed.

    References
    ----------
    .. [1] Zhang et al., "Is Training Necessary for Anomaly Detection?", ICML 2026.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly import RetrievalKNNScorer
    >>> rng = np.random.default_rng(0)
    >>> products = np.repeat([[0, 5, 0], [5, 0, 0]], 20, axis=0)[:, None, None]
    >>> good = rng.normal(size=(40, 6, 6, 3)) * 0.1 + products
    >>> bad = good[:1] + 0.01
    >>> bad[0, 2, 3] = good[30, 0, 0]  # on this product a defect, on the other one good
    >>> RetrievalKNNScorer(n_retrieved=10).fit(good).predict(bad)
    array([-1])
    """

    _parameter_constraints: dict = {
        **CrossFittedScorer._parameter_constraints,
        "n_retrieved": [Interval(Integral, 1, None, closed="left")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "metric": [StrOptions({"cosine", "euclidean"})],
        "radius": [None, Interval(Integral, 0, None, closed="left")],
        "parts": ["array-like", Interval(Integral, 1, None, closed="left")],
        "class_token": ["boolean"],
    }

    def __init__(
        self,
        n_retrieved: int = 50,
        *,
        n_neighbors: int = 1,
        metric: Literal["cosine", "euclidean"] = "cosine",
        radius: int | None = None,
        parts: int | Sequence[int] = 1,
        class_token: bool = False,
        topk: float = 0.01,
        aggregation: str | float = "topk_mean",
        contamination: float = 0.1,
    ):
        self.n_retrieved = n_retrieved
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.radius = radius
        self.parts = parts
        self.class_token = class_token
        self.topk = topk
        self.aggregation = aggregation
        self.contamination = contamination

    @property
    def _uses_positions(self):
        return self.radius is not None

    @property
    def _min_images(self):
        # The quarters of one image do not lie in the same place.
        return 1 if self.radius is None else 2

    def _fit_model(self, tokens: PatchTokens) -> _TrainingImages:
        # Rows are images of one patch, and its place is the same in all.
        grids = {grid if np.prod(grid) > 1 else (1, 1) for grid in tokens.grids}
        if self.radius is not None and (len(grids) > 1 or len(next(iter(grids))) == 1):
            raise ValueError(
                f"radius={self.radius} compares places: it needs images of one grid, as tokens of "
                f"shape (n_images, grid_h, grid_w, dim), got {sorted(grids)}; use radius=None"
            )
        values, descriptors = self._prepared(tokens)
        return _TrainingImages(
            values,
            tokens.valid,
            descriptors,
            np.logical_or.reduceat(tokens.valid, tokens.offsets[:-1]),
            tokens.offsets,
            grid_sides(tokens.grids),
            tokens.group_of_image,
            next(iter(grids)) if len(grids) == 1 else None,
        )

    def _slices(self, dim):
        """Components that are compared, part by part, and those of the class token."""
        slices = part_slices(dim, self.parts)
        if not self.class_token:
            return slices, None
        if len(slices) == 1:
            raise ValueError(
                "class_token=True takes the last of several parts of the tokens for the class "
                f"token, but parts={self.parts!r} says that there is one"
            )
        return slices[:-1], slices[-1]

    def _prepared(self, tokens):
        """Tokens as they are compared, zeros where they are masked, and descriptors of images."""
        slices, of_class = self._slices(tokens.dim)
        valid = np.flatnonzero(tokens.valid)
        values = np.zeros((len(tokens.values), slices[-1].stop), dtype=tokens.values.dtype)
        for part in slices:
            values[valid, part] = prepare_bank(tokens.values[:, part], self.metric, valid)
        described = _one_view_each(tokens)
        if of_class is None:
            sums = []
            for image in range(tokens.n_images):
                rows = tokens.rows(image)
                sums.append(values[rows][described.valid[rows]].sum(axis=0, dtype=np.float64))
            descriptors = np.array(sums)
        else:
            descriptors = class_tokens(described, of_class)
        # To float32, so that the order of the patches, which changes last digits, does not matter.
        return values, unit_rows(unit_rows(descriptors).astype(np.float32))

    def _score_tokens(self, tokens):
        self._check_grids(self._model, tokens)  # here images have their own numbers
        return super()._score_tokens(tokens)

    def _score_model(self, model, tokens, known):
        slices, _ = self._slices(tokens.dim)
        scores = np.zeros(len(tokens.values))
        for image in range(tokens.n_images):
            if not tokens.valid[tokens.rows(image)].any():
                continue
            one, images = self._retrieved(model, tokens, image, int(known[image]))
            for part in slices:
                distances = self._nearest(model, one, images, part)
                scores[tokens.rows(image)][one.valid] += distances.mean(axis=1)
        return scores / len(slices)

    def _check_grids(self, model, tokens):
        if self.radius is None:
            return
        n_places = int(np.prod(model.grid))
        for number, grid in enumerate(tokens.grids):
            if grid != model.grid and (len(grid) == 2 or int(np.prod(grid)) != n_places):
                raise of_an_image(
                    ValueError(
                        f"image {tokens.first + number} has a grid of {grid}, the training images "
                        f"had {model.grid}: radius={self.radius} compares places of one grid"
                    )
                )

    def _retrieved(self, model, tokens, image, known):
        """One image with its tokens as they are compared, and the images to compare it to."""
        one = tokens.select([image])
        values = one.values.astype(model.values.dtype, copy=False)
        one = replace(one, values=values, first=tokens.first + image)
        values, (descriptor,) = self._prepared(one)
        allowed = model.has_patches
        if known >= 0:
            allowed = allowed & (model.group_of_image != model.group_of_image[known])
        images = similar_images(descriptor, model.descriptors, allowed, self.n_retrieved)
        return replace(one, values=values), images

    def _nearest(self, model, one, images, part):
        """Distances of an image's patches to the nearest ones of some images."""
        rows = np.concatenate([np.arange(*model.offsets[i : i + 2]) for i in images])
        queries = np.ascontiguousarray(one.values[:, part])
        if self.radius is None:
            bank = np.ascontiguousarray(model.values[rows[model.valid[rows]], part])
            return nearest_patches(queries[one.valid], bank, self.n_neighbors, self.metric)[0]
        bank = np.ascontiguousarray(model.values[rows, part])
        asked = np.flatnonzero(one.valid)
        window = (asked, model.grid, self.radius, self.n_neighbors)
        return nearest_within(queries, bank, model.valid[rows], *window, self.metric)[0]

    def _explain_row(self, tokens, row, n_neighbors):
        model, known = self._model, int(self._fingerprints.match(tokens)[0])
        self._check_grids(model, tokens)
        one, images = self._retrieved(model, tokens, 0, known)
        rows = np.concatenate([np.arange(*model.offsets[i : i + 2]) for i in images])
        keep = model.valid[rows]
        if self.radius is not None:
            places = np.concatenate([np.arange(size) for size in np.diff(model.offsets)[images]])
            places %= int(np.prod(model.grid))
            here, there = (np.stack(divmod(p, model.grid[1])) for p in (np.array([row]), places))
            keep &= (np.abs(here - there) <= self.radius).all(axis=0)
        rows, found = rows[keep], []
        for part in self._slices(tokens.dim)[0]:
            bank = np.ascontiguousarray(model.values[rows, part])
            query = np.ascontiguousarray(one.values[[row], part])
            distances, near = nearest_patches(query, bank, min(n_neighbors, len(rows)), self.metric)
            found.append((rows[near[0]], distances[0]))
        return explain_by_neighbors(found, model.offsets, model.sides, self._train_numbers, known)

    def _held_out(self, tokens):
        if tokens.n_groups == 1:
            return super()._held_out(tokens)
        images = calibration_images(tokens)
        base = tokens.select_view(0).select(images)
        return images, self._score_model(self._model, base, images)


def _one_view_each(tokens):
    """The first view of each image that has patches; new images have no others to be found by."""
    others = np.ones(len(tokens.values), dtype=bool)
    for image in range(tokens.n_images):
        rows = tokens.rows(image)
        seen = tokens.valid[rows].reshape(tokens.n_views, -1).any(axis=1)
        others[rows].reshape(tokens.n_views, -1)[np.argmax(seen)] = False
    return tokens.mask(others)
