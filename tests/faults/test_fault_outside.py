"""Rows of the fault matrix about hostile images and lists, the network, and what runs code."""

import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import pytest
from _fault_models import folder_of_parts
from _fault_table import Table
from _image_files import chunk

import skanomaly
from skanomaly import ImageReadError
from skanomaly._images import load_image
from skanomaly.datasets import LayoutError, read_manifest

ORDER = 13
TABLE = Table(
    "outside",
    "Hostile images, and what leads outside",
    "Images and data sets are only data. The network is used only if a person asks for weights.",
)
REFUSED = "it is refused, and nothing of it runs"


# ---------------------------------------------------------------- images and data sets


@TABLE.row(
    "image-{kind}",
    "an image with {kind}",
    "`ImageReadError`, or the picture without it; no memory is taken",
    kind={
        "bomb": "a gigabyte of zeros behind a small header",
        "profile": "a colour profile of 200 MB when it is inflated",
    },
)
def _(here, kind):
    zeros = zlib.compress(bytes(2**27), 9)
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    pixels = zeros if kind == "bomb" else zlib.compress((b"\0" + bytes(24)) * 8)
    parts = [chunk(b"IHDR", header)]
    if kind == "profile":
        parts.append(chunk(b"iCCP", b"p\0\0" + zeros))
    parts += [chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    tracemalloc.start()
    try:
        found = load_image(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
        assert found.shape == (8, 8, 3) and not found.any()
    except ImageReadError as error:
        assert "Cannot read image" in str(error)
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert most < 2**25


@TABLE.row(
    "script", "a PostScript file named `.png`, which Pillow would hand to a program", REFUSED
)
def _(here):
    path = here / "part.png"
    path.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
        b"(" + str(here / "ran").encode() + b") (w) file closefile\nshowpage\n%%EOF\n"
    )
    with pytest.raises(ImageReadError, match="part.png"):
        load_image(path)
    assert not (here / "ran").exists()


@TABLE.row(
    "manifest",
    "a list of images that leads out of its folder",
    "`LayoutError`; the file is not opened",
)
def _(here):
    (here / "secret.png").write_bytes(b"secret")
    root = folder_of_parts(here, ["../secret.png,test,1,"])
    stamp = os.stat(here / "secret.png").st_atime_ns
    with pytest.raises(LayoutError, match=r"\.\./secret.png.*'\.\.'"):
        read_manifest(root / "manifest.csv")
    assert os.stat(here / "secret.png").st_atime_ns == stamp


# ---------------------------------------------------------------- the network

NO_NETWORK = """
import socket, sys, urllib.request

def refuse(*args, **kwargs):
    raise AssertionError(f"the network was asked for: {args}")

for name in ("connect", "connect_ex", "sendto", "bind"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = socket.create_connection = socket.gethostbyname = refuse
"""
IMPORTS = """
import importlib, pkgutil
import skanomaly
assert "torch" not in sys.modules
for name in skanomaly.__all__:
    getattr(skanomaly, name)
for module in pkgutil.walk_packages(skanomaly.__path__, "skanomaly."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
WORK = """
import numpy as np
from sklearn.pipeline import make_pipeline
from skanomaly import FilterBankPatches, PatchKNNScorer, TinyPatches, load_model, save_model
images = list(np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), dtype=np.uint8))
for model in (FilterBankPatches(image_size=32), TinyPatches(image_size=64)):
    pipe = make_pipeline(model, PatchKNNScorer()).fit(images)
    save_model(pipe, sys.argv[1])
    load_model(sys.argv[1]).predict(images)
"""


@TABLE.row(
    "no-network-{what}",
    "{what}, with every door to the network closed",
    "it works, and no door is tried: no download at import, no telemetry",
    what={
        "import": "the import of every module",
        "work": "fit, save, load and predict of the models that need no download",
    },
)
def _(here, what):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    code = NO_NETWORK + (IMPORTS if what == "import" else WORK)
    command = [sys.executable, "-W", "ignore", "-c", code, str(here / "model.skan")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


# Where a word may stand: checks of what is pickled, a checkpoint with `trust=True`, whether a
# server of weights answers, and how long an import takes, for `skanomaly doctor`.
DOORS = {
    "pickle": {"estimator_checks", "anomalib/_checkpoints.py"},
    "urls": {"_networks/hub.py"},
    "eval": {"cli/_installation.py"},
}


@TABLE.row(
    "source-{what}",
    "the source of the package, looked through for {what}",
    "it is at the doors that SECURITY.md names, and nowhere else",
    what={
        "pickle": "code that unpickles",
        "urls": "code that opens addresses",
        "eval": "code that evaluates text, or runs commands",
    },
)
def _(here, what):
    words = {
        "pickle": ("pickle.load", "pickle.Unpickler", "joblib.load(", "weights_only=False"),
        "urls": ("urllib.request", "import requests", "http.client"),
        "eval": (" eval(", " exec(", "os.system(", "shell=True", "import subprocess"),
    }[what]
    package = Path(skanomaly.__file__).parent
    for path in package.rglob("*.py"):
        text, name = path.read_text(encoding="utf-8"), path.relative_to(package).as_posix()
        if any(word in text for word in words):
            assert name in DOORS[what] or name.partition("/")[0] in DOORS[what], name


@pytest.mark.parametrize("row", TABLE.params())
def test_row(row, tmp_path):
    row.check(tmp_path)
