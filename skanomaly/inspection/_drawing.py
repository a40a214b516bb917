"""What the displays share: axes to draw into, entries of docstrings, checks of what is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import column_or_1d
from sklearn.utils.validation import check_is_fitted

from skanomaly._images import image_size
from skanomaly._optional import import_optional
from skanomaly._pipelines import check_embedder, split_pipeline
from skanomaly._typing import FloatArray
from skanomaly.metrics._validation import check_mask

SCORE_LABEL = "score (higher is more normal)"

# Entries that the docstrings of several displays share.
DISPLAY_DOCS = {
    "estimator": """
        estimator : Pipeline or detector
            As for :func:`~skanomaly.anomaly_maps`; fitted.
        """,
    "images": """
        images : list, tuple, 1-D array or Series of images, or a 4-D uint8 array
            Paths, bytes, PIL images or arrays.
        """,
    "name": """
        name : str or None, default=None
            Of the model, for the legend or title.
        """,
    "name_of_plot": """
        name : str or None, default=None
            Of the model, for the legend or title; None: `name` of the display.
        """,
    "ax": """
        ax : matplotlib Axes or None, default=None
            None: those of a new figure.
        """,
    "line_kwargs": """
        **kwargs : object
            For `plot` of the axes, such as ``color="black"``.
        """,
    "no_matplotlib": """
        ImportError
            Where matplotlib is not installed.
        """,
    "sigma": """
        sigma : float, default=4.0
            Of the Gaussian that smooths the maps, in pixels.
        """,
    "axes": """
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """,
}


def check_matplotlib(user: str, ax: Any = None) -> None:
    """What can be said before images are scored: is matplotlib there, is `ax` its Axes or None."""
    import_optional("matplotlib.pyplot", "plot", user)
    if ax is not None and not hasattr(ax, "get_figure"):
        raise TypeError(f"ax must be the Axes of matplotlib, got {type(ax).__name__}")


def axes_for(ax: Any, user: str) -> tuple[Any, Any]:
    """The axes that were given, or new ones, and their figure.

    Parameters
    ----------
    ax : matplotlib Axes or None
        None: those of a new figure.
    user : str
        Name of the display, for the error where matplotlib is missing.

    Returns
    -------
    ax : matplotlib Axes
    figure : matplotlib Figure
    """
    check_matplotlib(user, ax)
    if ax is None:
        pyplot = import_optional("matplotlib.pyplot", "plot", user)
        _, ax = pyplot.subplots(layout="constrained")
    return ax, ax.get_figure()


def as_text(name: str) -> str:
    """A name from files or folders as matplotlib shows it, letter by letter."""
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    # A pair of dollars would be a formula, and what begins with "_" is left out of legends.
    return f"{' ' * text.startswith('_')}{text}".replace("$", r"\$")


def grid_of_axes(n: int, n_columns: int, user: str) -> NDArray[Any]:
    """Axes for pictures, in rows, in a new figure; those that are left over are removed."""
    pyplot = import_optional("matplotlib.pyplot", "plot", user)
    n_columns = min(n_columns, n)
    n_rows = -(-n // n_columns)
    _, axes = pyplot.subplots(
        n_rows,
        n_columns,
        figsize=(3 * n_columns + 1, 3.3 * n_rows),
        squeeze=False,
        layout="constrained",
    )
    for left_over in axes.flat[n:]:
        left_over.remove()
    return axes.ravel()[:n]


def check_truth(
    masks: Sequence[ArrayLike | None], images: Sequence[Any], all_known: bool = False
) -> list[NDArray[np.bool_] | None]:
    """Masks as arrays of bool, each of the size of its image; before images are scored.

    Parameters
    ----------
    masks : sequence of array-like of shape (height, width), or None
        One for each image; None where the defect is not known.
    images : sequence of images
    all_known : bool, default=False
        None is an error.

    Returns
    -------
    list of ndarray of shape (height, width), bool, or None

    Raises
    ------
    ValueError
        The message names the image.
    """
    if len(masks) != len(images):
        raise ValueError(f"masks must be one for each image: got {len(masks)} for {len(images)}")
    out: list[NDArray[np.bool_] | None] = []
    for i, (mask, image) in enumerate(zip(masks, images, strict=True)):
        if mask is None and not all_known:
            out.append(None)
            continue
        values, size = check_mask(mask, f"mask {i}", "(images, masks)"), image_size(image, i)
        if values.shape != size:
            raise ValueError(f"mask {i} has shape {values.shape}, but its image has {size}")
        out.append(values)
    return out


def scores_of(estimator: Any, images: Sequence[Any]) -> FloatArray:
    """`score_samples` of images, as float64.

    Parameters
    ----------
    estimator : Pipeline or detector
        Fitted; its scorer needs no maps.
    images : sequence of images

    Returns
    -------
    ndarray of shape (n_images,), float64
    """
    split = split_pipeline(estimator)
    check_is_fitted(estimator)
    return np.asarray(split.scorer.score_samples(split.tokens_of(images)), dtype=np.float64)


def check_scores_images(estimator: Any) -> Any:
    """The scorer of a Pipeline or detector; TypeError where it does not score images."""
    split = split_pipeline(estimator)
    check_embedder(split)
    if not hasattr(split.scorer, "score_samples"):
        raise TypeError(f"{type(split.scorer).__name__} has no score_samples")
    return split.scorer


def check_scores(scores: ArrayLike, name: str) -> FloatArray:
    """Scores as float64; ValueError where there are none, or one is not finite."""
    values = column_or_1d(scores).astype(np.float64)
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite numbers, at least one")
    return values
