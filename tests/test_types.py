"""Types of all that is public: they are there, they resolve, and a type checker uses them."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from _public import public_methods, public_objects

import skanomaly

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = public_objects()


def functions(thing):
    """What is called of a public object: itself, or its constructor, methods and properties."""
    members = {"": thing}
    if inspect.isclass(thing):
        members = dict(public_methods(thing))
        home = next(base for base in thing.__mro__ if "__init__" in vars(base))
        if home.__module__.startswith("skanomaly"):
            members["__init__"] = thing.__init__
    for name, member in members.items():
        if isinstance(member, property):
            member = member.fget
        yield name, inspect.unwrap(getattr(member, "__func__", member))


def without_annotation(name, function):
    """Names of the parameters, and 'return', that have no annotation."""
    signature = inspect.signature(function)
    missing = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.annotation is parameter.empty and parameter.name not in ("self", "cls")
    ]
    if signature.return_annotation is signature.empty and name != "__init__":
        missing.append("return")
    return missing


def names_of_module(module):
    """The names of a module, with those that only type checkers import."""
    names = dict(vars(module))
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            try:
                exec(compile(ast.Module(node.body, []), module.__name__, "exec"), names)
            except ImportError as exc:
                pytest.skip(f"an extra is missing: {exc}")
    return names


@pytest.mark.parametrize("path", PUBLIC)
def test_annotations(path):
    found = []
    for name, function in functions(PUBLIC[path]):
        missing = without_annotation(name, function)
        if missing:
            found.append(f"{path}.{name}".rstrip(".") + f": no type of {', '.join(missing)}")
        else:
            names = names_of_module(importlib.import_module(function.__module__))
            typing.get_type_hints(function, globalns=names)
    assert not found, "\n".join(found)


def test_what_has_no_annotation_is_found():
    def half(size: int, name, *rest: int, key=1): ...

    class Estimator:
        def __init__(self, size: int): ...

    assert without_annotation("half", half) == ["name", "key", "return"]
    assert without_annotation("__init__", Estimator.__init__) == []


def test_lazy_names_are_known_to_type_checkers():
    """The names that `__getattr__` loads are those of `__all__` and of the block of imports."""
    tree = ast.parse(Path(skanomaly.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = [alias.name for node in block.body for alias in node.names]
    assert sorted([*imported, "__version__"]) == sorted(skanomaly.__all__)
    lazy = [name for names in skanomaly._EXPORTS.values() for name in names]
    modules = [name for name in skanomaly.__all__ if inspect.ismodule(getattr(skanomaly, name))]
    assert sorted([*lazy, *modules, "__version__"]) == sorted(skanomaly.__all__)


@pytest.fixture(scope="module")
def mypy():
    """What mypy says of the uses in `tests/typing`; the package is checked by `.ci/run`."""
    pytest.importorskip("mypy")
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--follow-imports=silent", "tests/typing"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=500,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    return run.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["right.py", "wrong.py"])
def test_uses(name, mypy):
    """Each line that names a kind of error gets it, and no other line gets one."""
    path = f"tests/typing/{name}"
    found = re.findall(rf"^{path}:(\d+): error: .*\[([\w-]+)\]$", mypy, re.MULTILINE)
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    expected = [
        (str(number), line.partition("# error: ")[2])
        for number, line in enumerate(lines, 1)
        if "# error: " in line
    ]
    assert (len(expected) > 5) == (name == "wrong.py")
    assert found == expected, mypy
