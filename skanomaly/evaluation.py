"""A detector and a data set, to every metric."""

import html
import platform
import time
from dataclasses import dataclass, field

import numpy as np
import scipy
import sklearn
from sklearn.base import clone
from sklearn.pipeline import Pipeline

import skanomaly
from skanomaly import metrics
from skanomaly._images import image_size
from skanomaly.core.maps import upsample_map
from skanomaly.inspection import score_images


@dataclass(frozen=True, repr=False, eq=False)
class EvaluationResult:
    """What :func:`evaluate_split` found.

    Attributes
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
        Wall-clock time to `fit`, to `score` the test images, to make `maps`, and for `metrics`.
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
    metrics: dict
    n_unknown_masks: int
    contamination: float | None
    threshold: float
    true_positives: int
    false_negatives: int
    false_positives: int
    true_negatives: int
    recall_by_type: dict
    seconds: dict
    parameters: dict
    versions: dict
    y: np.ndarray = field(metadata={"bulky": True})
    scores: np.ndarray = field(metadata={"bulky": True})
    predictions: np.ndarray = field(metadata={"bulky": True})
    patch_scores: list = field(metadata={"bulky": True})
    estimator: object = field(metadata={"bulky": True})

    @property
    def recall(self):
        """Share of the anomalous test images that is flagged."""
        return self.true_positives / self.n_anomalous

    @property
    def false_positive_rate(self):
        """Share of the normal test images that is flagged."""
        return self.false_positives / self.n_normal

    def to_dict(self):
        """Everything but arrays and the estimator, ready for JSON."""
        fields = self.__dataclass_fields__
        values = {n: getattr(self, n) for n, f in fields.items() if not f.metadata.get("bulky")}
        return {
            **values,
            "recall": self.recall,
            "false_positive_rate": self.false_positive_rate,
        }

    def to_frame(self):
        """One row of numbers, as a pandas DataFrame (needs pandas)."""
        import pandas

        values = self.to_dict()
        row = {key: value for key, value in values.items() if not isinstance(value, dict)}
        for key in ("metrics", "recall_by_type", "seconds"):
            prefix = "" if key == "metrics" else f"{key}_"
            row.update({f"{prefix}{name}": value for name, value in values[key].items()})
        return pandas.DataFrame([row])

    def rows(self):
        """Pairs of text, measure and value, for a table."""
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

    def __repr__(self):
        width = max(len(name) for name, _ in self.rows())
        lines = [f"  {name:<{width}}  {value}" for name, value in self.rows()]
        return "\n".join([f"EvaluationResult of {self.name!r}", *lines])

    def _repr_html_(self):
        cells = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>"
            for name, value in self.rows()
        )
        return f"<table><caption>{html.escape(self.name)}</caption>{cells}</table>"


def evaluate_split(estimator, split, *, sigma=4.0):
    """Fit a detector on a data set's training images and measure it on its test images.

    Parameters
    ----------
    estimator : Pipeline or detector
        Cloned, not modified. A Pipeline of an embedder and a scorer, or an image detector with
        `score_maps`.
    split : DatasetSplit
        For example from :func:`skanomaly.datasets.read_dataset`.
    sigma : float, default=4.0
        Of the Gaussian that smooths the maps, in pixels of the image.

    Returns
    -------
    EvaluationResult
        Metrics, decisions, scores, patch scores and the fitted clone.

    Raises
    ------
    ValueError
        When the test images are all normal or all anomalous.

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
    times = [time.perf_counter()]
    estimator = clone(estimator).fit(list(train.images), train.y)
    times.append(time.perf_counter())
    scores, grids = score_images(estimator, list(test.images))
    times.append(time.perf_counter())
    maps = [
        upsample_map(grid, image_size(path), sigma)
        for grid, path in zip(grids, test.images, strict=True)
    ]
    times.append(time.perf_counter())
    masks = [test.load_mask(i) for i in range(len(test))]
    unknown = sum(mask is None for mask in masks)
    measured = _image_metrics(test, scores)
    if not unknown:
        pixels = metrics.pixel_metrics(maps, masks)
        measured.update({k: v for k, v in pixels.items() if k != "pixel_f1_threshold"})
        if test.defects is not None:
            regions, areas = zip(*(test.load_regions(i) for i in range(len(test))), strict=True)
            measured["auspro_0.05"] = metrics.auspro(maps, regions, areas)
    times.append(time.perf_counter())
    scorer = estimator
    while isinstance(scorer, Pipeline):
        scorer = scorer[-1]
    predictions = np.where(scores < scorer.offset_, -1, 1)
    flagged, normal = predictions == -1, test.y == 1
    kinds = np.array(test.defect_types)
    return EvaluationResult(
        name=split.name,
        n_train=int(np.count_nonzero(train.y == 1)),
        n_normal=int(normal.sum()),
        n_anomalous=int((~normal).sum()),
        metrics=measured,
        n_unknown_masks=unknown,
        contamination=None if scorer.contamination == "auto" else float(scorer.contamination),
        threshold=float(scorer.offset_),
        true_positives=int((flagged & ~normal).sum()),
        false_negatives=int((~flagged & ~normal).sum()),
        false_positives=int((flagged & normal).sum()),
        true_negatives=int((~flagged & normal).sum()),
        recall_by_type={
            str(kind): float(flagged[kinds == kind].mean()) for kind in np.unique(kinds[~normal])
        },
        seconds=dict(
            zip(("fit", "score", "maps", "metrics"), np.diff(times).tolist(), strict=True)
        ),
        parameters=parameters_as_text(estimator),
        versions={
            "python": platform.python_version(),
            **{lib.__name__: lib.__version__ for lib in (skanomaly, sklearn, np, scipy)},
        },
        y=test.y,
        scores=scores,
        predictions=predictions,
        patch_scores=grids,
        estimator=estimator,
    )


def parameters_as_text(estimator):
    """Parameters as text, without those that hold the steps of a Pipeline."""
    params = estimator.get_params()
    steps = set(dict(getattr(estimator, "steps", ())))
    skipped = steps | {"steps", "memory", "transform_input", "verbose"}
    return {name: repr(value) for name, value in sorted(params.items()) if name not in skipped}


def _image_metrics(test, scores):
    out = {
        "image_auroc": metrics.image_auroc(test.y, scores),
        "image_average_precision": metrics.image_average_precision(test.y, scores),
        "image_f1_max": metrics.image_f1_max(test.y, scores)[0],
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
