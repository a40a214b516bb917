"""Groups of images: what their labels mean, and fits whose scorers hold out whole ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Set
from typing import Any

import numpy as np
import sklearn
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

from skanomaly._typing import Groups, Images, IntArray, Labels


def group_numbers(groups: Groups, n_images: int) -> IntArray | None:
    """Number of each image's group, in the order in which they come first.

    Parameters
    ----------
    groups : iterable of hashable, or None
        Any labels.
    n_images : int
        How many there must be.

    Returns
    -------
    ndarray of shape (n_images,), int, or None
        None where there are no groups.

    Raises
    ------
    TypeError
        When it is no sequence, or a label is not hashable.
    ValueError
        When there are more or fewer than images, or a label is missing.
    """
    if groups is None:
        return None
    # A set has no order, and a dict is one of keys.
    if isinstance(groups, (str, bytes, Set, Mapping)) or not np.iterable(groups):
        raise TypeError(f"groups must be a sequence of one label for each image, got {groups!r}")
    labels = list(groups)
    if len(labels) != n_images:
        raise ValueError(f"groups has {len(labels)} labels for {n_images} images: give one each")
    numbers: dict[object, int] = {}
    out = np.empty(n_images, dtype=np.intp)
    for i, label in enumerate(labels):
        try:
            hash(label)
        except TypeError:
            raise TypeError(
                f"groups[{i}] is {label!r}: a label must be hashable, such as a str or an int"
            ) from None
        if _is_missing(label):
            raise ValueError(
                f"groups[{i}] is {label!r}: give each image a group; one of its own, where it "
                "belongs to no other"
            )
        out[i] = numbers.setdefault(label, len(numbers))
    return out


def group_names(groups: Groups) -> list[str | None] | None:
    """By what the groups of :func:`group_numbers` are known again among other images.

    Parameters
    ----------
    groups : iterable of hashable, or None
        As they were given to it.

    Returns
    -------
    list of str, or None
        For each group a digest of its label, which does not tell what that was; ``""`` where a
        label, such as an object with an address, says nothing by which it is known again. None
        where there are no groups.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly._grouped_fit import group_names
    >>> group_names(["a", 1, "a"]) == group_names(np.array(["a", "a", 1], dtype=object))
    True
    """
    if groups is None:
        return None
    return [_name(label) for label in dict.fromkeys(groups)]


def _name(label):
    text = _plain(label)
    return "" if text is None else hashlib.sha256(text.encode()).hexdigest()[:32]


def _plain(label):
    """A text that equal labels have in common, and others have not; None where there is none."""
    if isinstance(label, np.generic):
        label = label.item()
    if isinstance(label, (bool, int, float)):  # equal numbers are one group
        return f"number {int(label) if label == label // 1 else label!r}"
    if isinstance(label, tuple):
        parts = [_plain(part) for part in label]
        return None if None in parts else f"tuple {parts}"
    text = repr(label)
    return None if " at 0x" in text else f"{type(label).__name__} {text}"


def _is_missing(label):
    try:
        return label is None or bool(label != label)
    except TypeError:  # pandas' NA is neither equal nor unequal to itself
        return True


def fit_with_groups(estimator: Any, images: Images, y: Labels, groups: Groups) -> Any:
    """Fit a Pipeline; where its last step takes groups, with them.

    Parameters
    ----------
    estimator : estimator
        A search has folds of its own, and is given no groups.
    images : list of images
        As for its `fit`.
    y : array-like of shape (n_images,) or None
        As for its `fit`.
    groups : sequence of hashable, length n_images, or None
        What the images of one part have in common.

    Returns
    -------
    estimator
        Itself.
    """
    name = None if groups is None else _parameter(estimator)
    if name is None:
        return estimator.fit(images, y)
    # The name of the step says where they go, whatever routing the user has asked for.
    with sklearn.config_context(enable_metadata_routing=False):
        return estimator.fit(images, y, **{name: groups})


def takes_groups(estimator: Any) -> bool:
    """Whether :func:`fit_with_groups` hands groups on."""
    return _parameter(estimator) is not None


def _parameter(estimator: Any) -> str | None:
    """What `fit` calls the groups; None where it takes none."""
    if not isinstance(estimator, Pipeline):
        return "groups" if has_fit_parameter(estimator, "groups") else None
    name, last = estimator.steps[-1]
    inner = _parameter(last) if hasattr(last, "fit") else None  # "passthrough" has none
    return None if inner is None else f"{name}__{inner}"
