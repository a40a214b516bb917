"""A user's own function as an embedder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import partial
from inspect import isroutine
from itertools import islice
from math import isqrt
from numbers import Integral
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.exceptions import NotFittedError
from tqdm.auto import tqdm

from skanomaly._cache import TokenCache, cache_key, token_cache
from skanomaly._docstrings import document
from skanomaly._faults import of_an_image
from skanomaly._images import content_digest, load_with_span, read_item
from skanomaly._origins import Origin
from skanomaly._parameters import without_addresses
from skanomaly._recipes import value_as_text
from skanomaly._sklearn import HasMethods
from skanomaly._typing import PathLike, ValueRange
from skanomaly.core.choosing import remember_in
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
    value_range : float, (float, float) or None, default=None
        As of the other embedders, for a callable: an object with ``embed`` reads images itself.
    func_version : str or None, default=None
        A name for what `func` does now, needed with `cache_dir`: what a function calls and an
        object contains cannot be known, so change it whenever the tokens of an image change.
    cache_dir : str, os.PathLike or None, default=None
        Folder for tokens, one file an image, found by the content of the image and the name and
        version of `func`; and for which search was measured to be fastest. Elements of `X` must
        then be images, also for an object with ``embed``.
    %(cache_size)s
    %(n_jobs)s
    %(stream)s
    %(verbose)s

    Notes
    -----
    A fitted embedder refuses another `func`, or `func_version`, than that of `fit`. It cannot see
    that a function of the same name was rewritten between processes; `func_version` says so.

    ``Pipeline(memory=...)`` is no cache for images: it goes by their paths, so that a photograph
    that was replaced keeps its old tokens. A lambda cannot be pickled.

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
        "func_version": [None, str],
        "n_jobs": [None, Integral],
        **{
            name: BasePatchEmbedder._parameter_constraints[name]
            for name in ("value_range", "cache_dir", "cache_size", "stream", "verbose")
        },
    }

    # There are no views of images that are handed on unread.
    augmentation = None

    def __init__(
        self,
        func: Callable[..., Any] | Any,
        *,
        value_range: ValueRange | None = None,
        func_version: str | None = None,
        cache_dir: PathLike | None = None,
        cache_size: int = 20_000_000_000,
        n_jobs: int | None = None,
        stream: bool = False,
        verbose: bool | int = False,
    ) -> None:
        self.func = func
        self.value_range = value_range
        self.func_version = func_version
        self.cache_dir = cache_dir
        self.cache_size = cache_size
        self.n_jobs = n_jobs
        self.stream = stream
        self.verbose = verbose

    def _validate_params(self) -> None:
        super()._validate_params()
        if self.value_range is not None and hasattr(self.func, "embed"):
            raise ValueError(
                f"value_range={self.value_range!r} is for functions of arrays: func has a method "
                "embed, which is given images unread"
            )

    def _fingerprint(self) -> dict[str, object]:
        # Of an object the class alone: what its repr shows may change from image to image.
        by_name = isroutine(self.func) or isinstance(self.func, partial)
        named = self.func if by_name else type(self.func)
        return {"func": value_as_text(named), "func_version": self.func_version}

    def _origin(self) -> Origin:
        if "func" in self._changed_params():  # whatever its name
            raise NotFittedError("func of this FunctionPatches changed since fit; call fit again")
        return super()._origin()

    def _cache_context(self) -> Mapping[str, object]:
        if not self.func_version:
            raise ValueError(
                "cache_dir needs func_version: what func contains cannot be known, so give it a "
                "name, such as func_version='1', and another one whenever its tokens change"
            )
        return {**self._origin(), "code": _code_of(self.func)}

    def _embed(
        self,
        items: Sequence[Any] | Mapping[int, Any],
        numbers: Iterable[int],
        views: list[Any],
        spans: list[Any] | None,
    ) -> Iterator[list[np.ndarray]]:
        cache = token_cache(self.cache_dir, self.cache_size)
        remember_in(self.cache_dir)
        context = None if cache is None else self._cache_context()
        pool = Parallel(n_jobs=self.n_jobs, prefer="threads", return_as="generator")
        total = len(numbers) if isinstance(numbers, Sized) else None
        left = iter(numbers)
        with tqdm(total=total, desc="embed", unit="image", disable=not self.verbose) as bar:
            # In parts: joblib would go on to the end, whether its results are fetched or not.
            while part := list(islice(left, min(_AT_ONCE, self._at_once or _AT_ONCE))):
                calls = (delayed(self._cached)(items[i], i, cache, context) for i in part)
                for tokens, span in pool(calls):
                    if spans is not None:
                        spans.append(span)
                    bar.update()
                    yield [tokens]

    def _cached(
        self, item: Any, index: int, cache: TokenCache | None, context: Any
    ) -> tuple[np.ndarray, Any]:
        """Tokens of an image, from the cache if it has them, and the span of what was read."""
        if cache is None:
            return self._call(item, item, index)
        content = read_item(item, index)
        key = cache_key(content=content_digest(content, index, self.value_range), **context)
        tokens, span = cache.get(key), None
        if tokens is None:
            tokens, span = self._call(item, content, index)
            cache.put(key, tokens)
        return tokens, span

    def _call(self, item: Any, content: Any, index: int) -> tuple[np.ndarray, Any]:
        """What `func` makes of an element of X, of which `content` is what was read, if it was."""
        func: Any = self.func
        embeds = hasattr(func, "embed")
        image, span = (item, None) if embeds else load_with_span(content, index, self.value_range)
        try:
            result = func.embed(image) if embeds else func(image)
        except Exception as exc:
            if hasattr(exc, "add_note"):  # Python 3.11
                exc.add_note(f"raised by func for image {index}")
            if isinstance(exc, ValueError):  # the word of a function for an image of no use to it
                of_an_image(exc)
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


def _code_of(func: Any) -> list[str] | None:
    """What tells functions of one name apart: their code, and the values that they close over.

    Not lists and the like, which the function itself may change from image to image.
    """
    code = getattr(func, "__code__", None)
    if code is None:
        return None
    closed = [cell.cell_contents for cell in func.__closure__ or ()]
    cells = [value_as_text(type(v) if isinstance(v, (list, dict, set)) else v) for v in closed]
    defaults = [value_as_text(func.__defaults__), value_as_text(func.__kwdefaults__)]
    return [code.co_code.hex(), without_addresses(repr(code.co_consts)), *defaults, *cells]


def _square(n_patches: int) -> tuple[int, int]:
    side = isqrt(n_patches)
    if side * side != n_patches:
        raise ValueError(f"{n_patches} patches are no square grid; return (patches, grid)")
    return side, side
