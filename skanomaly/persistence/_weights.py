"""Weights of networks, and checkpoints, that a model refers to or brings with it.

An estimator that needs files has a method ``_weight_files(fetch)``. It returns None where it needs
none, or the name of its parameter that says which; the tag that it was given, None where it was
given a file; and the paths of the files, none where they are not there. With ``fetch=True`` it
downloads what is missing. In place of a tag the parameter takes ``"TAG@FILE"``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from skanomaly._output import check_folder, written_beside
from skanomaly._stamps import file_digest
from skanomaly._typing import PathLike
from skanomaly.persistence._container import Container
from skanomaly.persistence._portable import with_params
from skanomaly.persistence._tree import objects_of

# The loaders of weights and checkpoints go by these; the rest of a name is ours.
_SUFFIXES = frozenset([".bin", ".ckpt", ".npz", ".onnx", ".pt", ".pth", ".safetensors", ".xml"])


def weights_of(estimator: Any, *, include: bool) -> tuple[list[dict[str, Any]], dict[str, Path]]:
    """What the manifest says of weights, and the files that go with it.

    Parameters
    ----------
    estimator : estimator
        That is saved.
    include : bool
        Whether the files are put in.

    Returns
    -------
    entries : list of dict
        One of each parameter of an estimator that asks for weights.
    files : dict of str to Path
        By their sha256; empty without `include`.

    Raises
    ------
    OSError, ValueError
        When files are to be put in that are not there, or cannot be.
    """
    entries: list[dict[str, Any]] = []
    files: dict[str, Path] = {}
    for value in objects_of(estimator):
        try:
            found = value._weight_files(include) if hasattr(value, "_weight_files") else None
        except (OSError, ValueError, ImportError):
            if include:
                raise
            continue  # what cannot be found now is looked for, and missed, when it is used
        if found is None:
            continue
        parameter, tag, paths = found
        for path in paths:
            if include and path.suffix not in _SUFFIXES:
                raise ValueError(
                    f"{path} is named as no file of weights is; rename it, with one of "
                    f"{', '.join(sorted(_SUFFIXES))}"
                )
        entry = {
            "class": _name(value),
            "parameter": parameter,
            "value": os.fspath(getattr(value, parameter)),
            "tag": tag,
            "included": include,
            "files": [
                {"sha256": file_digest(path), "bytes": path.stat().st_size, "suffix": path.suffix}
                for path in paths
            ],
        }
        if entry not in entries:
            entries.append(entry)
        if include:
            files |= {of["sha256"]: path for of, path in zip(entry["files"], paths, strict=True)}
    return entries, files


def restore_weights(estimator: Any, file: Container, folder: PathLike | None) -> None:
    """Put the weights that a file brings into a folder, and check those that it refers to.

    Parameters
    ----------
    estimator : estimator
        As it was read; its parameters are set to where the weights are now, as if that had been so
        at `fit`.
    file : Container
        Where it was read from.
    folder : str, os.PathLike or None
        For the weights; None for the user's folder of caches.

    Raises
    ------
    FileNotFoundError, ValueError
        When a file of weights is missing, or is another than at `fit`.
    """
    moved: dict[tuple[str, str], str] = {}
    for value, entry in list(_asked_for(estimator, file.manifest.get("weights", []))):
        parameter, tag, old = entry["parameter"], entry["tag"], entry["value"]
        if not entry["included"]:
            if old != tag:
                _check(old if tag is None else old.partition("@")[2], entry, file)
            continue
        path = _put(file, entry["files"], _folder(folder))
        new = str(path) if tag is None else f"{tag}@{path}"
        moved[parameter, old] = new
        vars(value)[parameter] = new
        of_file = vars(value).get("_file")
        if isinstance(of_file, tuple) and len(of_file) == 2:  # of a detector
            vars(value)["_file"] = new, of_file[1]

    def changed(name: str, value: Any) -> Any:
        is_text = isinstance(value, (str, os.PathLike))
        return moved.get((name, os.fspath(value)), value) if is_text else value

    for value in objects_of(estimator):
        vars(value).update(with_params(dict(vars(value)), changed))


def _name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__name__}"


def _folder(folder: PathLike | None) -> Path:
    if folder is None:
        return user_cache_path("skanomaly", appauthor=False) / "weights"
    return Path(os.path.abspath(os.path.expanduser(folder)))


def _asked_for(estimator: Any, entries: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Estimators that ask for weights, each with what the manifest says of them."""
    for value in objects_of(estimator):
        for entry in entries if hasattr(value, "_weight_files") else ():
            given = vars(value).get(entry["parameter"])
            same = isinstance(given, (str, os.PathLike)) and os.fspath(given) == entry["value"]
            if same and entry["class"] == _name(value):
                yield value, entry
                break


def _check(path: str, entry: dict[str, Any], file: Container) -> None:
    place, name = Path(path).expanduser(), entry["class"].rpartition(".")[2]
    advice = "or save the model again with include_weights=True, which puts them into the file"
    # Of several files, the second of an OpenVINO graph has the name of the first.
    for number, of_file in enumerate(entry["files"][: 1 + (place.suffix == ".xml")]):
        place = place.with_suffix(of_file["suffix"]) if number else place
        if not place.is_file():
            raise FileNotFoundError(
                f"{file.path} refers to weights that are not here: its {name} was fitted with "
                f"{entry['parameter']}={entry['value']!r}. Bring {place} there, {advice}"
            )
        if file_digest(place) != of_file["sha256"]:
            raise ValueError(
                f"{file.path} refers to other weights than there are here: the sha256 of {place} "
                f"is not {of_file['sha256'][:12]}..., as when its {name} was saved. Bring the old "
                f"file back, {advice}"
            )


def _put(file: Container, of_files: list[dict[str, Any]], folder: Path) -> Path:
    """Place of the first of the files, all of which now lie in a folder of their own."""
    if not of_files or any(of_file["suffix"] not in _SUFFIXES for of_file in of_files):
        raise ValueError("weights in it are named as none are")
    digests = [of_file["sha256"] for of_file in of_files]
    home = folder / hashlib.sha256("".join(digests).encode()).hexdigest()
    check_folder(home)
    for of_file in of_files:
        place = home / f"model{of_file['suffix']}"
        if not (place.is_file() and file_digest(place) == of_file["sha256"]):
            with written_beside(place) as target:
                file.copy_weights(of_file["sha256"], target)
    return home / f"model{of_files[0]['suffix']}"
