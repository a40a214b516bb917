"""What a tree of skops is made of, looked at before any of it is made.

skops asks which names a file has, whatever their place. Here each part is looked at in its place:
a type that objects may be of is no value by itself, a metric stands in a scorer, a scorer in a
search. What is not known is not trusted.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Collection, Iterator
from typing import Any

from skanomaly.persistence._container import array_header
from skanomaly.persistence._trusted import (
    IMAGE_SCORER,
    RESPONSES,
    SCORER,
    SCORERS,
    SEARCHES,
    is_ufunc,
    number_types,
    trusted_metrics,
    trusted_types,
)

# Places: of anything, of a search's scorers, of a scorer's function and method, of types of keys.
_VALUE, _SCORING, _METRIC, _RESPONSE, _KEY = "value", "scoring", "metric", "response", "key"
_PLACES: dict[str, dict[str, str]] = {
    **dict.fromkeys(SEARCHES, {"scoring": _SCORING, "scorer_": _SCORING}),
    IMAGE_SCORER: {"metric": _METRIC},
    SCORER: {"_score_func": _METRIC, "_response_method": _RESPONSE},
    SCORERS: {"_scorers": _SCORING},
}
_SEQUENCES = {
    "ListNode": "builtins.list",
    "SetNode": "builtins.set",
    "TupleNode": "builtins.tuple",
}
_KEYS = frozenset(["builtins.str", "builtins.int", "builtins.float"])
_ARRAYS = frozenset(["numpy.dtype", "numpy.ma.MaskedArray", "numpy.ma.core.MaskedArray"])
_RANDOM = frozenset(["numpy.random.mtrand.RandomState"])
# By which skops calls what the file names: only what `trusted` names. Some do not mind what they
# say that they are.
_CALLS = {
    "ConstructorFromReduceNode": None,
    "DefaultDictNode": "collections.defaultdict",
    "LossNode": None,
    "MethodNode": None,
    "OperatorFuncNode": None,
    "PartialNode": "functools.partial",
    "QuantileForestNode": "quantile_forest._quantile_forest_fast.QuantileForest",
    "RandomGeneratorNode": None,
    "SparseMatrixNode": None,
    "TreeNode": "sklearn.tree._tree.Tree",
    "BytearrayNode": None,
}


def audit(data: bytes, trusted: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """Which types and functions a tree of skops asks for; none is imported.

    Parameters
    ----------
    data : bytes
        Of skops.
    trusted : collection of str, default=()
        Names that are trusted, whatever their place, besides those of this package.

    Returns
    -------
    known, unknown : list of str
        Those that are trusted where they stand, and those that are not.

    Raises
    ------
    ValueError, LookupError, TypeError
        When it is not as skops writes it.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = _Audit(archive, frozenset(trusted))
    return sorted(found.known | found.trusted), sorted(found.unknown)


