"""Rows of the fault matrix about kept tokens, and disks that are full or read-only."""

import builtins
import errno
import os
import pickle
import resource
import shutil
import signal
import threading
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
from _fault_models import GOOD, embedder, fitted, saved
from _fault_table import Table
from safetensors.numpy import load_file, save_file
from sklearn.pipeline import make_pipeline

from skanomaly import iter_scores, save_model

ORDER = 7
TABLE = Table(
    "disk",
    "Kept tokens and the disk",
    "A file is written completely or not at all, and kept tokens are never those of another image.",
)


# ---------------------------------------------------------------- the disk


@contextmanager
def small_files(n_bytes):
    """A disk on which no file can be larger: the system itself refuses to write more."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@contextmanager
def broken(code):
    """A disk that refuses each new file, by a stand-in: the superuser may write everywhere."""
    open_ = builtins.open

    def refuse(file, mode="r", *args, **kwargs):
        if "x" in mode or "w" in mode:
            raise OSError(code, os.strerror(code), os.fspath(file))
        return open_(file, mode, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "open", refuse)
        yield


DISKS = {
    "limit": lambda: small_files(500),
    "full": lambda: broken(errno.ENOSPC),
    "read-only": lambda: broken(errno.EROFS),
}
DISK_TEXTS = {"limit": "takes no file of that size", "full": "is full", "read-only": "is read-only"}


@TABLE.row(
    "save-disk-{disk}",
    "`save_model` over a model, on a disk that {disk}",
    "`OSError` that names the file; the model that was there stays whole, with nothing beside it",
    disk=DISK_TEXTS,
)
def _(here, disk):
    path = here / "model.skan"
    save_model(fitted(), path)
    before = path.read_bytes()
    with DISKS[disk](), pytest.raises(OSError, match="model.skan"):
        save_model(fitted(), path)
    assert path.read_bytes() == before and os.listdir(here) == ["model.skan"]


@TABLE.row(
    "cache-disk-{disk}",
    "a `cache_dir` on a disk that {disk}",
    "one `RuntimeWarning` that names the folder and the reason; the tokens are those without it",
    disk=DISK_TEXTS,
)
def _(here, disk):
    folder = here / "tokens"
    embedder(cache_dir=folder).transform(GOOD[:1])  # an entry from before
    with DISKS[disk](), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = embedder(cache_dir=folder).transform(GOOD)
    assert len(caught) == 1 and caught[0].category is RuntimeWarning
    assert f"token cache {folder}: nothing more is stored" in str(caught[0].message)
    np.testing.assert_array_equal(found, embedder().transform(GOOD))
    assert len(entries(folder)) == 1


# ---------------------------------------------------------------- the cache


def entries(folder):
    return sorted(folder.rglob("*.safetensors"))


def of_another_image(path, others):
    path.write_bytes(others[0].read_bytes())


def with_nan(path, others):
    tokens = load_file(path)["tokens"]
    save_file({"tokens": np.full_like(tokens, np.nan)}, path)


DAMAGE = {
    "cut": ("is cut", lambda path, _: path.write_bytes(path.read_bytes()[:-9])),
    "empty": ("is empty", lambda path, _: path.write_bytes(b"")),
    "text": ("is a text", lambda path, _: path.write_text("not found")),
    "bit": ("has a changed bit", lambda path, _: path.write_bytes(flipped(path.read_bytes()))),
    "other": ("is that of another image", of_another_image),
    "made-up": ("holds NaN, without the digest of the cache", with_nan),
    "pickle": ("is a pickle", lambda path, _: path.write_bytes(pickle.dumps(np.ones(3)))),
    "folder": ("is a folder", lambda path, _: (path.unlink(), path.mkdir())),
    "link": ("is a link that leads nowhere", lambda path, _: relink(path, path.parent / "gone")),
}


def relink(path, target):
    path.unlink()
    path.symlink_to(target)


def flipped(data):
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


@TABLE.row(
    "entry-{damage}",
    "an entry of the cache that {damage}",
    "it counts as missing: the tokens are those without a cache",
    damage={name: text for name, (text, _) in DAMAGE.items()},
)
def _(here, damage):
    folder = here / "tokens"
    expected = embedder(cache_dir=folder).transform(GOOD[:3])
    first, *others = entries(folder)
    DAMAGE[damage][1](first, others)
    with warnings.catch_warnings():  # a folder in its place cannot be written over
        warnings.simplefilter("ignore" if damage == "folder" else "error")
        found = embedder(cache_dir=folder).transform(GOOD[:3])
    np.testing.assert_array_equal(found, expected)


@TABLE.row(
    "cache-dir-{where}",
    "a `cache_dir` that {where}",
    "`ValueError`: “cache_dir=” with what was passed, before any image is read",
    where={"below-a-file": "is below a file", "empty": "is empty", "null": "has a null in it"},
)
def _(here, where):
    folder = {"below-a-file": saved(here) / "tokens", "empty": "", "null": "a\0b"}[where]
    with pytest.raises(ValueError, match="cache_dir"):
        embedder(cache_dir=folder).transform([here / "is not read.png"])


@TABLE.row(
    "cache-threads",
    "four threads with one empty `cache_dir`, of the same images",
    "each has the right tokens; the cache holds each image once, and no half file",
)
def _(here):
    folder, found = here / "tokens", []

    def work():
        found.append(embedder(cache_dir=folder).transform(GOOD))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(entries(folder)) == len(GOOD)
    for tokens in found:
        np.testing.assert_array_equal(tokens, embedder().transform(GOOD))
    assert not list(folder.rglob("*.tmp"))


@TABLE.row(
    "cache-removed",
    "a `cache_dir` that is removed while images are scored",
    "the scores are those without a cache",
)
def _(here):
    cached = make_pipeline(embedder(cache_dir=here / "tokens"), fitted()[-1])
    judged = []
    for decision in iter_scores(cached, GOOD, batch_size=1):
        judged.append(decision.score)
        shutil.rmtree(here / "tokens", ignore_errors=True)
    assert judged == fitted().score_samples(GOOD).tolist()


@pytest.mark.parametrize("row", TABLE.params())
def test_row(row, tmp_path):
    row.check(tmp_path)
