"""What a report shows, as plain values: no HTML, and nothing that a page would have to work out."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn

from skanomaly import metrics
from skanomaly._cache import cache_key
from skanomaly._pipelines import parameters_as_text, split_detector
from skanomaly._results.known import n_trained_on
from skanomaly._stamps import file_digest
from skanomaly._version import __version__
from skanomaly.datasets import ImageSet
from skanomaly.inspection._limits import limits_for
from skanomaly.report._near import explanations
from skanomaly.report._report_curves import curves_of
from skanomaly.report._thumbnails import (
    colours_beyond,
    deepest_score,
    jpeg,
    map_picture,
    outline_path,
    photograph,
)

# The pictures of all cards take at most so many bytes, whatever the number of images; the most
# anomalous images are there in more pixels too, and are explained.
_CARD_BYTES = 30e6
_SIDES = (480, 400, 320, 256, 192, 128, 96)
_N_LARGE, _LARGE_SIDE, _N_EXPLAINED = 40, 1024, 24
_N_SAMPLES = 6
_MOST_THREADS = 8

Plain = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """What a report is made from, whether it was measured or only scored.

    Attributes
    ----------
    name : str
        Of the data.
    images : sequence of images
        Paths, or what else a person calls an image.
    scores, patch_scores, p_values
        Of the images; `p_values` may be None.
    threshold, contamination : float
        Of the detector; `contamination` may be None.
    estimator : estimator
        Fitted.
    y, defect_types
        Labels and types of defect, or None.
    test : ImageSet or None
        For the masks.
    metrics : dict of str to float
        What was measured.
    curves : dict of str to tuple of ndarray
        As of an evaluation; may be empty.
    n_train : int or None
        Normal images trained on.
    parameters, versions : dict of str to str
        Of the estimator and of the libraries.
    """

    name: str
    images: Sequence[Any]
    scores: Any
    patch_scores: Sequence[Any]
    p_values: Any
    threshold: float
    contamination: float | None
    estimator: Any
    y: Any
    defect_types: Sequence[str] | None
    test: ImageSet | None
    metrics: dict[str, float]
    curves: dict[str, Any]
    n_train: int | None
    parameters: dict[str, str]
    versions: dict[str, str]


def subject_of(result: Any) -> Subject:
    """An evaluation or scored images, by the same names.

    Parameters
    ----------
    result : EvaluationResult or ScoredImages
        An evaluation knows its labels, metrics, parameters and versions; scored images may have
        labels.

    Returns
    -------
    Subject

    Raises
    ------
    TypeError
        When it is neither.
    ValueError
        When there are no images.
    """
    missing = [n for n in ("scores", "patch_scores", "threshold") if not hasattr(result, n)]
    if missing:
        raise TypeError(
            "a report is made from an EvaluationResult, as of evaluate_split, or from ScoredImages,"
            f" not from {type(result).__name__}"
        )
    test = result.test
    images = list(test.images if test is not None else result.images)
    if not images:
        raise ValueError("a report needs at least one image")
    y = result.y
    kinds = test.defect_types if test is not None else getattr(result, "defect_types", None)
    measured = getattr(result, "metrics", None)
    if measured is None:
        both = y is not None and len(set(np.asarray(y).tolist())) == 2
        measured = {"image_auroc": metrics.image_auroc(y, result.scores)} if both else {}
    libraries = {lib.__name__: lib.__version__ for lib in (sklearn, np, scipy)}
    versions = {"python": platform.python_version(), "skanomaly": __version__, **libraries}
    return Subject(
        name=str(result.name),
        images=images,
        scores=np.asarray(result.scores, dtype=np.float64),
        patch_scores=result.patch_scores,
        p_values=result.p_values,
        threshold=float(result.threshold),
        contamination=result.contamination,
        estimator=result.estimator,
        y=None if y is None else np.asarray(y),
        defect_types=kinds,
        test=test,
        metrics=measured,
        curves=getattr(result, "curves", {}),
        n_train=n_trained_on(result.estimator),
        parameters=getattr(result, "parameters", None) or parameters_as_text(result.estimator),
        versions=getattr(result, "versions", None) or versions,
    )


def report_data(
    subject: Subject,
    *,
    cost_miss: float = 1.0,
    cost_false_alarm: float = 1.0,
    command: str | None = None,
) -> Plain:
    """All that the page shows.

    Parameters
    ----------
    subject : Subject
        From :func:`subject_of`.
    cost_miss, cost_false_alarm : float, default=1.0
        With which the page begins.
    command : str or None, default=None
        That makes the report again.

    Returns
    -------
    dict
        Ready for JSON, with finite numbers alone. Its `images` are in the order in which they were
        given.
    """
    scorer = split_detector(subject.estimator).scorer
    limits = limits_for(subject.estimator, subject.patch_scores)
    held_out = getattr(scorer, "train_scores_", None)
    return {
        "name": shown_text(subject.name),
        "threshold": subject.threshold,
        "contamination": subject.contamination,
        "costs": {"miss": float(cost_miss), "falseAlarm": float(cost_false_alarm)},
        "metrics": {name: float(value) for name, value in subject.metrics.items()},
        "limits": [float(limits[0]), float(limits[1]), deepest_score(subject.patch_scores, limits)],
        "scale": _scale_of_colours(),
        "images": _image_rows(subject, limits),
        "trainScores": [] if held_out is None else np.sort(held_out).tolist(),
        "curves": curves_of(subject, held_out),
        "provenance": _provenance(subject, scorer, command),
    }


def _image_rows(subject, limits):
    """What each card shows."""
    n, names = len(subject.images), _names(subject.images)
    order = np.argsort(subject.scores, kind="stable")
    rank = np.empty(n, dtype=int)
    rank[order] = np.arange(n)
    side = card_side(subject.images)
    flagged = subject.scores < subject.threshold
    deepest = deepest_score(subject.patch_scores, limits)

    def row(i):
        image = subject.images[i]
        pixels = photograph(image, i)
        size = pixels.shape[:2]
        mask = None
        if subject.test is not None and subject.y[i] == -1:
            mask = subject.test.load_mask(i)
        return {
            "name": names[i],
            "score": float(subject.scores[i]),
            "p": None if subject.p_values is None else float(subject.p_values[i]),
            "y": None if subject.y is None else int(subject.y[i]),
            "type": None if subject.defect_types is None else shown_text(subject.defect_types[i]),
            "width": int(size[1]),
            "height": int(size[0]),
            "photo": jpeg(pixels, side),
            "large": jpeg(pixels, _LARGE_SIDE, 88)
            if rank[i] < _N_LARGE and max(size) > 1.2 * side
            else None,
            "map": map_picture(subject.patch_scores[i], size, limits, deepest),
            "outline": "" if mask is None else outline_path(mask),
            "why": None,
        }

    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        rows = list(pool.map(row, range(n)))
    explained = [int(i) for i in order[:_N_EXPLAINED] if flagged[i]]
    for i, why in explanations(subject.estimator, subject.images, explained).items():
        texts = {key: [shown_text(text) for text in why[key]] for key in ("says", "lines")}
        rows[i]["why"] = {**why, **texts}
    return rows


def card_side(images: Sequence[Any]) -> int:
    """Longest side of the pictures on cards: the longest with which all together are small."""
    chosen = images[:: max(1, len(images) // _N_SAMPLES)][:_N_SAMPLES]
    samples = [photograph(image) for image in chosen]
    for side in _SIDES:
        mean = sum(len(jpeg(pixels, side)) for pixels in samples) / len(samples)
        if mean * len(images) <= _CARD_BYTES:
            return side
    return _SIDES[-1]


def _provenance(subject, scorer, command):
    known = split_detector(subject.estimator).train_images
    digests = {"test images": _files_digest(subject.images)}
    if known is not None and None not in known.digests:
        digests["training images"] = cache_key(files=list(known.digests))
    calibration = dict(getattr(scorer, "calibration_", None) or {})
    if tuned_on := calibration.pop("image_digests", None):
        digests["images of the threshold"] = cache_key(files=sorted(tuned_on))
    return {
        "created": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": None if command is None else shown_text(command),
        "trained": subject.n_train,
        "model": " → ".join(_step_names(subject.estimator)),
        "digests": {name: digest for name, digest in digests.items() if digest},
        "calibration": {str(k): str(v) for k, v in calibration.items() if v is not None},
        "versions": dict(subject.versions),
        "parameters": {name: shown_text(text) for name, text in subject.parameters.items()},
    }


def _step_names(estimator):
    split = split_detector(estimator)
    *before, last = (type(step).__name__ for step in (*split.transformers, split.scorer))
    if members := getattr(split.scorer, "detectors_", None):
        inside = (f"{name}: {' → '.join(_step_names(one))}" for name, one in members.items())
        last = f"{last} ({'; '.join(inside)})"
    return [*before, last]


def _files_digest(images):
    """Digest of what is in the files, in order; None where one is no file."""
    if not all(isinstance(image, (str, os.PathLike)) for image in images):
        return None
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        return cache_key(files=list(pool.map(file_digest, images)))


def _names(images):
    """What to call each image: its path from the folder that all have in common."""
    paths = [Path(image) if isinstance(image, (str, os.PathLike)) else None for image in images]
    folders = [os.path.abspath(path.parent) for path in paths if path is not None]
    try:
        common = os.path.commonpath(folders) if folders else "."
    except ValueError:  # on several drives
        common = None
    names = []
    for i, path in enumerate(paths):
        if path is None:
            names.append(f"image {i}")
        elif common is None:
            names.append(shown_text(path.name))
        else:
            names.append(shown_text(Path(os.path.relpath(path, common)).as_posix()))
    return names


def shown_text(text: Any) -> str:
    """A text without what no UTF-8 file holds: bytes of a name that cannot be decoded as codes.

    Parameters
    ----------
    text : str
        A stranger's name.

    Returns
    -------
    str
    """
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def _scale_of_colours():
    """The colours of heat for the legend: a few of them, as CSS writes them."""
    colours = colours_beyond()
    chosen = colours[np.linspace(0, len(colours) - 1, 15).astype(int)].tolist()
    return [f"rgba({r}, {g}, {b}, {a / 255:.3f})" for r, g, b, a in chosen]
