"""Training images whose tokens are computed when they are asked for, and what is kept of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from skanomaly._faults import is_of_an_image, of_an_image
from skanomaly._patch_tokens import PatchTokens, join_tokens
from skanomaly._token_stream import TokenStream, stack_tokens
from skanomaly._tokens import check_tokens
from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.copies import image_features
from skanomaly.core.fingerprints import ImageFingerprints
from skanomaly.scorers._known_images import KnownImages

_BLOCK_BYTES = 2**27  # of tokens that are in memory at a time


class TokenSource:
    """The normal images of a stream of tokens, some at a time, and what a fit keeps of each.

    Parameters
    ----------
    stream : TokenStream
        Of all images that were given, with their views where there are some.
    numbers : ndarray of shape (n_images,), int
        Those of the normal ones.
    groups : ndarray of shape (n_images,), int, or None
        Their groups.
    ordered : bool
        As for :class:`skanomaly.core.fingerprints.ImageFingerprints`.
    check_first : callable
        ``check_first(X)``: called with tokens of the first images, to check them as in `fit`.
    """

    def __init__(
        self,
        stream: TokenStream,
        numbers: IntArray,
        groups: IntArray | None,
        ordered: bool,
        check_first: Callable[[np.ndarray], PatchTokens],
    ) -> None:
        self._stream, self._numbers, self._groups = stream, numbers, groups
        self._ordered, self._check_first = ordered, check_first
        self._kept: list[tuple[IntArray, PatchTokens, list[FloatArray], ImageFingerprints]] = []
        self._seen = np.zeros(len(numbers), dtype=bool)
        self._form: tuple[int, int] | None = None  # components and views

    @property
    def n_images(self) -> int:
        """How many normal images there are."""
        return len(self._numbers)

    @property
    def group_of_image(self) -> IntArray:
        """Number of the group of each."""
        return np.arange(self.n_images) if self._groups is None else self._groups

    @property
    def n_groups(self) -> int:
        """How many groups there are."""
        return len(np.unique(self.group_of_image))

    def first(self) -> PatchTokens:
        """Tokens of the first image, by which is told how many there may be."""
        _, array = next(self._embedded(np.array([0])))
        tokens = self._check_first(array[None])
        self._form = tokens.dim, tokens.n_views
        return tokens

    def parts(self, images: IntArray | None = None) -> Iterator[tuple[IntArray, PatchTokens]]:
        """Tokens of images, so many at a time that memory is bounded.

        Parameters
        ----------
        images : ndarray of int, optional
            Their numbers among the normal ones; all of them.

        Yields
        ------
        images : ndarray of int
        tokens : PatchTokens
            Of these, with views and groups.
        """
        if self._form is None:
            self.first()
        waiting: list[np.ndarray] = []
        numbers: list[int] = []
        for number, array in self._embedded(np.arange(self.n_images) if images is None else images):
            if waiting and sum(a.nbytes for a in waiting) + array.nbytes > _BLOCK_BYTES:
                yield self._part(np.array(numbers), stack_tokens(waiting))
                waiting, numbers = [], []
            waiting.append(array)
            numbers.append(number)
            del array  # while the next one is embedded
        if waiting:
            yield self._part(np.array(numbers), stack_tokens(waiting))

    def layout(self) -> PatchTokens:
        """All images, once each has been seen, without their tokens."""
        return join_tokens([part for _, part, _, _ in self._kept]).select(self._order())

    def known(self, n_given: int, names: list[str | None] | None) -> KnownImages:
        """What there is to know of all images, once each has been seen.

        Parameters
        ----------
        n_given : int
            How many were given, the anomalous ones among them.
        names : list of str or None, or None
            Of the groups.

        Returns
        -------
        KnownImages
        """
        order = self._order()
        features = [of_image for _, _, part, _ in self._kept for of_image in part]
        fingerprints = ImageFingerprints.joined([part for *_, part in self._kept])
        if not np.array_equal(order, np.arange(len(order))):
            fingerprints = fingerprints.select(order)
        return KnownImages(
            self.layout(),
            self._numbers,
            n_given,
            None if names is None else list(names),
            [features[i] for i in order],
            fingerprints,
        )

    def _order(self):
        """Where each image is among those that were kept, which came in another order."""
        return np.argsort(np.concatenate([numbers for numbers, *_ in self._kept]))

    def _embedded(self, images):
        """Tokens of one image after the other; what is wrong with one is said of its number."""
        embedded = iter(self._stream[self._numbers[images]])
        for image in images.tolist():
            try:
                array = next(embedded)
            except ValueError as exc:
                # A step that is given one image at a time takes it for the first one.
                told = re.sub(r"\bimage 0\b", f"image {self._numbers[image]}", str(exc))
                if told == str(exc):
                    raise
                error = ValueError(told)
                raise (of_an_image(error) if is_of_an_image(exc) else error) from exc
            yield image, array

    def _part(self, images, block):
        tokens = replace(self._checked(images, block), groups=None, first=0)
        if self._groups is not None:
            tokens = replace(tokens, groups=self._groups[images])
        if not self._seen[images].any():
            self._seen[images] = True
            base = tokens.select_view(0)
            self._kept.append(
                (
                    images,
                    tokens.without_values(),
                    image_features(base),
                    ImageFingerprints(base, self._ordered),
                )
            )
        return images, tokens

    def _checked(self, images, block):
        try:
            tokens = check_tokens(block, views=True)
        except ValueError:  # which of several is at fault, is said by its number
            for i, image in enumerate(images.tolist()):
                check_tokens(block[i : i + 1], views=True, first=int(self._numbers[image]))
            raise
        if (tokens.dim, tokens.n_views) != self._form:
            raise ValueError(
                f"images {self._numbers[images[0]]} to {self._numbers[images[-1]]} have tokens of "
                f"{tokens.dim} components and {tokens.n_views} views, the first image has "
                f"{self._form[0]} and {self._form[1]}: all must be of one embedder"
            )
        return tokens
