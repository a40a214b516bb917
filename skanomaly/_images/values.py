"""What the numbers of an image mean: which is black, which is white, and whether they are used."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skanomaly._images.files import ImageReadError
from skanomaly._warn import warn_user

# Images that, taken together, span no more than this share of their range are warned of: 14 bits
# in a file of 16 are a quarter.
_SMALL = 0.25
_DEPTHS = (8, 10, 12, 14, 16)


class Span(NamedTuple):
    """The least and the greatest number of an image, in its own units, and its range in force."""

    low: float
    high: float
    black: float
    white: float


def to_unit(
    colour: NDArray[Any],
    seen: NDArray[Any],
    where: str,
    *,
    given: tuple[float, float] | None,
    white: float | None,
    inverted: bool = False,
    stretch: bool = False,
) -> tuple[NDArray[np.float32], Span | None]:
    """Bring the numbers of an image to [0, 1].

    Parameters
    ----------
    colour : ndarray of shape (H, W, C)
        Numbers of any type.
    seen : ndarray
        Those of them that are not transparent: the others may lie anywhere.
    where : str
        The start of error messages.
    given : (float, float) or None
        Black and white, as a person gave them.
    white : float or None
        White where nothing is given, black being 0; None where the type does not say it.
    inverted : bool, default=False
        Black and white change places.
    stretch : bool, default=False
        For the eye: where the range is not known, does not hold, or is hardly used, take the
        image's own.

    Returns
    -------
    unit : ndarray of shape (H, W, C), float32
        In [0, 1] where the pixels are seen.
    span : Span or None
        None where nothing is seen.

    Raises
    ------
    ImageReadError
        For numbers outside of the range, NaN and infinity, a white that the type cannot hold, and
        a type without a white.
    """
    if seen.size == 0:
        return np.zeros(colour.shape, np.float32), None
    low, high = seen.min(), seen.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageReadError(f"{where}: it contains NaN or infinity; replace these values.")
    # In the type of the computation, so that a white of 80.1 holds a float32 of 80.1.
    kind = np.result_type(colour.dtype, np.float32)
    known = given or (None if white is None else (0.0, white))
    if stretch and (
        known is None or not _holds(known, low, high, kind) or _small(low, high, known)
    ):
        known = (low.item(), high.item() if high > low else low.item() + 1)
    elif known is None:
        raise ImageReadError(
            f"{where}: dtype {colour.dtype} does not say which number is white; pass value_range="
            "(black, white), or what does: uint8, uint16, bool, or float in [0, 1]."
        )
    elif given is not None:
        _check_capacity(colour.dtype, white, given, where)
    if not _holds(known, low, high, kind):
        raise ImageReadError(_outside(where, low, high, known, given, colour.dtype))
    black, white = np.array(known, dtype=kind)
    if (black, white) == (0, 1) and not inverted:
        unit = colour.astype(np.float32)
    elif inverted:
        unit = np.divide(np.subtract(white, colour, dtype=kind), white - black, dtype=kind)
    elif black == 0:
        unit = np.divide(colour, white, dtype=kind)
    else:
        unit = np.divide(np.subtract(colour, black, dtype=kind), white - black, dtype=kind)
    return unit.astype(np.float32, copy=False), Span(low.item(), high.item(), *known)


def _holds(known, low, high, kind):
    black, white = np.array(known, dtype=kind)
    return bool(low.astype(kind) >= black and high.astype(kind) <= white)


def _small(low, high, known):
    """Whether the range is hardly used. One number alone cannot be brought to more contrast."""
    black, white = known
    return low < high and float(high) - float(low) <= _SMALL * (white - black)


def _check_capacity(dtype, white, given, where):
    if dtype.kind == "f":
        return
    small_type = dtype.kind == "u" and dtype.itemsize <= 2
    most = white if small_type and white is not None else np.iinfo(dtype).max
    if given[1] > most:
        raise ImageReadError(
            f"{where}: value_range={_pair(given)} has its white at {_number(given[1])}, but this "
            f"image is read with {int(most).bit_length()} bits, of which {_number(most)} is the "
            "most: it would be nearly black. Pass value_range for images of one kind only, and "
            f"for this kind {_number(most)} at most."
        )


def _outside(where, low, high, known, given, dtype):
    span = f"{where}: its values span {_number(low)}..{_number(high)}"
    if given is not None:
        wide = min(low.item(), given[0]), max(high.item(), given[1])
        return (
            f"{span}, beyond value_range={_pair(given)}; pass value_range={_pair(wide)}, or wider, "
            "where the model is fitted and used."
        )
    if dtype.kind == "f":
        return (
            f"{span}, but must lie in [0, 1]; pass value_range=(black, white), divide values of "
            "0..255 by 255, or np.clip small overshoots."
        )
    return (
        f"{span}, beyond the 16-bit range 0..65535; pass value_range=(black, white), or a float "
        "array in [0, 1]."
    )


def _number(value):
    value = value.item() if hasattr(value, "item") else value
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"


def _pair(pair):
    return f"({_number(pair[0])}, {_number(pair[1])})"


def small_range_message(spans: Iterable[Span | None]) -> str | None:
    """What to say of a set of images that uses a small part of its range.

    Parameters
    ----------
    spans : iterable of (Span or None)
        Of each image, as from :func:`skanomaly._images.load_with_span`; None, of 8-bit images,
        counts for nothing: dark photographs are right as they are.

    Returns
    -------
    str or None
        None where a range is used, or where there is none.

    Examples
    --------
    >>> from skanomaly._images.values import Span, small_range_message
    >>> print(small_range_message([Span(90, 3000, 0, 65535), Span(60, 4001, 0, 65535)]))
    Images of more than 8 bits hold the values 60..4001 of 0..65535, at most a quarter of it: ...
    >>> small_range_message([Span(60, 50000, 0, 65535)])
    """
    groups: dict[tuple[float, float], list[Span]] = {}
    for span in spans:
        if span is not None:
            groups.setdefault((span.black, span.white), []).append(span)
    for known, group in groups.items():
        low, high = min(span.low for span in group), max(span.high for span in group)
        if _small(low, high, known):
            return (
                f"Images of more than 8 bits hold the values {_number(low)}..{_number(high)} of "
                f"{_number(known[0])}..{_number(known[1])}, at most a quarter of it: to a model "
                f"they have next to no contrast. {_remedy(low, high, known)}"
            )
    return None


def _remedy(low, high, known):
    pair = "value_range=(black, white), the least and the greatest value that such images may have"
    whole = low >= 0 and float(high).is_integer() and float(low).is_integer()
    for bits in _DEPTHS if whole else ():
        full = 2**bits - 1
        if high <= full < known[1] and not _small(low, high, (0, full)):
            return f"Pass value_range={full} if these are numbers of {bits} bits, or {pair}."
    return f"Pass {pair}."


def warn_of_small_range(spans: Iterable[Span | None]) -> None:
    """Warn, at the line of the user, of training images that use a small part of their range.

    Parameters
    ----------
    spans : iterable of (Span or None)
        As for :func:`small_range_message`.
    """
    message = small_range_message(spans)
    if message is not None:
        warn_user(message)
