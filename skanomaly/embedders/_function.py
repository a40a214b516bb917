"""A user's own function as an embedder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import isqrt
from numbers import Integral
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from skanomaly._docstrings import document
from skanomaly._images import load_image
from skanomaly._sklearn import HasMethods
from skanomaly._typing import IntArray
from skanomaly.embedders._base import BasePatchEmbedder
from skanomaly.embedders._batches import check_tokens_of_image
from skanomaly.embedders._docstrings import EMBEDDER_DOCS

_AT_ONCE = 64  # images whose tokens may wait to be fetched


@document(EMBEDDER_DOCS)
class FunctionPatches(BasePatchEmbedder):
    """Patch tokens from a function of one's own.

    Parameters
    ----------
    func : callable or object with a method ``embed``
        A callable takes an image, an array of shape (H, W, 3), uint8 or float32 in [0, 1], and
        returns its tokens: an array of shape (grid_h, grid_w, dim), or a tuple
        ``(patches, (grid_h, grid_w))`` with `patches` of shape (grid_h * grid_w, dim). An object
        with ``embed(path) -> (patches, (grid_h, grid_w), (height, width))`` is given each element
        of `X` as it is; it may return tokens alone too, (grid_h, grid_w, dim), or patches of a
        square grid, (patches, dim).
    %(n_jobs)s
    %(stream)s
    %(verbose)s

    Notes
    -----
    Nothing is cached on disk, because the content of a function is not known: put
    ``Pipeline(memory=...)`` around it. A lambda cannot be pickled.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly import FunctionPatches
    >>> def mean_colour(image):
    ...     cells = image.reshape(2, image.shape[0] // 2, 2, image.shape[1] // 2, 3)
    ...     return cells.mean(axis=(1, 3))
    >>> images = np.zeros((5, 32, 32, 3), dtype=np.uint8)
    >>> FunctionPatches(mean_colour).transform(images).shape
    (5, 2, 2, 3)
    """

    _parameter_constraints: dict = {
        "func": [callable, HasMethods("embed")],
        "n_jobs": [None, Integral],
        "stream": ["boolean"],
        "verbose": ["verbose"],
    }

    # There are no views of images that are handed on unread.
    augmentation = None

    def __init__(
        self,
        func: Callable[..., Any] | Any,
        *,
        n_jobs: int | None = None,
        stream: bool = False,
        verbose: bool | int = False,
    ) -> None:
        self.func = func
        self.n_jobs = n_jobs
        self.stream = stream
        self.verbose = verbose

    def _embed(
        self, items: list[Any], numbers: Sequence[int] | IntArray, views: list[Any]
    ) -> Iterator[list[np.ndarray]]:
        pool = Parallel(n_jobs=self.n_jobs, prefer="threads", return_as="generator")
        with tqdm(total=len(numbers), desc="embed", unit="image", disable=not self.verbose) as bar:
            # In parts: joblib would go on to the end, whether its results are fetched or not.
            for start in range(0, len(numbers), _AT_ONCE):
                part = numbers[start : start + _AT_ONCE]
                for tokens in pool(delayed(self._call)(items[i], i) for i in part):
                    bar.update()
                    yield [tokens]

    def _call(self, item: Any, index: int) -> np.ndarray:
        func: Any = self.func
        embeds = hasattr(func, "embed")
        image = item if embeds else load_image(item, index)
        try:
            result = func.embed(image) if embeds else func(image)
        except Exception as exc:
            if hasattr(exc, "add_note"):  # Python 3.11
                exc.add_note(f"raised by func for image {index}")
            raise
        if not isinstance(result, (tuple, list) if embeds else tuple):
            result = (result, None)
        try:
            patches, grid = result[:2]
            if hasattr(patches, "detach"):  # a tensor of torch, on whatever device
                patches = patches.detach().cpu().float().numpy()
            patches = np.array(patches)  # a copy: the function may use one buffer for all images
            if embeds and grid is None and patches.ndim == 2:
                grid = _square(len(patches))
            if grid is not None:
                height, width = grid
                if patches.ndim == 2 and len(patches) == height * width:
                    patches = patches.reshape(height, width, patches.shape[1])
                if patches.shape[:2] != (height, width):
                    raise ValueError(f"patches of shape {patches.shape} for the grid {grid}")
        except (TypeError, ValueError) as exc:
            raise ValueError(
                f"func returned no patches with a grid for image {index}: {exc}"
            ) from exc
        if patches.ndim != 3 or 0 in patches.shape or patches.dtype.kind not in "fiub":
            raise ValueError(
                f"func must return tokens of shape (grid_h, grid_w, dim), or patches of shape "
                f"(grid_h * grid_w, dim) with their grid; got shape {patches.shape} of dtype "
                f"{patches.dtype} for image {index}"
            )
        return check_tokens_of_image(patches, index, masked=True)


def _square(n_patches: int) -> tuple[int, int]:
    side = isqrt(n_patches)
    if side * side != n_patches:
        raise ValueError(f"{n_patches} patches are no square grid; return (patches, grid)")
    return side, side
