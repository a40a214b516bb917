"""Images that a fitted detector judged: what a report shows where nothing was evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skanomaly._pipelines import contamination_of, offset_of, split_detector
from skanomaly._typing import FloatArray, IntArray, PathLike
from skanomaly.datasets import ImageSet
from skanomaly.inspection import p_values_of, score_images


@dataclass(frozen=True, repr=False, eq=False)
class ScoredImages:
    """What a fitted detector says of images, of which nothing else need be known.

    Parameters
    ----------
    name : str
        Of the images, for a title.
    images : list of Path
        Image files.
    scores : ndarray of shape (n_images,), float64
        `score_samples`: higher is more normal.
    p_values : ndarray of shape (n_images,), float64, or None
        Conformal p-values; None where the detector has none.
    threshold : float
        `offset_` of the detector: lower scores are anomalous.
    patch_scores : list of ndarray of shape (grid_h, grid_w), float32
        Patch scores; of a detector of images its maps, at the model's own size.
    estimator : Pipeline or detector
        Fitted.
    contamination : float or None
        The nominal share of normal images to be flagged; None of a threshold that is no share.
    y : ndarray of shape (n_images,), int, or None
        +1 normal, -1 anomalous; None where it is not known.
    defect_types : tuple of str or None
        Type of defect of each image, ``"good"`` for normal images; None where it is not known.
    test : ImageSet or None
        The images with labels and masks; None where these are not known.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from skanomaly import create_model, write_report
    >>> from skanomaly.datasets import make_surfaces
    >>> from skanomaly.evaluation import scored_images
    >>> images = make_surfaces(6, 1, image_size=64, random_state=0).images
    >>> model = create_model("filterbank", image_size=64).fit(images[:6])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     part = Path(folder, "part.png")
    ...     Image.fromarray(images[6]).save(part)
    ...     found = scored_images(model, [part], name="discs")
    ...     write_report(found, Path(folder, "report.html"))
    >>> found.name, len(found.images), found.threshold == model[-1].offset_
    ('discs', 1, True)
    """

    name: str
    images: list[Path]
    scores: FloatArray
    p_values: FloatArray | None
    threshold: float
    patch_scores: list[FloatArray]
    estimator: Any
    contamination: float | None
    y: IntArray | None = None
    defect_types: tuple[str, ...] | None = None
    test: ImageSet | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        n_low = int((self.scores < self.threshold).sum())
        return f"ScoredImages({self.name!r}: {len(self)} images, {n_low} called anomalous)"


def scored_images(
    estimator: Any, images: Sequence[PathLike] | ImageSet, name: str | None = None
) -> ScoredImages:
    """Score image files with a fitted detector, in one pass.

    Parameters
    ----------
    estimator : Pipeline or detector
        Fitted, as for :func:`skanomaly.inspection.score_images`.
    images : sequence of path-like, or ImageSet
        Image files; with labels, types of defects and masks where it is an ImageSet.
    name : str or None, default=None
        For a title; None: of the ImageSet, or of the folder of the first image.

    Returns
    -------
    ScoredImages
        For :func:`skanomaly.write_report`.

    Raises
    ------
    ValueError
        When there is no image.
    TypeError
        When the estimator gives no maps of images.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from skanomaly import create_model
    >>> from skanomaly.datasets import make_surfaces
    >>> from skanomaly.evaluation import scored_images
    >>> images = make_surfaces(6, 1, image_size=64, random_state=0).images
    >>> model = create_model("filterbank", image_size=64).fit(images[:6])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     part = Path(folder, "part.png")
    ...     Image.fromarray(images[6]).save(part)
    ...     found = scored_images(model, [part])
    >>> bool(found.scores[0] == model.score_samples(images[6:])[0])
    True
    """
    known = images if isinstance(images, ImageSet) else None
    listed = images.images if isinstance(images, ImageSet) else images
    paths = [Path(path) for path in listed]
    if not paths:
        raise ValueError("there is no image to score")
    scorer = split_detector(estimator).scorer
    threshold = offset_of(scorer)
    grids, scores = score_images(estimator, paths)
    if name is None:
        name = str(paths[0].parent) if known is None else known.name
    return ScoredImages(
        name=name,
        images=paths,
        scores=scores,
        p_values=p_values_of(scorer, scores),
        threshold=threshold,
        patch_scores=grids,
        estimator=estimator,
        contamination=contamination_of(scorer),
        y=None if known is None else known.y,
        defect_types=None if known is None else known.defect_types,
        test=known,
    )
