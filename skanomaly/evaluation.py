"""A detector and a data set, to every metric."""

from __future__ import annotations

import html
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy
import sklearn
from numpy.typing import NDArray
from sklearn.base import clone

from skanomaly import metrics
from skanomaly._images import image_size
from skanomaly._pipelines import contamination_of, offset_of, parameters_as_text, split_detector
from skanomaly._typing import FloatArray
from skanomaly._version import __version__
from skanomaly.core.maps import upsample_map
from skanomaly.datasets import DatasetSplit
from skanomaly.inspection import score_images
from skanomaly.inspection._limits import limits_for
from skanomaly.inspection._maps import check_sigma

#: What :func:`evaluate_split` calls with each map: number of the test image, its map, its score,
#: the threshold, and the limits of a colour scale for the maps of all test images.
OnMap = Callable[[int, FloatArray, float, float, tuple[float, float]], object]


@dataclass(frozen=True, repr=False, eq=False)
class EvaluationResult:
    """What :func:`evaluate_split` found.

    Parameters
    ----------
    name : str
        Of the data set.
    n_train, n_normal, n_anomalous : int
        Normal images trained on; normal and anomalous images tested on.
    metrics : dict of str to float
        `image_auroc`, `image_average_precision`, `image_f1_max`, `image_recall_at_zero_fpr`,
        `image_fpr_at_95_recall`; with groups, `sample_auroc`, a sample being as anomalous as its
        worst image. Where the masks of all anomalous images are known: `pixel_auroc`,
        `pixel_average_precision`, `pixel_f1_max`, `aupro_0.3`, `aupro_0.05`; with the defects of
        MVTec LOCO, `auspro_0.05`. See :mod:`skanomaly.metrics`. F1-max knows the test labels.
    n_unknown_masks : int
        Anomalous test images without a known mask; pixel metrics need 0.
    contamination : float or None
        The nominal share of normal images to be flagged; None of a threshold that is no such
        share, as of zero-shot scorers.
    threshold : float
        `offset_` of the detector, from training images alone: lower scores are flagged.
    true_positives, false_negatives, false_positives, true_negatives : int
        Anomalous images flagged and not, normal images flagged and not.
    recall_by_type : dict of str to float
        Share of the test images of each defect type that is flagged.
    seconds : dict of str to float
        Wall-clock time to `fit`, to `score` the test images, to make `maps` of their size, and
        for `metrics`; without what was done with the maps besides.
    parameters : dict of str to str
        Parameters of the estimator, as text.
    versions : dict of str to str
        Of Python and of the libraries.
    y, scores, predictions : ndarray of shape (n_test,)
        Labels, `score_samples` and decisions (+1/-1) of the test images.
    patch_scores : list of ndarray of shape (grid_h, grid_w)
        Patch scores of the test images.
    estimator : estimator
        The fitted clone.
    """

    name: str
    n_train: int
    n_normal: int
    n_anomalous: int
    metrics: dict[str, float]
    n_unknown_masks: int
    contamination: float | None
    threshold: float
    true_positives: int
    false_negatives: int
    false_positives: int
    true_negatives: int
    recall_by_type: dict[str, float]
    seconds: dict[str, float]
    parameters: dict[str, str]
    versions: dict[str, str]
    y: NDArray[Any] = field(metadata={"bulky": True})
    scores: FloatArray = field(metadata={"bulky": True})
    predictions: NDArray[Any] = field(metadata={"bulky": True})
    patch_scores: list[FloatArray] = field(metadata={"bulky": True})
    estimator: Any = field(metadata={"bulky": True})

    @property
    def recall(self) -> float:
        """Share of the anomalous test images that is flagged."""
        return self.true_positives / self.n_anomalous

    @property
    def false_positive_rate(self) -> float:
        """Share of the normal test images that is flagged."""
        return self.false_positives / self.n_normal

    def to_dict(self) -> dict[str, Any]:
        """Everything but arrays and the estimator, ready for JSON.

        Returns
        -------
        dict of str to object
            The numbers, texts and dicts among the attributes, `recall` and `false_positive_rate`.
        """
        fields = self.__dataclass_fields__
        values = {n: getattr(self, n) for n, f in fields.items() if not f.metadata.get("bulky")}
        return {
            **values,
            "recall": self.recall,
            "false_positive_rate": self.false_positive_rate,
        }

    def to_frame(self) -> Any:
        """The numbers in one row; needs pandas.

        Returns
        -------
        pandas.DataFrame
            With a column for each metric, and for each part of `recall_by_type` and `seconds`.
        """
        import pandas

        values = self.to_dict()
        row = {key: value for key, value in values.items() if not isinstance(value, dict)}
        for key in ("metrics", "recall_by_type", "seconds"):
            prefix = "" if key == "metrics" else f"{key}_"
            row.update({f"{prefix}{name}": value for name, value in values[key].items()})
        return pandas.DataFrame([row])

    def rows(self) -> list[tuple[str, str]]:
        """What was measured, as text for a table.

        Returns
        -------
        list of tuple of str
            Pairs of a measure and its value.
        """
        out = [
            (
                "images: train / test normal / test anomalous",
                f"{self.n_train} / {self.n_normal} / {self.n_anomalous}",
            ),
            *((name.replace("_", " "), f"{value:.4f}") for name, value in self.metrics.items()),
        ]
        if self.n_unknown_masks:
            out.append(("pixel metrics", f"none: {self.n_unknown_masks} masks are not known"))
        out += [
            (
                "normal images flagged"
                + ("" if self.contamination is None else f" (nominal {self.contamination:.0%})"),
                f"{self.false_positive_rate:.1%}",
            ),
            ("anomalous images flagged", f"{self.recall:.1%}"),
            *((f"  {kind}", f"{share:.1%}") for kind, share in self.recall_by_type.items()),
            (
                f"seconds to {' / '.join(self.seconds)}",
                " / ".join(f"{value:.1f}" for value in self.seconds.values()),
            ),
        ]
        return out

    def __repr__(self) -> str:
        width = max(len(name) for name, _ in self.rows())
        lines = [f"  {name:<{width}}  {value}" for name, value in self.rows()]
        return "\n".join([f"EvaluationResult of {self.name!r}", *lines])

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>"
            for name, value in self.rows()
        )
        return f"<table><caption>{html.escape(self.name)}</caption>{cells}</table>"


