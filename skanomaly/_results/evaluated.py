"""What an evaluation found, as numbers, text and tables."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from skanomaly._typing import FloatArray
from skanomaly.datasets import ImageSet


@dataclass(frozen=True, repr=False, eq=False)
class EvaluationResult:
    """What :func:`~skanomaly.evaluate_split` and `evaluation_of` found.

    Parameters
    ----------
    name : str
        Of the data set.
    n_train : int or None
        Normal images trained on; None where a fitted detector does not tell.
    n_normal, n_anomalous : int
        Normal and anomalous images tested on.
    metrics : dict of str to float
        `image_auroc`, `image_average_precision`, `image_f1_max`, `image_recall_at_zero_fpr`,
        `image_fpr_at_95_recall`; with groups, `sample_auroc`, a sample being as anomalous as its
        worst image. Where the masks of all anomalous images are known: `pixel_auroc`,
        `pixel_average_precision`, `pixel_f1_max`, `aupro_0.3`, `aupro_0.05`; with the defects of
        MVTec LOCO, `auspro_0.05`. See `skanomaly.metrics`. F1-max knows the test labels.
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
        Wall-clock time to `fit`, unless it was fitted before, to `score` the test images, to make
        `maps` of their size for the pixel metrics, and for `metrics`.
    parameters : dict of str to str
        Parameters of the estimator, as text.
    versions : dict of str to str
        Of Python and of the libraries.
    y, scores, predictions : ndarray of shape (n_test,)
        Labels, `score_samples` and decisions (+1/-1) of the test images.
    patch_scores : list of ndarray of shape (grid_h, grid_w)
        Patch scores of the test images.
    estimator : estimator
        The fitted clone, or the detector that was fitted before.
    test : ImageSet
        The test images.
    p_values : ndarray of shape (n_test,), or None
        Conformal p-values of the test images; None where the detector has none.
    curves : dict of str to tuple of ndarray
        Pairs of x and y, from (0, 0) to (1, 1): `roc`, the share of the anomalous images that is
        flagged against that of the normal ones; with pixel metrics `pro`, the points of
        :func:`skanomaly.metrics.pro_curve`, thinned to at most 1000.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from skanomaly import create_model, evaluate_split
    >>> from skanomaly.datasets import DatasetSplit, ImageSet, make_surfaces
    >>> made = make_surfaces(9, 2, image_size=64, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = [Path(folder, f"{i}.png") for i in range(11)]
    ...     for path, image in zip(paths, made.images, strict=True):
    ...         Image.fromarray(image).save(path)
    ...     types = ["good"] * 9 + ["scratch"] * 2
    ...     train = ImageSet(paths[:6], made.y[:6], [None] * 6, types[:6], "disc/train")
    ...     test = ImageSet(paths[6:], made.y[6:], [None] * 5, types[6:], "disc/test")
    ...     model = create_model("filterbank", image_size=64)
    ...     result = evaluate_split(model, DatasetSplit("disc", train, test))
    >>> result.n_train, result.n_normal, result.n_anomalous, sorted(result.metrics)[:2]
    (6, 3, 2, ['image_auroc', 'image_average_precision'])
    """

    name: str
    n_train: int | None
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
    test: ImageSet = field(metadata={"bulky": True})
    p_values: FloatArray | None = field(metadata={"bulky": True})
    curves: dict[str, tuple[FloatArray, FloatArray]] = field(metadata={"bulky": True})

    @property
    def recall(self) -> float:
        """Share of the anomalous test images that is flagged."""
        return self.true_positives / self.n_anomalous

    @property
    def false_positive_rate(self) -> float:
        """Share of the normal test images that is flagged."""
        return self.false_positives / self.n_normal

    def to_dict(self) -> dict[str, Any]:
        """Everything but arrays, images and the estimator, ready for JSON.

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
                f"{'unknown' if self.n_train is None else self.n_train} / {self.n_normal} / "
                f"{self.n_anomalous}",
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
