"""The command ``skanomaly``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skanomaly.cli._app import app

__all__ = ["app"]


def __getattr__(name: str) -> Any:
    """The application, which is imported when it is asked for: that takes a second."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from skanomaly.cli._start import interruptible

    with interruptible():
        from skanomaly.cli._app import app

        return app
