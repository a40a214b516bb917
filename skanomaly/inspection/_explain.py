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
from skanomaly.core.views import place_before, views_of
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
        `print` shows it in words, :meth:`~skanomaly.inspection.Explanation.to_dict` gives plain
        values.

    Raises
    ------
    TypeError
        When the scorer does not explain its scores. :func:`~skanomaly.anomaly_regions` say where it
        looks.

    Notes
    -----
    Explained is the patch with the highest score in the most anomalous region, of those of
    :func:`~skanomaly.anomaly_regions`; where there is no region, the patch with the highest score.
    It is explained by what its scorer compares it to:

    - :class:`skanomaly.PatchKNNScorer`: the nearest patches of the memory bank, each with the
      training image and the place that it comes from. Patches from turned or mirrored views are
      turned back, to the place whose reflection they show where they do; for turns by an angle
      the file of the image says its shape, and where there is none patches count as square. Of
      a training image the patches of its own group are left out.
    - :class:`skanomaly.PatchGaussianScorer`: what the components of the token add to the squared
      distance, and how many standard deviations each is off, by the names that the embedder has
      for them.
    - :class:`skanomaly.PatchSubspaceScorer`: the same, of what lies outside of the subspace.
    - :class:`skanomaly.PromptScorer`: the cosine with each single text; scores are by the means
      of the texts.
    - :class:`skanomaly.ScoreUnion`, :class:`skanomaly.ImageUnion`: what each member adds, and what
      the first of them says; of images, of its own patch in that place.

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


def explains(scorer: Any) -> bool:
    """Whether a scorer, or a union of detectors, says why an image is anomalous."""
    return hasattr(scorer, "explain_patch") or hasattr(scorer, "explain_members")


