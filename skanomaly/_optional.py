"""The one way to import what an extra brings."""

import importlib


def import_optional(module, extra, user):
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
        raise ImportError(
            f"{user} needs {module!r}, which could not be imported ({exc}). "
            f'Install it with: pip install "skanomaly[{extra}]"'
        ) from exc
