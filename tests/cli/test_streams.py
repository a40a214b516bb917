"""Lists, pipes and streams of the command line that are empty, closed or odd."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from PIL import Image
from sklearn.pipeline import make_pipeline
from typer.testing import CliRunner

from skanomaly import FilterBankPatches, ImageReadError, PatchKNNScorer, recalibrate, save_model
from skanomaly._images import load_image
from skanomaly._output import written_beside
from skanomaly.cli import app
from skanomaly.cli._records import _as_line, _unescaped
from skanomaly.datasets import make_surfaces

SURFACES = make_surfaces(18, 4, image_size=32, random_state=0)
needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="pipes and names of POSIX")


def run(*args, stdin=None):
    return CliRunner().invoke(app, [str(arg) for arg in args], input=stdin)


def child(*args, **options):
    command = [sys.executable, "-m", "skanomaly.cli", *map(os.fspath, args)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    if os.name == "posix":
        # What runs in the background ignores Ctrl-C, and so would all that it starts.
        pipes["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, **pipes)


@pytest.fixture(scope="module")
def fitted():
    pipe = make_pipeline(FilterBankPatches(image_size=32), PatchKNNScorer(contamination=0.2))
    return pipe.fit(list(SURFACES.images[:12]))


@pytest.fixture
def here(tmp_path, fitted, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(fitted, "m.skan")
    for folder, images in (
        ("old", SURFACES.images[:12]),
        ("t/good", SURFACES.images[12:18]),
        ("t/bad", SURFACES.images[18:]),
    ):
        (tmp_path / folder).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / folder / f"{i:02d}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("calibrate", "m.skan", "-", "-o", "x"), 1, "no good image was listed"),
        (
            ("calibrate", "m.skan", "t/good", "--anomalous", "-", "-o", "x"),
            1,
            "no defect was listed",
        ),
        (("calibrate", "m.skan", "-", "--anomalous", "-", "-o", "x"), 2, "can be given once"),
        (("calibrate", "m.skan", "t/good", "--null", "-o", "x"), 2, "--null is for a list"),
        (("score", "m.skan", "-", "--fail-on-anomaly"), 1, "no image was listed"),
        (("score", "m.skan", "t/good", "-"), 1, "no image was listed"),
        (("report", "m.skan", "-", "-o", "x"), 1, "no image was listed"),
        (("fit", "-", "-o", "x"), 1, "no image was listed"),
    ],
)
def test_a_list_of_nothing_is_an_error(here, args, code, message):
    result = run(*args, stdin=b"")
    assert result.exit_code == code and message in result.stderr, result.output
    assert not (here / "x").exists()


@pytest.mark.filterwarnings("default:prevalence is not given")
def test_defects_are_listed_by_null(here):
    listed = b"\0".join(os.fsencode(path) for path in sorted((here / "t" / "bad").iterdir()))
    args = ("calibrate", "m.skan", "t/good", "--anomalous", "-", "-0", "-o", "x", "--json", "-")
    result = run(*args, stdin=listed)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["tuned"]["n_anomalous"] == 4


def test_copies_among_good_images_and_defects(here):
    (here / "copy.png").write_bytes((here / "t" / "good" / "00.png").read_bytes())
    result = run("calibrate", "m.skan", "t/good", "--anomalous", "copy.png", "-o", "x")
    assert result.exit_code == 1 and "1 image is among IMAGES and" in result.stderr


def test_calibrating_on_training_images_is_noticed(here, fitted):
    with pytest.warns(UserWarning, match=r"12 of the images .* are training images"):
        recalibrate(fitted, images=list(SURFACES.images[:12]))
    # In a process of its own, where warnings are no errors.
    saved = run("fit", "old", "--set", "image_size=32", "--scorer", "knn", "-o", "n.skan")
    assert saved.exit_code == 0, saved.output
    done = child("calibrate", "n.skan", "old", "-o", "x.skan")
    out, err = done.communicate(timeout=60)
    assert done.returncode == 0 and b"12 of the images (" in err
    assert b"the threshold before flags" not in out


def test_models_are_replaced_where_it_is_asked_for_and_other_files_never(here):
    (here / "mine").write_text("mine")
    (here / "other.skan").write_bytes((here / "m.skan").read_bytes())
    args = ("calibrate", "m.skan", "--contamination", "0.4", "-o")
    result = run(*args, "other.skan")
    assert result.exit_code == 1 and "is there already" in result.stderr
    assert run(*args, "other.skan", "--overwrite").exit_code == 0
    result = run(*args, "mine", "--overwrite")
    assert result.exit_code == 1 and "is no model file, and is never replaced" in result.stderr
    assert "--overwrite" not in result.stderr


@pytest.mark.parametrize("command", ["fit", "score", "calibrate", "evaluate"])
def test_a_share_out_of_its_range(here, command):
    if command == "score":
        result = run("score", "m.skan", "t", "--batch-size", "0")
    else:
        result = run(command, "m.skan", "--contamination", "0", *(["-o", "x"] * (command == "fit")))
        assert "--contamination" in result.stderr and "up to 0.5" in result.stderr
    assert result.exit_code == 2


@needs_posix
def test_names_that_differ_in_bytes_have_records_of_their_own(here):
    folder = here / "odd"
    folder.mkdir()
    names = [b"\xff\xfe.png", rb"\udcff\udcfe.png", rb"\udc5cudcff.png", b"\\\xff.png"]
    for name in names:
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            Image.fromarray(SURFACES.images[0]).save(file, "PNG")
    for form in ("csv", "jsonl"):
        listed = b"\n".join(os.path.join(b"odd", name) for name in [names[1], names[2]])
        args = ("score", "m.skan", f"--{form}", "s", "--overwrite")
        assert run(*args, "-", stdin=listed).exit_code == 0
        result = run("score", "m.skan", "odd", f"--{form}", "s", "--resume")
        assert result.exit_code == 0 and "4 images: " in result.stderr, result.output
        with open("s", encoding="utf-8", newline="") as file:
            if form == "csv":
                paths = [_unescaped(row["path"]) for row in csv.DictReader(file)]
            else:
                paths = [json.loads(line)["path"] for line in file]
        assert sorted(os.fsencode(os.path.basename(path)) for path in paths) == sorted(names)


@pytest.mark.parametrize("name", ["a", r"\udcff", r"\udc5c", r"\\udc5cudcff", "\udcff\\udc80", ""])
def test_escaped_names_are_read_again(name):
    cell = next(csv.reader([_as_line({"path": name}, ["path"], "csv")]), [""])[0]
    assert cell.encode() and _unescaped(cell) == name if name else True


def test_what_is_listed_twice_has_two_records_though_resumed(here):
    one, two = "t/good/00.png", "t/good/01.png"
    first = run("score", "m.skan", "-", "--jsonl", "s", stdin=f"{one}\n{two}\n")
    assert first.exit_code == 0
    listed = f"{one}\n{two}\n{one}\n{two}\n"
    for _ in range(2):
        result = run("score", "m.skan", "-", "--jsonl", "s", "--resume", stdin=listed)
        assert result.exit_code == 0
        paths = [json.loads(line)["path"] for line in (here / "s").read_text().splitlines()]
        assert sorted(paths) == sorted([one, two] * 2)


def test_heat_maps_above_images_are_refused(here):
    result = run("score", "m.skan", "t/good", "--maps", "t")
    assert result.exit_code == 1 and "holds folders of images" in result.stderr
    assert sorted(os.listdir("t")) == ["bad", "good"]
    for _ in range(2):
        assert run("score", "m.skan", "t/good", "--maps", "maps/of/today").exit_code == 0
    assert run("score", "m.skan", "t/good", "--maps", "maps").exit_code == 0


@needs_posix
def test_pipes_are_no_images(here):
    os.mkfifo("old/pipe.png")
    with pytest.raises(ImageReadError, match="is a pipe, socket or device"):
        load_image("old/pipe.png")
    result = run("score", "m.skan", "old")
    assert result.exit_code == 0 and "1 pipes, sockets or devices" in result.stderr
    for args in (("score", "m.skan", "old/pipe.png"), ("fit", "old/pipe.png", "-o", "x")):
        result = run(*args)
        assert result.exit_code == 1 and "is a pipe, socket or device" in result.stderr
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s.png")
        result = run("score", "m.skan", "s.png")
        assert result.exit_code == 1 and "is a pipe, socket or device" in result.stderr


@needs_posix
@pytest.mark.parametrize(
    ("closed", "code", "message"),
    [("<&-", 1, "standard input, which is closed"), (">&-", 1, "standard output is closed")],
)
def test_a_closed_stream_is_one_message(here, closed, code, message):
    shell = f'"{sys.executable}" -m skanomaly.cli score m.skan - {closed}'
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == code and done.stdout == ""
    assert done.stderr.count("\n") == 1 and message in done.stderr


@needs_posix
def test_results_without_a_place_for_messages(here):
    shell = f'"{sys.executable}" -m skanomaly.cli score m.skan t/good 2>&-'
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 6


INTERRUPTED = """
import os, runpy, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[0]:
            os.kill(os.getpid(), signal.SIGINT)
