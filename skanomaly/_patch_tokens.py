"""Patch tokens of several images as one table, one token a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from skanomaly._faults import of_an_image
from skanomaly._token_stream import stack_tokens
from skanomaly._typing import ArrayLike, FloatArray, IntArray


@dataclass(frozen=True)
class PatchTokens:
    """Patch tokens of several images, one token a row.

    Parameters
    ----------
    values : ndarray of shape (n_tokens, dim), float32 or float64
        C-contiguous. The tokens of image `i` are the rows ``offsets[i]`` to ``offsets[i + 1]``,
        view by view, and row by row of its grid.
    valid : ndarray of shape (n_tokens,), bool
        False for masked patches.
    offsets : ndarray of shape (n_images + 1,), int
        Where the rows of each image start, and the number of rows at the end.
    grids : list of tuple
        Shape of each image's patches: ``(grid_h, grid_w)``, ``(patches,)`` or ``()``.
    n_views : int, default=1
        Views of each image; the first is the image itself.
    groups : ndarray of shape (n_images,), int, or None, default=None
        Number of each image's group, such as the photographs of one part; None where each image is
        one of its own.
    first : int, default=0
        Number of the first image, for messages: these may be a part of more images.

    Examples
    --------
    Scorers are given one that `fit` has made; here by hand, of five images of 2 x 3 patches:

    >>> import numpy as np
    >>> from skanomaly.base import PatchTokens
    >>> values, valid = np.zeros((30, 7)), np.ones(30, dtype=bool)
    >>> tokens = PatchTokens(values, valid, offsets=np.arange(0, 36, 6), grids=[(2, 3)] * 5)
    >>> tokens.n_images, tokens.dim, tokens.values.shape
    (5, 7, (30, 7))
    >>> tokens.values[tokens.rows(1)].shape
    (6, 7)
    """

    values: FloatArray
    valid: NDArray[np.bool_]
    offsets: IntArray
    grids: list[tuple[int, ...]]
    n_views: int = 1
    groups: IntArray | None = None
    first: int = 0

    @property
    def n_images(self) -> int:
        """How many images there are."""
        return len(self.grids)

    @property
    def group_of_image(self) -> IntArray:
        """Number of each image's group: what is held out, is held out with all of its group."""
        return np.arange(self.n_images) if self.groups is None else self.groups

    @property
    def n_groups(self) -> int:
        """How many groups there are."""
        return len(np.unique(self.group_of_image))

    @property
    def dim(self) -> int:
        """Components of a token."""
        return self.values.shape[1]

    def rows(self, image: int) -> slice:
        """Slice of the rows of one image.

        Parameters
        ----------
        image : int
            Its number.

        Returns
        -------
        slice
            Of the rows of `values`.
        """
        return slice(self.offsets[image], self.offsets[image + 1])

    def valid_values(self) -> FloatArray:
        """The tokens that are not masked.

        Returns
        -------
        ndarray of shape (n_valid_tokens, dim)
            No copy where none is masked.
        """
        return self.values if self.valid.all() else self.values[self.valid]

    def image_of_row(self) -> IntArray:
        """Number of the image of each row.

        Returns
        -------
        ndarray of shape (n_tokens,), int
            From 0 to ``n_images - 1``, ascending.
        """
        return np.repeat(np.arange(self.n_images), np.diff(self.offsets))

    def select(self, images: ArrayLike) -> PatchTokens:
        """The tokens of some images, in that order.

        Parameters
        ----------
        images : array-like of int
            Their numbers.

        Returns
        -------
        PatchTokens
            Itself where these are all images in their own order.
        """
        images = np.asarray(images, dtype=np.intp)
        if np.array_equal(images, np.arange(self.n_images)):
            return self
        lengths = np.diff(self.offsets)[images]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.repeat(self.offsets[images] - offsets[:-1], lengths) + np.arange(offsets[-1])
        grids = [self.grids[i] for i in images]
        groups = None if self.groups is None else self.groups[images]
        # One number for messages, where the images are consecutive ones.
        run = len(images) > 0 and np.array_equal(images, images[0] + np.arange(len(images)))
        return PatchTokens(
            self.values[rows],
            self.valid[rows],
            offsets,
            grids,
            self.n_views,
            groups,
            self.first + int(images[0]) if run else 0,
        )

    def select_view(self, view: int) -> PatchTokens:
        """The tokens of one view of every image.

        Parameters
        ----------
        view : int
            Its number; 0 is the image itself.

        Returns
        -------
        PatchTokens
            Of one view.
        """
        if self.n_views == 1:
            return self
        lengths = np.diff(self.offsets) // self.n_views
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.repeat(self.offsets[:-1] + view * lengths - offsets[:-1], lengths)
        rows += np.arange(offsets[-1])
        return replace(
            self, values=self.values[rows], valid=self.valid[rows], offsets=offsets, n_views=1
        )

    def mask(self, masked: NDArray[np.bool_]) -> PatchTokens:
        """The same tokens, more of them masked.

        Parameters
        ----------
        masked : ndarray of shape (n_tokens,), bool
            True for the rows to mask.

        Returns
        -------
        PatchTokens
            With the same values.
        """
        return replace(self, valid=self.valid & ~masked)

    def without_values(self) -> PatchTokens:
        """The same patches, of no components: what there is to know of them but their tokens.

        Returns
        -------
        PatchTokens
            Some two bytes a patch at most.
        """
        return replace(self, values=np.empty((len(self.values), 0), dtype=np.float32), first=0)

    def parts(self, n_bytes: int) -> Iterator[PatchTokens]:
        """The same tokens, some images at a time, without a copy.

        Parameters
        ----------
        n_bytes : int
            What the tokens of a part take at most, if it has more than one image.

        Yields
        ------
        PatchTokens
        """
        n_rows, start = n_bytes // (self.values.itemsize * self.dim), 0
        while start < self.n_images:
            last = np.searchsorted(self.offsets, self.offsets[start] + n_rows, side="right") - 1
            stop = max(start + 1, int(last))
            rows = slice(self.offsets[start], self.offsets[stop])
            yield replace(
                self,
                values=self.values[rows],
                valid=self.valid[rows],
                offsets=self.offsets[start : stop + 1] - self.offsets[start],
                grids=self.grids[start:stop],
                groups=None if self.groups is None else self.groups[start:stop],
                first=self.first + start,
            )
            start = stop

    def restore(self, scores: FloatArray) -> np.ndarray:
        """One number a token, back in the images' own shapes.

        Parameters
        ----------
        scores : ndarray of shape (n_tokens,)
            In the order of the rows.

        Returns
        -------
        ndarray of shape (n_images, ...), float32
            In the shape of the grids, masked patches as from `fill_masked`. A 1-D object
            array of such grids where they differ.

        Raises
        ------
        ValueError
            When a number is beyond float32.
        """
        with np.errstate(over="ignore"):  # what is too large becomes infinite
            single = np.where(self.valid, scores, np.nan).astype(np.float32)
        beyond = np.flatnonzero(np.isinf(single))
        if beyond.size and np.isfinite(scores[beyond[0]]):
            image = int(np.searchsorted(self.offsets, beyond[0], side="right")) - 1
            raise of_an_image(
                ValueError(
                    f"the patch score {scores[beyond[0]]:.3g} of image {self.first + image} is "
                    "beyond float32: multiply all tokens by a number that brings them near 1"
                )
            )
        scores = single
        for i in np.flatnonzero(~np.logical_and.reduceat(self.valid, self.offsets[:-1])).tolist():
            scores[self.rows(i)] = fill_masked(scores[self.rows(i)])
        if len(set(self.grids)) == 1:
            return scores.reshape(self.n_images, *self.grids[0])
        out = np.empty(self.n_images, dtype=object)
        for i, grid in enumerate(self.grids):
            out[i] = scores[self.rows(i)].reshape(grid)
        return out


