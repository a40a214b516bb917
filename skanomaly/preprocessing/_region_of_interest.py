"""A region that is looked at, the same in all images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from skanomaly._docstrings import document
from skanomaly._patch_tokens import PatchTokens
from skanomaly._sklearn import Interval
from skanomaly._typing import PathLike
from skanomaly.core.region_overlap import overlap_with_cells
from skanomaly.preprocessing._base import MASK_DOCS, PatchMask
from skanomaly.preprocessing._regions import read_region

Polygon: TypeAlias = Sequence[Sequence[float]]

_ROUNDING = 1e-9  # so that a cell that is half covered counts as that


@document(MASK_DOCS)
class RegionOfInterest(PatchMask):
    """Masks all patches outside of a region, in training images and in new ones.

    What lies there is neither learned nor scored: a conveyor, a fixture, another part. It stands in
    a Pipeline right after the embedder. In heat maps the masked patches are 0, or as low as
    the lowest where scores are below 0.

    Parameters
    ----------
    region : str, os.PathLike, ndarray of bool or sequence
        What to look at: the path of a mask, an image file that is not 0 in the region; a mask as a
        2-D array of bool; a polygon, a sequence of at least three vertices ``(x, y)``, or several;
        or the path of a ``.json`` file of polygons, ``[[[x, y], ...], ...]`` or
        ``{"polygons": ..., "size": [width, height]}``. Of several polygons a patch may lie in any.
    size : sequence of two numbers or None, default=None
        ``(width, height)`` of the image in whose pixels polygons are given; ``(0, 0)`` is its upper
        left corner. None: as shares of width and height, from 0 to 1.
    min_overlap : float, default=0.5
        Patches of whose cell at least this share is covered are looked at. A small number, such as
        0.01, takes whatever the region touches.

    Attributes
    ----------
    area_ : float
        Share of the image that the region covers.
    %(features_in)s

    See Also
    --------
    PCAForeground : What is the object in each image, without a mask.

    Notes
    -----
    The region belongs to the whole image, whatever its size: a mask of 2000 x 1000 pixels goes with
    grids of 14 x 14 and of 20 x 40 patches alike, and needs only to have been drawn on an image of
    the same view. The file is read in `fit` and kept: a fitted model does not depend on it.

    Views of training images, as from `augmentation`, are refused: most are turned, the region is
    not, and tokens do not tell views that are turned from those that are only darker or brighter.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly import RegionOfInterest
    >>> tokens = np.ones((1, 4, 4, 3))
    >>> left = [(0, 0), (0.5, 0), (0.5, 1), (0, 1)]
    >>> masked = RegionOfInterest(left).fit_transform(tokens)
    >>> np.isnan(masked[0, 0, :, 0])
    array([False, False,  True,  True])
    """

    _parameter_constraints: dict = {
        "region": [str, os.PathLike, np.ndarray, list, tuple],
        "size": [None, list, tuple],
        "min_overlap": [Interval(Real, 0, 1, closed="right")],
    }

    def __init__(
        self,
        region: PathLike | NDArray[np.bool_] | Polygon | Sequence[Polygon],
        *,
        size: Sequence[float] | None = None,
        min_overlap: float = 0.5,
    ) -> None:
        self.region = region
        self.size = size
        self.min_overlap = min_overlap

    def _learn(self, tokens: PatchTokens) -> None:
        if tokens.n_views > 1:
            raise ValueError(
                "RegionOfInterest takes no views of training images: tokens do not tell whether "
                "views are turned, while the region is not. Set augmentation=None of the embedder, "
                "and place RegionOfInterest before other steps that mask patches"
            )
        self._region = read_region(self.region, self.size)
        self._digest = self._region.digest()
        for grid in sorted(set(tokens.grids)):
            self._outside(grid)  # said in fit where nothing is left
        self.area_ = float(overlap_with_cells(self._region, (64, 64)).mean())

    def _masked(self, tokens: PatchTokens) -> NDArray[np.bool_]:
        grids = {grid: self._outside(grid) for grid in set(tokens.grids)}
        return np.concatenate([grids[grid] for grid in tokens.grids])

    def _outside(self, grid):
        overlap = overlap_with_cells(self._region, grid)
        outside = overlap < self.min_overlap - _ROUNDING
        if outside.all():
            raise ValueError(
                f"the region of interest covers at most {overlap.max():.2g} of a patch in a grid "
                f"of {grid[0]} x {grid[1]}, and min_overlap is {self.min_overlap}: draw a larger "
                "one, or set a smaller min_overlap or a larger image_size"
            )
        return outside.ravel()

    def transform(self, X: Any) -> Any:
        check_is_fitted(self)
        return super().transform(X)

    transform.__doc__ = PatchMask.transform.__doc__

    def _facts(self) -> dict[str, Any]:
        """What the manifest of a model file says of the region."""
        return {"area": self.area_, "sha256": self._digest}

    def _origin_text(self) -> str:
        return f"{type(self).__name__}({self._digest}, min_overlap={self.min_overlap!r})"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = True
        return tags
