"""The command ``skanomaly``."""

from skanomaly.cli._app import app

__all__ = ["app"]
