"""Fit an estimator so that its scorer holds out whole groups."""

from __future__ import annotations

from typing import Any

import sklearn
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

from skanomaly._typing import Groups, Images, Labels


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
