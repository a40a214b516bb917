"""An embedder of large images, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from itertools import chain, product
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import NotFittedError

from skanomaly._docstrings import document
from skanomaly._faults import is_of_an_image, of_an_image
from skanomaly._origins import Origin
from skanomaly._sklearn import Interval
from skanomaly._typing import Augmentation, PathLike, ValueRange
from skanomaly.core.tiling import join_tiles, tile_starts
from skanomaly.embedders._base import BasePatchEmbedder
from skanomaly.embedders._docstrings import EMBEDDER_DOCS

# Parameters of the embedder that are for images from outside, with what leaves them unset.
_OF_IMAGES = {"augmentation": None, "cache_dir": None, "stream": False, "value_range": None}
# Of what a fitted one remembers, that which is not of its embedder.
_OWN = {"embedder", "value_range", "tiles_of", "tile", "overlap", "scale", "tiling"}
# Tokens depend on how tiles are joined: to be raised whenever that changes.
TILING_VERSION = 1


class _Layout(NamedTuple):
    """Sides in pixels."""

    tile: int
    cell: int
    overlap: int


@document(EMBEDDER_DOCS)
class Tiled(BasePatchEmbedder):
    """Patch tokens of images of any size at full resolution, from an embedder of their tiles.

    An image is cut into overlapping squares, which the embedder takes one by one, and their tokens
    are joined on one grid. A patch is then as many pixels of the image as it is of a tile, however
    large the image is: where an embedder alone would bring 8000 x 2000 pixels to 448 x 448, a
    defect of 20 pixels stays as large as it was.

    Parameters
    ----------
    embedder : embedder
        One of this package, or another that is derived from
        :class:`skanomaly.base.BasePatchEmbedder`. It is given each tile as an image of `tile`
        pixels, and never changed. Its `resize` has no effect here, nor has its `image_size` where
        `tile` is given. How images are read and kept is said here, and refused there.
    tile : int or None, default=None
        Side of a tile in pixels, a multiple of the embedder's patch. None: its `image_size`.
    overlap : int or float, default=0.25
        What neighbouring tiles have in common, at least: pixels, a multiple of the patch, or a
        share of `tile`, which is rounded to one.
    scale : float, default=1.0
        At which images are cut: 0.5 halves both sides before.
    %(augmentation)s
    %(value_range)s
    cache_dir : str, os.PathLike or None, default=None
        Folder for tokens, one file an image, of the whole grid: 1 GB takes some eight images of
        8000 x 2000 pixels with a patch of 14 pixels and 384 components.
    %(cache_size)s
    %(stream)s
    %(verbose)s

    See Also
    --------
    skanomaly.core.tiling.join_tiles : How tokens of tiles become one grid.

    Notes
    -----
    Both sides of an image are first brought to the nearest multiple of the patch by resizing, of
    less than one patch, so that nothing is cropped and every token lies exactly where its pixels
    are. Tiles are spread evenly, the last one ending where the image does. What is shorter than a
    tile is continued by reflection to the length of one; tokens of what was added are left out.

    The middle of an overlap is where one tile passes into the next, over half of its width. Tokens
    at the border of a tile, which know least of their surroundings, do not count; all others are
    those of the tile to the last bit. A patch that is masked in a tile that counts is masked.

    Of an image at a time there are in memory its pixels, those of the next, one batch of tiles
    (``embedder__batch_size``), and the grid: 8000 x 2000 pixels with a patch of 14 pixels and 384
    components make 571 x 143 tokens, 125 MB. With ``stream=True`` there is one such grid at a
    time. Time is in proportion to the pixels, times ``1 / (1 - overlap) ** 2``.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly import FilterBankPatches, Tiled
    >>> images = np.zeros((2, 200, 600, 3), dtype=np.uint8)
    >>> Tiled(FilterBankPatches(), tile=128).transform(images).shape
    (2, 25, 75, 102)
    """

    _parameter_constraints: dict = {
        "embedder": [BasePatchEmbedder],
        "tile": [None, Interval(Integral, 1, None, closed="left")],
        "overlap": [
            Interval(Integral, 0, None, closed="left"),
            Interval(Real, 0, 1, closed="left"),
        ],
        "scale": [Interval(Real, 0, None, closed="neither")],
        **{
            name: BasePatchEmbedder._parameter_constraints[name]
            for name in (
                "augmentation",
                "value_range",
                "cache_dir",
                "cache_size",
                "stream",
                "verbose",
            )
        },
    }

    # Images are large: one at a time, and the next one read meanwhile.
    batch_size = 1
    _n_readers = 1
    _one_grid = "images must be square and of one size"

    def __init__(
        self,
        embedder: BasePatchEmbedder,
        *,
        tile: int | None = None,
        overlap: int | float = 0.25,
        scale: float = 1.0,
        augmentation: Augmentation | None = None,
        value_range: ValueRange | None = None,
        cache_dir: PathLike | None = None,
        cache_size: int = 20_000_000_000,
        stream: bool = False,
        verbose: bool | int = False,
    ) -> None:
        self.embedder = embedder
        self.tile = tile
        self.overlap = overlap
        self.scale = scale
        self.augmentation = augmentation
        self.value_range = value_range
        self.cache_dir = cache_dir
        self.cache_size = cache_size
        self.stream = stream
        self.verbose = verbose

    def _validate_params(self) -> None:
        super()._validate_params()
        inner = self.embedder
        name = type(inner).__name__
        inner._validate_params()
        if isinstance(inner, Tiled) or hasattr(getattr(inner, "func", None), "embed"):
            raise ValueError(
                f"embedder={inner!r} cannot be given tiles, which are arrays of one size"
            )
        for param, unset in _OF_IMAGES.items():
            if getattr(inner, param, unset) not in (unset, None):
                raise ValueError(
                    f"{param} of the {name} in this Tiled has no effect, because it is given "
                    f"tiles, not images: set {param} of Tiled"
                )
        if self.tile is None and not hasattr(inner, "image_size"):
            raise ValueError(f"{name} has no image_size that could be the side of a tile: set tile")

    # What the base asks for.

    def _cell(self) -> int:
        inner = self._inner()
        try:
            return inner._cell()
        except NotImplementedError:  # of a function, which says it by what it makes of a tile
            side = self._side()
            grey = np.full((side, side, 3), 127, dtype=np.uint8)
            grid = np.shape(inner.transform([grey])[0])[:2]
            if grid[0] != grid[1] or side % grid[0]:
                raise ValueError(
                    f"the {type(inner).__name__} of this Tiled makes a grid of {grid} of a tile of "
                    f"{side} x {side} pixels: patches must be squares of whole pixels"
                ) from None
            return side // grid[0]

    def _side(self) -> int:
        """Side of a tile in pixels."""
        return int(self.tile) if self.tile is not None else self.embedder._side()

    def _interpolation(self) -> str:
        return self._inner()._interpolation()

    def _start_reading(self) -> None:
        self._inner()._start_reading()

    def _component_names(self) -> list[str] | None:
        return self._inner()._component_names()

    def _fingerprint(self) -> dict[str, object]:
        inner = self._inner()
        return {
            "tiles_of": type(inner).__name__,
            "tile": self._side(),
            "overlap": self.overlap,
            "scale": self.scale,
            "tiling": TILING_VERSION,
            **inner._fingerprint(),
        }

    def _cache_context(self) -> dict[str, object]:
        return {**self._inner()._cache_context(), **self._origin()}

    def _origin(self) -> Origin:
        if "embedder__func" in self._changed_params():  # whatever its name
            raise NotFittedError("embedder__func of this Tiled changed since fit; call fit again")
        return super()._origin()

    def _inner(self) -> BasePatchEmbedder:
        """The embedder as it is given tiles; as it was in `fit` where `"auto"` had a meaning."""
        inner, side = copy(self.embedder), self._side()
        given = {"image_size": side, "resize": "squash", "stream": True, "verbose": False}
        for name in given.keys() & inner.get_params(deep=False).keys():
            setattr(inner, name, given[name])
        inner.__dict__.pop("_params_at_fit", None)
        inner.__dict__.pop("_origin_at_fit", None)
        if at_fit := self.__dict__.get("_origin_at_fit"):
            kept = {name: value for name, value in at_fit.items() if name not in _OWN}
            inner._origin_at_fit = {**kept, "embedder": at_fit["tiles_of"]}
        return inner

    def _input_size(self, height: int, width: int) -> tuple[int, int]:
        cell = self._layout().cell
        sides = (max(1, round(side * self.scale / cell)) * cell for side in (height, width))
        height, width = sides
        return height, width

    def _resize(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return self._inner()._resize(image, size)

    def _embed(self, *args: Any) -> Iterator[list[np.ndarray]]:
        # The layout is asked for once: a function has to be called for it.
        one_run = copy(self)
        one_run._known_layout = self._layout()
        yield from super(Tiled, one_run)._embed(*args)

    def _layout(self) -> _Layout:
        """Sides of tile, patch and overlap in pixels, checked."""
        if (known := self.__dict__.get("_known_layout")) is not None:
            return known
        tile, cell = self._side(), self._cell()
        if tile % cell:
            near = max(cell, round(tile / cell) * cell)
            raise ValueError(
                f"tile={tile} is no multiple of the patch of {cell} pixels; the nearest is {near}"
            )
        overlap = self.overlap
        if not isinstance(overlap, Integral):
            overlap = min(round(overlap * tile / cell), tile // cell - 1) * cell
        if overlap % cell or overlap >= tile:
            raise ValueError(
                f"overlap={self.overlap} pixels must be less than the tile of {tile}, and a "
                f"multiple of the patch of {cell} pixels"
            )
        return _Layout(tile, cell, int(overlap))

    def _run(self, waiting: list[Any]) -> Iterator[Any]:
        """Embed the images, one after the other."""
        for index, known, view, key, image in waiting:
            try:
                tokens = self._tokens_of(image)
            except Exception as exc:
                if isinstance(exc, ValueError) and not isinstance(exc, NotFittedError):
                    told = f"in a tile of image {index}, which it numbers as an image: {exc}"
                    error = ValueError(told)
                    raise (of_an_image(error) if is_of_an_image(exc) else error) from exc
                if hasattr(exc, "add_note"):  # Python 3.11
                    exc.add_note(f"raised for a tile of image {index}")
                raise
            yield known, view, key, tokens

    def _tokens_of(self, image: np.ndarray) -> np.ndarray:
        """Tokens of an image whose sides are multiples of the patch."""
        tile, cell, overlap = self._layout()
        cells = [side // cell for side in image.shape[:2]]
        starts = [tile_starts(n, tile // cell, overlap // cell) for n in cells]
        missing = [(0, max(0, tile - side)) for side in image.shape[:2]]
        if any(after for _, after in missing):
            image = np.pad(image, (*missing, (0, 0)), mode="symmetric")
        tiles = [
            image[y : y + tile, x : x + tile]
            for y, x in product(*([cell * start for start in along] for along in starts))
        ]
        embedded = iter(self._inner().transform(tiles))
        first = next(embedded)
        fine, left = divmod(len(first), tile // cell)  # tokens a cell, of several strides
        if left or first.shape[0] != first.shape[1]:
            raise ValueError(
                f"tokens of shape {first.shape} for a tile of {tile} x {tile} pixels, of which a "
                f"patch is {cell}"
            )
        rows, columns = ([fine * start for start in along] for along in starts)
        grid = join_tiles(chain([first], embedded), (rows, columns))
        return np.ascontiguousarray(grid[: fine * cells[0], : fine * cells[1]])
