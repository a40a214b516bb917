"""Validation of patch tokens: every form a scorer accepts, brought to one."""

from __future__ import annotations

import numpy as np
from sklearn.utils import check_array

from skanomaly._faults import of_an_image
from skanomaly._patch_tokens import PatchTokens
from skanomaly._token_stream import TokenStream
from skanomaly._typing import ArrayLike

_FORMS = (
    "(n_images, dim), (n_images, patches, dim), (n_images, grid_h, grid_w, dim), "
    "(n_images, n_views, grid_h, grid_w, dim), or a 1-D object array of (grid_h, grid_w, dim)"
)


def check_tokens(
    X: ArrayLike, *, views: bool = False, estimator: object = None, first: int = 0
) -> PatchTokens:
    """Validate patch tokens of any of the accepted forms.

    Parameters
    ----------
    X : array-like
        Patch tokens. A token that is NaN in all its components is a masked patch.
    views : bool, default=False
        Whether views are accepted: the 5-D form, and 4-D elements of an object array.
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
        whose patches are all masked, no image, mixed dimensions, masked arrays, text or dates,
        and float64 beyond float32, in which patch scores are.
    TypeError
        For a tensor that NumPy cannot read, and what scikit-learn refuses so.
    """
    if isinstance(X, TokenStream):
        X = np.asarray(X)
    elif isinstance(X, (list, tuple)):
        X = _from_list(X)
    elif hasattr(X, "detach"):
        X = _from_tensor(X)
    _check_kind(X)
    mixed = _as_mixed(X, views)
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
    if values.dtype == np.float64:
        _check_magnitude(values)
    tokens = PatchTokens(values, valid, offsets, grids, n_views, first=first)
    empty = np.flatnonzero(np.add.reduceat(tokens.valid, offsets[:-1], dtype=int) == 0)
    if empty.size:
        raise of_an_image(
            ValueError(
                f"X contains NaN: every patch of image {first + empty[0]} is masked, nothing is "
                "left to score"
            )
        )
    return tokens


def _from_tensor(X):
    """A tensor of torch as an array."""
    try:
        return np.asarray(X)
    except (TypeError, RuntimeError) as exc:  # bfloat16, a graph of gradients, another device
        raise TypeError(
            f"X is a tensor that NumPy cannot read ({exc}); pass X.detach().float().cpu().numpy()"
        ) from exc


def _check_kind(X):
    """Raise for arrays that NumPy would make numbers of that nobody meant."""
    if np.ma.is_masked(X):
        raise ValueError(
            "X is a masked array, and what stands below its mask is no token; pass "
            "X.filled(np.nan): a token that is NaN in all its components is a masked patch"
        )
    kind = getattr(getattr(X, "dtype", None), "kind", "")
    if kind in ("M", "m", "V") or (kind in ("U", "S") and X.ndim > 1):
        what = "strings" if kind in ("U", "S") else "no numbers"
        raise ValueError(f"X of dtype {X.dtype} holds {what}. Patch tokens are {_FORMS}")


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


def _as_mixed(X, views):
    """Values, lengths, grids and views of the mixed form, None for any other."""
    if not isinstance(X, np.ndarray) or X.ndim != 1 or X.dtype.kind not in "USO":
        return None
    if len(X) == 0:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
    # Training images may have views too, each image as many: (n_views, grid_h, grid_w, dim).
    of_views = views and getattr(X[0], "ndim", 3) == 4
    ndim = 4 if of_views else 3
    for i, item in enumerate(X):
        if not isinstance(item, np.ndarray) or item.ndim != ndim or item.dtype.kind not in "fiu":
            what = f"shape {item.shape}" if isinstance(item, np.ndarray) else type(item).__name__
            raise ValueError(
                f"element {i} of X must be a numeric array of shape (grid_h, grid_w, dim), got "
                f"{what}. A scorer takes patch tokens; put an embedder before it for images"
            )
        if 0 in item.shape:
            raise ValueError(f"element {i} of X, of shape {item.shape}, holds no patch token")
        if of_views and len(item) != len(X[0]):
            raise ValueError(f"element {i} of X has {len(item)} views, element 0 has {len(X[0])}")
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
    lengths = np.array([item.size // item.shape[-1] for item in X])
    return values, lengths, [item.shape[-3:-1] for item in X], len(X[0]) if of_views else 1


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
            raise of_an_image(
                ValueError(
                    f"Input X contains NaN or infinity: patch {broken[0] - offsets[image]} of "
                    f"image {first + image}. Only a token that is NaN in all its components, a "
                    "masked patch, is accepted"
                )
            )
        valid[suspect[masked]] = False
    return valid


def _check_magnitude(values):
    """Raise where squares would overflow, or vanish so that all tokens seemed the same."""
    # Without a copy, and past masked tokens.
    most = max(np.fmax.reduce(values, axis=None), -np.fmin.reduce(values, axis=None))
    info = np.finfo(np.float32)
    if most > info.max or 0 < most < info.tiny:
        raise ValueError(
            f"the patch tokens of X reach {most:.3g}, and are beyond float32, in which patch "
            "scores are: multiply all tokens by a number that brings them near 1"
        )
