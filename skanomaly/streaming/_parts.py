"""Parquet files that hold the results of shards: which images belong to each, which are there."""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skanomaly._cache import cache_key
from skanomaly._output import written_beside
from skanomaly._version import __version__

COLUMNS = {
    "path": "string",
    "number": "int64",
    "decision": "string",
    "score": "float64",
    "threshold": "float64",
    "p_value": "float64",
    "error": "string",
    "model": "string",
}
_NAME = re.compile(r"scores-([0-9a-f]{12})-([0-9]{5,})-of-([0-9]{5,})-([0-9]{6,})\.parquet")
_KEY = b"skanomaly"  # in the metadata of a part
_UNFINISHED = re.compile(r"\.skanomaly-[0-9]+-[0-9a-f]{16}\.tmp")
_UNFINISHED_LIFE = 3600.0  # seconds; no part takes that long to write: its process was killed


@dataclass(frozen=True)
class Run:
    """What all parts in a folder have in common."""

    model: str
    paths: str  # digest of the whole list
    n_shards: int
    rows_per_file: int
    version: str = __version__

    @property
    def name(self) -> str:
        return cache_key(**asdict(self))[:12]

    def differs_in(self, other: dict[str, Any]) -> str:
        """In words."""
        said = {
            "model": "another model",
            "paths": "another list of paths",
            "n_shards": f"n_shards={other.get('n_shards')}, not {self.n_shards}",
            "rows_per_file": f"rows_per_file={other.get('rows_per_file')}, "
            f"not {self.rows_per_file}",
            "version": f"skanomaly {other.get('version')}, not {self.version}",
        }
        mine = asdict(self)
        return " and ".join(said[name] for name in said if mine[name] != other.get(name))


class Parts:
    """Files of results of one shard: which images belong to each, and which are there."""

    def __init__(self, folder: Path, run: Run, shard: int, numbered: list[tuple[int, str]]) -> None:
        self.folder, self.run, self.shard, self._numbered = folder, run, shard, numbered

    def images(self, part: int) -> list[tuple[int, str]]:
        """Those of a part, each with its number."""
        size = self.run.rows_per_file
        return self._numbered[part * size : (part + 1) * size]

    def missing(self, resume: bool) -> list[int]:
        """Parts to be written; raise where the folder holds anything but results of this run."""
        others, there = [], set()
        for name in sorted(os.listdir(self.folder)):
            found = _NAME.fullmatch(name)
            if found is None:
                if name[0] not in "._":  # of the system, or of other programs that read Parquet
                    others.append(name)
                elif _UNFINISHED.fullmatch(name):
                    self._remove_old(name)
            elif found[1] != self.run.name:
                self._raise_other_run(name)
            elif int(found[2]) == self.shard:
                there.add(int(found[4]))
        if others:
            raise FileExistsError(
                f"{self.folder} holds other files than scores, such as {others[0]}: name a folder "
                "of its own"
            )
        if there and not resume:
            raise FileExistsError(
                f"{self.folder} holds scores of shard {self.shard} already: go on with them by "
                "resume=True, or name another folder"
            )
        n_parts = -(-len(self._numbered) // self.run.rows_per_file)
        return [part for part in range(n_parts) if part not in there or not self._is_whole(part)]

    def write(self, part: int, rows: list[dict[str, Any]]) -> None:
        """Put a part into its place."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        metadata = {_KEY: json.dumps(asdict(self.run))}
        fields = [(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()]
        table = pa.Table.from_pylist(rows, pa.schema(fields, metadata))
        with written_beside(self._path(part)) as file:
            pq.write_table(table, file)

    def _path(self, part):
        n_shards = self.run.n_shards
        name = f"scores-{self.run.name}-{self.shard:05}-of-{n_shards:05}-{part:06}.parquet"
        return self.folder / name

    def _is_whole(self, part):
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:  # after a crash of the whole machine a file may be there without its content
            return pq.read_metadata(self._path(part)).num_rows == len(self.images(part))
        except (OSError, pa.ArrowException):
            return False

    def _raise_other_run(self, name):
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            other = json.loads((pq.read_schema(self.folder / name).metadata or {})[_KEY])
            what = f"scores of {self.run.differs_in(other)}"
        except (OSError, pa.ArrowException, KeyError, ValueError, AttributeError):
            what = "a damaged file of scores"
        raise FileExistsError(
            f"{self.folder} holds {what} ({name}): give what it was begun with, or name another "
            "folder"
        )

    def _remove_old(self, name):
        path = self.folder / name
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _UNFINISHED_LIFE:
                path.unlink()
