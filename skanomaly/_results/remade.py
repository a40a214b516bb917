"""What is too large to be kept for all images: made again whenever it is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from skanomaly._images import image_size
from skanomaly._typing import FloatArray
from skanomaly.core.maps import upsample_map
from skanomaly.datasets import ImageSet

# Of the maps of a data set, and as many of its masks: where they take no more, all are kept.
_KEPT_BYTES = 2**29

T = TypeVar("T")


class Remade(Sequence[T], Generic[T]):
    """A sequence that makes an item when it is asked for it, and keeps all or none.

    Parameters
    ----------
    make : callable
        ``make(i)`` is item `i`.
    n_items : int
        How many there are.
    keeps : bool
        Whether items are kept once they were made.

    Attributes
    ----------
    seconds : float
        What making items has taken so far.
    """

    def __init__(self, make: Callable[[int], T], n_items: int, keeps: bool) -> None:
        self._make, self._n_items, self._keeps = make, n_items, keeps
        self._kept: dict[int, T] = {}
        self.seconds = 0.0

    def __len__(self) -> int:
        return self._n_items

    def __getitem__(self, i: Any) -> Any:
        if not 0 <= i < self._n_items:
            raise IndexError(i)
        if i in self._kept:
            return self._kept[i]
        start = time.perf_counter()
        item = self._make(i)
        self.seconds += time.perf_counter() - start
        if self._keeps:
            self._kept[i] = item
        return item


def maps_of(
    test: ImageSet, grids: Sequence[FloatArray], sigma: float, keeps: bool
) -> Remade[FloatArray]:
    """The maps of images at their own size, read-only.

    Parameters
    ----------
    test : ImageSet
        The images.
    grids : sequence of ndarray of shape (grid_h, grid_w)
        Their patch scores.
    sigma : float
        Of the Gaussian that smooths the maps, in pixels of the image.
    keeps : bool
        Whether maps are kept, as far as all of them are small.

    Returns
    -------
    Remade
    """

    def make(i):
        heat_map = upsample_map(grids[i], image_size(test.images[i]), sigma)
        heat_map.setflags(write=False)
        return heat_map

    return Remade(make, len(test), keeps and _fits(4 * _n_pixels(test)))


def masks_of(test: ImageSet) -> Remade[Any]:
    """The masks of images, as from `ImageSet.load_mask`; kept where all of them are small."""
    return Remade(test.load_mask, len(test), _fits(_n_pixels(test)))


def regions_of(test: ImageSet) -> tuple[Remade[Any], list[Any]]:
    """The defects of images one by one, kept where all of them are small, and their areas."""
    loaded = Remade(test.load_regions, len(test), _fits(_n_pixels(test)))
    areas = [loaded[i][1] for i in range(len(test))]
    return Remade(lambda i: loaded[i][0], len(test), False), areas


def _n_pixels(test):
    return sum(int(np.prod(image_size(path))) for path in test.images)


def _fits(n_bytes):
    return n_bytes <= _KEPT_BYTES
