"""``skanomaly score``: records one by one, whatever happens on the way."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.pipeline import make_pipeline
from typer.testing import CliRunner

from skanomaly import FilterBankPatches, PatchKNNScorer, anomaly_regions, p_values, save_model
from skanomaly._output import is_own_picture
from skanomaly.cli import app
from skanomaly.datasets import make_surfaces

SIDE = 32
FIELDS = ["path", "decision", "score", "threshold", "p_value", "error", "model"]
ODD_NAMES = ["with space.png", "new\nline.png", "cr\rline.png", "#1.png", 'a,"b".png', "[1]*.png"]
needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and names of POSIX")


def run(*args, **options):
    return CliRunner().invoke(app, ["score", *(str(arg) for arg in args)], **options)


def child(*args, code="from skanomaly.cli import app; app()", **options):
    command = [sys.executable, "-c", code, "score", *(os.fspath(arg) for arg in args)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    if os.name == "posix":
        # What runs in the background ignores Ctrl-C, and so would all that it starts.
        pipes["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, **pipes)


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


def records_in(path):
    return lines_of(Path(path).read_text())


@pytest.fixture(scope="module")
def surfaces():
    return make_surfaces(12, 3, image_size=SIDE, random_state=0).images


@pytest.fixture(scope="module")
def pipe(surfaces):
    pipe = make_pipeline(FilterBankPatches(image_size=SIDE), PatchKNNScorer(contamination=0.2))
    return pipe.fit(surfaces[:12])


@pytest.fixture(scope="module")
def model(pipe, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "parts.skan"
    save_model(pipe, path)
    return path


@pytest.fixture
def parts(tmp_path, surfaces):
    """Fifteen images; the last three are defective."""
    folder = tmp_path / "parts"
    folder.mkdir()
    for i, image in enumerate(surfaces):
        Image.fromarray(image).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture
def many(tmp_path, surfaces):
    """Four hundred names of three images."""
    folder = tmp_path / "many"
    folder.mkdir()
    for i, image in enumerate(surfaces[-3:]):
        Image.fromarray(image).save(folder / f"{i:03}.png")
    for i in range(3, 400):
        os.link(folder / f"{i % 3:03}.png", folder / f"{i:03}.png")
    return folder


# What is written


def test_a_record_is_what_the_model_says(model, pipe, parts):
    result = run(model, parts)
    assert result.exit_code == 0, result.output
    records = lines_of(result.stdout)
    paths = sorted(parts.iterdir())
    assert [list(record) for record in records] == [FIELDS] * 15
    assert [record["path"] for record in records] == [str(path) for path in paths]
    assert [record["score"] for record in records] == pipe.score_samples(paths).tolist()
    assert [record["p_value"] for record in records] == p_values(pipe, paths).tolist()
    flagged = [record["decision"] == "anomalous" for record in records]
    assert flagged == (pipe.predict(paths) == -1).tolist() and all(flagged[12:])
    for record in records:
        assert record["threshold"] == pipe[-1].offset_ and record["error"] is None
        assert len(record["model"]) == 12
    n = sum(flagged)
    assert result.stderr == f"15 images: {n} anomalous, {15 - n} normal\n"
    result = run(model, paths[0])
    assert result.stderr in ("1 image: 1 anomalous, 0 normal\n", "1 image: 0 anomalous, 1 normal\n")


def test_csv_says_the_same(model, parts, tmp_path):
    expected = lines_of(run(model, parts).stdout)
    assert run(model, parts, "--csv", tmp_path / "s.csv").stdout == ""
    printed = run(model, parts, "--csv", "-").stdout
    text = (tmp_path / "s.csv").read_bytes().decode()
    assert printed == text and "\r" not in text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == FIELDS and len(rows) == 15
    for row, record in zip(rows, expected, strict=True):
        assert row == {name: "" if v is None else str(v) for name, v in record.items()}


def test_regions(model, pipe, parts, tmp_path):
    paths = sorted(parts.iterdir())
    file = tmp_path / "r.jsonl"
    assert run(model, parts, "--regions", "--min-area", 5, "--jsonl", file).exit_code == 0
    expected = anomaly_regions(pipe, paths, min_area=5)
    found = [record["regions"] for record in records_in(file)]
    assert found == [[region.to_dict() for region in regions] for regions in expected]
    assert any(found)
    printed = run(model, parts, "--regions", "--min-area", 5, "--csv", "-").stdout
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert [json.loads(row["regions"]) for row in rows] == found


def test_pictures(model, parts, tmp_path):
    other = parts / "sub" / "00.png"
    other.parent.mkdir()
    other.write_bytes((parts / "00.png").read_bytes())
    maps = tmp_path / "maps"
    names = []
    for _ in range(2):  # and again over those of before
        result = run(model, parts, "--maps", maps)
        assert result.exit_code == 0, result.output
        names.append([record["heat_map"] for record in lines_of(result.stdout)])
    assert names[0] == names[1] and len(set(names[0])) == 16
    assert sorted(names[0]) == sorted(str(path) for path in maps.iterdir())
    assert all(is_own_picture(Path(name)) for name in names[0])
    with Image.open(names[0][0]) as picture:
        assert picture.width >= 2 * 192 and picture.height > 192
    # Heat maps among images would be images to others.
    before = sorted(parts.iterdir())
    result = run(model, parts, "--maps", parts)
    assert result.exit_code == 1 and "name a folder of its own" in result.stderr
    assert sorted(parts.iterdir()) == before


def test_a_person_gets_lines(model, parts, monkeypatch):
    monkeypatch.setattr("skanomaly.cli._score.is_terminal", lambda: True)
    result = run(model, parts / "14.png", parts / "00.png", "--regions")
    lines = result.stdout.splitlines()
    assert len(lines) == 2 and lines[0].startswith("anomalous  score -")
    assert "p-value 0.0769" in lines[0] and "region" in lines[0]
    assert lines[0].endswith(str(parts / "14.png"))
    assert run(model, parts, "--jsonl", "-").stdout.startswith('{"path"')


# How it ends


def test_exit_codes(model, parts):
    assert run(model, parts / "00.png").exit_code == 0
    assert run(model, parts / "00.png", "--fail-on-anomaly").exit_code in (0, 3)
    assert run(model, parts / "14.png").exit_code == 0
    result = run(model, parts / "14.png", "--fail-on-anomaly")
    assert result.exit_code == 3 and lines_of(result.stdout)[0]["decision"] == "anomalous"
    assert run(model).exit_code == 2
    assert run(model, parts, "--on-error", "ignore").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.skan", "{parts}"], "nowhere.skan"),
        (["{parts}/00.png", "{parts}"], "00.png"),
        (["{model}", "nowhere"], "nowhere is no file and no folder"),
        (["{model}", "{parts}", "--jsonl", "nowhere/s.jsonl"], "no folder for --jsonl"),
        (["{model}", "{parts}", "--jsonl", "{parts}"], "something else"),
        (["{model}", "{parts}", "--jsonl", "{model}", "--overwrite"], "never happens"),
        (["{model}", "{parts}", "--jsonl", "{parts}/00.png", "--overwrite"], "name of an image"),
        (["{model}", "{parts}", "--jsonl", "-", "--csv", "-"], "not both"),
        (["{model}", "{parts}", "--resume"], "name it by --jsonl or --csv"),
        (["{model}", "{parts}", "--jsonl", "s", "--resume", "--overwrite"], "--resume"),
        (["{model}", "{parts}", "--min-area", "5"], "--regions"),
        (["{model}", "{parts}", "--null"], "--null"),
    ],
)
def test_what_is_wrong_is_said_before_the_work(
    model, parts, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in (model, *parts.iterdir())}
    result = run(*(text.format(model=model, parts=parts) for text in arguments))
    usage = ("not both", "name it by --jsonl or --csv", "--resume", "--regions", "--null")
    assert result.exit_code == (2 if message in usage else 1)
    assert message in result.stderr and result.stdout == ""
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts"]


def test_an_image_that_fails(model, parts, tmp_path):
    (parts / "05.png").write_bytes(b"a text")
    result = run(model, parts)
    assert result.exit_code == 1 and "05.png" in result.stderr and "image 5 " in result.stderr
    assert len(lines_of(result.stdout)) == 5  # those before it are kept
    result = run(model, parts, "--on-error", "skip")
    records = lines_of(result.stdout)
    assert result.exit_code == 0 and len(records) == 15 and "1 failed" in result.stderr
    failed = records[5]
    assert failed["decision"] is failed["score"] is failed["p_value"] is None
    assert "not an image" in failed["error"] and failed["path"] == str(parts / "05.png")
    assert [record["error"] is None for record in records] == [i != 5 for i in range(15)]


def test_max_pixels(model, parts):
    result = run(model, parts / "00.png", "--max-pixels", SIDE * SIDE - 1)
    assert result.exit_code == 1 and "--max-pixels" in result.stderr
    assert run(model, parts / "00.png", "--max-pixels", SIDE * SIDE).exit_code == 0


@pytest.mark.slow
def test_an_extra_that_is_missing(tmp_path, surfaces, parts):
    timm = pytest.importorskip("timm")
    from skanomaly import TimmPatches

    embedder = TimmPatches("vit_tiny_patch16_224", weights="random", image_size=32, layers=1)
    path = tmp_path / "tiny.skan"
    save_model(make_pipeline(embedder, PatchKNNScorer()).fit(list(surfaces[:5])), path)
    code = "import sys; sys.modules['timm'] = None\nfrom skanomaly.cli import app; app()"
    process = child(path, parts, code=code)
    out, err = process.communicate()
    assert process.returncode == 1 and out == b"" and b"skanomaly[torch]" in err, timm


# To go on


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_resume(model, parts, tmp_path, form):
    whole, file = tmp_path / "whole", tmp_path / "part"
    run(model, parts, f"--{form}", whole)
    content = whole.read_bytes()
    lines = content.splitlines(keepends=True)
    head = form == "csv"
    # Cut off at any byte of the sixth record, or at its end.
    start = sum(map(len, lines[: 5 + head]))
    for end in (start, start + 1, start + 30, start + len(lines[5 + head]) - 1):
        file.write_bytes(content[:end])
        result = run(model, parts, f"--{form}", file, "--resume")
        n = 6 if end == start + len(lines[5 + head]) - 1 else 5  # all but the end of the line
        assert result.exit_code == 0 and f"{n} images were judged before" in result.stderr
        assert file.read_bytes() == content
    # Nothing is left to do; anomalies found before count as well.
    result = run(model, parts, f"--{form}", file, "--resume", "--fail-on-anomaly")
    assert result.exit_code == 3 and file.read_bytes() == content
    assert "15 images" in result.stderr


def test_resume_begins_where_there_is_no_file(model, parts, tmp_path):
    result = run(model, parts, "--jsonl", tmp_path / "s", "--resume")
    assert result.exit_code == 0 and len(records_in(tmp_path / "s")) == 15


def test_resume_judges_again_what_failed_or_changed(model, parts, tmp_path, surfaces):
    file = tmp_path / "s.jsonl"
    (parts / "05.png").write_bytes(b"a text")
    run(model, parts, "--jsonl", file, "--on-error", "skip")
    old = {record["path"]: record for record in records_in(file)}
    Image.fromarray(surfaces[5]).save(parts / "05.png")
    Image.fromarray(surfaces[14]).save(parts / "02.png")
    later = time.time() + 10
    for name in ("02.png", "05.png"):
        os.utime(parts / name, (later, later))
    result = run(model, parts, "--jsonl", file, "--resume")
    assert "13 images were judged before" in result.stderr
    new = {record["path"]: record for record in records_in(file)}
    assert len(records_in(file)) == 15 and new.keys() == old.keys()
    changed = {Path(path).name for path in new if new[path] != old[path]}
    assert changed == {"02.png", "05.png"}


def test_resume_of_another_file_is_refused(model, pipe, parts, tmp_path, surfaces):
    file = tmp_path / "s.jsonl"
    run(model, parts, "--jsonl", file)
    other = tmp_path / "other.skan"
    save_model(pipe, other)
    others = {
        "another model": run(other, parts, "--jsonl", file, "--resume"),
        "no file of records": run(model, parts, "--jsonl", file, "--resume", "--regions"),
    }
    (tmp_path / "text").write_text("one line\n")
    (tmp_path / "bytes").write_bytes(bytes(range(256)))
    for name in ("text", "bytes"):
        for form in ("--jsonl", "--csv"):
            others[f"{name}{form}"] = run(model, parts, form, tmp_path / name, "--resume")
    for message, result in others.items():
        assert result.exit_code == 1, message
        assert "another model" in result.stderr or "no file of records" in result.stderr
    assert (tmp_path / "text").read_text() == "one line\n"
    assert (tmp_path / "bytes").read_bytes() == bytes(range(256))
    assert len(records_in(file)) == 15


def test_a_file_that_is_there_is_not_replaced(model, parts, tmp_path):
    file = tmp_path / "s.jsonl"
    file.write_text("mine\n")
    result = run(model, parts, "--jsonl", file)
    assert result.exit_code == 1 and "--resume" in result.stderr and "--overwrite" in result.stderr
    assert file.read_text() == "mine\n"
    assert run(model, parts, "--jsonl", file, "--overwrite").exit_code == 0
    assert len(records_in(file)) == 15


# Names


def odd_names():
    names = [os.fsencode(name) for name in ODD_NAMES]
    return names if sys.platform == "darwin" else [*names, b"\xff\xe9.png"]


@needs_posix
@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_odd_names(model, tmp_path, surfaces, form):
    """As arguments, in folders, and on standard input; and known again by --resume."""
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in odd_names():
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            Image.fromarray(surfaces[0]).save(file, "PNG")
    paths = sorted(os.path.join(os.fsencode(folder), name) for name in odd_names())
    file = tmp_path / "s"
    for arguments, content in (([folder], b""), (["-", "-0"], b"\0".join(paths)), (paths, b"")):
        arguments = [*map(os.fsdecode, arguments), f"--{form}", file, "--overwrite"]
        if arguments[0] == os.fsdecode(paths[0]):  # as a shell hands them on
            with child(model, *arguments) as process:
                assert process.communicate()[0] == b"" and process.returncode == 0
        else:
            assert run(model, *arguments, input=content).exit_code == 0
        with open(file, encoding="utf-8", newline="") as text:
            if form == "jsonl":
                found = [os.fsencode(json.loads(line)["path"]) for line in text]
            else:
                found = [row["path"].encode() for row in csv.DictReader(text)]
                found = [name.replace(rb"\udcff\udce9", b"\xff\xe9") for name in found]
        assert sorted(found) == paths
        before = file.read_bytes()
        result = run(model, folder, f"--{form}", file, "--resume")
        assert f"{len(paths)} images were judged before" in result.stderr
        assert file.read_bytes() == before


def test_a_list_on_standard_input(model, parts):
    text = f"{parts}/03.png\n\n{parts}/missing.png\n{parts}/04.png\n"
    result = run(model, "-", "--on-error", "skip", input=text)
    records = lines_of(result.stdout)
    assert [Path(record["path"]).name for record in records] == ["03.png", "missing.png", "04.png"]
    assert "path not found" in records[1]["error"]


def test_a_line_comes_for_each_that_is_asked(model, parts):
    """With batches of one a program may wait for each answer before it asks again."""
    process = child(model, "-", "--batch-size", "1", stdin=subprocess.PIPE)
    with process:
        for name in ("03.png", "14.png"):
            process.stdin.write(os.fsencode(parts / name) + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["path"] == str(parts / name)
        process.stdin.close()
        assert process.wait() == 0


# Cut short


@needs_posix
@pytest.mark.parametrize("form", ["jsonl", pytest.param("csv", marks=pytest.mark.slow)])
def test_ctrl_c_keeps_what_was_had(model, many, tmp_path, form):
    file = tmp_path / "s"
    process = child(model, many, f"--{form}", file, "--batch-size", "2")
    until = time.monotonic() + 120
    while time.monotonic() < until and (not file.exists() or file.read_bytes().count(b"\n") < 10):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == b""
    assert err.endswith(b"interrupted; what was written until now is kept\n")
    content = file.read_bytes()
    assert content.endswith(b"\n")
    n = content.count(b"\n") - (form == "csv")
    assert 9 <= n < 400
    result = run(model, many, f"--{form}", file, "--resume")
    assert f"{n} images were judged before" in result.stderr
    with open(file, newline="") as text:
        rows = lines_of(text.read()) if form == "jsonl" else list(csv.DictReader(text))
    assert [row["path"] for row in rows] == [str(path) for path in sorted(many.iterdir())]


@needs_posix
def test_a_closed_pipe_ends_it_quietly(model, many):
    process = child(model, many, "--batch-size", "2")
    first = process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert json.loads(first)["path"] == str(many / "000.png") and err == b""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_large_images_do_not_wait_at_their_own_size(model, tmp_path):
    """They are made small by the threads that read them."""
    folder = tmp_path / "large"
    folder.mkdir()
    Image.fromarray(np.zeros((3000, 4000, 3), dtype=np.uint8)).save(folder / "00.png")
    for i in range(1, 30):
        os.link(folder / "00.png", folder / f"{i:02}.png")
    code = (
        "from pathlib import Path\n"
        "from skanomaly.cli import app\n"
        "from skanomaly.core.threads import reading_threads\n"
        "try: app()\n"
        "finally: print(reading_threads(), Path('/proc/self/status').read_text())"
    )
    process = child(model, folder, "--jsonl", tmp_path / "s", code=code)
    out, err = process.communicate()
    assert process.returncode == 0, err
    n_threads, *status = out.decode().split()
    peak = int(status[status.index("VmHWM:") + 1]) * 1024
    assert peak < 0.5e9 + int(n_threads) * 0.2e9  # of the images alone 1.1 GB
