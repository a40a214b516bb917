"""Errors that are about one image, and those that are about what all images share.

Work on many images may go on behind the former. What cannot be read is an
:class:`skanomaly.ImageReadError`; other errors are marked where they are raised, since only there
is it known whether another image would fail too.
"""

from __future__ import annotations

from typing import TypeVar

_Error = TypeVar("_Error", bound=Exception)


def of_an_image(error: _Error) -> _Error:
    """An error, marked as one that other images need not raise.

    Parameters
    ----------
    error : Exception
        Raised, or to be raised.

    Returns
    -------
    Exception
        The same.

    Examples
    --------
    >>> from skanomaly._faults import is_of_an_image, of_an_image
    >>> is_of_an_image(of_an_image(ValueError("image 3 is black"))), is_of_an_image(ValueError())
    (True, False)
    """
    error.__dict__["_is_of_an_image"] = True
    return error


def is_of_an_image(error: Exception) -> bool:
    """Whether an error is marked so."""
    return bool(error.__dict__.get("_is_of_an_image"))
