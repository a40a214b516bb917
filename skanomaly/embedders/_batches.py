"""Around the batches of an embedder: views, reading ahead, checking and stacking of tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from skanomaly._faults import of_an_image


def read_ahead(
    calls: Iterable[tuple[Any, ...]], n_threads: int, margin: int, start: Callable[[], None] | None
) -> Generator[Any, None, None]:
    """Results of calls, in order, made in background threads while the former ones are used.

    An error is raised where its result would come. At most `margin` calls, and one a thread, are
    ahead of the result that is asked for, which bounds the memory. Each thread calls `start` first.
    """
    with ThreadPoolExecutor(n_threads, "skanomaly-read", start) as pool:
        pending: deque[Future[Any]] = deque()
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


def check_batch(batch: Any, n_images: int, owner: str) -> None:
    """ValueError unless an embedder made tokens, with their grid, of each image of a batch."""
    shapes = [np.shape(tokens) for tokens in batch] if hasattr(batch, "__len__") else None
    if shapes is None or len(shapes) != n_images or any(len(shape) != 3 for shape in shapes):
        raise ValueError(
            f"_embed_batch of {owner} must return tokens of shape (grid_h, grid_w, dim) for each "
            f"of {n_images} images, got {type(batch).__name__} with the shapes {shapes}"
        )


def check_tokens_of_image(tokens: Any, index: int, masked: bool = False) -> np.ndarray:
    """Tokens of one image as float32, all of them finite.

    Parameters
    ----------
    tokens : array-like of shape (grid_h, grid_w, dim)
        What an embedder computed.
    index : int
        Of the image, for the message.
    masked : bool, default=False
        Whether a token may be NaN in all its components, which masks its patch.

    Returns
    -------
    ndarray of shape (grid_h, grid_w, dim), float32
        C-contiguous.

    Raises
    ------
    ValueError
        When one is not finite.
    """
    with np.errstate(over="ignore"):  # what is too large becomes infinite
        tokens = np.ascontiguousarray(tokens, dtype=np.float32)
    finite = np.isfinite(tokens)
    if masked:
        finite |= np.isnan(tokens).all(-1, keepdims=True)
    if not finite.all():
        raise of_an_image(ValueError(f"the embedding of image {index} is not finite"))
    return tokens