def evaluate_split(
    estimator: Any, split: DatasetSplit, *, sigma: float = 4.0, on_map: OnMap | None = None
) -> EvaluationResult:
    """Fit a detector on a data set's training images and measure it on its test images.

    Parameters
    ----------
    estimator : Pipeline or detector
        Cloned, not modified. A Pipeline of an embedder and a scorer, an image detector with
        `score_maps`, or a search of either; the search sees the training images alone, of which
        most data sets have only normal ones.
    split : DatasetSplit
        For example from :func:`skanomaly.datasets.read_dataset`.
    sigma : float, default=4.0
        Of the Gaussian that smooths the maps, in pixels of the image.
    on_map : callable or None, default=None
        ``on_map(i, heat_map, score, threshold, limits)`` is called for each test image `i` in
        turn, as soon as its map is there: with the map of the image's size that the metrics are
        measured on, read-only; the image's score and the threshold, below which it is anomalous;
        and ``(low, high)``, the limits of a colour scale that is one for all, from the training
        images alone: :func:`skanomaly.inspection.color_limits`. For pictures and other output that
        is to be on disk before everything is done.

    Returns
    -------
    EvaluationResult
        Metrics, decisions, scores, patch scores and the fitted clone.

    Raises
    ------
    ValueError
        When the test images are all normal or all anomalous.
    TypeError
        When the estimator gives no maps of images; the message names what its scorer lacks. Before
        anything is fitted, but for an `offset_` that `fit` does not set.

    Notes
    -----
    Maps are made once, from the patch scores. The exact pixel metrics need the maps of all test
    images at the same time, 4 bytes a pixel. Where they cannot be measured, because masks are not
    known, each map is dropped after `on_map`, and without `on_map` none is made.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchGaussianScorer, evaluate_split
    >>> from skanomaly.datasets import read_dataset
    >>> pipe = make_pipeline(FilterBankPatches(), PatchGaussianScorer())
    >>> result = evaluate_split(pipe, read_dataset("data/bottle"))  # doctest: +SKIP
    >>> result.metrics["aupro_0.3"]  # doctest: +SKIP
    """
    train, test = split.train, split.test
    for label, kind in ((1, "normal"), (-1, "anomalous")):
        if not np.any(test.y == label):
            raise ValueError(f"{split.name}: there is no {kind} test image, no metric is defined")
    split_detector(estimator)
    check_sigma(sigma)
    seconds = {}
    start = time.perf_counter()
    fitted = clone(estimator).fit(list(train.images), train.y)
    scorer = split_detector(fitted).scorer
    threshold = offset_of(scorer)
    seconds["fit"] = time.perf_counter() - start
    start = time.perf_counter()
    grids, scores = score_images(fitted, list(test.images))
    seconds["score"] = time.perf_counter() - start
    unknown = [test.masks[i] for i in np.flatnonzero(test.y == -1)].count(None)
    limits = None if on_map is None else limits_for(fitted, grids)
    maps, seconds["maps"] = _make_maps(
        test, grids, scores, threshold, limits, sigma, on_map, not unknown
    )
    start = time.perf_counter()
    measured = _image_metrics(test, scores)
    if not unknown:
        measured.update(_pixel_metrics(test, maps))
    seconds["metrics"] = time.perf_counter() - start
    flagged, normal = scores < threshold, test.y == 1
    kinds = np.array(test.defect_types)
    return EvaluationResult(
        name=split.name,
        n_train=int(np.count_nonzero(train.y == 1)),
        n_normal=int(normal.sum()),
        n_anomalous=int((~normal).sum()),
        metrics=measured,
        n_unknown_masks=unknown,
        contamination=contamination_of(scorer),
        threshold=threshold,
        true_positives=int((flagged & ~normal).sum()),
        false_negatives=int((~flagged & ~normal).sum()),
        false_positives=int((flagged & normal).sum()),
        true_negatives=int((~flagged & normal).sum()),
        recall_by_type={
            str(kind): float(flagged[kinds == kind].mean()) for kind in np.unique(kinds[~normal])
        },
        seconds=seconds,
        parameters=parameters_as_text(fitted),
        versions={
            "python": platform.python_version(),
            "skanomaly": __version__,
            **{lib.__name__: lib.__version__ for lib in (sklearn, np, scipy)},
        },
        y=test.y,
        scores=scores,
        predictions=np.where(flagged, -1, 1),
        patch_scores=grids,
        estimator=fitted,
    )


