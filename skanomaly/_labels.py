"""What labels of images mean: the one rule of scorers, metrics, splitters and data sets."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skanomaly._typing import ArrayLike, IntArray, Labels
from skanomaly._warn import warn_user

#: Words that mark normal and anomalous images in tables and in names of folders.
GOOD_WORDS = ("good", "normal", "ok")
BAD_WORDS = ("abnormal", "anomalous", "anomaly", "bad", "defect", "ko", "ng")

_SHOWN = 5
_UNKNOWN = "leave out the images whose label is not known"


def check_labels(y: ArrayLike, name: str = "y", n_images: int | None = None) -> IntArray:
    """Labels as an array of +1 for normal and -1 for anomalous images.

    Parameters
    ----------
    y : array-like of shape (n_images,) or (n_images, 1)
        +1 and -1, in any type of number.
    name : str, default="y"
        Of the argument, for the message.
    n_images : int or None, default=None
        How many there must be; None for any number.

    Returns
    -------
    ndarray of shape (n_images,), int64

    Raises
    ------
    ValueError
        For anything else: other numbers, bools, text, missing labels, another shape or length.
        The message names the labels and says what to pass.

    Examples
    --------
    >>> from skanomaly._labels import check_labels
    >>> check_labels([1.0, -1.0])
    array([ 1, -1])
    """
    numbers = _numbers(y, name, n_images)
    if not _known(numbers).all():
        raise ValueError(
            f"{name} must hold +1 (normal) and -1 (anomalous) only, got {_listed(numbers)}: "
            f"{_advice(numbers)}"
        )
    return numbers.astype(np.int64)


def normal_images(y: Labels, n_images: int) -> IntArray:
    """Numbers of the images that may enter a model: those of +1, or all where `y` is None.

    Numbers that are no labels of ours are ignored, because scikit-learn fits outlier detectors with
    any: a warning names them, since PyOD and anomalib mark the anomalies by 1.

    Parameters
    ----------
    y : array-like of shape (n_images,) or None
        +1 for normal, -1 for anomalous images.
    n_images : int
        How many images there are.

    Returns
    -------
    ndarray of int
        Ascending.

    Raises
    ------
    ValueError
        For bools, text, missing labels, another shape or length; for -1 beside other numbers than
        +1; and where no image is normal.

    Examples
    --------
    >>> from skanomaly._labels import normal_images
    >>> normal_images([1, -1, 1], 3)
    array([0, 2])
    """
    if y is None:
        return np.arange(n_images)
    numbers = _numbers(y, "y", n_images)
    known = _known(numbers)
    if not known.all():
        others = _listed(numbers[~known])
        if (numbers == -1).any():
            raise ValueError(
                f"y holds -1 for anomalous images, but also {others}: use +1 and -1 only, so that "
                "no anomalous image enters the model"
            )
        warn_user(
            f"y holds {_listed(numbers)}, which are no labels of normal (+1) and anomalous (-1) "
            "images, and is ignored: every image is taken for normal, and defects among them enter "
            f"the model; {_advice(numbers)}"
        )
        return np.arange(n_images)
    normal = np.flatnonzero(numbers == 1)
    if normal.size == 0:
        raise ValueError("y holds no normal image (+1): a model needs at least 1 sample of them")
    return normal


def _numbers(y: Any, name: str, n_images: int | None) -> NDArray[Any]:
    """Labels as one-dimensional numbers; an error for what scikit-learn would not pass either."""
    # Of a list NumPy would make numbers of bools, and text of numbers that stand beside text.
    labels = np.asarray(y, dtype=object if isinstance(y, (list, tuple)) else None)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(
            f"{name} has shape {labels.shape}: pass one label for each image, +1 (normal) or -1 "
            "(anomalous)"
        )
    if labels.dtype.kind not in "iuf":
        labels = _from_objects(labels.tolist(), name)
    if n_images not in (None, len(labels)):
        raise ValueError(
            f"{name} holds {len(labels)} labels, but there are {n_images} images: pass one for each"
        )
    if np.isnan(labels).any():
        raise ValueError(_refusal(name, "NaN", _UNKNOWN))
    return labels


def _from_objects(labels, name):
    for label in labels:
        if isinstance(label, (bool, np.bool_)):
            what = "bools"
            advice = "pass np.where(y, -1, 1) if True marks the anomalous images"
        elif isinstance(label, (str, bytes)):
            what, advice = _of_texts([text for text in labels if isinstance(text, (str, bytes))])
        elif not isinstance(label, Real):
            what, advice = repr(label), _UNKNOWN
        else:
            continue
        raise ValueError(_refusal(name, what, advice))
    return np.array(labels, dtype=np.float64)


def _of_texts(texts):
    found = sorted(set(texts), key=str)
    listed = ", ".join(map(repr, found[:_SHOWN])) + ", ..." * (len(found) > _SHOWN)
    try:
        signs = {float(text) for text in found} <= {-1.0, 1.0}
    except ValueError:
        signs = False
    if signs:
        return f"text, {listed}", "pass np.asarray(y, dtype=float)"
    for text in found:
        if str(text).lower() in GOOD_WORDS:
            return f"text, {listed}", f"pass np.where(np.asarray(y) == {text!r}, 1, -1)"
    bad = next((text for text in found if str(text).lower() in BAD_WORDS), found[0])
    return (
        f"text, {listed}",
        f"pass np.where(np.asarray(y) == {bad!r}, -1, 1) if {bad!r} marks the anomalous images",
    )


def _refusal(name, what, advice):
    return f"{name} must hold +1 (normal) and -1 (anomalous) only, got {what}: {advice}"


def _known(numbers):
    return (numbers == 1) | (numbers == -1)


def _listed(numbers):
    found = np.unique(numbers)
    return ", ".join(f"{value:g}" for value in found[:_SHOWN]) + ", ..." * (len(found) > _SHOWN)


def _advice(numbers):
    found = set(np.unique(numbers).tolist())
    if found == {0, 1}:
        return "pass np.where(np.asarray(y) == 1, -1, 1) if 1 marks the anomalous images"
    return "pass +1 for each normal and -1 for each anomalous image"
