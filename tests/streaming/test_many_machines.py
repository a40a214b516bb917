"""The recipes for engines of others run as they stand, on worker processes of these engines."""

import json
import os
import pickle
import pickletools
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

import skanomaly
from skanomaly import (
    FilterBankPatches,
    PatchKNNScorer,
    TimmPatches,
    TinyPatches,
    iter_scores,
    load_model,
    save_model,
)
from skanomaly.datasets import make_surfaces

pytest.importorskip("pyarrow")
import pyarrow.dataset  # noqa: E402

PAGE = Path(__file__).resolve().parents[2] / "docs" / "many-machines.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
N_IMAGES, DAMAGED = 60, 17
needs_posix = pytest.mark.skipif(os.name != "posix", reason="processes end otherwise elsewhere")


def recipe(word):
    """The script of the page that holds a word."""
    (code,) = (block for block in BLOCKS if word in block)
    return code


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """What the page takes for granted: `parts.skan`, and images in `incoming`, `good` and `bad`."""
    folder = tmp_path_factory.mktemp("material")
    made = make_surfaces(N_IMAGES, 6, image_size=64, random_state=0).images
    for name, images in (("incoming", made), ("good", made[:10]), ("bad", made[-6:])):
        (folder / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / name / f"{i:03}.png")
    (folder / "incoming" / f"{DAMAGED:03}.png").write_bytes(b"no image")
    pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer()).fit(made[:10])
    save_model(pipe, folder / "parts.skan")
    return folder, pipe


