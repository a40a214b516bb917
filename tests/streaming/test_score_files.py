"""Files judged into a folder of Parquet files: every image once, whatever happens meanwhile."""

import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from skanomaly import (
    FilterBankPatches,
    FunctionPatches,
    PatchGaussianScorer,
    PatchKNNScorer,
    iter_scores,
    persistence,
    recalibrate,
    save_model,
    score_files,
    streaming,
)
from skanomaly.datasets import make_surfaces

pytest.importorskip("pyarrow")
import pyarrow.dataset  # noqa: E402

SIDE = 32
JUDGED = Counter()  # how often each image came to the model


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """25 images, of which 7 is damaged and 11 is not there."""
    folder = tmp_path_factory.mktemp("images")
    made = make_surfaces(20, 5, image_size=SIDE, random_state=0).images
    names = [folder / f"{i:02}.png" for i in range(25)]
    for path, image in zip(names, made, strict=True):
        Image.fromarray(image).save(path)
    names[7].write_bytes(b"no image")
    names[11].unlink()
    return names


@pytest.fixture(scope="module")
def pipe():
    images = make_surfaces(10, image_size=SIDE, random_state=1).images
    return make_pipeline(FilterBankPatches(image_size=SIDE), PatchKNNScorer()).fit(images)


def rows(out):
    """All rows of a folder, by the number of the image."""
    table = pyarrow.dataset.dataset(out).to_table().to_pylist()
    return sorted(table, key=lambda row: row["number"])


def cells(image):
    """Mean colours; each call is counted by the image."""
    JUDGED[image.tobytes()] += 1
    return image.reshape(4, 8, 4, 8, 3).mean(axis=(1, 3))


def content(path):
    """What `cells` is given of a file."""
    with Image.open(path) as opened:
        return np.asarray(opened).tobytes()


def test_rows_are_what_iter_scores_says(pipe, paths, tmp_path):
    summary = score_files(pipe, paths, out=tmp_path / "scores", rows_per_file=10)
    found = rows(tmp_path / "scores")
    judged = list(iter_scores(pipe, paths, on_error="record"))
    assert [row["number"] for row in found] == list(range(25))
    assert [row["path"] for row in found] == list(map(str, paths))
    assert len({row["model"] for row in found}) == 1 and len(found[0]["model"]) == 12
    for row, result in zip(found, judged, strict=True):
        if row["number"] in (7, 11):
            assert row["error"] == result.error and str(paths[row["number"]]) in row["error"]
            expected = dict.fromkeys(("decision", "score", "threshold", "p_value"))
        else:
            assert row["error"] is None
            expected = result.to_dict()
        for name in ("decision", "threshold", "p_value"):
            assert row[name] == expected[name]
        if row["error"] is None:
            assert row["score"] == pytest.approx(expected["score"], rel=1e-6)
    decisions = Counter(row["decision"] or "failed" for row in found)
    assert decisions["anomalous"] and decisions["normal"] and decisions["failed"] == 2
    assert summary == {"shard": 0, "n_shards": 1, "images": 25, "kept": 0, **decisions}
    assert [len(pyarrow.dataset.dataset(f).to_table()) for f in parts(tmp_path / "scores")] == [
        10,
        10,
        5,
    ]


def parts(out):
    return sorted(Path(out).glob("*.parquet"))