def fill_masked(scores: FloatArray) -> FloatArray:
    """Scores of the patches of an image, in which masked ones are never the highest.

    Parameters
    ----------
    scores : ndarray
        NaN where a patch is masked.

    Returns
    -------
    ndarray
        Of the same shape. There it is 0, or the lowest score where that is below 0.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly._patch_tokens import fill_masked
    >>> fill_masked(np.array([2.0, np.nan])), fill_masked(np.array([-2.0, np.nan]))
    (array([2., 0.]), array([-2., -2.]))
    """
    masked = np.isnan(scores)
    return np.where(masked, np.min(scores, where=~masked, initial=0), scores)


def join_tokens(parts: Sequence[PatchTokens]) -> PatchTokens:
    """The tokens of the images of several parts, one after the other.

    Parameters
    ----------
    parts : sequence of PatchTokens
        Of as many components and views, all with groups or none.

    Returns
    -------
    PatchTokens

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly._patch_tokens import join_tokens
    >>> from skanomaly._tokens import check_tokens
    >>> one, two = check_tokens(np.zeros((2, 3, 3, 5))), check_tokens(np.ones((1, 2, 3, 5)))
    >>> join_tokens([one, two]).grids
    [(3, 3), (3, 3), (2, 3)]
    """
    starts = np.cumsum([0, *(len(part.values) for part in parts)])
    offsets = [part.offsets[1:] + start for part, start in zip(parts, starts, strict=False)]
    groups = [part.groups for part in parts if part.groups is not None]
    return PatchTokens(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.valid for part in parts]),
        np.concatenate([[0], *offsets]),
        [grid for part in parts for grid in part.grids],
        parts[0].n_views,
        np.concatenate(groups) if groups else None,
    )


def join_grids(parts: list[np.ndarray]) -> np.ndarray:
    """Of several results of :meth:`PatchTokens.restore` one, as of all images together."""
    if len(parts) == 1:
        return parts[0]
    if all(part.dtype != object and part.shape[1:] == parts[0].shape[1:] for part in parts):
        return np.concatenate(parts)
    return stack_tokens([grid for part in parts for grid in part])
