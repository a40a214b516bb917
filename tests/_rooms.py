"""The rooms of the house: their order, the modules in them, and who imports whom."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "skanomaly"

# The order of the rooms, from the top. A room imports from lower lines only: neither from a higher
# line nor from another room of its own line. CONTRIBUTING.md says what each is for.
FLOORS = """
cli
registry
anomalib deployment growth
estimator_checks
base detectors
scorers embedders preprocessing
_networks benchmarking report
evaluation streaming
persistence
_results
decisions
datasets inspection _unions
_calibrated
core _images _pipelines
_recipes
metrics model_selection _tokens _cache _origins _grouped_fit _output
_parameters _patch_tokens _labels _masks
_stamps _token_stream _token_output
_optional _sklearn _docstrings _faults _transductive _typing _version _warn
"""
FLOOR = {
    room: floor for floor, line in enumerate(FLOORS.strip().splitlines()) for room in line.split()
}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(tree):
    """What a module imports, at its head, in functions and for type checkers, by full names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(name):
    """The room of a module or of a name in it; None for names of the package itself."""
    parts = name.split(".")
    return parts[1] if parts[0] == "skanomaly" and len(parts) > 1 and parts[1] in FLOOR else None
