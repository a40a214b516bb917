"""What holds several images: lists, arrays, Series."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

import numpy as np
from PIL import Image

from skanomaly._images.arrays import DTYPES
from skanomaly._images.files import BYTES, PATH, EncodedImage
from skanomaly._typing import ImageLike, Images


def check_images(X: Images) -> list[Any]:
    """Validate a collection of images and return its items as a list.

    Only the container is checked: the items are checked when they are read.

    Parameters
    ----------
    X : list, tuple, 1-D ndarray of objects or strings, pandas Series, or uint8 ndarray of shape \
(n, H, W, C) with C in {1, 3, 4}
        The images. Items of the sequences may be anything that :func:`load_image` accepts.

    Returns
    -------
    items : list of length n
        The items. For a 4-D array they are views of it.

    Raises
    ------
    TypeError
        If `X` is not such a collection, e.g. a single path or PIL image, a DataFrame, a dict, a
        set or a generator.
    ValueError
        If `X` is an array of the wrong shape or dtype, or has no items.
    """
    if isinstance(X, np.ndarray):
        items = _items_of_array(X)
    elif isinstance(X, (list, tuple)) or _is_pandas(X, "Series"):
        items = list(X)
    elif isinstance(X, (*PATH, *BYTES, Image.Image, EncodedImage)):
        raise TypeError(
            f"Expected a collection of images, got a single {type(X).__name__}; wrap it in a "
            "list: [X]."
        )
    elif _is_frame(X):
        raise TypeError(
            "Expected a collection of images, got a DataFrame; pass the column that holds the "
            "images, e.g. X['path']."
        )
    else:
        raise TypeError(
            f"Expected a list, tuple, 1-D array or pandas Series of images, or a uint8 array of "
            f"shape (n, H, W, C), got {type(X).__name__}; make it a list, e.g. list(X), with one "
            "image per item and in a fixed order."
        )
    if not items:
        raise ValueError("Found an input with 0 sample(s) while a minimum of 1 is required.")
    return items


def iterate_images(X: Iterable[ImageLike]) -> Iterator[Any]:
    """Items of a collection of images, or of whatever else gives one image after the other.

    Parameters
    ----------
    X : iterable of images
        What :func:`check_images` takes, or any other iterable, such as a generator, with as many
        images as there will be.

    Returns
    -------
    iterator
        Nothing is asked for before the iterator is.

    Raises
    ------
    TypeError, ValueError
        As from :func:`check_images`, for a single image and for what has no images in an order.
        Without items there is none, and no error.

    Examples
    --------
    >>> from skanomaly._images import iterate_images
    >>> list(iterate_images(f"{i}.png" for i in range(2)))
    ['0.png', '1.png']
    """
    single = (*PATH, *BYTES, Image.Image, EncodedImage)
    checked: Any = (*single, np.ndarray, Mapping, Set)
    # The items of a frame are its columns, or their names.
    if isinstance(X, checked) or _is_frame(X) or not isinstance(X, Iterable):
        return iter(check_images(X))  # type: ignore[arg-type]
    return iter(X)


def _is_frame(X):
    """Of pandas, or of another library that calls its tables as pandas does, such as polars."""
    names = [kind.__name__ for kind in type(X).__mro__]
    return "DataFrame" in names or "LazyFrame" in names


def _is_pandas(X, name):
    # A pandas object can only exist if pandas was imported, so there is no need to import it.
    kind = getattr(sys.modules.get("pandas"), name, None)
    return kind is not None and isinstance(X, kind)


def _items_of_array(X):
    got = f"got an array of shape {X.shape} and dtype {X.dtype}"
    if X.dtype.kind in "OUT":
        if X.ndim != 1:
            raise ValueError(
                f"Expected a 1-D array of images, {got}; try list(X.ravel()) for paths, and a list "
                "of uint8 or float arrays for images."
            )
        return X.tolist()
    if X.ndim == 4:
        if X.dtype != np.uint8:
            raise ValueError(
                f"A 4-D array of images must be uint8, {got}; pass a list of arrays, list(X), for "
                f"other types ({DTYPES})."
            )
        if X.shape[-1] not in (1, 3, 4):
            hint = "1 (grey), 3 (RGB) or 4 (RGBA) channels are accepted."
            if X.shape[1] in (1, 3, 4):
                hint = "the channels come last: try np.moveaxis(X, 1, -1)."
            raise ValueError(f"Expected images of shape (n, H, W, C), {got}; {hint}")
        return list(X)
    if X.ndim == 3:
        raise ValueError(
            f"Expected a collection of images, {got}; wrap a single image in a list: [X], or "
            "split a stack of greyscale images into a list: list(X)."
        )
    raise ValueError(
        f"Expected images, not a table of numbers: {got}; pass a list of paths, PIL images or "
        "image arrays, or a uint8 array of shape (n, H, W, C)."
    )