def test_shards_are_the_whole(pipe, paths, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "shards"
    score_files(pipe, paths, out=whole)
    summaries = [score_files(pipe, paths, out=out, shard=i, n_shards=3) for i in (2, 0, 1)]
    assert sum(summary["images"] for summary in summaries) == 25
    assert all(summary["images"] > 2 for summary in summaries)
    assert_same(rows(out), rows(whole))


def assert_same(found, expected):
    """Alike but for the last digits of scores, which other batches may change."""
    assert [{**row, "score": None} for row in found] == [{**row, "score": None} for row in expected]
    scores = [[np.nan if r["score"] is None else r["score"] for r in x] for x in (found, expected)]
    np.testing.assert_allclose(*scores, rtol=1e-6)


def test_the_shard_of_an_image_is_known_by_its_path_alone(pipe, paths, tmp_path):
    def of_shard(name, listed):
        score_files(pipe, iter(listed), out=tmp_path / name, shard=1, n_shards=4)
        return {row["path"] for row in rows(tmp_path / name)}

    some = of_shard("some", paths[5:20])
    assert some and some == of_shard("all", paths) & set(map(str, paths[5:20]))


def test_what_is_there_is_not_judged_again(paths, tmp_path):
    pipe = make_pipeline(FunctionPatches(cells), PatchGaussianScorer()).fit(paths[12:])
    good, out = [p for i, p in enumerate(paths) if i not in (7, 11)], tmp_path / "out"
    JUDGED.clear()
    score_files(pipe, good, out=out, rows_per_file=5)
    before = rows(out)
    assert set(JUDGED.values()) == {1} and len(JUDGED) == 23
    files = parts(out)
    files[1].unlink()
    files[3].write_bytes(files[3].read_bytes()[:-7])  # as after a crash of the machine
    JUDGED.clear()
    summary = score_files(pipe, good, out=out, rows_per_file=5)
    assert set(JUDGED) == set(map(content, (*good[5:10], *good[15:20])))
    assert (summary["kept"], summary["images"]) == (13, 23)
    assert rows(out) == before
    JUDGED.clear()
    assert score_files(pipe, good, out=out, rows_per_file=5)["kept"] == 23
    assert not JUDGED and rows(out) == before


def test_an_error_that_is_no_images_leaves_what_is_whole(paths, tmp_path):
    pipe = make_pipeline(FunctionPatches(cells), PatchGaussianScorer()).fit(paths[12:])

    def listed():
        yield from paths[12:20]
        raise OSError("the list broke off")

    with pytest.raises(OSError, match="broke off"):
        score_files(pipe, listed(), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    pipe[0].func = failing
    with pytest.raises(ValueError, match="changed since fit"):
        score_files(pipe, paths[12:], out=tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def failing(image):
    raise KeyError(image)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model": 0.3}, "another model"),
        ({"paths": 1}, "another list of paths"),
        ({"n_shards": 3}, "n_shards=2, not 3"),
        ({"rows_per_file": 6}, "rows_per_file=5, not 6"),
        ({"n_shards": 3, "rows_per_file": 6}, "n_shards=2, not 3 and rows_per_file=5, not 6"),
    ],
)
def test_another_run_is_refused(change, message, pipe, paths, tmp_path):
    score_files(pipe, paths, out=tmp_path, n_shards=2, shard=1, rows_per_file=5)
    before = rows(tmp_path)
    change = dict(change)
    share = change.pop("model", None)
    other = pipe if share is None else recalibrate(pipe, contamination=share)
    listed = paths[change.pop("paths", 0) :]
    options = {"n_shards": 2, "rows_per_file": 5, **change}
    with pytest.raises(FileExistsError, match=message):
        score_files(other, listed, out=tmp_path, **options)
    assert rows(tmp_path) == before


def test_another_version_is_refused(pipe, paths, tmp_path, monkeypatch):
    score_files(pipe, paths[:2], out=tmp_path)
    init = streaming._parts.Run.__init__
    monkeypatch.setattr(init, "__defaults__", ("9.9",))
    with pytest.raises(FileExistsError, match=r"skanomaly \d\S+, not 9.9"):
        score_files(pipe, paths[:2], out=tmp_path)


def test_a_shard_is_begun_anew_only_in_another_folder(pipe, paths, tmp_path):
    options = {"n_shards": 2, "resume": False}
    score_files(pipe, paths, out=tmp_path, shard=0, **options)
    score_files(pipe, paths, out=tmp_path, shard=1, **options)
    with pytest.raises(FileExistsError, match=r"shard 1 already.*resume=True"):
        score_files(pipe, paths, out=tmp_path, shard=1, **options)


def test_a_folder_of_others_is_left_alone(pipe, paths, tmp_path):
    (tmp_path / "notes.parquet").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"other files than scores, such as notes\.parquet"):
        score_files(pipe, paths, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.parquet"]
    with pytest.raises(FileExistsError, match="cannot be a folder"):
        score_files(pipe, paths, out=tmp_path / "notes.parquet")


def test_what_a_kill_left_is_removed_after_an_hour(pipe, paths, tmp_path):
    fresh, old = (tmp_path / f".skanomaly-7-{digit * 16}.tmp" for digit in "ab")
    for path in (fresh, old, tmp_path / ".DS_Store"):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 4000,) * 2)
    score_files(pipe, paths[:3], out=tmp_path)
    names = {path.name for path in tmp_path.iterdir() if path.suffix != ".parquet"}
    assert names == {fresh.name, ".DS_Store"} and len(rows(tmp_path)) == 3


