"""The layout of the house: who imports from whom, how long files are, what tests patch."""

import ast

from _rooms import FLOOR, MODULES, ROOT, imports, room_of, tree_of

# The one door to each upstream library: only here may something private of theirs be used.
DOORS = {
    "skanomaly._sklearn",
    "skanomaly._networks.timm",
    "skanomaly._networks.openclip",
    "skanomaly.anomalib._opening",
}
MOST_LINES = 350


def upward_imports(name, tree):
    room = room_of(name)
    return [
        f"{name} imports {target}"
        for target in imports(tree)
        if room_of(target) not in (None, room) and FLOOR[room_of(target)] <= FLOOR[room]
    ]


def test_every_room_has_its_place():
    rooms = {name.split(".")[1] for name in MODULES if name.count(".")}
    assert rooms - {"__init__"} <= set(FLOOR), "write new rooms down in FLOORS"


def test_nothing_imports_upwards():
    found = []
    for name, path in MODULES.items():
        if name != "skanomaly":  # which hands on what all rooms make
            found += upward_imports(name, tree_of(path))
    assert not found, "\n".join(found)


def test_no_circle_between_modules():
    """Neither between rooms nor within one; what only type checkers import counts too."""
    graph = {}
    for name, path in MODULES.items():
        known = set()
        for target in imports(tree_of(path)):
            known.add(target if target in MODULES else target.rpartition(".")[0])
        graph[name] = (known & set(MODULES)) - {name, "skanomaly"}
    circles = []
    done = set()

    def visit(name, trail):
        if name in trail:
            circles.append(" > ".join([*trail[trail.index(name) :], name]))
        elif name not in done:
            for target in sorted(graph[name]):
                visit(target, [*trail, name])
            done.add(name)

    for name in graph:
        if name != "skanomaly":
            visit(name, [])
    assert not circles, "\n".join(circles)


def private_of_others(tree):
    for target in imports(tree):
        parts = target.split(".")
        private = [part for part in parts if part[0] == "_" and part[:2] != "__"]
        if private and parts[0] != "skanomaly":
            yield target


def test_private_names_of_other_libraries_come_through_their_door():
    found = [
        f"{name} imports {target}"
        for name, path in MODULES.items()
        if name not in DOORS
        for target in private_of_others(tree_of(path))
    ]
    assert not found, "\n".join(found)


def test_no_module_is_too_long():
    lines = {
        name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()
    }
    assert {name: n for name, n in lines.items() if n > MOST_LINES} == {}


def of_others(tree):
    """Names in a test module that are imported from other packages than ours."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            home = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            if home.split(".")[0] != "skanomaly":
                names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return names


def patched_names(function, others=()):
    """Private names of this package that a test replaces, as `module._name`."""
    found = set()
    for node in ast.walk(function):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        last = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if last not in ("setattr", "delattr", "patch", "object", "dict"):
            continue  # most calls: to write them all out would take seconds
        called = ast.unparse(node.func)
        if not called.endswith(("setattr", "delattr", "patch", "patch.object", "patch.dict")):
            continue
        path = ".".join(
            arg.value if isinstance(arg, ast.Constant) else ast.unparse(arg)
            for arg in node.args[:2]
            if not isinstance(arg, ast.Constant) or isinstance(arg.value, str)
        )
        if isinstance(node.args[0], ast.Constant):
            path = str(node.args[0].value)
        parts = path.split(".")
        if parts[0] not in others and parts[-1][:1] == "_" and parts[-1][:2] != "__":
            found.add(path)
    return found


def much_patched(path):
    """The tests of a file that replace more than one private name."""
    tree = tree_of(path)
    others = of_others(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            names = patched_names(node, others)
            if len(names) > 1:
                where = f"{path.relative_to(ROOT)}::{node.name}"
                yield f"{where} patches {', '.join(sorted(names))}"


def test_no_test_patches_more_than_one_private_name():
    files = sorted((ROOT / "tests").rglob("*.py"))
    found = [text for path in files for text in much_patched(path)]
    assert not found, "\n".join(found)


def test_the_rules_find_what_breaks_them():
    bad = ast.parse(
        "def late():\n    from skanomaly.cli import app\n"
        "from skanomaly import registry, create_model\nimport numpy._core.umath\n"
    )
    assert upward_imports("skanomaly.core.maps", bad) == [
        "skanomaly.core.maps imports skanomaly.registry",
        "skanomaly.core.maps imports skanomaly.cli.app",
    ]
    assert list(private_of_others(bad)) == ["numpy._core.umath"]
    test = ast.parse(
        "def test(monkeypatch):\n"
        "    monkeypatch.setattr(_cache, '_write', None)\n"
        "    monkeypatch.setattr('skanomaly._cache._read', None)\n"
        "    monkeypatch.setattr(module, 'public', None)\n"
        "    monkeypatch.setattr(os, '__name__', None)\n"
    ).body[0]
    assert patched_names(test) == {"_cache._write", "skanomaly._cache._read"}
