"""Why an image is anomalous: its worst place, and what the scorer says of it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skanomaly._images import check_images, image_size
from skanomaly._origins import origin_of, set_origin
from skanomaly._parameters import check_integer
from skanomaly._pipelines import SplitPipeline, split_detector
from skanomaly._stamps import file_digest
from skanomaly._token_stream import TokenStream
from skanomaly._typing import FloatArray, ImageLike
from skanomaly.core.explanations import Component, NeighborPatch, PatchExplanation
from skanomaly.core.maps import upsample_map
from skanomaly.core.views import place_before
from skanomaly.inspection._explanation import Explanation, NearestPatch, patch_box
from skanomaly.inspection._region_threshold import RegionCalibration
from skanomaly.inspection._regions import Region, find_regions

_SIGMA = 4.0  # as of anomaly_regions


def explain(estimator: Any, image: ImageLike, *, n_neighbors: int = 3) -> Explanation:
    """Say where an image is most anomalous, and what it differs from there.

    Parameters
    ----------
    estimator : Pipeline
        Fitted: an embedder (after it, any transformers of tokens) and a scorer that explains its
        scores, or a search of such a Pipeline.
    image : image
        Path, bytes, PIL image or array.
    n_neighbors : int, default=3
        How many near patches of the training images are looked for, by scorers that do.

    Returns
    -------
    Explanation
        `print` shows it in words, :meth:`Explanation.to_dict` gives plain values.

    Raises
    ------
    TypeError
        When the scorer does not explain its scores. :func:`anomaly_regions` say where it looks.

    Notes
    -----
    Explained is the patch with the highest score in the most anomalous region, of those of
    :func:`anomaly_regions`; where there is no region, the patch with the highest score. It is
    explained by what its scorer compares it to:

    - :class:`skanomaly.PatchKNNScorer`: the nearest patches of the memory bank, each with the
      training image and the place that it comes from. Patches from turned or mirrored views are
      turned back. Of a training image the patches of its own group are left out.
    - :class:`skanomaly.PatchGaussianScorer`: what the components of the token add to the squared
      distance, and how many standard deviations each is off, by the names that the embedder has
      for them.
    - :class:`skanomaly.PatchSubspaceScorer`: the same, of what lies outside of the subspace.
    - :class:`skanomaly.PromptScorer`: the cosine with each single text; scores are by the means
      of the texts.
    - :class:`skanomaly.ScoreUnion`: what each member adds, and what the first of them says.

    A file of a training image that is missing, or is not known to be the one of `fit`, is told so
    in `problem`, and its `box` is None: nothing of it is shown.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchKNNScorer, explain
    >>> from skanomaly.datasets import make_surfaces
    >>> made = make_surfaces(12, 1, image_size=64, defects="missing_piece", random_state=0)
    >>> scorer = PatchKNNScorer(metric="euclidean")
    >>> pipe = make_pipeline(FilterBankPatches(image_size=64), scorer).fit(made.images[:12])
    >>> explanation = explain(pipe, made.images[12])
    >>> explanation.kind, len(explanation.neighbors)
    ('neighbors', 3)
    >>> abs(explanation.neighbors[0].distance - explanation.score) < 1e-5
    True
    """
    check_integer(n_neighbors, "n_neighbors", 1)
    check_explains(estimator)
    return explained(estimator, image, n_neighbors, regions_of(estimator))[0]


def check_explains(estimator: Any) -> None:
    """Raise where a detector does not explain its scores, or is not fitted."""
    scorer = split_detector(estimator).scorer
    if not hasattr(scorer, "explain_patch"):
        raise TypeError(
            f"{type(scorer).__name__} does not explain its scores: it has no explain_patch. Where "
            "it finds anomalies is what anomaly_regions(estimator, images) say"
        )
    check_is_fitted(estimator)


def regions_of(estimator: Any) -> RegionCalibration | None:
    """The thresholds of regions, for all images of a detector; None where it keeps none."""
    try:
        return RegionCalibration(estimator, None, _SIGMA)
    except TypeError:  # a scorer of somebody else that keeps no held-out scores
        return None


def explained(
    estimator: Any, image: ImageLike, n_neighbors: int, calibration: RegionCalibration | None
) -> tuple[Explanation, Any]:
    """As :func:`explain`, with the patch tokens of the image, which the detector scores too.

    Parameters
    ----------
    estimator, image, n_neighbors
        As for :func:`explain`.
    calibration : RegionCalibration or None
        As from :func:`regions_of`.

    Returns
    -------
    explanation : Explanation
    tokens : ndarray
        After all transformers.
    """
    split = split_detector(estimator)
    scorer = split.scorer
    (item,) = check_images([image])
    tokens = split.transform([item])
    if isinstance(tokens, TokenStream):
        origin, tokens = origin_of(tokens), np.asarray(tokens)
        if origin is not None:
            set_origin(tokens, origin)
    (grid,) = scorer.score_patches(tokens)
    if grid.ndim != 2:
        raise TypeError("explanations need tokens of shape (n_images, grid_h, grid_w, dim)")
    size = image_size(item)
    region = None if calibration is None else _worst_region(calibration, grid, size)
    row, column = _worst_patch(grid, region, size)
    found = scorer.explain_patch(tokens, row, column, n_neighbors=n_neighbors)
    explanation = Explanation(
        kind=found.kind,
        image=item,
        size=size,
        region=region,
        row=row,
        column=column,
        grid=grid.shape,
        box=patch_box(row, column, grid.shape, size),
        score=float(grid[row, column]),
        neighbors=tuple(_nearest(split, near) for near in found.neighbors),
        components=_named(split, found),
        prompts=found.prompts,
        members=found.members,
        note=found.note,
    )
    return explanation, tokens


def _worst_region(
    calibration: RegionCalibration, grid: FloatArray, size: tuple[int, int]
) -> Region | None:
    regions = find_regions(upsample_map(grid, size, _SIGMA), calibration.threshold(size))
    return regions[0] if regions else None


def _worst_patch(grid: FloatArray, region: Region | None, size: tuple[int, int]) -> tuple[int, int]:
    """The patch of the highest score among those that the region touches, or of all."""
    inside = np.ones(grid.shape, dtype=bool)
    if region is not None:
        rows, columns = np.nonzero(region.mask)
        inside[:] = False
        inside[
            (rows + region.box[1]) * grid.shape[0] // size[0],
            (columns + region.box[0]) * grid.shape[1] // size[1],
        ] = True
    best = int(np.argmax(np.where(inside, grid, -np.inf)))
    return divmod(best, grid.shape[1])


def _nearest(split: SplitPipeline, near: NeighborPatch) -> NearestPatch:
    """A neighbour with its image, its place in that turned back from the view."""
    embedder = split.image_transformers[-1]
    row, column = near.row, near.column
    if near.view:
        if not hasattr(embedder, "augmentation"):
            raise TypeError(
                f"{type(embedder).__name__} makes views of training images, but has no parameter "
                "augmentation that says how: a patch of a view has no known place in its image"
            )
        row, column = place_before(near.view, row, column, near.grid)
    known = split.train_images
    path = digest = None
    if known is not None and near.image_number < len(known):
        path, digest = known.paths[near.image_number], known.digests[near.image_number]
    box, problem = None, None
    if path is not None:
        problem = _problem(path, digest)
        if problem is None:
            box = patch_box(row, column, near.grid, image_size(path))
    return NearestPatch(
        image_number=near.image_number,
        path=path,
        row=row,
        column=column,
        grid=near.grid,
        distance=near.distance,
        view=near.view,
        box=box,
        problem=problem,
    )


def _problem(path: str, digest: str | None) -> str | None:
    """Why the file of a training image cannot be shown."""
    if not os.path.exists(path):
        return "the file is missing"
    if not os.path.isfile(path):
        return "it is no file that holds an image, such as a folder or a device"
    if digest is None:
        return "what was in the file at fit is not known"
    try:
        found = file_digest(path)
    except OSError as exc:
        return f"the file cannot be read: {exc.strerror}"
    return None if digest == found else "the file has changed since fit"


def _named(split: SplitPipeline, found: PatchExplanation) -> tuple[Component, ...]:
    """The components by the names that the embedder has for them."""
    embedder = split.image_transformers[-1]
    if not found.components or split.token_transformers:
        return found.components
    if not hasattr(embedder, "get_feature_names_out"):
        return found.components
    names = embedder.get_feature_names_out()
    return tuple(
        replace(entry, name=str(names[entry.number]))
        if entry.name == f"component {entry.number}"
        else entry
        for entry in found.components
    )
