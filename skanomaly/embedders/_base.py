"""What every embedder shares: reading, batching, views, the token cache, the token contract."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from copy import copy
from itertools import islice
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import TransformerMixin
from tqdm.auto import tqdm

from skanomaly._cache import TokenCache, cache_key
from skanomaly._docstrings import document
from skanomaly._images import check_images, content_digest, load_image, read_item, resize_image
from skanomaly._parameters import Estimator
from skanomaly._sklearn import Interval, StrOptions
from skanomaly._token_stream import TokenStream, stack_tokens
from skanomaly._typing import Images, IntArray, PathLike
from skanomaly.core.threads import reading_threads
from skanomaly.embedders._batches import (
    VIEWS,
    check_batch,
    check_tokens_of_image,
    read_ahead,
)
from skanomaly.embedders._docstrings import EMBEDDER_DOCS


# No output is wrapped: tokens are arrays of more dimensions than a DataFrame has.
class BasePatchEmbedder(
    TransformerMixin,
    Estimator,
    auto_wrap_output_keys=None,  # type: ignore[call-arg]
):
    """Base of the embedders: images in, patch tokens out.

    A subclass turns a batch of arrays of one shape into tokens (`_embed_batch`), says what its
    tokens depend on (`_fingerprint`), and which sides its input may have (`_cell`,
    `_default_image_size`). It has the parameters `image_size`, `resize`, `augmentation`,
    `batch_size`, `cache_dir`, `cache_size` and `verbose`.

    Notes
    -----
    Images are read by threads ahead of the model, as many as there are cores, up to 8.
    """

    _parameter_constraints: dict = {
        "image_size": [None, Interval(Integral, 1, None, closed="left")],
        "resize": [StrOptions({"squash", "shortest_edge"})],
        "augmentation": [None, StrOptions({"rotate90", "dihedral"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "cache_dir": [None, str, os.PathLike],
        "cache_size": [Interval(Integral, 1, None, closed="left")],
        "stream": ["boolean"],
        "verbose": ["verbose"],
    }

    image_size: int | None
    resize: str
    augmentation: str | None
    batch_size: int
    cache_dir: PathLike | None
    cache_size: int
    verbose: bool | int
    stream: bool = False

    _max_side: int | None = None  # longest side of an input in pixels

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**{**kwargs, "auto_wrap_output_keys": None})

    # What a subclass says.

    def _embed_batch(self, images: np.ndarray) -> Sequence[np.ndarray] | np.ndarray:
        """(grid_h, grid_w, dim) tokens of each of (B, height, width, 3) images."""
        raise NotImplementedError

    def _fingerprint(self) -> Mapping[str, object]:
        """Plain values by name: all that the tokens of an image depend on."""
        raise NotImplementedError

    def _cell(self) -> int:
        """Sides of an input are multiples of this, in pixels."""
        raise NotImplementedError

    def _default_image_size(self) -> int:
        """What ``image_size=None`` stands for, in pixels."""
        raise NotImplementedError

    def _interpolation(self) -> str:
        """Filter by which images are resized."""
        return "bicubic"

    def _start_reading(self) -> None:
        """Called by each thread that is to read images."""

    # What it gets.

    @document(EMBEDDER_DOCS)
    def fit(self, X: Images, y: Any = None) -> BasePatchEmbedder:
        """Check the parameters and the container; nothing is learned.

        Parameters
        ----------
        %(X)s
        %(y)s

        Returns
        -------
        self : object
            The embedder.
        """
        self._validate_params()
        check_images(X)
        return self

    @document(EMBEDDER_DOCS)
    def transform(self, X: Images) -> np.ndarray | TokenStream:
        """Embed images.

        Parameters
        ----------
        %(X)s

        Returns
        -------
        ndarray of shape (n_images, grid_h, grid_w, dim), float32
            Patch tokens, C-contiguous. Where images give different grids, a 1-D object array of
            (grid_h, grid_w, dim) arrays. With ``stream=True`` a sequence that computes them when
            they are asked for, and of which ``np.asarray`` makes that array.
        """
        self._validate_params()
        tokens = self._stream(check_images(X))
        return tokens if self.stream else np.asarray(tokens)

    @document(EMBEDDER_DOCS)
    def fit_transform(self, X: Images, y: Any = None) -> np.ndarray:
        """Embed training images, with their augmented views.

        Differs from ``fit(X).transform(X)`` where `augmentation` is set, as does scikit-learn's
        `TargetEncoder`: views serve training alone.

        Parameters
        ----------
        %(X)s
        %(y)s

        Returns
        -------
        ndarray of shape (n_images, grid_h, grid_w, dim), float32
            As from :meth:`transform`. With `augmentation`: (n_images, n_views, grid_h, grid_w,
            dim), view 0 being the image itself.
        """
        self.fit(X)
        if self.augmentation is None:
            return np.asarray(self.transform(X))
        items = check_images(X)
        embedded = self._embed(items, range(len(items)), VIEWS[self.augmentation])
        views = [stack_tokens(tokens) for tokens in embedded]
        if any(view.dtype == object for view in views) or len({v.shape for v in views}) > 1:
            raise ValueError(
                f"augmentation={self.augmentation!r} needs one square grid for all images; use "
                "resize='squash'"
            )
        return stack_tokens(views)

    def set_output(self, *, transform: str | None = None) -> BasePatchEmbedder:
        """Accept what tokens are, arrays, and refuse what they cannot be.

        Parameters
        ----------
        transform : {"default", None}, default=None
            ``"default"`` and None change nothing. scikit-learn's other containers have two
            dimensions, and tokens have four: ``set_output`` of a pipeline that holds an embedder
            refuses them too. Where they are set for all of scikit-learn, by
            ``sklearn.set_config(transform_output="pandas")``, tokens stay arrays.

        Returns
        -------
        self : object
            The embedder.

        Raises
        ------
        ValueError
            For ``"pandas"``, ``"polars"`` and whatever else.
        """
        if transform not in (None, "default"):
            raise ValueError(
                f"{type(self).__name__} gives arrays of shape (n_images, grid_h, grid_w, dim), for "
                f"which transform={transform!r} has no place; leave it at 'default'"
            )
        return self

    @property
    def get_feature_names_out(self) -> Any:
        """Not available: the components of a token have no names.

        It counts as missing, so that scikit-learn passes over it where it may, and a pipeline says
        which of its steps has none.

        Raises
        ------
        AttributeError
            Always.
        """
        raise AttributeError(
            f"{type(self).__name__} has no get_feature_names_out: the components of a token have "
            "no names, and how many they are is known from the shape that transform returns"
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def _stream(self, items: list[Any]) -> TokenStream:
        """Tokens of the images themselves, by the parameters of now."""
        embed = copy(self)._embed
        return TokenStream(
            lambda numbers: (views[0] for views in embed(items, numbers, VIEWS[None])),
            range(len(items)),
        )

    def _embed(
        self,
        items: list[Any],
        numbers: Sequence[int] | IntArray,
        views: list[Callable[[np.ndarray], np.ndarray]],
    ) -> Iterator[list[np.ndarray]]:
        """Tokens of those images, one after the other: a list of one array a view."""
        self._cell()  # loads the model before there are threads that would wait for each other
        cache = context = None
        if self.cache_dir is not None:
            if not os.fspath(self.cache_dir):
                raise ValueError("cache_dir is empty; pass a folder, or None for no cache")
            cache = TokenCache(self.cache_dir, self.cache_size)
            context = {"embedder": type(self).__name__, **self._fingerprint()}
        calls = ((self._prepare, items[i], i, views, cache, context) for i in numbers)
        ahead = read_ahead(calls, reading_threads(), self.batch_size, self._start_reading)
        with (
            closing(ahead) as prepared,
            tqdm(total=len(numbers), desc="embed", unit="image", disable=not self.verbose) as bar,
        ):
            for start in range(0, len(numbers), self.batch_size):
                part = numbers[start : start + self.batch_size]
                tokens: list[list[Any]] = []
                waiting = []
                for i, (keys, known, images) in zip(part, islice(prepared, len(part)), strict=True):
                    waiting += [
                        (i, known, v, key, image)
                        for v, (key, image) in enumerate(zip(keys, images, strict=True))
                        if image is not None
                    ]
                    tokens.append(known)
                for known, v, key, array in self._run(waiting):
                    known[v] = array
                    if cache is not None:
                        cache.put(key, array)
                bar.update(len(part))
                yield from tokens

    def _prepare(
        self, item: Any, index: int, views: Any, cache: TokenCache | None, context: Any
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """Of each view: its cache key, its tokens if cached, and its input if not."""
        item = read_item(item, index)
        keys: list[Any] = [None] * len(views)
        known: list[Any] = [None] * len(views)
        if cache is not None:
            content = content_digest(item, index)
            names = [None if v == 0 else f"{self.augmentation}-{v}" for v in range(len(views))]
            keys = [cache_key(content=content, view=name, **context) for name in names]
            known = [cache.get(key) for key in keys]
        if all(array is not None for array in known):
            return keys, known, [None] * len(views)
        image = load_image(item, index)
        image = self._fit_to_size(image, index)
        images = [
            np.ascontiguousarray(view(image)) if array is None else None
            for view, array in zip(views, known, strict=True)
        ]
        return keys, known, images

    def _run(self, waiting: list[Any]) -> Iterator[Any]:
        """Embed the inputs, batched by shape and dtype."""
        groups: dict[Any, list[Any]] = {}
        for entry in waiting:
            groups.setdefault((entry[-1].shape, entry[-1].dtype), []).append(entry)
        for entries in groups.values():
            for start in range(0, len(entries), self.batch_size):
                part = entries[start : start + self.batch_size]
                batch = self._embed_batch(np.stack([image for *_, image in part]))
                check_batch(batch, len(part), type(self).__name__)
                for (i, known, v, key, _), array in zip(part, batch, strict=True):
                    yield known, v, key, check_tokens_of_image(array, i)

    def _fit_to_size(self, image: np.ndarray, index: int) -> np.ndarray:
        """The whole image, never a crop of it, at the size the model takes."""
        size = self._input_size(*image.shape[:2])
        if self._max_side is not None and max(size) > self._max_side:
            raise ValueError(
                f"image {index} of {image.shape[:2]} pixels (height, width) would be embedded at "
                f"{size}, of which {self._max_side} is the most; lower image_size, use "
                "resize='squash', or cut the image into pieces"
            )
        return self._resize(image, size)

    def _resize(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return resize_image(image, size, self._interpolation())

    def _side(self) -> int:
        return int(self.image_size or self._default_image_size())

    def _input_size(self, height: int, width: int) -> tuple[int, int]:
        size, cell = self._side(), self._cell()
        if size % cell:
            nearest = max(cell, round(size / cell) * cell)
            raise ValueError(
                f"image_size={size} is not a multiple of the patch of {cell} pixels; "
                f"the nearest is {nearest}"
            )
        if self.resize == "squash":
            return size, size
        scale = size / min(height, width)
        height, width = (max(1, round(side * scale / cell)) * cell for side in (height, width))
        return height, width
