"""A user's own function as an embedder."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from numbers import Integral
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from skanomaly._docstrings import document
from skanomaly._images import check_images, load_with_span
from skanomaly._sklearn import HasMethods
from skanomaly._typing import Images, ValueRange
from skanomaly.embedders._base import BasePatchEmbedder
from skanomaly.embedders._batches import check_tokens_of_image
from skanomaly.embedders._docstrings import EMBEDDER_DOCS


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
    value_range : float, (float, float) or None, default=None
        As of the other embedders, for a callable: an object with ``embed`` reads images itself.
    %(n_jobs)s
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
        "value_range": BasePatchEmbedder._parameter_constraints["value_range"],
        "n_jobs": [None, Integral],
        "verbose": ["verbose"],
    }

    # There are no views of images that are handed on unread.
    augmentation = None

    def __init__(
        self,
        func: Callable[..., Any] | Any,
        *,
        value_range: ValueRange | None = None,
        n_jobs: int | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.func = func
        self.value_range = value_range
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _validate_params(self) -> None:
        super()._validate_params()
        if self.value_range is not None and hasattr(self.func, "embed"):
            raise ValueError(
                f"value_range={self.value_range!r} is for functions of arrays: func has a method "
                "embed, which is given images unread"
            )

    def _embed(
        self, X: Images, views: list[Callable[..., Any]], spans: list[Any] | None = None
    ) -> list[list[np.ndarray]]:
        items = check_images(X)
        calls = (delayed(self._call)(item, i) for i, item in enumerate(items))
        results = Parallel(n_jobs=self.n_jobs, prefer="threads", return_as="generator")(calls)
        bar = tqdm(results, total=len(items), desc="embed", unit="image", disable=not self.verbose)
        embedded = list(bar)
        if spans is not None:
            spans += [span for _, span in embedded]
        return [[tokens] for tokens, _ in embedded]

    def _call(self, item: Any, index: int) -> tuple[np.ndarray, Any]:
        func: Any = self.func
        embeds = hasattr(func, "embed")
        image, span = (item, None) if embeds else load_with_span(item, index, self.value_range)
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
        return check_tokens_of_image(patches, index, masked=True), span


def _square(n_patches: int) -> tuple[int, int]:
    side = isqrt(n_patches)
    if side * side != n_patches:
        raise ValueError(f"{n_patches} patches are no square grid; return (patches, grid)")
    return side, side
