"""Modules of others that register names when they are imported."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from skanomaly._warn import warn_user

ENTRY_POINTS = "skanomaly.plugins"


def import_plugin(source: str) -> ModuleType:
    """Import a module, or a file of Python, that registers scorers and embedders.

    Parameters
    ----------
    source : str
        Path of a ``.py`` file, or the name of a module.

    Returns
    -------
    module

    Raises
    ------
    FileNotFoundError
        When the file is not there.
    ImportError
        When it cannot be imported; the message says why.
    """
    is_file = source.endswith(".py")
    if is_file and not Path(source).is_file():
        raise FileNotFoundError(f"the plug-in {source} is no file")
    try:
        if is_file:
            return _import_file(Path(source).resolve())
        return importlib.import_module(source)
    except (Exception, SystemExit) as exc:
        # Whatever the code of a plug-in raises, the person has named the plug-in.
        raise ImportError(f"the plug-in {source} failed: {type(exc).__name__}: {exc}") from exc


@functools.cache
def import_installed_plugins() -> None:
    """Import, once, the modules that installed packages name in the entry points of our group.

    One that fails does not keep the others from their names: a warning says which and why.
    """
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except (Exception, SystemExit) as exc:
            warn_user(
                f"the plug-in {point.name} ({point.value}) failed: {type(exc).__name__}: {exc}"
            )


def _import_file(path):
    """Import a file under its own name, so that worker processes and pickles find its classes."""
    name = path.stem
    if name in sys.modules:
        if getattr(sys.modules[name], "__file__", None) == str(path):
            return sys.modules[name]
        raise ImportError(f"there is a module named {name!r} already: rename the file")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # Modules beside the file can be imported by it, and the file by processes of joblib.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