class _Audit:
    def __init__(self, archive: zipfile.ZipFile, trusted: frozenset[str]) -> None:
        self.archive, self.trusted = archive, trusted
        self.known: set[str] = set()
        self.unknown: set[str] = set()
        tree = json.loads(archive.read("schema.json"))
        if type(tree.get("protocol")) is not int or tree["protocol"] < 1:  # nodes were otherwise
            raise ValueError(f"its tree is of protocol {tree.get('protocol')!r}")
        # skops takes the first part of an id for all others of it, whatever these say. So all are
        # looked at in each place where one of them is.
        self.twins: dict[Any, list[dict[str, Any]]] = {}
        for node in _nodes(tree):
            if "__id__" in node:
                self.twins.setdefault(node["__id__"], []).append(node)
        waiting, seen = [(tree, _VALUE)], set()
        while waiting:
            node, place = waiting.pop()
            for twin in self.twins[node["__id__"]] if "__id__" in node else [node]:
                if (id(twin), place) not in seen:
                    seen.add((id(twin), place))
                    waiting += self.look(twin, place)

    def look(self, node: dict[str, Any], place: str) -> list[tuple[dict[str, Any], str]]:
        """Look at one part, and return what is in it, with its places."""
        loader, module, kind = node["__loader__"], node["__module__"], node["__class__"]
        name = _name(node)
        if place.startswith(_VALUE + " "):
            return self.attributes(node, name, place.partition(" ")[2])
        if place == _KEY:
            _must(loader == "TypeNode" and name in _KEYS | number_types(), f"a key is a {name}")
            self.known.add(name)
            return []
        if place == _RESPONSE and loader not in _SEQUENCES:
            _must(loader == "JsonNode", f"the method of a scorer is a {name}")
            method = json.loads(node["content"])
            _must(isinstance(method, str) and method in RESPONSES, f"a scorer calls {method!r}")
            return []
        if loader == "JsonNode":
            _must(isinstance(node["content"], str), "a value is no text")
            return []
        if loader == "SliceNode":
            return []
        if loader == "DictNode":
            self.ask(name, name == "builtins.dict")
            return [*self.keys(node), *((value, place) for value in node["content"].values())]
        if loader in _SEQUENCES:
            self.ask(name, name == _SEQUENCES[loader])
            return [(item, place) for item in node["content"]]
        if loader == "NdArrayNode":
            self.ask(name, name == "numpy.ndarray" or name in number_types())
            if node["type"] == "numpy":
                self.array(node["file"])
                return []
            return [(item, _VALUE) for item in (*node["content"], node["shape"])]
        if loader in ("MaskedArrayNode", "DTypeNode"):
            self.ask(name, name in _ARRAYS)
            content = node["content"]
            parts = [content] if loader == "DTypeNode" else [content["data"], content["mask"]]
            for part in parts:
                twins = self.twins.get(part.get("__id__"), [part])
                _must(all(twin["__loader__"] == "NdArrayNode" for twin in twins), "no array")
            return [(part, _VALUE) for part in parts]
        if loader == "RandomStateNode":
            self.ask(name, name in _RANDOM)
            return [(node["content"], _VALUE)]
        if loader == "BytesNode":
            self.ask(name, name == "builtins.bytes")
            return []
        if loader == "FunctionNode":
            metric = place == _METRIC and name in trusted_metrics()
            self.ask(name, metric or is_ufunc(module, kind))
            return []
        if loader == "TypeNode":
            self.ask(name, name in number_types())
            return []
        if loader == "ObjectNode":
            scorer = place == _SCORING and name in (IMAGE_SCORER, SCORER, SCORERS)
            self.ask(name, scorer or name in trusted_types())
            content = node.get("content")
            return [] if content is None else [(content, f"{_VALUE} {name}")]
        return self.call(node, loader, name)

    def ask(self, name: str, is_known: bool) -> None:
        (self.known if is_known or name in self.trusted else self.unknown).add(name)

    def attributes(
        self, node: dict[str, Any], name: str, owner: str
    ) -> list[tuple[dict[str, Any], str]]:
        """The attributes of an object, each in its place."""
        if owner in self.trusted and not (node["__loader__"] == "DictNode"):
            return [(node, _VALUE)]
        _must(node["__loader__"] == "DictNode" and name == "builtins.dict", "no attributes")
        places = _PLACES.get(owner, {})
        parts = ((part, places.get(key, _VALUE)) for key, part in node["content"].items())
        return [*self.keys(node), *parts]

    def keys(self, node: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
        """The types of a dictionary's keys, which skops calls."""
        keys = node["key_types"]
        found = []
        for twin in self.twins.get(keys.get("__id__"), [keys]):
            is_list = twin["__loader__"] == "ListNode" and _name(twin) == "builtins.list"
            _must(is_list, "keys have no types")
            found += [(key, _KEY) for key in twin["content"]]
        return found

    def call(self, node: dict[str, Any], loader: str, name: str) -> list[tuple[Any, str]]:
        """What is called as it is read: by its name in `trusted` alone."""
        _must(loader in _CALLS, f"a part is a {loader}")
        if loader == "MethodNode":
            name = f"{name}.{node['content']['func']}"
        name = _CALLS[loader] or name
        (self.known if name in self.trusted else self.unknown).add(name)
        return [(part, _VALUE) for value in node.values() for part in _outermost(value)]

    def array(self, member: str) -> None:
        """An array in NumPy's format, and no archive of many, that is as long as it says."""
        data = self.archive.read(member)
        array_header(io.BytesIO(data), len(data))


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise[:200])


def _name(node: dict[str, Any]) -> str:
    return f"{node['__module__']}.{node['__class__']}"


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if isinstance(part.get("__loader__"), str):
                yield part
            part = list(part.values())
        if isinstance(part, list):
            waiting += part


def _outermost(value: Any) -> Iterator[dict[str, Any]]:
    """The parts that stand in a value, without what is in these."""
    if isinstance(value, dict) and isinstance(value.get("__loader__"), str):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _outermost(item)