module, sys.argv = sys.argv[1], [sys.argv[1], "score", "m.skan", "-"]
sys.meta_path.insert(0, Interrupt())
runpy.run_module("skanomaly.cli", run_name="__main__", alter_sys=False)
"""


@needs_posix
@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["typer", "numpy", "PIL.Image", "skanomaly.cli._score", "sklearn.pipeline"]
)
def test_an_interruption_of_the_start(here, module):
    """Ctrl-C while that module is imported."""
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, module],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.startswith(b"interrupted") and err.count(b"\n") == 1


def test_an_error_of_the_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match=r"No space left.*'.*out\.txt'"):
        with written_beside(tmp_path / "out.txt"):
            raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a full disk of Linux")
def test_a_full_standard_output(here):
    with open("/dev/full", "wb") as full:
        done = child("info", "m.skan", stdout=full)
        _, err = done.communicate(timeout=60)
    assert done.returncode == 1 and err.startswith(b"error: standard output cannot be written")
    assert err.count(b"\n") == 1


def test_report_names_all_images_that_cannot_be_read(here):
    for name in ("00.png", "03.png"):
        (here / "t" / "good" / name).write_bytes(b"no image")
    result = run("report", "m.skan", "t", "-o", "r.html")
    assert result.exit_code == 1 and "2 of 10 images cannot be used" in result.stderr
    assert "00.png" in result.stderr and "03.png" in result.stderr
    assert not (here / "r.html").exists()


def test_one_image_has_no_number(here):
    (here / "zero.png").write_bytes(b"")
    result = run("explain", "m.skan", "zero.png")
    assert result.exit_code == 1 and "Cannot read image ('zero.png')" in result.stderr


@pytest.mark.filterwarnings("default")
def test_huge_images_are_said_once(here):
    done = child("score", "m.skan", "t/good/00.png", "--max-pixels", "600")
    _, err = done.communicate(timeout=60)
    assert done.returncode == 1 and b"1024 pixels" in err and b"warning" not in err


def test_few_images_hold_no_small_share(here):
    done = child("calibrate", "m.skan", "t/good/00.png", "-o", "x.skan")
    out, _ = done.communicate(timeout=60)
    assert done.returncode == 0 and b"(not 20.0%: with so few" in out
    assert b"of the 1 good image that is calibrated on" in out
    assert b"for 20.0% of good images" not in out.split(b";")[0]