def _make_maps(test, grids, scores, threshold, limits, sigma, on_map, keep):
    """The maps of the test images, if they are to be kept, and the seconds that making them took.

    Each is handed to `on_map` as soon as it is there.
    """
    maps, seconds = [], 0.0
    if on_map is None and not keep:
        return maps, seconds
    for i, (grid, path) in enumerate(zip(grids, test.images, strict=True)):
        start = time.perf_counter()
        heat_map = upsample_map(grid, image_size(path), sigma)
        heat_map.setflags(write=False)
        seconds += time.perf_counter() - start
        if on_map is not None:
            on_map(i, heat_map, float(scores[i]), threshold, limits)
        if keep:
            maps.append(heat_map)
    return maps, seconds


def _pixel_metrics(test, maps):
    masks = [test.load_mask(i) for i in range(len(test))]
    out = metrics.pixel_metrics(masks, maps)
    del out["pixel_f1_threshold"]
    if test.defects is not None:
        regions, areas = zip(*(test.load_regions(i) for i in range(len(test))), strict=True)
        out["auspro_0.05"] = metrics.auspro(regions, maps, areas)
    return out


def _image_metrics(test, scores):
    out = {
        "image_auroc": metrics.image_auroc(test.y, scores),
        "image_average_precision": metrics.image_average_precision(test.y, scores),
        "image_f1_max": metrics.image_f1_max(test.y, scores),
        "image_recall_at_zero_fpr": metrics.image_recall_at_zero_fpr(test.y, scores),
        "image_fpr_at_95_recall": metrics.image_fpr_at_recall(test.y, scores, 0.95),
    }
    if test.groups is not None:
        _, sample = np.unique(test.groups, return_inverse=True)
        y, worst = np.ones(sample.max() + 1, dtype=int), np.full(sample.max() + 1, np.inf)
        np.minimum.at(y, sample, test.y)
        np.minimum.at(worst, sample, scores)
        out["sample_auroc"] = metrics.image_auroc(y, worst)
    return out
