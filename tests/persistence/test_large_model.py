"""A large model is loaded without its bank being read into memory."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

LOADED = """
import sys
from pathlib import Path
from benchmarks.model_files import make_tokens
from benchmarks.streaming import resident
from skanomaly import load_model
import skanomaly.scorers

before = resident("VmRSS")
scorer = load_model(sys.argv[1])
print(resident("VmRSS") - before)
print(scorer.score_samples(make_tokens(1, seed=1)).tobytes().hex())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_bank_stays_in_the_file(tmp_path):
    from benchmarks.model_files import make_scorer, make_tokens
    from skanomaly import save_model

    path = tmp_path / "model.skan"
    scorer = make_scorer(200)
    expected = scorer.score_samples(make_tokens(1, seed=1)).tobytes().hex()
    save_model(scorer, path)
    assert path.stat().st_size > 300e6
    del scorer
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", LOADED, path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    grown, scores = done.stdout.split("\n")[:2]
    assert scores == expected
    assert float(grown) < 60, f"{grown} MiB more in memory, of a file of 334 MB"
