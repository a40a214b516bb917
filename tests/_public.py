"""What is public: the names in `__all__` of the package and of its public modules."""

import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType

import skanomaly


def public_modules() -> list[ModuleType]:
    """The package, and its modules that are named in its `__all__`."""
    values = [importlib.import_module("skanomaly")]
    values += [getattr(skanomaly, name) for name in skanomaly.__all__]
    return [value for value in values if inspect.ismodule(value)]


def public_objects() -> dict[str, object]:
    """Functions and classes by the shortest of their public paths."""
    found: dict[int, tuple[str, object]] = {}
    for module in public_modules():
        for name in _names(module):
            thing = getattr(module, name)
            if inspect.isroutine(thing) or inspect.isclass(thing):
                found.setdefault(id(thing), (f"{module.__name__}.{name}", thing))
    return dict(sorted(found.values(), key=lambda pair: pair[0]))


def _names(module: ModuleType) -> list[str]:
    """`__all__`; of a single file without one, what it defines without an underscore."""
    if hasattr(module, "__all__"):
        return module.__all__
    return [
        name
        for name, value in vars(module).items()
        if name[0] != "_" and getattr(value, "__module__", None) == module.__name__
    ]


def public_methods(cls: type) -> Iterator[tuple[str, object]]:
    """Methods and properties that this package defines, of the class or of its bases."""
    for name, _ in inspect.getmembers(cls):
        home = next((base for base in cls.__mro__ if name in vars(base)), None)
        if home is not None and home.__module__.startswith("skanomaly") and name[0] != "_":
            member = inspect.getattr_static(cls, name)
            if isinstance(member, property | classmethod | staticmethod) or callable(member):
                yield name, member
