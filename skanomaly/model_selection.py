"""Splitters for one-class problems: anomalies never train, and always test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import BaseCrossValidator, check_cv
from sklearn.utils import check_consistent_length

from skanomaly._labels import check_labels
from skanomaly._parameters import check_integer
from skanomaly._typing import IntArray


class OneClassSplit(BaseCrossValidator):
    """Cross-validation of the normal images; every anomalous image is in every test set.

    Parameters
    ----------
    cv : int or splitter, default=5
        How the normal images are split: a number of folds, not shuffled, or any splitter of
        scikit-learn. One that needs groups, such as `GroupKFold`, gets those of the normal images:
        no group is on both sides.

    Notes
    -----
    With a plain splitter the anomalous images of the training folds would go to waste (they never
    enter a model), and a metric of a fold would rest on a fraction of them.

    Examples
    --------
    >>> from skanomaly.model_selection import OneClassSplit
    >>> for train, test in OneClassSplit(2).split(None, [1, 1, -1, 1, 1]):
    ...     print(train, test)
    [3 4] [0 1 2]
    [0 1] [2 3 4]
    """

    def __init__(self, cv: Any = 5) -> None:
        self.cv = cv

    def get_n_splits(
        self, X: Any = None, y: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> int:
        """Number of splits.

        Parameters
        ----------
        X : Ignored
            Present for scikit-learn's API.
        y : array-like of shape (n_images,)
            +1 normal, -1 anomalous; only some splitters need it.
        groups : array-like of shape (n_images,), optional
            Group of each image.

        Returns
        -------
        int
            How often :meth:`split` yields.
        """
        if y is None:
            return self._splitter().get_n_splits()
        normal = np.flatnonzero(check_labels(y) == 1)
        groups = None if groups is None else np.asarray(groups)[normal]
        return self._splitter().get_n_splits(normal, np.ones(len(normal)), groups)

    def split(
        self, X: Any, y: ArrayLike, groups: ArrayLike | None = None
    ) -> Iterator[tuple[IntArray, IntArray]]:
        """Indices of the training and the test images of each split.

        Parameters
        ----------
        X : array-like or None
            Only its length counts.
        y : array-like of shape (n_images,)
            +1 normal, -1 anomalous.
        groups : array-like of shape (n_images,), optional
            Group of each image. An anomalous image does not take its group out of training.

        Yields
        ------
        train : ndarray of int
            Normal images.
        test : ndarray of int
            The other normal images, and all anomalous ones; ascending.

        Raises
        ------
        ValueError
            When `y` holds anything but +1 and -1, lengths differ, or `cv` is no splitter.
        """
        labels = check_labels(y)
        check_consistent_length(X, labels, groups)
        normal, anomalous = np.flatnonzero(labels == 1), np.flatnonzero(labels == -1)
        groups = None if groups is None else np.asarray(groups)[normal]
        for train, test in self._splitter().split(normal, np.ones(len(normal)), groups):
            yield normal[train], np.sort(np.concatenate([normal[test], anomalous]))

    def _splitter(self):
        if isinstance(self.cv, bool):
            raise ValueError(f"cv must be a number of folds or a splitter, got {self.cv!r}")
        return check_cv(self.cv)


def few_shot_indices(n_images: int, n_shots: int, seed: int = 0) -> IntArray:
    """The reference images of a few-shot experiment.

    Parameters
    ----------
    n_images : int
        Training images there are, in sorted order.
    n_shots : int
        References to take.
    seed : int, default=0
        Which ones.

    Returns
    -------
    ndarray of shape (n_shots,), int
        ``seed * n_shots`` to ``(seed + 1) * n_shots - 1``, which is how the code of AnomalyDINO
        [1]_ numbers its seeds: seeds never share an image.

    Raises
    ------
    ValueError
        When there are too few images for that seed, or a number is no integer (or a bool).

    References
    ----------
    .. [1] Damm et al., "AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with
       DINOv2", WACV 2025.

    Examples
    --------
    >>> from skanomaly.model_selection import few_shot_indices
    >>> few_shot_indices(10, 4, seed=1)
    array([4, 5, 6, 7])
    """
    check_integer(n_images, "n_images", 0)
    check_integer(n_shots, "n_shots", 1)
    check_integer(seed, "seed", 0)
    start = seed * n_shots
    if start + n_shots > n_images:
        raise ValueError(
            f"seed {seed} takes images {start} to {start + n_shots - 1}, but there are {n_images}"
        )
    return np.arange(start, start + n_shots)
