"""What every embedder shares: the methods of a transformer, views, the token contract."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import numpy as np

from skanomaly._docstrings import document
from skanomaly._images import (
    check_images,
    warn_of_small_range,
)
from skanomaly._images.training import training_images
from skanomaly._origins import set_origin
from skanomaly._token_output import TokenOutput
from skanomaly._token_stream import TokenStream, stack_tokens
from skanomaly._typing import Images, IntArray
from skanomaly.core.views import View, grid_problem, views_of
from skanomaly.embedders._docstrings import EMBEDDER_DOCS
from skanomaly.embedders._embedding import ImageEmbedding


class BasePatchEmbedder(TokenOutput, ImageEmbedding):
    """Base of the embedders: images in, patch tokens out.

    A subclass turns a batch of arrays of one shape into tokens (`_embed_batch`), says what its
    tokens depend on (`_fingerprint`), and which sides its input may have (`_cell`,
    `_default_image_size`). It has the parameters `image_size`, `resize`, `augmentation`,
    `batch_size`, `cache_dir`, `cache_size` and `verbose`, and may have `value_range`.

    Notes
    -----
    A fitted embedder keeps what its tokens depended on in `fit`, and `transform` raises where that
    is no longer so: where a parameter was set, or a file of weights replaced. One that was never
    fitted has no state.

    Images are read by threads ahead of the model, as many as there are cores, up to 8.

    Examples
    --------
    The mean colour of each square of 16 pixels, as a token:

    >>> from skanomaly.base import BasePatchEmbedder
    >>> from skanomaly.datasets import make_surfaces
    >>> class MeanColour(BasePatchEmbedder):
    ...     def __init__(
    ...         self, *, image_size=None, resize="squash", augmentation=None, batch_size=32,
    ...         cache_dir=None, cache_size=10**9, verbose=False,
    ...     ):
    ...         self.image_size = image_size
    ...         self.resize = resize
    ...         self.augmentation = augmentation
    ...         self.batch_size = batch_size
    ...         self.cache_dir = cache_dir
    ...         self.cache_size = cache_size
    ...         self.verbose = verbose
    ...
    ...     def _cell(self):
    ...         return 16
    ...
    ...     def _default_image_size(self):
    ...         return 64
    ...
    ...     def _fingerprint(self):
    ...         return {"version": 1, "image_size": self.image_size, "resize": self.resize}
    ...
    ...     def _embed_batch(self, images):
    ...         n, height, width, _ = images.shape
    ...         return images.reshape(n, height // 16, 16, width // 16, 16, 3).mean(axis=(2, 4))
    >>> images = make_surfaces(2, image_size=64, random_state=0).images
    >>> MeanColour().fit_transform(images).shape
    (2, 4, 4, 3)
    """

    # What to do where images give several grids, for messages.
    _one_grid = "use resize='squash'"
    # Whether images may come to it one at a time, see skanomaly.streaming.
    _takes_iterators = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A method `transform` of others may be anything.
        if "transform" in vars(cls):
            cls._takes_iterators = False

    @document(EMBEDDER_DOCS)
    def fit(self, X: Images, y: Any = None) -> BasePatchEmbedder:
        """Check the parameters and the container, and keep what tokens depend on.

        Nothing is learned from the images, but for their paths and digests, by which a heat map is
        explained and a model file says what it was made from.

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
        items = check_images(X)
        self._remember_fit()
        self._train_images = training_images(items)
        return self

    @document(EMBEDDER_DOCS)
    def transform(self, X: Images) -> np.ndarray | TokenStream:
        """Embed images; works without `fit`.

        Parameters
        ----------
        %(X)s

        Returns
        -------
        ndarray of shape (n_images, grid_h, grid_w, dim), float32
            Patch tokens, C-contiguous. Where images give different grids, a 1-D object array of
            (grid_h, grid_w, dim) arrays. With ``stream=True`` a sequence that computes them when
            they are asked for, and of which ``np.asarray`` makes that array.

        Raises
        ------
        NotFittedError
            When tokens would be others than at `fit`; the message names what changed.
        ValueError
            When `cache_dir` is no folder and cannot be made one; before any image is read.
        """
        self._validate_params()
        items, origin = check_images(X), self._origin()
        stream = self._stream(items)
        tokens = stream if self.stream else np.asarray(stream)
        set_origin(tokens, origin)
        return tokens

    @document(EMBEDDER_DOCS)
    def fit_transform(self, X: Images, y: Any = None) -> np.ndarray:
        """Embed training images, with their augmented views.

        Differs from ``fit(X).transform(X)`` where `augmentation` is set, as does scikit-learn's
        `TargetEncoder`: views serve training alone. Warns where images of more than 8 bits, taken
        together, use a quarter of their range at most; of those with tokens in `cache_dir` that is
        not known.

        Parameters
        ----------
        %(X)s
        %(y)s

        Returns
        -------
        ndarray of shape (n_images, grid_h, grid_w, dim), float32
            As from :meth:`transform`. With `augmentation`: (n_images, n_views, grid_h, grid_w,
            dim), view 0 being the image itself.

        Raises
        ------
        ValueError
            As from :meth:`transform`, and where images are of several grids, or of none that is
            square where views are turned by quarters; the message names the first such image.
        """
        self.fit(X)
        items = check_images(X)
        spans: list[Any] = []
        if self.augmentation is None:
            tokens = np.asarray(self._stream(items, spans))
        else:
            views = views_of(self.augmentation)
            embedded = self._embed(items, range(len(items)), views, spans)
            tokens = self._stack_views(views, list(embedded))
        if self.value_range is None:
            warn_of_small_range(spans)
        set_origin(tokens, self._origin())
        return tokens

    def _fit_stream(self, X: Images, spans: list[Any]) -> TokenStream:
        """As `fit_transform`, but tokens are computed when they are asked for.

        Without its warning: `spans` gets what :func:`skanomaly._images.warn_of_small_range` takes.
        """
        self.fit(X)
        items = check_images(X)
        if self.augmentation is None:
            stream = self._stream(items, spans)
        else:
            views = views_of(self.augmentation)
            embed = copy(self)._embed

            def stacked(numbers: Sequence[int] | IntArray) -> Iterator[np.ndarray]:
                embedded = embed(items, numbers, views, spans)
                for number, of_image in zip(numbers, embedded, strict=True):
                    yield self._stack_views(views, [of_image], int(number))[0]

            stream = TokenStream(stacked, range(len(items)))
        set_origin(stream, self._origin())
        return stream

    def _stack_views(
        self, views: list[View], embedded: list[list[np.ndarray]], first: int = 0
    ) -> np.ndarray:
        """Tokens of the views of images from one number on, which must have one grid."""
        problem = grid_problem(views, [of_image[0].shape[:2] for of_image in embedded])
        if problem is not None:
            if first:
                problem = problem.replace("image 0", f"image {first}")
            raise ValueError(f"augmentation={self.augmentation!r}: {problem}; {self._one_grid}")
        return stack_tokens([stack_tokens(of_image) for of_image in embedded])

    def _component_names(self) -> list[str] | None:
        """What each component of a token is; None where they have no names."""
        return None

    @property
    def get_feature_names_out(self) -> Any:
        """Names of the components of a token; missing where they have none, as those of networks.

        It then counts as missing, so that scikit-learn passes over it where it may, and a pipeline
        says which of its steps has none.

        Raises
        ------
        AttributeError
            Where the components have no names.
        """
        names = self._component_names()
        if names is None:
            raise AttributeError(
                f"{type(self).__name__} has no get_feature_names_out: the components of a token "
                "have no names, and how many they are is known from the shape that transform "
                "returns"
            )
        return lambda input_features=None: np.array(names, dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return True
