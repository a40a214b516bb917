"""What all commands have in common, each as a process: codes, streams, Ctrl-C, readers that go."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import skanomaly
from skanomaly.datasets import make_surfaces

SMALL = ("--scorer", "knn", "--set", "image_size=32")
# A name for anything: a space, a line end, what shells and browsers take for more, no UTF-8.
ODD = os.fsdecode(b"parts # 1\n[b]%41 \xff")


def start(*args, stdin=subprocess.DEVNULL, cwd=None, **environment):
    command = [sys.executable, "-m", "skanomaly.cli", *map(os.fspath, args)]
    return subprocess.Popen(
        command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **environment},
        # What runs in the background ignores Ctrl-C, and so would all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(process):
    out, error = process.communicate(timeout=120)
    return process.returncode, out, error


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    """A data set and a model trained on it, both of an odd name."""
    folder = tmp_path_factory.mktemp("day")
    root = folder / ODD
    try:
        root.mkdir()
    except OSError:
        pytest.skip("this file system takes no such names")
    made = make_surfaces(10, 4, surface="fabric", image_size=32, random_state=0).images
    for part, kind, images in (
        ("train", "good", made[:6]),
        ("test", "good", made[6:10]),
        ("test", "scratch", made[10:]),
    ):
        (root / part / kind).mkdir(parents=True)
        for i, image in enumerate(images):
            # Pillow opens a name for writing as text; a file it does not.
            with open(root / part / kind / f"{i}.png", "xb") as file:
                Image.fromarray(image).save(file, "PNG")
    model = skanomaly.create_model("filterbank", scorer="knn", image_size=32)
    model.fit(sorted((root / "train" / "good").iterdir()))
    skanomaly.save_model(model, folder / f"{ODD}.skan")
    return folder


def words(day, tmp_path):
    """Of each command: words that it can do something with, of odd names."""
    root, model = day / ODD, day / f"{ODD}.skan"
    images = root / "test" / "scratch"
    return {
        "fit": ("fit", root, *SMALL, "-o", tmp_path / f"{ODD}.skan"),
        "score": ("score", model, images),
        "score-files": ("score-files", model, images, "-o", tmp_path / ODD),
        "explain": ("explain", model, images / "0.png"),
        "calibrate": ("calibrate", model, "--contamination", "0.2", "-o", tmp_path / "x.skan"),
        "report": ("report", model, images, "-o", tmp_path / f"{ODD}.html"),
        "info": ("info", model),
        "export": ("export", model, root / "train" / "good", "-o", tmp_path / f"{ODD}.onnx"),
        "evaluate": ("evaluate", root, *SMALL),
        "benchmark": ("benchmark", root, "--models", "filterbank", "--set", "image_size=32"),
        "datasets": ("datasets", root),
        "demo": ("demo", "--images", "3", "--size", "32", "-o", tmp_path / "demo"),
        "models": ("models",),
        "weights": ("weights", "list"),
    }


COMMANDS = list(words(Path(), Path()))
WITH_JSON = {
    "fit": {"threshold", "expected_share", "n_images", "bytes"},
    "calibrate": {"before", "after", "file"},
    "report": {"file", "n_images", "n_anomalous"},
    "score-files": {"folder", "images", "kept", "failed"},
    "export": {"file", "bytes", "verified", "height"},
    "info": {"file", "estimator", "calibration", "versions"},
    "evaluate": {"name", "metrics", "threshold", "parameters"},
    "benchmark": {"name", "metrics", "threshold", "parameters"},
    "demo": {"name", "metrics", "threshold", "parameters"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_done(day, tmp_path, name):
    """Code 0, something on standard output, and no traceback, whatever the names."""
    code, out, error = finish(start(*words(day, tmp_path)[name], cwd=tmp_path))
    assert code == 0, error.decode(errors="replace")
    assert out.strip() and b"Traceback" not in error
    warnings = [line for line in error.splitlines() if line.startswith(b"warning: ")]
    assert len(set(warnings)) == len(warnings)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_JSON)
def test_json_stands_alone_on_standard_output(day, tmp_path, name):
    code, out, _ = finish(start(*words(day, tmp_path)[name], "--json", "-", cwd=tmp_path))
    assert code == 0 and out.isascii()
    (line,) = out.decode().splitlines()
    found = json.loads(line, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert WITH_JSON[name] <= set(found)
    if "command" in found:
        assert (found["command"], found["skanomaly"]) == (name, skanomaly.__version__)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_reader_that_goes_away(day, tmp_path, name):
    with start(*words(day, tmp_path)[name], cwd=tmp_path) as process:
        process.stdout.close()
        error = process.stderr.read()
    assert process.returncode == 1 and b"Traceback" not in error, error.decode(errors="replace")
    assert b"Exception ignored" not in error and b"error:" not in error


@pytest.mark.slow
@pytest.mark.parametrize(
    "words_of",
    [
        lambda model, no: ("fit", no, "-o", "x.skan"),
        lambda model, no: ("score", model, no),
        lambda model, no: ("score", no, model),
        lambda model, no: ("explain", model, no),
        lambda model, no: ("explain", no, model),
        lambda model, no: ("calibrate", no, "--contamination", "0.2", "-o", "x.skan"),
        lambda model, no: ("calibrate", model, no, "-o", "x.skan"),
        lambda model, no: ("report", model, no, "-o", "x.html"),
        lambda model, no: ("report", model, "--data", no, "-o", "x.html"),
        lambda model, no: ("report", no, model, "-o", "x.html"),
        lambda model, no: ("info", no),
        lambda model, no: ("export", no, model, "-o", "x.onnx"),
        lambda model, no: ("export", model, no, "-o", "x.onnx"),
        lambda model, no: ("evaluate", no),
        lambda model, no: ("benchmark", no, "--models", "filterbank"),
        lambda model, no: ("datasets", no),
        lambda model, no: ("models", "--plugin", f"{no}.py"),
        lambda model, no: ("models", no),
        lambda model, no: ("weights", "fetch", no),
    ],
)
def test_paths_and_names_that_there_are_not(day, tmp_path, words_of):
    """One message that names it, and nothing is left."""
    words = words_of(day / f"{ODD}.skan", "no such # thing")
    code, out, error = finish(start(*words, cwd=tmp_path))
    assert code == 1 and out == b"" and b"Traceback" not in error
    assert error.startswith(b"error: ") and b"no such # thing" in error
    assert not list(tmp_path.iterdir())


def interrupt(process):
    process.send_signal(signal.SIGINT)
    code, out, error = finish(process)
    assert code == 130 and b"interrupted" in error and b"Traceback" not in error, error
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    "words_of",
    [
        lambda model: ("fit", "-", *SMALL, "-o", "x.skan"),
        lambda model: ("score", model, "-"),
        lambda model: ("calibrate", model, "-", "-o", "x.skan"),
        lambda model: ("report", model, "-", "-o", "x.html"),
        lambda model: ("export", model, "-", "-o", "x.onnx"),
    ],
)
def test_interrupted_while_it_waits_for_more_images(day, tmp_path, words_of):
    process = start(*words_of(day / f"{ODD}.skan"), stdin=subprocess.PIPE, cwd=tmp_path)
    # A pipe holds less: once all is written, it is being read.
    process.stdin.write(b"\n" * 1_000_000)
    process.stdin.flush()
    interrupt(process)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fit", "evaluate", "benchmark", "models"])
def test_interrupted_while_it_works(day, tmp_path, name):
    plugin = tmp_path / "waits.py"
    plugin.write_text(
        f"import pathlib, time\npathlib.Path({str(tmp_path / 'started')!r}).touch()\n"
        "time.sleep(60)\n"
    )
    process = start(*words(day, tmp_path)[name], "--plugin", plugin, cwd=tmp_path)
    wait_for(process, (tmp_path / "started").exists)
    assert interrupt(process) == b""


@pytest.mark.slow
def test_a_demo_that_is_interrupted_goes_on(tmp_path):
    arguments = ("demo", "--images", "200", "--size", "128")
    process = start(*arguments, cwd=tmp_path)
    wait_for(process, lambda: any(tmp_path.rglob("train/good/*.png")))
    interrupt(process)
    assert not list(tmp_path.rglob("*.tmp"))
    first = next(tmp_path.rglob("train/good/*.png"))
    with Image.open(first) as image:
        image.load()


@pytest.mark.slow
def test_doctor_is_interrupted():
    process = start("doctor")
    while b"testing the default model" not in process.stderr.readline():
        assert process.poll() is None
    assert interrupt(process) == b""


def wait_for(process, condition):
    while not condition():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
