"""Rows of the fault matrix about workers, interruptions, pipes and memory."""

import functools
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings

import pytest
from _fault_models import GOOD, embedder, fitted, saved
from _fault_table import Table
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skanomaly import (
    PatchKNNScorer,
    iter_scores,
    save_model,
)

ORDER = 11
TABLE = Table(
    "processes",
    "Workers, interruptions, pipes and memory",
    "A program that waits for ever is worse than an error: nothing here may hang.",
)
SLOW = (pytest.mark.slow,)
# ---------------------------------------------------------------- workers of joblib


@TABLE.row(
    "worker-warning",
    "joblib warns that a worker stopped, where warnings are errors (`-W error`)",
    "it stays a warning: as an error it would end joblib's thread, and `n_jobs=2` would never end",
)
def _(here):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # As joblib pickles what it hands to its workers.
        thread = threading.Thread(target=pickle.dumps, args=[fitted()], name="QueueFeederThread")
        thread.start()
        thread.join()
        with pytest.raises(UserWarning, match="another"):
            warnings.warn("another", UserWarning, stacklevel=1)
        with pytest.warns(UserWarning, match="A worker stopped"):
            warnings.filterwarnings("always", "A worker stopped while some jobs were given")
            warnings.warn("A worker stopped while some jobs were given", stacklevel=1)


SEARCH = """
import os, sys, time
import numpy as np
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from skanomaly import FunctionPatches, PatchKNNScorer
from skanomaly.model_selection import OneClassSplit

kept = []
def mean_colours(image):
    return image[:16, :16].reshape(2, 8, 2, 8, 3).mean(axis=(1, 3))

def slowly(image):
    import builtins
    vars(builtins).setdefault("kept", [])
    if {trouble!r} == "memory":  # what joblib takes for a leak: it replaces the worker
        time.sleep(0.05)
        builtins.kept.append(np.ones(4_000_000))
    elif {trouble!r} == "death":
        os._exit(9)
    elif {trouble!r} == "error" and image.max() < 99:
        raise ValueError("the darkest image")
    return mean_colours(image)

images = list(np.random.default_rng(0).integers(100, 255, (12, 16, 16, 3), dtype=np.uint8))
images[4] //= 3
y = np.array([1] * 9 + [-1] * 3)
pipe = make_pipeline(FunctionPatches(slowly), PatchKNNScorer())
grid = {{"patchknnscorer__n_neighbors": [1, 2, 3]}}
search = GridSearchCV(
    pipe, grid, cv=OneClassSplit(3), scoring="roc_auc", n_jobs=2, error_score="raise"
)
search.fit(images, y)
print(search.best_score_)
"""


@TABLE.row(
    "search-{trouble}",
    "`GridSearchCV(n_jobs=2)` under `-W error`, {trouble}",
    "the result, or the error of the worker; the search does not hang",
    SLOW,
    trouble={
        "none": "of a small model",
        "memory": "whose workers grow by more than 300 MB",
        "death": "whose worker dies",
        "error": "whose worker cannot read an image",
    },
)
def _(here, trouble):
    (here / "main.py").write_text(SEARCH.format(trouble=trouble))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "error", here / "main.py"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    if trouble in ("none", "memory"):
        assert done.returncode == 0 and 0 <= float(done.stdout) <= 1, done.stderr
    else:
        assert done.returncode == 1
        said = "TerminatedWorkerError" if trouble == "death" else "the darkest image"
        assert said in done.stderr


@TABLE.row(
    "pickle-between",
    "a fitted pipeline that is pickled to another process",
    "a pickle of a few kB beside its bank, and the same scores",
)
def _(here):
    data = pickle.dumps(clone(fitted()[0]))
    assert len(data) < 10_000
    again = pickle.loads(pickle.dumps(fitted()))
    assert again.score_samples(GOOD).tolist() == fitted().score_samples(GOOD).tolist()


# ---------------------------------------------------------------- interruptions, pipes, memory


@functools.cache
def command_env():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def score_command(here, *args):
    save_model(fitted(), here / "model.skan")
    (here / "images").mkdir()
    for number, image in enumerate(GOOD * 2):
        saved(here / "images", image, f"{number:02d}.png")
    return [sys.executable, "-m", "skanomaly.cli", "score", "model.skan", *args]


@TABLE.row(
    "ctrl-c",
    "Ctrl-C while `skanomaly score` waits for names of images",
    "exit code 130, without a traceback; the records that were had are whole",
)
def _(here):
    command = score_command(here, "-", "--jsonl", "found.jsonl", "--batch-size", "1")
    with subprocess.Popen(
        command,
        cwd=here,
        env=command_env(),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        for number in range(9):
            process.stdin.write(f"images/{number:02d}.png\n".encode())
        process.stdin.flush()
        found = here / "found.jsonl"
        for _ in range(1200):
            if found.exists() and found.read_bytes().count(b"\n") >= 1:
                break
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
            break
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and b"Traceback" not in said, said
    records = [json.loads(line) for line in found.read_text().splitlines()]
    assert records and records[0]["path"] == "images/00.png"


@TABLE.row(
    "closed-pipe",
    "`skanomaly score ... | head -1`",
    "no traceback, and no message of Python about its standard output",
)
def _(here):
    command = score_command(here, "images", "--jsonl", "-", "--batch-size", "1")
    with subprocess.Popen(
        command, cwd=here, env=command_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert json.loads(process.stdout.readline())["path"].endswith("00.png")
        process.stdout.close()
        said = process.stderr.read()
    assert b"Traceback" not in said and b"BrokenPipe" not in said, said


@TABLE.row(
    "generator-closed",
    "`iter_scores` that is left after the first image",
    "its threads end with it",
)
def _(here):
    before = threading.active_count()
    judged = iter_scores(fitted(), GOOD * 3, batch_size=2)
    next(judged)
    judged.close()
    assert threading.active_count() <= before


@TABLE.row(
    "memory-{kind}",
    "{kind} is out of memory, by a stand-in, with `on_error='record'`",
    "the error itself: it is no fault of an image, and no image is left out for it",
    kind={"cpu": "the computer", "cuda": "a GPU"},
)
def _(here, kind):
    if kind == "cuda":
        torch = pytest.importorskip("torch")
        error = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    else:
        error = MemoryError("Unable to allocate 2 GiB")

    def fail(self, images):
        raise error

    model = make_pipeline(embedder(), PatchKNNScorer()).fit(GOOD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model[0]), "_embed_batch", fail)
        with pytest.raises(type(error), match="allocate 2 GiB"):
            list(iter_scores(model, GOOD, on_error="record"))
    assert len(list(iter_scores(model, GOOD, on_error="record"))) == len(GOOD)


@TABLE.row(
    "threads",
    "four threads that score with one fitted pipeline at once",
    "each has the scores of one alone, to the bit",
)
def _(here):
    found = []

    def score():
        found.append(fitted().score_samples(GOOD))

    work = [threading.Thread(target=score) for _ in range(4)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert [scores.tolist() for scores in found] == [fitted().score_samples(GOOD).tolist()] * 4


@pytest.mark.parametrize("row", TABLE.params())
def test_row(row, tmp_path):
    row.check(tmp_path)
