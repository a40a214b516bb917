"""Tests of the token cache on disk."""

import builtins
import concurrent.futures
import errno
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save

from skanomaly import _cache
from skanomaly._cache import TokenCache, cache_key

BIG = 10**9


def tokens(seed=0, size=64):
    return np.random.default_rng(seed).random((size // 8, 8), dtype=np.float32)


def entry(directory, key):
    return Path(directory) / key[:2] / f"{key}.safetensors"


def all_files(directory):
    return sorted(path for path in Path(directory).rglob("*") if not path.is_dir())


def total_bytes(directory):
    return sum(path.stat().st_size for path in all_files(directory))


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def size_of(array):
    """Bytes of the file of `array`."""
    with tempfile.TemporaryDirectory() as folder:
        TokenCache(folder, BIG).put(cache_key(), array)
        return total_bytes(folder)


# Keys


def test_key_is_sha256_hex_and_stable():
    key = cache_key(image="a.png", size=224)
    assert len(key) == 64 and set(key) <= set("0123456789abcdef")
    assert key == cache_key(size=224, image="a.png")
    # Pinned: a change here orphans every cache, so the format version has to change with it.
    assert key == "6fe7656c1f0124dbd5ef0e8fb110c7f764e78c58839774813a74e6437ef62a41"


def test_key_tells_apart_what_is_different():
    values = [1, True, "1", 1.0, 0, False, 0.0, -0.0, None, "None", "null", "", [], {}, [1], ["1"]]
    values += [[[1]], {"a": 1}, {"a": "1"}, [["a", 1]], [1, 2], [2, 1], "[1]", float("nan"), "NaN"]
    values += ["\U0001f600", "\ud83d\ude00", "\ud83d", 1e16, 10**16, float("inf")]
    keys = [cache_key(value=value) for value in values] + [cache_key(), cache_key(other=1)]
    assert len(set(keys)) == len(keys)
    assert cache_key(value=(1, (2,))) == cache_key(value=[1, [2]])
    assert cache_key(value={"a": 1, "b": 2}) == cache_key(value={"b": 2, "a": 1})


@pytest.mark.parametrize(
    "value",
    [b"1", {1, 2}, 1j, object(), Path("a"), np.float32(1), np.arange(2), {1: 2}, [{None: 1}]],
)
def test_key_refuses_other_types(value):
    with pytest.raises(TypeError, match="cache key"):
        cache_key(value=value)


def test_key_depends_on_the_format_version(monkeypatch):
    before = cache_key(a=1)
    monkeypatch.setattr(_cache, "FORMAT_VERSION", _cache.FORMAT_VERSION + 1)
    assert cache_key(a=1) != before


# Parameters


@pytest.mark.parametrize("max_bytes", [0, -1, 1.5, 1e9, "1", None, True])
def test_max_bytes_must_be_a_positive_integer(tmp_path, max_bytes):
    with pytest.raises(ValueError, match="max_bytes"):
        TokenCache(tmp_path, max_bytes)


def test_numpy_integer_is_an_integer(tmp_path):
    assert type(TokenCache(tmp_path, np.int64(5)).max_bytes) is int


def test_directory_is_expanded_and_made_at_the_first_put(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    cache, key = TokenCache("~/deep/cache", BIG), cache_key(a=1)
    assert cache.get(key) is None
    assert not (tmp_path / "deep").exists()
    cache.put(key, tokens())
    assert entry(tmp_path / "deep" / "cache", key).is_file()


def test_relative_directory_survives_chdir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache, key = TokenCache("cache", BIG), cache_key(a=1)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    cache.put(key, tokens())
    assert entry(tmp_path / "cache", key).is_file()


@pytest.mark.parametrize("directory", [None, b"bytes", 3.5])
def test_directory_must_be_a_path(directory):
    with pytest.raises(TypeError):
        TokenCache(directory, BIG)


@pytest.mark.parametrize("key", ["", "../" * 20 + "abcd", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_key_must_be_a_digest(tmp_path, key):
    cache = TokenCache(tmp_path, BIG)
    with pytest.raises(ValueError, match="key"):
        cache.get(key)
    with pytest.raises(ValueError, match="key"):
        cache.put(key, tokens())


@pytest.mark.parametrize("dtype", ["float64", "int32", "bool", "complex64", "O", ">f4"])
def test_other_dtypes_are_refused(tmp_path, dtype):
    with pytest.raises(TypeError, match="float32"):
        TokenCache(tmp_path, BIG).put(cache_key(a=1), np.zeros(2, dtype))
    assert all_files(tmp_path) == []


def test_instances_pickle_small(tmp_path):
    cache, key = TokenCache(tmp_path, BIG), cache_key(a=1)
    cache.put(key, tokens())
    data = pickle.dumps(cache)
    assert len(data) < 500
    other = pickle.loads(data)
    assert (other.directory, other.max_bytes) == (cache.directory, cache.max_bytes)
    assert same(other.get(key), tokens())


# Round trip


@settings(max_examples=80, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float16]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    )
)
def test_round_trip(array):
    with tempfile.TemporaryDirectory() as folder:
        cache, key = TokenCache(folder, BIG), cache_key(a=1)
        cache.put(key, array)
        found = cache.get(key)
    assert same(found, array)
    assert type(found) is np.ndarray
    assert found.flags.writeable and found.flags.c_contiguous and found.flags.aligned


def test_round_trip_keeps_every_bit_pattern(tmp_path):
    cache, key = TokenCache(tmp_path, BIG), cache_key(a=1)
    array = np.arange(2**16, dtype=np.uint16).view(np.float16)  # all NaNs, infinities, zeros
    cache.put(key, array)
    assert same(cache.get(key), array)


def test_any_memory_order_is_stored(tmp_path):
    cache, key = TokenCache(tmp_path, BIG), cache_key(a=1)
    for array in [tokens().T, tokens()[::-2, ::3], np.broadcast_to(np.float16(1), (3, 2))]:
        cache.put(key, array)
        assert same(cache.get(key), array)


def test_returned_array_is_the_callers(tmp_path):
    cache, key = TokenCache(tmp_path, BIG), cache_key(a=1)
    cache.put(key, tokens())
    cache.get(key)[:] = 0
    assert same(cache.get(key), tokens())


def test_layout_and_last_put_wins(tmp_path):
    cache, key = TokenCache(str(tmp_path), BIG), cache_key(a=1)
    cache.put(key, tokens(0))
    cache.put(key, tokens(1))
    assert all_files(tmp_path) == [entry(tmp_path, key)]
    assert same(cache.get(key), tokens(1))
    assert cache.get(cache_key(a=2)) is None


# Verification


def check_missing_then_replaced(cache, key):
    assert cache.get(key) is None
    cache.put(key, tokens(5))
    assert same(cache.get(key), tokens(5))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_changed_bytes_never_give_another_array(data):
    array, key = tokens(), cache_key(a=1)
    with tempfile.TemporaryDirectory() as folder:
        cache = TokenCache(folder, BIG)
        cache.put(key, array)
        path = entry(folder, key)
        blob = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(blob)
        found = cache.get(key)
        assert found is None or same(found, array)


def test_every_flipped_byte(tmp_path):
    array, key = tokens(size=8), cache_key(a=1)
    cache = TokenCache(tmp_path, BIG)
    cache.put(key, array)
    path = entry(tmp_path, key)
    blob = path.read_bytes()
    misses = 0
    for position in range(len(blob)):
        for mask in (0x01, 0x20, 0xFF):
            changed = bytearray(blob)
            changed[position] ^= mask
            path.write_bytes(changed)
            found = cache.get(key)
            misses += found is None
            assert found is None or same(found, array)
    # The exceptions can only be padding of the header.
    assert misses > 3 * (len(blob) - 8)


def test_every_truncation_and_excess(tmp_path):
    cache, key = TokenCache(tmp_path, BIG), cache_key(a=1)
    cache.put(key, tokens(size=8))
    path = entry(tmp_path, key)
    blob = path.read_bytes()
    for changed in [blob[:length] for length in range(len(blob))] + [blob + b"\0", blob * 2]:
        path.write_bytes(changed)
        assert cache.get(key) is None
    check_missing_then_replaced(cache, key)


def with_header(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\0" * 4096,
        b"\xff" * 4096,
        b"not a tensor at all, but a text that somebody put here",
        with_header({}),
        with_header([]),
        with_header(None),
        with_header({"__metadata__": None}),
        with_header({"__metadata__": {"key": 5}}),
        with_header(b"\xff\xfe{}"),
        with_header(b"[" * 9999),
        with_header({"tokens": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}, b"12"),
        with_header({"tokens": {"dtype": "F32", "shape": [2**64 - 1, 0], "data_offsets": [0, 0]}}),
        with_header({"tokens": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
        save({"tokens": np.zeros(3, np.float32)}),
        save({"tokens": np.zeros(3, np.float32)}, metadata={"version": "1"}),
        save({"other": np.zeros(3, np.float32)}),
        save({"tokens": np.zeros(3, np.int64)}),
    ],
)
def test_foreign_file_is_missing(tmp_path, blob):
    cache, key = TokenCache(tmp_path, BIG), cache_key(a=1)
    path = entry(tmp_path, key)
    path.parent.mkdir()
    path.write_bytes(blob)
    check_missing_then_replaced(cache, key)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_random_file_is_missing(blob, framed):
    with tempfile.TemporaryDirectory() as folder:
        path = entry(folder, cache_key(a=1))
        path.parent.mkdir()
        path.write_bytes(with_header(blob) if framed else blob)
        assert TokenCache(folder, BIG).get(cache_key(a=1)) is None


def test_entry_of_another_key_is_missing(tmp_path):
    cache, key, other = TokenCache(tmp_path, BIG), cache_key(a=1), cache_key(a=2)
    cache.put(other, tokens())
    entry(tmp_path, key).parent.mkdir(exist_ok=True)
    os.replace(entry(tmp_path, other), entry(tmp_path, key))
    check_missing_then_replaced(cache, key)


def test_entry_of_another_version_is_missing(tmp_path, monkeypatch):
    cache, key = TokenCache(tmp_path, BIG), cache_key(a=1)
    with monkeypatch.context() as patch:
        patch.setattr(_cache, "FORMAT_VERSION", _cache.FORMAT_VERSION + 1)
        cache.put(key, tokens())
        assert same(cache.get(key), tokens())
    check_missing_then_replaced(cache, key)


@pytest.mark.parametrize("name", ["shape", "dtype", "sha256", "format"])
def test_every_metadata_field_counts(tmp_path, name):
    cache, key = TokenCache(tmp_path, BIG), cache_key(a=1)
    metadata = _cache._metadata(key, tokens(), "float32")
    path = entry(tmp_path, key)
    path.parent.mkdir()
    path.write_bytes(save({"tokens": tokens()}, metadata=metadata))
    assert same(cache.get(key), tokens())
    path.write_bytes(save({"tokens": tokens()}, metadata={**metadata, name: "other"}))
    assert cache.get(key) is None
    path.write_bytes(save({"tokens": tokens().reshape(-1)}, metadata=metadata))
    check_missing_then_replaced(cache, key)


def test_directory_in_place_of_an_entry(tmp_path):
    cache, key = TokenCache(tmp_path, BIG), cache_key(a=1)
    entry(tmp_path, key).mkdir(parents=True)
    assert cache.get(key) is None
    with pytest.warns(RuntimeWarning):
        cache.put(key, tokens())
    assert all_files(tmp_path) == []


# Eviction


def fill(cache, count, array=None):
    """Put `count` entries, the first the oldest; return their keys."""
    keys = [cache_key(n=n) for n in range(count)]
    for age, key in zip(range(count, 0, -1), keys, strict=True):
        cache.put(key, tokens() if array is None else array)
        stamp = time.time() - 60 * age
        os.utime(entry(cache.directory, key), (stamp, stamp))
    return keys


def kept(cache, keys):
    return [entry(cache.directory, key).exists() for key in keys]


def test_oldest_are_evicted_to_nine_tenths(tmp_path):
    size = size_of(tokens())
    cache = TokenCache(tmp_path, 10 * size)
    keys = fill(cache, 10)
    assert all(kept(cache, keys))
    last = cache_key(n="last")
    cache.put(last, tokens())
    assert kept(cache, [*keys, last]) == [False] * 2 + [True] * 9
    assert total_bytes(tmp_path) <= 0.9 * cache.max_bytes


def test_hit_makes_an_entry_young(tmp_path):
    cache = TokenCache(tmp_path, 10 * size_of(tokens()))
    keys = fill(cache, 10)
    assert cache.get(keys[0]) is not None
    cache.put(cache_key(n="last"), tokens())
    assert kept(cache, keys) == [True, False, False] + [True] * 7


def test_miss_does_not_make_an_entry_young(tmp_path):
    cache = TokenCache(tmp_path, BIG)
    (key,) = fill(cache, 1)
    path = entry(tmp_path, key)
    path.write_bytes(path.read_bytes()[:-1])
    os.utime(path, (1, 1))
    assert cache.get(key) is None
    assert path.stat().st_mtime == 1


def test_hit_survives_a_refused_refresh(tmp_path, monkeypatch):
    cache = TokenCache(tmp_path, BIG)
    (key,) = fill(cache, 1)

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "read-only")

    monkeypatch.setattr(os, "utime", refuse)
    assert same(cache.get(key), tokens())


def test_cap_holds_after_every_put(tmp_path):
    cache = TokenCache(tmp_path, 20_000)
    rng = np.random.default_rng(0)
    for n in range(150):
        cache.put(cache_key(n=n), rng.random(rng.integers(1, 1500), dtype=np.float32))
        assert total_bytes(tmp_path) <= cache.max_bytes
        assert entry(tmp_path, cache_key(n=n)).exists()


def test_entries_of_earlier_instances_count(tmp_path):
    size = size_of(tokens())
    fill(TokenCache(tmp_path, BIG), 20)
    TokenCache(tmp_path, 10 * size).put(cache_key(n="last"), tokens())
    assert total_bytes(tmp_path) <= 9 * size
    assert entry(tmp_path, cache_key(n="last")).exists()


def test_directory_is_not_scanned_at_every_put(tmp_path, monkeypatch):
    cache = TokenCache(tmp_path, 1000 * size_of(tokens()))
    scans = []
    evict = TokenCache._evict
    monkeypatch.setattr(TokenCache, "_evict", lambda *args: (scans.append(1), evict(*args)))
    for n in range(150):
        cache.put(cache_key(n=n), tokens())
    assert len(scans) == 2


def test_too_big_an_array_is_not_stored_and_evicts_nothing(tmp_path):
    size = size_of(tokens())
    cache = TokenCache(tmp_path, 10 * size)
    keys = fill(cache, 9)
    big = cache_key(n="big")
    cache.put(big, tokens(size=10 * size // 4))
    assert cache.get(big) is None
    assert all(kept(cache, keys))
    cache.put(cache_key(n="last"), tokens())  # and the cache goes on
    assert cache.get(cache_key(n="last")) is not None


def test_array_of_nearly_the_cap_is_stored(tmp_path):
    array = np.zeros(4096, np.float32)
    cache, key = TokenCache(tmp_path, size_of(array)), cache_key(a=1)
    cache.put(cache_key(a=2), tokens())
    cache.put(key, array)
    assert same(cache.get(key), array)
    assert all_files(tmp_path) == [entry(tmp_path, key)]


def test_other_files_and_links_are_safe(tmp_path):
    directory, outside = tmp_path / "ab", tmp_path / "outside"  # a root with a folder's name
    size = size_of(tokens())
    cache = TokenCache(directory, 3 * size)
    name = "ab" + "0" * 62
    outside.mkdir()
    (outside / ("cd" + "0" * 62 + ".safetensors")).write_bytes(b"x" * 9 * size)
    foreign = [
        directory / f"{name}.safetensors",  # not in a folder
        directory / "ab" / "model.safetensors",
        directory / "ab" / f"{name}.safetensors.bak",
        directory / "ab" / f"{'cd' + name[2:]}.safetensors",  # in the wrong folder
        directory / "ab" / f"{name.upper()}.safetensors",
        directory / "ab" / f".{name}.1.tmp",
        directory / "ab" / ".hidden.tmp",
        directory / "ab" / "cd" / f"{name}.safetensors",
        directory / "ab" / "ab" / f"{name}.safetensors",
        directory / "abc" / f"{name}.safetensors",
        directory / "photos" / "ab" / f"{name}.safetensors",
        directory / "README",
    ]
    for path in foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 9 * size)
    links = [directory / "cd", directory / "ab" / f"{name}.safetensors"]
    links[0].symlink_to(outside, target_is_directory=True)
    links[1].symlink_to(directory / "README")
    (directory / "ab" / f"{'ab' + '1' * 62}.safetensors").mkdir()
    for path in foreign:
        os.utime(path, (1, 1))
    keys = fill(cache, 8)
    cache.put(cache_key(n="last"), tokens())
    assert kept(cache, keys) == [False] * 6 + [True] * 2
    assert all(path.stat().st_size == 9 * size for path in foreign)
    assert all(path.is_symlink() for path in links)
    assert len(all_files(outside)) == 1
    assert (directory / "ab" / f"{'ab' + '1' * 62}.safetensors").is_dir()


def test_old_temporary_files_are_removed(tmp_path):
    cache, key = TokenCache(tmp_path, BIG), cache_key(a=1)
    folder = tmp_path / key[:2]
    folder.mkdir()
    old, new = (folder / f".{key}.{pid}.{'0f' * 8}.tmp" for pid in (1, 2))
    for path, age in [(old, 3700), (new, 3500)]:
        path.write_bytes(b"half a file")
        os.utime(path, (time.time() - age,) * 2)
    cache.put(key, tokens())
    assert all_files(tmp_path) == sorted([new, entry(tmp_path, key)])


KILLED = """
import os, sys, numpy as np
from skanomaly._cache import TokenCache, cache_key
os.replace = lambda *paths: os._exit(9)
TokenCache(sys.argv[1], 10**9).put(cache_key(a=1), np.zeros(3, np.float32))
"""


def test_killed_writer_leaves_no_entry_and_is_cleaned_up(tmp_path):
    root = str(Path(_cache.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], env=environment)
    assert process.wait(60) == 9
    (left,) = all_files(tmp_path)
    assert left.name.startswith(".") and str(process.pid) in left.name
    cache, key = TokenCache(tmp_path, BIG), cache_key(a=1)
    assert cache.get(key) is None
    os.utime(left, (1, 1))
    cache.put(key, tokens())
    assert all_files(tmp_path) == [entry(tmp_path, key)]


def test_entries_removed_by_another_evictor(tmp_path, monkeypatch):
    size = size_of(tokens())
    cache = TokenCache(tmp_path, 10 * size)
    keys = fill(cache, 10)
    lstat, unlink = os.lstat, os.unlink

    def lstat_late(path):
        if Path(path).stem in keys[:2] and Path(path).exists():
            unlink(path)
        return lstat(path)

    def unlink_late(path, *args, **kwargs):
        unlink(path, *args, **kwargs)
        if not Path(path).name.startswith("."):
            raise FileNotFoundError(path)

    monkeypatch.setattr(os, "lstat", lstat_late)
    monkeypatch.setattr(os, "unlink", unlink_late)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put(cache_key(n="last"), tokens())
        TokenCache(tmp_path, 5 * size).put(cache_key(n="more"), tokens())
    monkeypatch.undo()
    assert total_bytes(tmp_path) == 4 * size


def test_removed_between_look_and_read(tmp_path, monkeypatch):
    cache = TokenCache(tmp_path, BIG)
    (key,) = fill(cache, 1)
    utime = os.utime
    monkeypatch.setattr(os, "utime", lambda path: (os.unlink(path), utime(path)))
    assert same(cache.get(key), tokens())
    assert cache.get(key) is None


def test_whole_directory_removed_by_the_user(tmp_path):
    cache = TokenCache(tmp_path / "cache", BIG)
    (key,) = fill(cache, 1)
    os.rename(tmp_path / "cache", tmp_path / "gone")
    check_missing_then_replaced(cache, key)


# Failing disks


class FullFile:
    """File that takes `room` bytes and then has no space left."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.file.close()

    def write(self, data):
        self.file.write(data[: self.room])
        self.file.flush()
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(params=["write midway", "open", "replace", "mkdir", "close"])
def broken_disk(request, monkeypatch):
    """Function that makes writes fail at one step, and its error text."""
    open_, error = builtins.open, OSError(errno.ENOSPC, "No space left on device")

    def fail(*args, **kwargs):
        raise error

    def open_full(path, mode="r", *args, **kwargs):
        if "x" not in mode:
            return open_(path, mode, *args, **kwargs)
        if request.param == "open":
            raise error
        file = FullFile(open_(path, mode, *args, **kwargs), 100)
        if request.param == "close":
            file.write = file.file.write
            file.__class__ = type("Full", (FullFile,), {"__exit__": close_full})
        return file

    def close_full(self, *args):
        self.file.close()
        raise error

    def break_it():
        if request.param == "replace":
            monkeypatch.setattr(os, "replace", fail)
        elif request.param == "mkdir":
            monkeypatch.setattr(Path, "mkdir", fail)
        else:
            monkeypatch.setattr(builtins, "open", open_full)

    return break_it


def test_full_disk_gives_one_warning_and_no_files(tmp_path, broken_disk, monkeypatch):
    directory = tmp_path / "cache"
    cache = TokenCache(directory, BIG)
    (key,) = fill(cache, 1)
    broken_disk()
    with pytest.warns(RuntimeWarning, match="No space left") as caught:
        cache.put(cache_key(a=1), tokens())
    (warning,) = caught
    assert str(directory) in str(warning.message)
    assert warning.filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put(cache_key(a=2), tokens())
        monkeypatch.undo()
        cache.put(cache_key(a=3), tokens())  # the disk is back, but the cache stays closed
        assert same(cache.get(key), tokens())
        assert cache.get(cache_key(a=1)) is None
    assert all_files(tmp_path) == [entry(directory, key)]
    TokenCache(directory, BIG).put(cache_key(a=3), tokens())
    assert len(all_files(tmp_path)) == 2


def test_warning_as_error_still_closes_the_cache(tmp_path, broken_disk):
    cache = TokenCache(tmp_path / "cache", BIG)
    broken_disk()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning):
            cache.put(cache_key(a=1), tokens())
        cache.put(cache_key(a=1), tokens())
    assert all_files(tmp_path) == []


def test_threads_give_one_warning(tmp_path, monkeypatch):
    barrier = threading.Barrier(4)

    def fail(*args, **kwargs):
        barrier.wait(10)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "replace", fail)
    cache = TokenCache(tmp_path, BIG)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: cache.put(cache_key(n=n), tokens()), range(4)))
    assert [str(warning.message).count("Disk quota") for warning in caught] == [1]
    assert all_files(tmp_path) == []


def test_real_full_file_system(tmp_path):
    """A file-size limit makes the real write fail midway."""
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    cache, small, big = TokenCache(tmp_path, BIG), cache_key(a=1), cache_key(a=2)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        cache.put(small, tokens())
        with pytest.warns(RuntimeWarning, match=os.strerror(errno.EFBIG)):
            cache.put(big, tokens(size=80_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert all_files(tmp_path) == [entry(tmp_path, small)]
    assert same(cache.get(small), tokens())


@pytest.mark.parametrize("below", ["", "below"])
def test_path_that_cannot_be_made(tmp_path, below):
    (tmp_path / "file").write_text("not a folder")
    cache = TokenCache(tmp_path / "file" / below, BIG)
    assert cache.get(cache_key(a=1)) is None
    with pytest.warns(RuntimeWarning, match="file"):
        cache.put(cache_key(a=1), tokens())
    assert cache.get(cache_key(a=1)) is None
    assert (tmp_path / "file").read_text() == "not a folder"


def test_path_that_the_system_cannot_express(tmp_path):
    cache = TokenCache(f"{tmp_path}/a\0b", BIG)
    assert cache.get(cache_key(a=1)) is None
    with pytest.warns(RuntimeWarning, match="null"):
        cache.put(cache_key(a=1), tokens())


def test_interrupt_leaves_no_file(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        TokenCache(tmp_path, BIG).put(cache_key(a=1), tokens())
    assert all_files(tmp_path) == []


def test_entry_that_is_being_read_need_not_be_replaced(tmp_path, monkeypatch):
    cache = TokenCache(tmp_path, BIG)
    (key,) = fill(cache, 1)

    def refuse(*args):
        raise PermissionError(errno.EACCES, "in use")

    monkeypatch.setattr(os, "replace", refuse)
    cache.put(key, tokens())
    assert all_files(tmp_path) == [entry(tmp_path, key)]
    with pytest.warns(RuntimeWarning, match="in use"):
        cache.put(cache_key(a=2), tokens())


def test_entries_that_cannot_be_removed(tmp_path, monkeypatch):
    size = size_of(tokens())
    cache = TokenCache(tmp_path, 5 * size)
    keys = fill(cache, 5)
    unlink, stuck = os.unlink, set(keys[:1])

    def refuse(path, *args, **kwargs):
        if Path(path).stem in stuck:
            raise PermissionError(errno.EACCES, "in use")
        unlink(path, *args, **kwargs)

    monkeypatch.setattr(os, "unlink", refuse)
    cache.put(cache_key(n="last"), tokens())  # the next oldest go instead
    assert kept(cache, keys) == [True, False, False, True, True]
    stuck.update(keys, [cache_key(n=n) for n in ("last", "more")])
    cache.put(cache_key(n="more"), tokens())
    with pytest.warns(RuntimeWarning, match="cannot be removed"):
        cache.put(cache_key(n="much"), tokens())
    assert same(cache.get(cache_key(n="more")), tokens())


# Several threads and processes


@pytest.fixture(scope="module")
def pool():
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(3, mp_context=context) as executor:
        yield executor


def hammer(cache, seed, rounds, keys):
    """Put and get at random; return the number of hits."""
    warnings.simplefilter("error")
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(rounds):
        n = int(rng.integers(keys))
        if rng.random() < 0.5:
            cache.put(cache_key(n=n), tokens(n, 2048))
        else:
            found = cache.get(cache_key(n=n))
            assert found is None or same(found, tokens(n, 2048))
            hits += found is not None
    return hits


@pytest.mark.parametrize(("keys", "capacity"), [(1, 4), (40, 10), (200, 50), (40, 10**4)])
def test_processes_share_a_directory(tmp_path, pool, keys, capacity):
    cache = TokenCache(tmp_path, capacity * size_of(tokens(0, 2048)))
    jobs = [pool.submit(hammer, cache, seed, 300, keys) for seed in range(3)]
    assert sum(job.result(60) for job in jobs) > 0
    assert all(path.name.endswith(".safetensors") for path in all_files(tmp_path))
    # Each writer may pass the cap by its tenth (or by one file) before it looks.
    assert total_bytes(tmp_path) <= cache.max_bytes * (1 + 3 * max(0.1, 1 / capacity))
    for path in all_files(tmp_path):
        assert cache.get(path.stem) is not None


def test_threads_share_an_instance(tmp_path):
    cache = TokenCache(tmp_path, 10 * size_of(tokens(0, 2048)))
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        jobs = [threads.submit(hammer, cache, seed, 100, 20) for seed in range(4)]
        assert sum(job.result(60) for job in jobs) > 0
    assert total_bytes(tmp_path) <= cache.max_bytes * 1.4
    assert all(path.name.endswith(".safetensors") for path in all_files(tmp_path))


# Half the space


@pytest.mark.parametrize("shape", [(), (0, 4), (3, 5, 8)])
def test_values_of_half_precision_take_half_the_space(tmp_path, shape):
    rng = np.random.default_rng(0)
    halves = rng.standard_normal(shape).astype(np.float16).astype(np.float32)
    cache, key, other = TokenCache(tmp_path, BIG), cache_key(a=1), cache_key(a=2)
    cache.put(key, halves)
    assert same(cache.get(key), halves)
    assert entry(tmp_path, key).stat().st_size <= 2 * halves.size + 600
    cache.put(other, halves.astype(np.float16))
    assert same(cache.get(other), halves.astype(np.float16))


SPECIAL = [
    0.0,
    -0.0,
    np.inf,
    -np.inf,
    np.nan,
    65504,
    65520,
    1e38,
    2**-24,
    2**-25,
    1e-40,
    1 + 2**-11,
]


@pytest.mark.parametrize("value", SPECIAL)
def test_special_values_come_back_to_the_bit(tmp_path, value):
    array = np.array([1, value], dtype=np.float32)
    cache, key = TokenCache(tmp_path, BIG), cache_key(a=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put(key, array)
    assert same(cache.get(key), array)


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.uint32, 6))
def test_any_float_comes_back_to_the_bit(bits):
    array = bits.view(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        cache = TokenCache(folder, BIG)
        cache.put(cache_key(), array)
        assert same(cache.get(cache_key()), array)


def test_an_entry_with_another_dtype_in_its_header_counts_as_missing(tmp_path):
    cache, key = TokenCache(tmp_path, BIG), cache_key(a=1)
    cache.put(key, tokens())
    path = entry(tmp_path, key)
    for dtype in (b"float16", b"float64"):
        data = path.read_bytes()
        path.write_bytes(data.replace(b"float32", dtype))
        assert cache.get(key) is None
        path.write_bytes(data)
        assert same(cache.get(key), tokens())
