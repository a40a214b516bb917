"""What a mask is: the one rule of metrics and of the readers of mask files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SHOWN = 3  # levels in an error, from either end


def two_level(
    values: NDArray[Any], name: str, shown: Callable[[Any], str] = str
) -> NDArray[np.bool_]:
    """Where an array of two levels, 0 and one other, marks a defect.

    Compression and smooth resizing leave levels between: whether such a pixel is defective nobody
    knows, and to count whatever is not 0 would make defects larger and noise a defect.

    Parameters
    ----------
    values : ndarray of shape (height, width)
        Numbers.
    name : str
        Of the mask, for the message.
    shown : callable, default=str
        Makes text of a level.

    Returns
    -------
    ndarray of shape (height, width), bool
        True where the value is not 0. All True for a single level other than 0.

    Raises
    ------
    ValueError
        With the levels, when there are others. It says what to do.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly._masks import two_level
    >>> two_level(np.array([[0, 255]], dtype=np.uint8), "mask")
    array([[False,  True]])
    """
    marked = values != 0
    found = values[marked]
    if not found.size or (found == found[0]).all():
        return marked
    levels = [shown(level) for level in np.unique(values).tolist()]
    listed = ", ".join(levels)
    if len(levels) > 2 * _SHOWN:
        listed = ", ".join([*levels[:_SHOWN], "...", *levels[-_SHOWN:]])
    raise ValueError(
        f"{name} holds {len(levels)} levels ({listed}), but a mask has two, 0 and one other. JPEG "
        "and smooth resizing leave levels between: save masks as PNG, and resize them by nearest "
        "neighbour. Where the levels are ids of defects, pass or save `mask != 0`"
    )