@pytest.fixture
def folder(material, tmp_path, monkeypatch):
    """A working directory with the material in it."""
    for path in material[0].iterdir():
        (tmp_path / path.name).symlink_to(path, target_is_directory=path.is_dir())
    (tmp_path / "parts.skan").unlink()
    (tmp_path / "parts.skan").write_bytes((material[0] / "parts.skan").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def short_folder():
    """For sockets, whose paths have to be short; what is still being written is let be."""
    return tempfile.TemporaryDirectory(prefix="sk", ignore_cleanup_errors=True)


def run(code, folder, again=None):
    """What a script prints; whatever it started is gone afterwards.

    Twice it is run again where it fails with the message `again`.
    """
    for _ in range(3):
        code_of_exit, out, error = run_once(code, folder)
        if not (code_of_exit and again and again in error):
            break
    assert code_of_exit == 0, error[-5000:]
    return out


def run_once(code, folder):
    script = folder / "script.py"
    script.write_text(code, encoding="utf-8")
    with short_folder() as short:
        environment = {
            **os.environ,
            "PYTHONPATH": os.fspath(Path(skanomaly.__file__).parents[1]),
            "OMP_NUM_THREADS": "1",
            "HOME": short,  # where engines leave files of their own
            "TMPDIR": short,
            "RAY_TMPDIR": short,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DEFAULT_OBJECT_STORE_MEMORY_BYTES": str(80 * 2**20),
            "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "120s",
        }
        environment.pop("PYTHONWARNINGS", None)
        process = subprocess.Popen(
            [sys.executable, os.fspath(script)],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, error = process.communicate(timeout=400)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, error


def rows_of(out):
    table = pyarrow.dataset.dataset(out).to_table().to_pylist()
    return sorted(table, key=lambda row: row["path"])


def check(rows, folder, pipe):
    """Every image once, judged as it is here."""
    paths = sorted(map(str, Path("incoming").glob("*.png")))
    assert [Path(row["path"]).name for row in rows] == [Path(path).name for path in paths]
    expected = list(iter_scores(pipe, paths, on_error="record"))
    for number, (row, result) in enumerate(zip(rows, expected, strict=True)):
        if number == DAMAGED:
            assert Path(row["path"]).name in row["error"] and not hasattr(result, "score")
        else:
            assert not row["error"] and row["decision"] == result.to_dict()["decision"]
            assert row["score"] == pytest.approx(result.score, rel=1e-6)
    assert Counter(row["decision"] for row in rows)["anomalous"] >= 6


def test_shards_and_their_table(folder, material, capsys):
    scope = {}
    for code in BLOCKS[:2]:
        exec(code, scope)
    check(rows_of("scores"), folder, material[1])
    assert "['path', 'number', 'decision', 'score'," in capsys.readouterr().out
    assert len(scope["flagged"]) >= 6 and len(scope["failed"]) == 1


@needs_posix
@pytest.mark.slow
def test_shards_on_dask(folder, material):
    pytest.importorskip("distributed")
    assert run(recipe("dask.delayed(score_files)"), folder) == f"{N_IMAGES + 6} images judged\n"
    check(rows_of("scores"), folder, material[1])


@needs_posix
@pytest.mark.slow
def test_a_search_on_dask(folder, capsys):
    pytest.importorskip("distributed")
    code = recipe('parallel_backend("dask")')
    found = run(code, folder)
    here = code.replace('joblib.parallel_backend("dask")', 'joblib.parallel_backend("threading")')
    here = re.sub(r"        LocalCluster\(.*\n        Client\(.*\n", "", here)
    assert "LocalCluster(" not in here and "threading" in here
    exec(here, {"__name__": "__main__"})
    assert found == capsys.readouterr().out and "knn__topk" in found
    assert len(list((folder / "tokens").rglob("*.safetensors"))) == 16


@needs_posix
@pytest.mark.slow
def test_training_on_dask(folder, material):
    pytest.importorskip("distributed")
    run(recipe("fit_shard(pipe"), folder)
    merged, whole = (
        load_model("merged.skan"),
        clone(material[1]).fit(sorted(Path("good").iterdir())),
    )
    paths = [path for i, path in enumerate(sorted(Path("incoming").iterdir())) if i != DAMAGED]
    np.testing.assert_allclose(
        merged.score_samples(paths), whole.score_samples(paths), rtol=1e-6, atol=1e-6
    )
    assert merged[-1].offset_ == pytest.approx(whole[-1].offset_, rel=1e-6)
    np.testing.assert_array_equal(merged.predict(paths), whole.predict(paths))


KILLED = """
import json, os, signal, sys, time
from pathlib import Path

import dask
from dask.distributed import Client, LocalCluster, WorkerPlugin

import skanomaly
from skanomaly import persistence, score_files


class CountLoads(WorkerPlugin):
    def __init__(self, file):
        self.file = file

    def setup(self, worker):
        load = persistence.load_model

        def counted(path):
            with open(self.file, "a") as file:
                file.write(f"{os.getpid()}\\n")
            return load(path)

        persistence.load_model = counted


def slowly(*args, **options):
    # Files of results come one by one, so that a kill comes between two of them.
    from skanomaly.streaming import _parts

    write = _parts.Parts.write
    if write.__name__ == "write":
        def delayed(self, part, rows):
            time.sleep(0.1)
            write(self, part, rows)
        _parts.Parts.write = delayed
    return score_files(*args, **options)


def main():
    paths = sorted(map(str, Path("incoming").glob("*.png")))
    judge = dask.delayed(slowly)
    options = {"out": "scores", "n_shards": 6, "rows_per_file": 2}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(CountLoads(os.path.abspath("loads.txt")))
        first = next(iter(client.run(os.getpid).values()))
        shards = client.compute(
            [judge("parts.skan", paths, shard=i, **options) for i in range(6)], retries=3
        )
        loads = Path("loads.txt")
        while not loads.exists() or str(first) not in loads.read_text().split():
            time.sleep(0.02)
        n_before = len(list(Path("scores").glob("*.parquet")))
        while len(list(Path("scores").glob("*.parquet"))) < n_before + 3:
            time.sleep(0.02)
        unfinished = [shard for shard in shards if not shard.done()]
        os.kill(first, signal.SIGKILL)
        summaries = client.gather(shards)
        print(json.dumps([first, len(unfinished), summaries]))


if __name__ == "__main__":
    main()
"""


@needs_posix
@pytest.mark.slow
def test_a_worker_of_dask_is_killed(folder, material):
    """Every image is there once, and each process has loaded the model once."""
    pytest.importorskip("distributed")
    victim, n_unfinished, summaries = json.loads(run(KILLED, folder))
    check(rows_of("scores"), folder, material[1])
    assert n_unfinished >= 1
    assert sum(counts["images"] for counts in summaries) == N_IMAGES + 6
    assert sum(counts["kept"] for counts in summaries) >= 1  # of the shard that was broken off
    loads = Counter((folder / "loads.txt").read_text().split())
    assert set(loads.values()) == {1} and len(loads) >= 2 and str(victim) in loads


@needs_posix
@pytest.mark.slow
def test_two_workers_of_ray(folder, material):
    pytest.importorskip("ray.data")
    code = recipe("map_batches")
    load = "self.model = load_model(model)"
    counted = f"open({os.fspath(folder / 'loads.txt')!r}, 'a').write(f'{{os.getpid()}}\\n'); {load}"
    # Ray gives its own processes 30 seconds to start, which a busy machine may exceed.
    slow_start = "timed out during startup"
    run("import os\n" + code.replace(load, counted), folder, again=slow_start)
    check(rows_of("judged"), folder, material[1])
    loads = Counter((folder / "loads.txt").read_text().split())
    assert set(loads.values()) == {1} and len(loads) == 2


@pytest.mark.parametrize("embedder", [FilterBankPatches(image_size=64), TinyPatches(image_size=64)])
def test_a_pipeline_pickles_small(embedder):
    images = make_surfaces(10, image_size=64, random_state=0).images
    pipe = make_pipeline(embedder, PatchKNNScorer())
    assert len(pickle.dumps(pipe)) < 2000
    pipe.fit(images)
    assert len(pickle.dumps(pipe[0])) < 10_000
    assert len(pickle.dumps(pipe)) < 1.5 * pipe[-1].bank_.nbytes


def test_a_fitted_pipeline_holds_no_network():
    pytest.importorskip("timm")
    images = list(make_surfaces(10, image_size=64, random_state=0).images)
    embedder = TimmPatches("resnet18", weights="random", image_size=64)
    pipe = make_pipeline(embedder, PatchKNNScorer())
    assert len(pickle.dumps(pipe)) < 2000
    pickled = pickle.dumps(pipe.fit(images))
    names = {arg for _, arg, _ in pickletools.genops(pickled) if isinstance(arg, str)}
    assert not any(name.startswith(("torch.", "timm.")) for name in names)
    assert len(pickle.dumps(pipe[0])) < 10_000
    np.testing.assert_array_equal(pickle.loads(pickled).predict(images), pipe.predict(images))
