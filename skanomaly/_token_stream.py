"""Patch tokens that are computed when they are asked for, some images at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from skanomaly._typing import IntArray


class TokenStream:
    """Patch tokens of images, computed when they are asked for.

    What an embedder with ``stream=True`` returns from `transform`. The scorers of this package take
    so many images of it at a time that memory does not grow with their number; anything else gets
    an array of them all, from ``np.asarray(stream)``. Nothing is kept: tokens that are asked for
    twice are computed twice.

    Parameters
    ----------
    embed : callable
        ``embed(numbers)`` yields the tokens of images, given by number, in that order.
    numbers : sequence of int
        Of the images of the stream.
    base : TokenStream or None, default=None
        What it is a part of.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly import FilterBankPatches
    >>> images = np.zeros((5, 32, 32, 3), dtype=np.uint8)
    >>> stream = FilterBankPatches(image_size=32, stream=True).transform(images)
    >>> len(stream), stream[0].shape, np.asarray(stream[1:]).shape
    (5, (4, 4, 102), (4, 4, 4, 102))
    """

    def __init__(
        self,
        embed: Callable[[Sequence[int] | IntArray], Iterator[np.ndarray]],
        numbers: Sequence[int] | IntArray,
        base: TokenStream | None = None,
    ) -> None:
        self._embed, self._numbers, self.base = embed, numbers, base

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Tokens of one image after the other, each of shape (grid_h, grid_w, dim)."""
        return self._embed(self._numbers)

    def __getitem__(self, key: Any) -> Any:
        """Tokens of one image for a number, else a stream of those that are chosen."""
        if isinstance(key, (int, np.integer)):
            return next(self._embed([int(np.arange(len(self))[key])]))
        return TokenStream(self._embed, np.asarray(self._numbers)[key], self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of them in one array, or a 1-D object array where grids differ."""
        tokens = self._all()
        return tokens if dtype is None else tokens.astype(dtype, copy=False)

    def _all(self) -> np.ndarray:
        """The tokens of all images, written into their array as they come: there is no copy."""
        embedded = iter(self)
        out: np.ndarray = np.empty(len(self), dtype=object)
        for i, tokens in enumerate(embedded):
            if i == 0:
                out = np.empty((len(self), *tokens.shape), dtype=tokens.dtype)
            elif tokens.shape != out.shape[1:]:
                return stack_tokens([*(image.copy() for image in out[:i]), tokens, *embedded])
            out[i] = tokens
        return out

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> TokenStream:
        """Tokens after a transformer of tokens, which is given one image at a time.

        What it makes of an image must not depend on the other images of a call, as it would where
        it takes the mean of what it is given; what it learned in `fit` is another matter.

        Parameters
        ----------
        function : callable
            Such as a method ``transform``; takes and returns arrays of one image.

        Returns
        -------
        TokenStream
        """
        embed = self._embed
        return TokenStream(
            lambda numbers: (np.asarray(function(tokens[None]))[0] for tokens in embed(numbers)),
            self._numbers,
        )

    def blocks(self, n_bytes: int) -> Iterator[np.ndarray]:
        """Tokens of consecutive images, as arrays of no more than so many bytes, if they can be.

        Parameters
        ----------
        n_bytes : int
            At most; of a single image its own.

        Yields
        ------
        ndarray of shape (n, grid_h, grid_w, dim)
            Or a 1-D object array where grids differ.
        """
        waiting: list[Any] = []
        size = 0
        for tokens in self:
            if waiting and size + tokens.nbytes > n_bytes:
                yield stack_tokens(waiting)
                waiting, size = [], 0
            waiting.append(tokens)
            size += tokens.nbytes
        if waiting:
            yield stack_tokens(waiting)


def stack_tokens(tokens: list[Any]) -> np.ndarray:
    """One array where the shapes agree, else a 1-D object array; empties the list."""
    if len({array.shape for array in tokens}) == 1:
        out: np.ndarray = np.empty((len(tokens), *tokens[0].shape), dtype=tokens[0].dtype)
    else:
        out = np.empty(len(tokens), dtype=object)
    for i in range(len(tokens)):
        out[i], tokens[i] = tokens[i], None  # never both copies of everything at once
    return out
