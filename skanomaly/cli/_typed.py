"""What is typed: wrong usage, and numbers in their ranges."""

from __future__ import annotations

import math

import typer


class WrongUsage(ValueError):
    """What was typed cannot be meant, whatever the files hold: ends with code 2, not 1."""


def share(value: float | None) -> float | None:
    """A share of good images, as it is typed."""
    if value is not None and not 0 < value <= 0.5:
        raise typer.BadParameter(f"{value!r} is no share above 0, and up to 0.5.")
    return value


def fraction(value: float | None) -> float | None:
    """A share of all, as it is typed."""
    if value is not None and not 0 < value < 1:
        raise typer.BadParameter(f"{value!r} is no share above 0 and below 1.")
    return value


def cost(value: float | None) -> float | None:
    """What an error costs, as it is typed."""
    if value is not None and not 0 <= value < math.inf:
        raise typer.BadParameter(f"{value!r} is no finite number of at least 0.")
    return value


def finite(value: float | None) -> float | None:
    """A number that is one, as it is typed."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value!r} is no finite number.")
    return value
