"""On-disk cache of the image embedders: one verified safetensors file per image."""

from __future__ import annotations

import contextlib
import hashlib
import json
import numbers
import os
import re
import secrets
import stat
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from skanomaly._typing import PathLike
from skanomaly._warn import warn_user

# Part of every key and of every file: raising it makes all older entries count as missing.
FORMAT_VERSION = 1

_KEY = re.compile(r"[0-9a-f]{64}")
_FOLDER = re.compile(r"[0-9a-f]{2}")
_ENTRY = re.compile(r"([0-9a-f]{2})/\1[0-9a-f]{62}\.safetensors")
_TEMPORARY = re.compile(r"([0-9a-f]{2})/\.\1[0-9a-f]{62}\.[0-9]+\.[0-9a-f]{16}\.tmp")
_TEMPORARY_LIFE = 3600.0  # seconds; no write takes that long: its process was killed


def cache_key(**parts: object) -> str:
    """
    Digest of everything that an entry depends on.

    Parameters
    ----------
    **parts : str, int, float, bool, None, list, tuple or dict
        Named parts, nested at will, dictionaries with string keys; anything else is a
        TypeError. The order of names does not matter, types do (but a tuple equals a list).

    Returns
    -------
    str
        64 hexadecimal characters.

    Examples
    --------
    >>> cache_key(image="a.png", size=224) == cache_key(size=224, image="a.png")
    True
    >>> cache_key(size=224) == cache_key(size="224")
    False
    """
    _check_plain(parts)
    # Not ASCII: the escapes of an astral character and of its two lone surrogates are the same.
    text = json.dumps([FORMAT_VERSION, parts], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def token_cache(cache_dir: PathLike | None, cache_size: int) -> TokenCache | None:
    """The cache of an embedder; an error before the work where it could never hold anything.

    Parameters
    ----------
    cache_dir, cache_size
        Parameters of the embedder.

    Returns
    -------
    TokenCache or None
        None for no folder.

    Raises
    ------
    ValueError
        When the folder cannot be made, or is empty and cannot be written to.
    """
    if cache_dir is None:
        return None
    if not os.fspath(cache_dir):
        raise ValueError("cache_dir is empty; pass a folder, or None for no cache")
    cache = TokenCache(cache_dir, cache_size)
    try:
        cache.make()
    except (OSError, ValueError) as exc:  # ValueError: a path the system cannot express
        raise ValueError(
            f"cache_dir={os.fspath(cache_dir)!r} cannot be used ({exc}); pass a folder that can be "
            "written to, or None for no cache"
        ) from exc
    return cache


def _check_plain(value: object) -> None:
    """Raise TypeError for what JSON would refuse, or would silently turn into a string."""
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise TypeError(f"cache key: dictionary keys must be str, got {name!r}")
            _check_plain(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_plain(item)
    elif not (value is None or isinstance(value, (str, int, float))):
        raise TypeError(f"cache key: {type(value).__name__} is not a plain value")


def _metadata(key: str, array: np.ndarray, dtype: str) -> dict[str, str]:
    """Text metadata of the file that holds `array` under `key`; reading compares all of it."""
    return {
        "format": "skanomaly.tokens",
        "version": str(FORMAT_VERSION),
        "key": key,
        "dtype": dtype,
        "shape": json.dumps(array.shape),
        "sha256": hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest(),
    }


def _smallest(array: np.ndarray) -> np.ndarray:
    """The array as float16 if that holds it to the bit."""
    with np.errstate(all="ignore"):  # what float16 cannot hold is found out by the comparison
        half = array.astype(np.float16)
        same = half.astype(array.dtype).tobytes() == array.tobytes()
    return half if same else array


class TokenCache:
    """
    Directory of arrays by key, with a size cap and least-recently-used eviction.

    Threads and processes may share a directory. A file that is damaged, foreign or of another
    version counts as missing. The first write that fails (full disk, read-only directory, ...)
    gives one RuntimeWarning and ends writing; reading goes on.

    Parameters
    ----------
    directory : str or path-like
        Where the files go; ``~`` is expanded. Made by `make`, or at the first `put`. Other files
        in it are neither counted nor removed.
    max_bytes : int
        Cap on the total size of the files, enforced at `put`. Processes that write at the
        same time may each pass it by a tenth before they notice.

    Examples
    --------
    >>> import tempfile
    >>> key = cache_key(image="a.png", model="tiny")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = TokenCache(folder, max_bytes=10_000_000)
    ...     print(cache.get(key))
    ...     cache.put(key, np.arange(3, dtype=np.float32))
    ...     print(cache.get(key))
    None
    [0. 1. 2.]
    """

    def __init__(self, directory: PathLike, max_bytes: int) -> None:
        integer = isinstance(max_bytes, numbers.Integral) and not isinstance(max_bytes, bool)
        if not integer or max_bytes <= 0:
            raise ValueError(f"max_bytes must be a positive integer, got {max_bytes!r}")
        # Absolute, so that a later chdir, or a worker's, does not split the cache in two.
        self.directory = Path(os.path.abspath(os.path.expanduser(directory)))
        self.max_bytes = int(max_bytes)
        self._room = 0  # bytes to write before the next look at the directory
        self._writable = True
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.directory, self.max_bytes)

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a cache key: {key!r}")
        return self.directory / key[:2] / f"{key}.safetensors"

    def make(self) -> None:
        """Make the directory; OSError where there can be none, or it can never hold anything.

        One that cannot be written to is accepted as long as there is something in it: others may
        have filled it.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        if not os.access(self.directory, os.W_OK | os.X_OK) and not any(self.directory.iterdir()):
            raise PermissionError(f"{self.directory} is empty and cannot be written to")

    def get(self, key: str) -> np.ndarray | None:
        """Return the array of `key`, the caller's to write to, or None if there is none."""
        path = self._path(key)
        try:
            blob = path.read_bytes()
            array = load(blob)["tokens"]
            header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
        except (OSError, SafetensorError, KeyError, ValueError):
            return None  # unreadable; not safetensors; other tensor or type; impossible shape
        metadata = header.get("__metadata__", {})
        kept, dtype = array.dtype.name, metadata.get("dtype")
        known = dtype == kept or (dtype, kept) == ("float32", "float16")
        if not known or metadata != _metadata(key, array, dtype):
            return None
        with contextlib.suppress(OSError):  # a read-only cache is still a cache
            os.utime(path)
        return array.astype(dtype, copy=False)

    def put(self, key: str, array: np.ndarray) -> None:
        """Store `array` (float32 or float16) under `key`; never fails for want of a disk.

        float32 values that float16 holds to the bit take half the space; `get` gives float32.
        """
        path = self._path(key)
        array = np.asarray(array, order="C")
        if array.dtype not in (np.float32, np.float16):
            raise TypeError(f"only float32 and float16 are stored, got {array.dtype}")
        if not self._writable:
            return
        kept = _smallest(array)
        blob = save({"tokens": kept}, metadata=_metadata(key, kept, array.dtype.name))
        if len(blob) > self.max_bytes:
            return
        try:
            self._write(path, blob)
            with self._lock:
                self._room -= len(blob)
            if self._room < 0:
                self._evict(path)
        except (OSError, ValueError) as error:  # ValueError: a path the system cannot express
            with self._lock:
                first, self._writable = self._writable, False
            if first:
                text = f"token cache {self.directory}: nothing more is stored ({error})"
                warn_user(text, RuntimeWarning)

    def _write(self, path: Path, blob: bytes) -> None:
        """Make `path` hold `blob`, or leave everything as it was."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.stem}.{os.getpid()}.{secrets.token_hex(8)}.tmp")
        try:
            # No fsync: what a power cut truncates is found out when it is read.
            with open(temporary, "xb") as file:
                file.write(blob)
            try:
                os.replace(temporary, path)
            except PermissionError:
                # Windows refuses while another process reads the same entry: nothing is lost.
                if self.get(path.stem) is None:
                    raise
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)

    def _evict(self, keep: Path) -> None:
        """Count the entries; past the cap, remove the oldest, but never the path `keep`."""
        expired = time.time() - _TEMPORARY_LIFE
        entries = []
        # os.walk enters no linked folder, and passes over folders that it cannot read.
        for root, folders, names in os.walk(self.directory):
            top = root == str(self.directory)
            folders[:] = filter(_FOLDER.fullmatch, folders if top else ())
            for name in () if top else names:
                path, tail = os.path.join(root, name), f"{root[-2:]}/{name}"
                with contextlib.suppress(OSError):  # another process may be evicting too
                    info = os.lstat(path)
                    plain = stat.S_ISREG(info.st_mode)
                    if plain and _ENTRY.fullmatch(tail):
                        entries.append((info.st_mtime_ns, path, info.st_size))
                    elif plain and info.st_mtime < expired and _TEMPORARY.fullmatch(tail):
                        os.unlink(path)
        total = sum(size for _, _, size in entries)
        goal = self.max_bytes * 9 // 10 if total > self.max_bytes else total
        for _, path, size in sorted(entries):
            if total > goal and path != str(keep):
                with contextlib.suppress(OSError):
                    os.unlink(path)
                if not os.path.lexists(path):  # whoever removed it
                    total -= size
        if total > self.max_bytes:  # then the cap can only be kept by writing no more
            raise OSError("its old entries cannot be removed")
        with self._lock:
            # A tenth at most, because other processes write without telling this one.
            self._room = min(self.max_bytes - total, self.max_bytes // 10)
