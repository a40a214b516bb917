"""What every embedder shares: reading, batching, views, the token cache, the token contract."""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from numbers import Integral

import numpy as np
from joblib import effective_n_jobs
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from tqdm.auto import tqdm

from skanomaly._cache import TokenCache, cache_key
from skanomaly._images import check_images, content_digest, load_image, read_item, resize_image

# Views of a training image, by the name of the augmentation; the first is the image itself.
_VIEWS = {
    None: [lambda image: image],
    "rotate90": [lambda image, k=k: np.rot90(image, k) for k in range(4)],
    "dihedral": [
        lambda image, k=k, flip=flip: np.rot90(image[:, ::-1] if flip else image, k)
        for flip in (False, True)
        for k in range(4)
    ],
}


class BasePatchEmbedder(TransformerMixin, BaseEstimator):
    """Base of the embedders: images in, patch tokens out.

    A subclass turns a batch of arrays of one shape into tokens (`_embed_batch`), says what its
    tokens depend on (`_fingerprint`), and which sides its input may have (`_cell`,
    `_default_image_size`).
    """

    _parameter_constraints: dict = {
        "image_size": [None, Interval(Integral, 1, None, closed="left")],
        "resize": [StrOptions({"squash", "shortest_edge"})],
        "augmentation": [None, StrOptions({"rotate90", "dihedral"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "cache_dir": [None, str, os.PathLike],
        "cache_size": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [None, Integral],
        "verbose": ["verbose"],
    }

    _interpolation = "bicubic"
    _max_side = None  # longest side of an input in pixels

    def fit(self, X, y=None):
        """Check the parameters and the container; nothing is learned.

        Parameters
        ----------
        X : list, tuple, 1-D array or Series of images, or a 4-D uint8 array
            Paths, bytes, PIL images or arrays.
        y : Ignored
            Present for scikit-learn's API.

        Returns
        -------
        self : object
            The embedder.
        """
        self._validate_params()
        check_images(X)
        return self

    def transform(self, X):
        """Embed images.

        Parameters
        ----------
        X : list, tuple, 1-D array or Series of images, or a 4-D uint8 array
            Paths, bytes, PIL images or arrays.

        Returns
        -------
        ndarray of shape (n_images, grid_h, grid_w, dim), float32
            Patch tokens, C-contiguous. Where images give different grids, a 1-D object array of
            (grid_h, grid_w, dim) arrays.
        """
        self._validate_params()
        return _stack([views[0] for views in self._embed(X, _VIEWS[None])])

    def fit_transform(self, X, y=None):
        """Embed training images, with their augmented views.

        Differs from ``fit(X).transform(X)`` where `augmentation` is set, as does scikit-learn's
        `TargetEncoder`: views serve training alone.

        Parameters
        ----------
        X : list, tuple, 1-D array or Series of images, or a 4-D uint8 array
            Paths, bytes, PIL images or arrays.
        y : Ignored
            Present for scikit-learn's API.

        Returns
        -------
        ndarray of shape (n_images, grid_h, grid_w, dim), float32
            As from :meth:`transform`. With `augmentation`: (n_images, n_views, grid_h, grid_w,
            dim), view 0 being the image itself.
        """
        self.fit(X)
        if self.augmentation is None:
            return self.transform(X)
        views = [_stack(tokens) for tokens in self._embed(X, _VIEWS[self.augmentation])]
        if any(view.dtype == object for view in views) or len({v.shape for v in views}) > 1:
            raise ValueError(
                f"augmentation={self.augmentation!r} needs one square grid for all images; use "
                "resize='squash'"
            )
        return _stack(views)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    def __sklearn_is_fitted__(self):
        return True

    def _embed(self, X, views):
        """Tokens of each image: a list of lists, one array a view."""
        items = check_images(X)
        self._cell()  # loads the model before there are threads that would wait for each other
        cache = context = None
        if self.cache_dir is not None:
            if not os.fspath(self.cache_dir):
                raise ValueError("cache_dir is empty; pass a folder, or None for no cache")
            cache = TokenCache(self.cache_dir, self.cache_size)
            context = {"embedder": type(self).__name__, **self._fingerprint()}
        tokens = [[None] * len(views) for _ in items]
        calls = ((self._prepare, item, i, views, cache, context) for i, item in enumerate(items))
        n_threads = effective_n_jobs(self.n_jobs)
        ahead = _ahead(calls, n_threads, self.batch_size, self._start_reading)
        with (
            closing(ahead) as prepared,
            tqdm(total=len(items), desc="embed", unit="image", disable=not self.verbose) as bar,
        ):
            for start in range(0, len(items), self.batch_size):
                numbers = range(start, min(start + self.batch_size, len(items)))
                waiting = []
                for i, (keys, known, images) in zip(
                    numbers, islice(prepared, len(numbers)), strict=True
                ):
                    tokens[i] = known
                    waiting += [
                        (i, v, keys[v], image)
                        for v, image in enumerate(images)
                        if image is not None
                    ]
                for i, v, key, array in self._run(waiting):
                    tokens[i][v] = array
                    if cache is not None:
                        cache.put(key, array)
                bar.update(len(numbers))
        return tokens

    def _prepare(self, item, index, views, cache, context):
        """Of each view: its cache key, its tokens if cached, and its input if not."""
        item = read_item(item, index)
        keys, known = [None] * len(views), [None] * len(views)
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

    def _start_reading(self):
        """Called by each thread that is to read images."""

    def _run(self, waiting):
        """Embed the inputs, batched by shape and dtype."""
        groups = {}
        for entry in waiting:
            groups.setdefault((entry[3].shape, entry[3].dtype), []).append(entry)
        for entries in groups.values():
            for start in range(0, len(entries), self.batch_size):
                part = entries[start : start + self.batch_size]
                batch = self._embed_batch(np.stack([image for *_, image in part]))
                for (i, v, key, _), array in zip(part, batch, strict=True):
                    yield i, v, key, _check_output(array, i)

    def _fit_to_size(self, image, index):
        """The whole image, never a crop of it, at the size the model takes."""
        size = self._input_size(*image.shape[:2])
        if self._max_side is not None and max(size) > self._max_side:
            raise ValueError(
                f"image {index} of {image.shape[:2]} pixels (height, width) would be embedded at "
                f"{size}, of which {self._max_side} is the most; lower image_size, use "
                "resize='squash', or cut the image into pieces"
            )
        return self._resize(image, size)

    def _resize(self, image, size):
        return resize_image(image, size, self._interpolation)

    def _side(self):
        return int(self.image_size or self._default_image_size())

    def _input_size(self, height, width):
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
        return tuple(max(1, round(side * scale / cell)) * cell for side in (height, width))


def _ahead(calls, n_threads, margin, start):
    """Results of calls, in order, made in background threads while the former ones are used.

    An error is raised where its result would come. At most `margin` calls, and one a thread, are
    ahead of the result that is asked for, which bounds the memory. Each thread calls `start` first.
    """
    with ThreadPoolExecutor(n_threads, "skanomaly-read", start) as pool:
        pending = deque()
        try:
            for call in calls:
                pending.append(pool.submit(*call))
                if len(pending) > margin + n_threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _check_output(tokens, index, masked=False):
    """float32 tokens, all of them finite; with `masked`, or NaN in all components."""
    with np.errstate(over="ignore"):  # what is too large becomes infinite
        tokens = np.ascontiguousarray(tokens, dtype=np.float32)
    finite = np.isfinite(tokens)
    if masked:
        finite |= np.isnan(tokens).all(-1, keepdims=True)
    if not finite.all():
        raise ValueError(f"the embedding of image {index} is not finite")
    return tokens


def _stack(tokens):
    """One array where the shapes agree, else a 1-D object array; empties the list."""
    if len({array.shape for array in tokens}) == 1:
        out = np.empty((len(tokens), *tokens[0].shape), dtype=np.float32)
    else:
        out = np.empty(len(tokens), dtype=object)
    for i in range(len(tokens)):
        out[i], tokens[i] = tokens[i], None  # never both copies of everything at once
    return out
