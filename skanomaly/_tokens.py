"""Validation of patch tokens: every form a scorer accepts, brought to one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

from skanomaly._token_stream import TokenStream, stack_tokens
from skanomaly._typing import ArrayLike, FloatArray, IntArray

_FORMS = (
    "(n_images, dim), (n_images, patches, dim), (n_images, grid_h, grid_w, dim), "
    "(n_images, n_views, grid_h, grid_w, dim), or a 1-D object array of (grid_h, grid_w, dim)"
)


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
    first : int, default=0
        Number of the first image, for messages: these may be a part of more images.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly._tokens import check_tokens
    >>> tokens = check_tokens(np.zeros((5, 2, 3, 7)))  # five images of 2 x 3 patches
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
    first: int = 0

    @property
    def n_images(self) -> int:
        """How many images there are."""
        return len(self.grids)

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
        return PatchTokens(self.values[rows], self.valid[rows], offsets, grids, self.n_views)

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
        return PatchTokens(self.values[rows], self.valid[rows], offsets, self.grids)

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
            yield PatchTokens(
                self.values[rows],
                self.valid[rows],
                self.offsets[start : stop + 1] - self.offsets[start],
                self.grids[start:stop],
                self.n_views,
                self.first + start,
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
        ndarray of shape (n_images, *grid), float32
            0 for masked patches. A 1-D object array of such grids where they differ.
        """
        scores = np.where(self.valid, scores, 0).astype(np.float32)
        if len(set(self.grids)) == 1:
            return scores.reshape(self.n_images, *self.grids[0])
        out = np.empty(self.n_images, dtype=object)
        for i, grid in enumerate(self.grids):
            out[i] = scores[self.rows(i)].reshape(grid)
        return out


def join_grids(parts: list[np.ndarray]) -> np.ndarray:
    """Of several results of :meth:`PatchTokens.restore` one, as of all images together."""
    if len(parts) == 1:
        return parts[0]
    if all(part.dtype != object and part.shape[1:] == parts[0].shape[1:] for part in parts):
        return np.concatenate(parts)
    return stack_tokens([grid for part in parts for grid in part])


def check_tokens(
    X: ArrayLike, *, views: bool = False, estimator: object = None, first: int = 0
) -> PatchTokens:
    """Validate patch tokens of any of the accepted forms.

    Parameters
    ----------
    X : array-like
        Patch tokens. A token that is NaN in all its components is a masked patch.
    views : bool, default=False
        Whether the 5-D form is accepted.
    estimator : object, optional
        Named in error messages.
    first : int, default=0
        Number of the first image, for messages.

    Returns
    -------
    PatchTokens

    Raises
    ------
    ValueError
        For another shape, an infinite or partly NaN token (naming image and patch), an image
        whose patches are all masked, no image, or mixed dimensions.
    """
    if isinstance(X, TokenStream):
        X = np.asarray(X)
    elif isinstance(X, (list, tuple)):
        X = _from_list(X)
    mixed = _as_mixed(X)
    if mixed is not None:
        values, lengths, grids, n_views = mixed
    else:
        ndim = getattr(X, "ndim", 2)
        array = check_array(
            X,
            dtype=(np.float64, np.float32) if getattr(X, "dtype", None) != np.float16 else "f4",
            order="C",
            allow_nd=ndim > 2,
            ensure_all_finite=False,
            ensure_min_features=1,
            input_name="X",
            estimator=estimator,
        )
        if array.ndim > 5 or (array.ndim == 5 and not views):
            what = "views are only for fit" if array.ndim == 5 else "too many dimensions"
            raise ValueError(f"X of shape {array.shape}: {what}. Patch tokens are {_FORMS}")
        if 0 in array.shape:
            raise ValueError(f"X of shape {array.shape} holds no patch token")
        n_views = array.shape[1] if array.ndim == 5 else 1
        grids = [array.shape[2:-1] if array.ndim == 5 else array.shape[1:-1]] * len(array)
        values = array.reshape(-1, array.shape[-1])
        lengths = np.full(len(array), len(values) // len(array))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    valid = _valid_rows(values, offsets, first)
    tokens = PatchTokens(values, valid, offsets, grids, n_views, first)
    empty = np.flatnonzero(np.add.reduceat(tokens.valid, offsets[:-1], dtype=int) == 0)
    if empty.size:
        raise ValueError(
            f"X contains NaN: every patch of image {first + empty[0]} is masked, nothing is left "
            "to score"
        )
    return tokens


def _from_list(X):
    """A list as an array of numbers, or as a 1-D object array of what it holds."""
    try:
        array = np.asarray(X)
    except ValueError:  # ragged
        array = None
    if array is not None and (array.dtype.kind in "fiub" or array.ndim == 2):
        return array if array.ndim > 2 else X
    out = np.empty(len(X), dtype=object)
    for i, item in enumerate(X):
        out[i] = item
    return out


def _as_mixed(X):
    """Values, lengths, grids and views of the mixed form, None for any other."""
    if not isinstance(X, np.ndarray) or X.ndim != 1 or X.dtype.kind not in "USO":
        return None
    if len(X) == 0:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
    for i, item in enumerate(X):
        if not isinstance(item, np.ndarray) or item.ndim != 3 or item.dtype.kind not in "fiu":
            what = f"shape {item.shape}" if isinstance(item, np.ndarray) else type(item).__name__
            raise ValueError(
                f"element {i} of X must be a numeric array of shape (grid_h, grid_w, dim), got "
                f"{what}. A scorer takes patch tokens; put an embedder before it for images"
            )
        if 0 in item.shape:
            raise ValueError(f"element {i} of X, of shape {item.shape}, holds no patch token")
        if item.shape[-1] != X[0].shape[-1]:
            raise ValueError(
                f"element {i} of X has tokens of dimension {item.shape[-1]}, element 0 of "
                f"{X[0].shape[-1]}"
            )
    single = all(item.dtype.kind == "f" and item.dtype.itemsize <= 4 for item in X)
    dtype = np.float32 if single else np.float64
    values = np.concatenate([item.reshape(-1, item.shape[-1]) for item in X]).astype(
        dtype, copy=False
    )
    lengths = np.array([item.shape[0] * item.shape[1] for item in X])
    return values, lengths, [item.shape[:2] for item in X], 1


def _valid_rows(values, offsets, first):
    """Rows that are not masked; an error for rows that are neither finite nor masked."""
    # The sum of a row is finite unless one of its components is not.
    with np.errstate(invalid="ignore", over="ignore"):
        suspect = np.flatnonzero(~np.isfinite(values.sum(axis=1, dtype=np.float64)))
    valid = np.ones(len(values), dtype=bool)
    if suspect.size:
        masked = np.isnan(values[suspect]).all(axis=1)
        broken = suspect[~masked & ~np.isfinite(values[suspect]).all(axis=1)]
        if broken.size:
            image = int(np.searchsorted(offsets, broken[0], side="right")) - 1
            raise ValueError(
                f"Input X contains NaN or infinity: patch {broken[0] - offsets[image]} of image "
                f"{first + image}. Only a token that is NaN in all its components, a masked patch, "
                "is accepted"
            )
        valid[suspect[masked]] = False
    return valid
