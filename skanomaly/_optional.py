"""The one way to import what an extra brings."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType


def import_optional(module: str, extra: str, user: str) -> ModuleType:
    """Import an optional dependency, or say which extra to install.

    Parameters
    ----------
    module : str
        Name of the module, such as ``"torch"``.
    extra : str
        The extra of this package that installs it.
    user : str
        What needs it, as the error shall name it.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    ImportError
        When the module is missing; the message names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise _missing(module, extra, user, exc) from exc


def require_optional(module: str, extra: str, user: str) -> None:
    """Say at once which extra to install, without importing what may take seconds.

    Parameters
    ----------
    module, extra, user : str
        As for :func:`import_optional`; a module that is in no package.

    Raises
    ------
    ImportError
        When the module is missing; as from :func:`import_optional`.
    """
    if not _is_installed(module):
        raise _missing(module, extra, user, f"No module named {module!r}")


def _is_installed(module):
    if module in sys.modules:
        return sys.modules[module] is not None
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # an import hook hides it
        return False


def _missing(module, extra, user, reason):
    return ImportError(
        f"{user} needs {module!r}, which could not be imported ({reason}). "
        f'Install it with: pip install "skanomaly[{extra}]"'
    )
