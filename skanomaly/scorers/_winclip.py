"""WinCLIP's scores of tokens that hold the embeddings of patch, windows and image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from skanomaly._faults import of_an_image
from skanomaly._parameters import is_integer
from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import FloatArray
from skanomaly.core.prompts import (
    harmonic_mean,
    harmonic_window_map,
    window_anchors,
)


def check_windows(windows: Sequence[int]) -> tuple[int, ...]:
    """The sides of the windows as a tuple; an error for anything else."""
    sides = tuple(windows)
    if (
        not sides
        or len(set(sides)) < len(sides)
        or not all(is_integer(side) and side >= 1 for side in sides)
    ):
        raise ValueError(
            f"windows must be different sides in patches, such as (2, 3), got {windows!r}"
        )
    return sides


def check_token_dim(token_dim: int, text_dim: int, windows: tuple[int, ...] | None) -> None:
    """Raise where the tokens do not go with the text features."""
    n_blocks = 1 if windows is None else 2 + len(windows)
    if token_dim == n_blocks * text_dim:
        return
    problem = f"tokens are of dimension {token_dim}, the text features of {text_dim}"
    if windows is not None:
        cure = (
            f"; with windows={windows} tokens must have {n_blocks} x {text_dim}: those of "
            f"OpenClipPatches(project=True, windows={windows}) of the same model"
        )
    elif token_dim % text_dim == 0 and token_dim > 2 * text_dim:
        cure = "; for the tokens of an embedder with windows give the same windows here"
    else:
        cure = (
            "; they must be projected to the joint space of images and texts of the same model: "
            "OpenClipPatches(model_name, project=True)"
        )
    raise ValueError(problem + cure)


def image_embeddings(tokens: PatchTokens, dim: int) -> FloatArray:
    """The class embedding of each image, (n_images, dim), which all its patches hold.

    Parameters
    ----------
    tokens : PatchTokens
    dim : int
        Of an embedding, the last `dim` components of a token.

    Raises
    ------
    ValueError
        When the patches of an image differ in it.
    """
    first = np.flatnonzero(tokens.valid)
    first = first[np.searchsorted(first, tokens.offsets[:-1])]
    out = tokens.values[first, -dim:]
    for i in range(tokens.n_images):
        rows = tokens.rows(i)
        block = tokens.values[rows, -dim:][tokens.valid[rows]]
        if np.abs(block - out[i]).max() > 1e-3 * np.abs(out[i]).max():
            raise ValueError(
                f"the last {dim} components of the tokens of image {i} differ from patch to patch, "
                "so that they are no embedding of the image: with windows, tokens must be those "
                "of OpenClipPatches(project=True, windows=...)"
            )
    return out


def winclip_scores(
    tokens: PatchTokens, windows: tuple[int, ...], score: Callable[[FloatArray], FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Map of each image over all scales, and its score by the class embedding.

    Parameters
    ----------
    tokens : PatchTokens
        Each token holds the embeddings of the patch, of the window of each side that starts
        there, and of the image.
    windows : tuple of int
        Sides of the windows, in patches.
    score : callable
        ``score(embeddings of shape (n, dim)) -> (n,)`` scores, at least 0.

    Returns
    -------
    patch_scores : ndarray of shape (n_tokens,), float64
        0 for masked patches.
    image_scores : ndarray of shape (n_images,), float64

    Raises
    ------
    ValueError
        For tokens without a grid, windows that do not fit in it or are seen to be smaller, or
        patches of an image that differ in the embedding of the image.
    """
    dim = tokens.dim // (2 + len(windows))
    image_scores = score(image_embeddings(tokens, dim))
    window_scores = np.full((len(windows), len(tokens.values)), np.nan)
    for k in range(len(windows)):
        block = tokens.values[:, (1 + k) * dim : (2 + k) * dim]
        window_scores[k, tokens.valid] = score(block if tokens.valid.all() else block[tokens.valid])
    out = np.zeros(len(tokens.values))
    for i, grid in enumerate(tokens.grids):
        if len(grid) != 2:
            raise ValueError(
                "windows need the grid: tokens of shape (n_images, grid_h, grid_w, dim)"
            )
        rows, maps = tokens.rows(i), [np.full(grid, image_scores[i])]
        for side, scores in zip(windows, window_scores[:, rows], strict=True):
            try:
                anchors = window_anchors(scores.reshape(grid), side)
            except ValueError as exc:
                raise of_an_image(ValueError(f"image {tokens.first + i}: {exc}")) from exc
            maps.append(harmonic_window_map(anchors, side))
        for side, scores in zip(windows, window_scores[:, rows], strict=True):
            _check_shared_windows(scores.reshape(grid), side, windows, tokens.first + i)
        out[rows] = np.where(tokens.valid[rows], harmonic_mean(maps).ravel(), 0)
    return out, image_scores


def most_anomalous_window(
    tokens: PatchTokens,
    row: int,
    windows: tuple[int, ...],
    score: Callable[[FloatArray], FloatArray],
) -> tuple[FloatArray, str]:
    """Of the windows that cover a patch of a single image, the one with the highest score.

    Parameters
    ----------
    tokens, windows, score
        As for :func:`winclip_scores`.
    row : int
        Of the patch.

    Returns
    -------
    embedding : ndarray of shape (dim,)
    note : str
        Which window it is.
    """
    dim, (height, width) = tokens.dim // (2 + len(windows)), tokens.grids[0]
    down, right = divmod(row, width)
    embeddings, places = [], []
    for k, side in enumerate(windows, start=1):
        for top in range(max(0, down - side + 1), down + 1):
            for left in range(max(0, right - side + 1), right + 1):
                if tokens.valid[top * width + left]:
                    embeddings.append(tokens.values[top * width + left, k * dim : (k + 1) * dim])
                    places.append((side, min(top, height - side), min(left, width - side)))
    highest = int(np.argmax(score(np.stack(embeddings))))
    side, top, left = places[highest]
    return embeddings[highest], (
        f"compared is the most anomalous window that covers the patch: {side} x {side} patches "
        f"from ({top}, {left})"
    )


def _check_shared_windows(scores, side, windows, index):
    """Raise where patches at the right or the bottom do not share the last window of that side."""
    for axis in (0, 1):
        tail = np.split(scores, [scores.shape[axis] - side], axis=axis)[1]
        spread = np.fmax.reduce(tail, axis=axis) - np.fmin.reduce(tail, axis=axis)
        if (spread > 1e-6).any():  # not so where all are masked
            raise ValueError(
                f"the tokens of image {index} hold no windows of {side} x {side} patches where "
                f"windows={windows} says so: give the embedder's windows, in its order"
            )
