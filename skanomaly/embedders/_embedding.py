"""From images to patch tokens: reading ahead, batches of one shape, the token cache."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import closing
from copy import copy
from itertools import islice
from numbers import Integral, Real
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from skanomaly._cache import cache_key, token_cache
from skanomaly._faults import of_an_image
from skanomaly._images import (
    content_digest,
    load_with_span,
    read_item,
    resize_image,
)
from skanomaly._origins import Origin
from skanomaly._sklearn import Interval, InvalidParameterError, StrOptions
from skanomaly._token_stream import TokenStream
from skanomaly._typing import Augmentation, PathLike
from skanomaly.core.choosing import remember_in
from skanomaly.core.threads import reading_threads
from skanomaly.core.views import VIEWS, View, rotate_image, shrunk_size, views_of
from skanomaly.embedders._batches import (
    check_batch,
    check_tokens_of_image,
    read_ahead,
)
from skanomaly.embedders._fitted import FittedEmbedder


class ImageEmbedding(FittedEmbedder):
    """Base of the embedders, as far as it goes through images and computes their tokens.

    :class:`skanomaly.base.BasePatchEmbedder` is the class to derive from.
    """

    _parameter_constraints: dict = {
        "image_size": [None, Interval(Integral, 1, None, closed="left")],
        "resize": [StrOptions({"squash", "shortest_edge"})],
        "augmentation": [None, str, list, tuple],
        "value_range": [None, Interval(Real, 0, None, closed="neither"), tuple, list],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "cache_dir": [None, str, os.PathLike],
        "cache_size": [Interval(Integral, 1, None, closed="left")],
        "stream": ["boolean"],
        "verbose": ["verbose"],
    }

    image_size: int | None
    resize: str
    augmentation: Augmentation | None
    batch_size: int
    cache_dir: PathLike | None
    cache_size: int
    verbose: bool | int
    stream: bool = False

    _max_side: int | None = None  # longest side of an input in pixels
    _n_readers: int | None = None  # threads that read images, at most
    _at_once: int | None = None  # images that are read ahead of what is asked for, at most

    # What a subclass says.

    def _embed_batch(self, images: np.ndarray) -> Sequence[np.ndarray] | np.ndarray:
        """(grid_h, grid_w, dim) tokens of each of (B, height, width, 3) images."""
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

    def _manner(self) -> str:
        """How the last tokens were computed, for who asked for a progress bar."""
        return ""

    def _cache_context(self) -> Mapping[str, object]:
        """Plain values by name: what kept tokens depend on but the image and the view."""
        return self._origin()

    # What it does.

    def _validate_params(self) -> None:
        super()._validate_params()
        try:
            views_of(self.augmentation)
        except ValueError as exc:
            raise InvalidParameterError(
                f"The 'augmentation' parameter of {type(self).__name__} {exc}"
            ) from exc

    def _stream(self, items: list[Any], spans: list[Any] | None = None) -> TokenStream:
        """Tokens of the images themselves, by the parameters of now."""
        embed = copy(self)._embed
        return TokenStream(
            lambda numbers: (views[0] for views in embed(items, numbers, VIEWS[None], spans)),
            range(len(items)),
        )

    def _embed_each(
        self, items: Mapping[int, Any], numbers: Iterable[int], at_once: int
    ) -> tuple[Iterator[np.ndarray], Origin]:
        """Tokens of images that come one at a time, and what they depend on.

        `numbers` may make the items as it goes; it is so many images ahead of the tokens, and as
        many as there are threads, at most.
        """
        self._validate_params()
        embedder, origin = copy(self), self._origin()
        embedder._at_once = at_once
        embedded = embedder._embed(items, numbers, VIEWS[None], None)
        return (views[0] for views in embedded), origin

    def _embed(
        self,
        items: Sequence[Any] | Mapping[int, Any],
        numbers: Iterable[int],
        views: list[View],
        spans: list[Any] | None,
    ) -> Iterator[list[np.ndarray]]:
        """Tokens of those images, one after the other: a list of one array a view.

        `spans`, if it is given, gets those of the images that are read.
        """
        cache = token_cache(self.cache_dir, self.cache_size)
        remember_in(self.cache_dir)
        context = None if cache is None else self._cache_context()
        at_once = min(self.batch_size, self._at_once or self.batch_size)
        calls = ((self._prepare, items[i], i, views, cache, context, spans) for i in numbers)
        n_readers = self._n_readers or reading_threads()
        ahead = read_ahead(calls, n_readers, at_once, self._start_reading)
        total = len(numbers) if isinstance(numbers, Sized) else None
        with (
            closing(ahead) as prepared,
            tqdm(total=total, desc="embed", unit="image", disable=not self.verbose) as bar,
        ):
            while part := list(islice(prepared, at_once)):
                waiting = [
                    (i, known, v, key, image)
                    for i, keys, known, images in part
                    for v, (key, image) in enumerate(zip(keys, images, strict=True))
                    if image is not None
                ]
                tokens = [known for _, _, known, _ in part]
                for known, v, key, array in self._run(waiting):
                    known[v] = array
                    if cache is not None:
                        cache.put(key, array)
                if self.verbose:
                    bar.set_postfix_str(self._manner(), refresh=False)
                bar.update(len(part))
                del part, waiting  # while the tokens are used
                yield from tokens

    def _prepare(
        self, item: Any, index: int, views: Any, cache: Any, context: Any, spans: list[Any] | None
    ) -> tuple[int, list[Any], list[Any], list[Any]]:
        """The index; of each view its cache key, its tokens if cached, and its input if not."""
        item = read_item(item, index)
        keys: list[Any] = [None] * len(views)
        known: list[Any] = [None] * len(views)
        if cache is not None:
            content = content_digest(item, index, self.value_range)
            keys = [cache_key(content=content, view=view.name, **context) for view in views]
            known = [cache.get(key) for key in keys]
        if all(array is not None for array in known):
            return index, keys, known, [None] * len(views)
        image, span = load_with_span(item, index, self.value_range)
        if spans is not None:
            spans.append(span)
        wanted = [view for view, array in zip(views, known, strict=True) if array is None]
        made = dict(self._views_of(image, wanted, index))
        return index, keys, known, [made.get(view) for view in views]

    def _views_of(
        self, image: np.ndarray, views: list[View], index: int
    ) -> Iterator[tuple[View, np.ndarray]]:
        """Views of an image, at the size the model takes."""
        size = self._size_of(image, index)
        to_turn = resized = None
        for view in views:
            if view.angle:
                if to_turn is None:
                    smaller = shrunk_size(image.shape[:2], size)
                    to_turn = resize_image(image, smaller, self._interpolation())
                fitted = self._resize(rotate_image(to_turn, view.angle), size)
            else:
                resized = fitted = self._resize(image, size) if resized is None else resized
            yield view, np.ascontiguousarray(view.after(fitted))

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

    def _size_of(self, image: np.ndarray, index: int) -> tuple[int, int]:
        """The size at which the model takes the whole image, never a crop of it."""
        size = self._input_size(*image.shape[:2])
        if self._max_side is not None and max(size) > self._max_side:
            raise of_an_image(
                ValueError(
                    f"image {index} of {image.shape[:2]} pixels (height, width) would be embedded "
                    f"at {size}, of which {self._max_side} is the most; lower image_size, use "
                    "resize='squash', or cut the image into pieces"
                )
            )
        return size

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