def check_explains(estimator: Any) -> None:
    """Raise where a detector does not explain its scores, or is not fitted."""
    scorer = split_detector(estimator).scorer
    if not explains(scorer):
        raise TypeError(
            f"{type(scorer).__name__} does not explain its scores: it has no explain_patch, which "
            "scorers that derive from a class of skanomaly.base get by writing _explain_row. Where "
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
        After all transformers; of a union of detectors the image itself.
    """
    split = split_detector(estimator)
    (item,) = check_images([image])
    tokens = _tokens_of(split, [item])
    grid = _grid_of(split, tokens)
    size = image_size(item)
    region = None if calibration is None else _worst_region(calibration, grid, size)
    row, column = _worst_patch(_without_masked(split, tokens, grid), region, size)
    explanation = Explanation(
        image=item,
        size=size,
        region=region,
        row=row,
        column=column,
        grid=grid.shape,
        box=patch_box(row, column, grid.shape, size),
        score=float(grid[row, column]),
        **_said(split, tokens, grid.shape, row, column, n_neighbors),
    )
    return explanation, tokens


def _tokens_of(split: SplitPipeline, images: Any) -> Any:
    """What the scorer takes of one image, all of it at hand."""
    tokens = split.transform(images)
    if isinstance(tokens, TokenStream):
        origin, tokens = origin_of(tokens), np.asarray(tokens)
        if origin is not None:
            set_origin(tokens, origin)
    return tokens


def _grid_of(split: SplitPipeline, tokens: Any) -> FloatArray:
    """The patch scores of one image, or of a detector its map."""
    if hasattr(split.scorer, "score_maps"):
        (grid,) = split.scorer.score_maps(tokens, size="model")
    else:
        (grid,) = split.scorer.score_patches(tokens)
    if grid.ndim != 2:
        raise TypeError("explanations need tokens of shape (n_images, grid_h, grid_w, dim)")
    return grid


def _without_masked(split: SplitPipeline, tokens: Any, grid: FloatArray) -> FloatArray:
    """Patch scores, -inf where a patch is masked; of a detector its map as it is."""
    if hasattr(split.scorer, "score_maps"):
        return grid
    masked = np.isnan(np.asarray(tokens[0], dtype=np.float32)).all(axis=-1)
    return np.where(masked, -np.inf, grid)


def _said(
    split: SplitPipeline,
    tokens: Any,
    grid: tuple[int, ...],
    row: int,
    column: int,
    n_neighbors: int,
) -> dict[str, Any]:
    """What the scorer says of a patch, as fields of an Explanation."""
    if hasattr(split.scorer, "explain_members"):
        return _said_by_member(split, tokens, grid, row, column, n_neighbors)
    found = split.scorer.explain_patch(tokens, row, column, n_neighbors=n_neighbors)
    return {
        "kind": found.kind,
        "neighbors": tuple(_nearest(split, _of_image(split, near)) for near in found.neighbors),
        "components": _named(split, found),
        "prompts": found.prompts,
        "members": found.members,
        "note": found.note,
    }


def _said_by_member(
    split: SplitPipeline,
    images: Any,
    grid: tuple[int, ...],
    row: int,
    column: int,
    n_neighbors: int,
) -> dict[str, Any]:
    """What a union of detectors says of a place, and its first member of its own patch there."""
    found = split.scorer.explain_members(images, row, column)
    member = split_detector(split.scorer.detectors_[found.members[0].name])
    said: dict[str, Any] = {}
    if explains(member.scorer):
        tokens = _tokens_of(member, images)
        inner = _without_masked(member, tokens, _grid_of(member, tokens))
        places = zip((row, column), grid, inner.shape, strict=True)
        # The patch in which the centre of the place lies.
        own_row, own_column = [(2 * i + 1) * n_inner // (2 * n) for i, n, n_inner in places]
        if np.isfinite(inner[own_row, own_column]):  # of what the member masks it says nothing
            said = _said(member, tokens, inner.shape, own_row, own_column, n_neighbors)
    return {**said, "kind": found.kind, "members": found.members}


def _worst_region(
    calibration: RegionCalibration, grid: FloatArray, size: tuple[int, int]
) -> Region | None:
    regions = find_regions(upsample_map(grid, size, _SIGMA), calibration.threshold(size))
    return regions[0] if regions else None


def _worst_patch(grid: FloatArray, region: Region | None, size: tuple[int, int]) -> tuple[int, int]:
    """The patch of the highest score among those that the region touches, or of all.

    Masked patches are -inf; where smoothing alone reaches into these, a region may touch no other.
    """
    inside = np.ones(grid.shape, dtype=bool)
    if region is not None:
        rows, columns = np.nonzero(region.mask)
        inside[:] = False
        inside[
            (rows + region.box[1]) * grid.shape[0] // size[0],
            (columns + region.box[0]) * grid.shape[1] // size[1],
        ] = True
    within = np.where(inside, grid, -np.inf)
    best = int(np.argmax(within if np.isfinite(within).any() else grid))
    return divmod(best, grid.shape[1])


def _of_image(split: SplitPipeline, near: NeighborPatch) -> NeighborPatch:
    """A neighbour of the image itself where its view is the background that was set apart."""
    apart = [getattr(step, "_background_view", None) for step in split.token_transformers]
    return replace(near, view=0) if near.view and near.view in apart else near


def _nearest(split: SplitPipeline, near: NeighborPatch) -> NearestPatch:
    """A neighbour with its image, its place in that turned back from the view."""
    embedder = split.image_transformers[-1]
    row, column = near.row, near.column
    known = split.train_images
    path = digest = None
    if known is not None and near.image_number < len(known):
        path, digest = known.paths[near.image_number], known.digests[near.image_number]
    problem = None if path is None else _problem(path, digest)
    size = None if path is None or problem is not None else image_size(path)
    if near.view:
        if not hasattr(embedder, "augmentation"):
            raise TypeError(
                f"{type(embedder).__name__} makes views of training images, but has no parameter "
                "augmentation that says how: a patch of a view has no known place in its image"
            )
        at_fit = vars(embedder).get("_params_at_fit", {})
        views = views_of(at_fit.get("augmentation", embedder.augmentation))
        row, column = place_before(views[near.view], row, column, near.grid, size)
    box = None if size is None else patch_box(row, column, near.grid, size)
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
