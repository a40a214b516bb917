"""Tokens that are several tokens side by side, such as those of the layers of a network."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any


def part_slices(dim: int, parts: int | Sequence[int]) -> list[slice]:
    """Which components of a token belong to each of its parts.

    Parameters
    ----------
    dim : int
        Components of a token.
    parts : int or sequence of int
        How many parts of equal size there are, or the size of each.

    Returns
    -------
    list of slice

    Raises
    ------
    ValueError
        When the parts do not add up to the token.

    Examples
    --------
    >>> from skanomaly.core.parts import part_slices
    >>> part_slices(6, 2)
    [slice(0, 3, None), slice(3, 6, None)]
    >>> part_slices(6, (4, 2))
    [slice(0, 4, None), slice(4, 6, None)]
    """
    given: Any = parts  # also an array
    if isinstance(given, Integral):
        if given < 1 or dim % given:
            raise ValueError(f"parts={given} does not divide tokens of {dim} components equally")
        sizes = [dim // int(given)] * int(given)
    else:
        sizes = [int(size) for size in given]
        if not sizes or min(sizes) < 1 or sum(sizes) != dim:
            raise ValueError(
                f"parts={tuple(sizes)} must be sizes of at least 1 that add up to the {dim} "
                f"components of a token, not to {sum(sizes)}"
            )
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
