"""Rows of the fault matrix about processes that are forked or spawned."""

import functools
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _fault_models import GOOD, fitted, row_marks
from _fault_table import Table

from skanomaly import (
    LocalKNNScorer,
    PatchGaussianScorer,
    PatchKNNScorer,
    PatchSubspaceScorer,
    RetrievalKNNScorer,
)

ORDER = 10
TABLE = Table(
    "forks",
    "Processes that are forked or spawned",
    "A forked process has none of the threads of its parent. Code that waits for one of them\n"
    "waits for ever.",
)
SLOW = (pytest.mark.slow,)
TOKENS = np.random.default_rng(0).normal(size=(16, 4, 4, 24)).astype(np.float32)
SCORERS = {
    "knn": PatchKNNScorer(),
    "coreset": PatchKNNScorer(coreset=0.3, random_state=0),
    "local": LocalKNNScorer(),
    "gaussian": PatchGaussianScorer(n_components=None),
    "subspace": PatchSubspaceScorer(),
    "retrieval": RetrievalKNNScorer(3),
}


def python(code, *args, flags=(), timeout=240, **options):
    """What a new process of Python says; its threads are two, where the rest uses one."""
    two = {f"{name}_NUM_THREADS": "2" for name in ("OMP", "OPENBLAS", "MKL")}
    env = {**os.environ, **two, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, *flags, "-c", code, *map(str, args)]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=timeout, **options
    )


# ---------------------------------------------------------------- forks

IN_CHILD = """
import os, signal, sys, warnings
import numpy as np

def in_child(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # what hangs is killed
        try:
            os._exit(0 if work() else 3)
        finally:
            os._exit(4)
    _, status = os.waitpid(pid, 0)
    assert os.WIFEXITED(status), f"the child was ended by signal {os.WTERMSIG(status)}"
    assert os.WEXITSTATUS(status) == 0, os.WEXITSTATUS(status)
"""
TORCH = """
import torch
torch.set_num_threads(2)
from skanomaly import TimmPatches
images = list(np.random.default_rng(0).integers(0, 255, (4, 160, 160, 3), dtype=np.uint8))
model = TimmPatches("test_vit", weights="random", image_size=160, device="cpu")
tokens = model.transform(images)

def work():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = model.transform(images)
    told = [str(one.message) for one in caught]
    assert len(told) == 1 and "forked after torch had worked in its parent" in told[0], told
    assert torch.get_num_threads() == 1
    np.testing.assert_allclose(again, tokens, atol=1e-4)
    return np.array_equal(model.transform(images), again)

in_child(work)
"""


@TABLE.row(
    "fork-torch",
    "a process that is forked after torch has worked with two threads",
    "a `RuntimeWarning`, once, and one thread: torch would wait for threads that are gone",
    row_marks("torch", "timm"),
)
def _(here):
    done = python(IN_CHILD + TORCH)
    assert done.returncode == 0, done.stderr


@functools.cache
def fits_in_a_fork():
    """The scorers that give the same held-out scores in a forked process as in its parent."""
    code = """
import pickle
scorers, tokens = pickle.load(open(sys.argv[1], "rb"))
for name, scorer in scorers.items():
    expected = scorer.fit(tokens).train_scores_
    in_child(lambda: np.array_equal(scorer.fit(tokens).train_scores_, expected))
    print(name)
"""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "all").write_bytes(pickle.dumps((SCORERS, TOKENS)))
        done = python(IN_CHILD + code, Path(folder, "all"))
    return done.stdout.split(), done.stderr


@TABLE.row(
    "fork-{scorer}",
    "a fit in a process that is forked after a fit with two threads, of {scorer}",
    "the same scores, to the bit; no thread is waited for",
    scorer=list(SCORERS),
)
def _(here, scorer):
    done, said = fits_in_a_fork()
    assert scorer in done, said


@TABLE.row(
    "start-{method}",
    "a process that is started by {method}, as Windows and macOS do",
    "the same scores, to the bit",
    SLOW,
    method=["spawn", "forkserver"],
)
def _(here, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    code = """
import multiprocessing, pickle, sys
def work(path, queue):
    with open(path, "rb") as file:
        pipe, images = pickle.load(file)
    queue.put(pipe.score_samples(images).tolist())
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    queue = context.Queue()
    process = context.Process(target=work, args=(sys.argv[1], queue))
    process.start()
    print(queue.get(timeout=200))
    process.join()
"""
    (here / "main.py").write_text(code)
    (here / "all").write_bytes(pickle.dumps((fitted(), GOOD)))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, here / "main.py", here / "all", method]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == fitted().score_samples(GOOD).tolist()


@pytest.mark.parametrize("row", TABLE.params())
def test_row(row, tmp_path):
    row.check(tmp_path)
