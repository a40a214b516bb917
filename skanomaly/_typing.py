"""Names for what public functions take and return, for type checkers and readers."""

from __future__ import annotations

import os
from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "ArrayLike",
    "Augmentation",
    "FloatArray",
    "Groups",
    "ImageLike",
    "Images",
    "IntArray",
    "Labels",
    "PathLike",
    "ValueRange",
]

PathLike: TypeAlias = str | os.PathLike[str]
# One image: a path, the bytes of a file, an array of pixels, or a PIL image. The last is not named,
# because this module is imported where Pillow is not wanted yet.
ImageLike: TypeAlias = PathLike | bytes | NDArray[Any] | Any
# Several: a list, a tuple, a 1-D array or a Series of them, or one 4-D uint8 array.
Images: TypeAlias = Collection[ImageLike] | NDArray[Any]
# White, black being 0; or black and white: the numbers in images that stand for them.
ValueRange: TypeAlias = float | Sequence[float]
# What views of training images are made: a name, or names and angles in degrees.
Augmentation: TypeAlias = str | Sequence[str | float]
# +1 for normal, -1 for anomalous images.
Labels: TypeAlias = ArrayLike | None
# A label of each image, which those of one part share.
Groups: TypeAlias = Iterable[Hashable] | None
FloatArray: TypeAlias = NDArray[np.floating[Any]]
IntArray: TypeAlias = NDArray[np.signedinteger[Any]]