@pytest.mark.parametrize(
    "listed, error, message",
    [
        ("part.png", TypeError, "the single 'part.png'"),
        (Path("part.png"), TypeError, "list of paths"),
        (b"bytes", TypeError, "list of paths"),
        (["a.png", np.zeros((8, 8, 3))], TypeError, r"paths\[1\] is no path but a ndarray"),
        (["a.png", b"a.png"], TypeError, r"paths\[1\] is no path but a bytes"),
        (["b.png", None], TypeError, r"paths\[1\]"),
        (["a.png", "b.png", Path("a.png")], ValueError, r"'a\.png' twice, as numbers 0 and 2"),
    ],
)
def test_what_is_no_list_of_paths_is_refused(listed, error, message, pipe, tmp_path):
    with pytest.raises(error, match=message):
        score_files(pipe, listed, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"shard": 2, "n_shards": 2}, "shard=2 is none of 2 shards"),
        ({"shard": -1}, "shard must be an integer of at least 0"),
        ({"n_shards": 0}, "n_shards"),
        ({"batch_size": 0}, "batch_size"),
        ({"rows_per_file": 1.5}, "rows_per_file"),
    ],
)
def test_numbers_out_of_their_range(wrong, message, pipe, paths, tmp_path):
    with pytest.raises(ValueError, match=message):
        score_files(pipe, paths, out=tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_judge_is_refused_before_anything_is_written(paths, tmp_path):
    unfitted = make_pipeline(FilterBankPatches(image_size=SIDE), PatchKNNScorer())
    with pytest.raises(NotFittedError):
        score_files(unfitted, paths, out=tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        score_files(tmp_path / "missing.skan", paths, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_image_at_all(pipe, tmp_path):
    summary = score_files(pipe, [], out=tmp_path / "out")
    assert summary["images"] == 0 and list((tmp_path / "out").iterdir()) == []


def test_without_pyarrow_the_extra_is_named(pipe, paths, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"skanomaly\[parquet\]"):
        score_files(pipe, paths, out=tmp_path / "out")


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode on other systems")
def test_names_that_are_no_utf8(pipe, paths, tmp_path):
    name = os.fsencode(tmp_path) + b"/part-\xff.png"
    Path(os.fsdecode(name)).write_bytes(paths[0].read_bytes())
    missing = os.fsdecode(os.fsencode(tmp_path) + b"/gone-\xfe.png")
    score_files(pipe, [os.fsdecode(name), missing], out=tmp_path / "out")
    good, failed = rows(tmp_path / "out")
    assert good["path"].endswith(r"part-\udcff.png") and good["decision"] == "normal"
    assert failed["path"].endswith(r"gone-\udcfe.png") and r"\udcfe" in failed["error"]


def test_a_model_file_is_loaded_once_and_gives_the_same(pipe, paths, tmp_path, monkeypatch):
    save_model(pipe, tmp_path / "parts.skan")
    loaded = []
    load_model = persistence.load_model

    def counted(path):
        loaded.append(path)
        time.sleep(0.2)  # the other shards wait for it
        return load_model(path)

    monkeypatch.setattr(persistence, "load_model", counted)

    def judge(shard):
        model = os.fspath(tmp_path / "parts.skan")
        return score_files(model, paths, out=tmp_path / "out", shard=shard, n_shards=4)

    with ThreadPoolExecutor(4) as pool:
        summaries = list(pool.map(judge, range(4)))
    assert len(loaded) == 1 and sum(s["images"] for s in summaries) == 25
    score_files(pipe, paths, out=tmp_path / "whole")
    assert_same(rows(tmp_path / "out"), rows(tmp_path / "whole"))
    # The model in memory and the one in the file are the same to what is there already.
    assert score_files(pipe, paths, out=tmp_path / "out", shard=3, n_shards=4)["failed"] == 0


KILLED = """
import os, random, signal, sys, time
from sklearn.pipeline import make_pipeline
from skanomaly import FunctionPatches, PatchGaussianScorer, score_files

def cells(image):
    time.sleep(0.004)  # so that a kill comes in the middle
    return image.reshape(4, 4, 4, 4, 3).mean(axis=(1, 3))

folder, n_kills = sys.argv[1], int(sys.argv[2])
paths = [f"{folder}/images/{i}.png" for i in range(300)]
pipe = make_pipeline(FunctionPatches(cells), PatchGaussianScorer()).fit(paths[:20])

def start(out):
    child = os.fork()
    if child == 0:
        try:
            score_files(pipe, paths, out=out, rows_per_file=7)
            os._exit(0)
        finally:
            os._exit(1)
    return child

rng, kills, number = random.Random(0), 0, 0
while kills < n_kills:
    child = start(f"{folder}/killed-{number}")
    time.sleep(rng.uniform(0, 0.15))
    os.kill(child, signal.SIGKILL)  # of one that has ended nothing is left to kill
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    kills += status != 0
    number += status == 0  # all is judged: the next one begins anew
for out in (f"{folder}/killed-{number}", f"{folder}/whole"):
    assert os.waitstatus_to_exitcode(os.waitpid(start(out), 0)[1]) == 0
print(number + 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked on this system")
@pytest.mark.parametrize("n_kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_every_image_is_there_once_after_kills(n_kills, tmp_path):
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(300):
        image = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "images" / f"{i}.png")
    (tmp_path / "images" / "150.png").write_bytes(b"no image")
    run = subprocess.run(
        [sys.executable, "-c", KILLED, os.fspath(tmp_path), str(n_kills)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    whole = rows(tmp_path / "whole")
    assert [row["number"] for row in whole] == list(range(300))
    assert [row["number"] for row in whole if row["error"]] == [150]
    n_folders = int(run.stdout)
    for number in range(n_folders):
        assert rows(tmp_path / f"killed-{number}") == whole
    assert n_folders <= 1 + n_kills // 2  # else too few kills came in the middle
