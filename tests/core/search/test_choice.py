"""Which search is taken is measured; what it finds is not a matter of that."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_brute_force import METRICS, assert_nearest, oracle
from test_certified import SHAPES, assert_same, shaped

from skanomaly.core import choosing
from skanomaly.core.choosing import FILE, choices, remember_in
from skanomaly.core.search import choice, index
from skanomaly.core.search.brute_force import prepare_bank
from skanomaly.core.search.choice import Situation, fastest
from skanomaly.core.search.index import PatchIndex
from skanomaly.core.search.tuning import Tuning

ALL = ["brute", "certified", "wide"]
quick = settings(max_examples=25, deadline=None, derandomize=True)


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    monkeypatch.setattr(choosing, "_made", {})


@pytest.fixture(autouse=True)
def no_cuda(monkeypatch):
    monkeypatch.setattr(index, "_has_cuda", lambda: False)


@pytest.fixture
def clock(monkeypatch):
    """Searches of set durations, and which were called with how many queries."""
    now, calls = [0.0], []
    monkeypatch.setattr(choice.time, "perf_counter", lambda: now[0])

    def takes(name, seconds):
        def function(queries):
            calls.append((name, len(queries)))
            now[0] += seconds.pop(0) if len(queries) > 1 else 100

        return function

    return takes, calls


def test_the_faster_one_is_taken_and_remembered(clock):
    takes, calls = clock
    situation, queries = Situation(13, 2, 384, 1, 1), np.arange(9)
    trials = {"a": takes("a", [2.0, 1.0]), "b": takes("b", [1.5, 1.4])}
    assert fastest(situation, trials, queries) == "a"  # by its better round
    assert calls == [("a", 1), ("b", 1), ("a", 9), ("b", 9), ("a", 9), ("b", 9)]
    assert fastest(situation, trials, queries) == "a"
    assert len(calls) == 6
    (found,) = choices().values()
    assert found.winner == "a" and found.milliseconds == pytest.approx({"a": 1000, "b": 1400})
    assert list(choices()) == [situation.question]


def test_one_round_is_enough_where_it_is_clear(clock):
    takes, calls = clock
    trials = {"a": takes("a", [2.0]), "b": takes("b", [1.0]), "c": takes("c", [1.8])}
    assert fastest(Situation(13, 2, 384, 1, 1), trials, np.arange(5)) == "b"
    assert len(calls) == 6


def test_what_is_remembered_is_of_one_situation():
    other = {"rows": 14, "queries": 1, "dim": 385, "n_neighbors": 2, "kind": ("grouped",)}
    situation = Situation(13, 2, 384, 1, 1)
    questions = {situation._replace(**{name: value}).question for name, value in other.items()}
    assert len(questions | {situation.question}) == len(other) + 1


def test_a_folder_remembers(monkeypatch, clock, tmp_path):
    """That of the tokens: another process makes no trial."""
    takes, _ = clock
    situation, queries = Situation(13, 2, 384, 1, 1), np.arange(5)
    remember_in(tmp_path)
    fastest(situation, {"a": takes("a", [2.0]), "b": takes("b", [1.0])}, queries)
    assert "search of" in (tmp_path / FILE).read_text()
    for name in ("_made", "_read", "_files"):
        monkeypatch.setattr(choosing, name, {})
    remember_in(tmp_path)
    assert fastest(situation, {"a": None, "b": None}, queries) == "b"


def auto(bank, metric, taken, monkeypatch):
    """An index by which this search was found the fastest one."""
    monkeypatch.setattr(index, "fastest_dtype", lambda: "bfloat16")
    monkeypatch.setattr(index, "fastest", lambda situation, searches, queries: taken)
    return PatchIndex(bank.copy(), metric, "auto", tuning=Tuning(small_bank=1))


@pytest.mark.parametrize("metric", METRICS)
@given(
    kind=st.sampled_from(sorted(SHAPES)),
    n_queries=st.integers(1, 20),
    n_bank=st.integers(4, 300),
    dim=st.sampled_from([1, 2, 5, 64]),
    k=st.integers(1, 4),
    grouped=st.booleans(),
    seed=st.integers(0, 1000),
)
@quick
def test_each_finds_the_same_to_the_bit(metric, kind, n_queries, n_bank, dim, k, grouped, seed):
    pytest.importorskip("torch")
    queries, bank = shaped(kind, n_queries, n_bank, dim, np.float32, seed)
    exact = oracle(queries, bank, metric)
    queries, bank = prepare_bank(queries, metric), prepare_bank(bank, metric)
    groups = (None, None)
    if grouped:
        groups = np.arange(n_queries) % 4 - 1, np.arange(n_bank) % (n_bank // 4 + 3)
        exact[(groups[0][:, None] == groups[1]) & (groups[0] >= 0)[:, None]] = np.inf
        k = min(k, 2)
    results = []
    for taken in ALL:
        with pytest.MonkeyPatch.context() as patch:
            results.append(auto(bank, metric, taken, patch).search(queries, k, *groups))
    for result in results[1:]:
        assert_same(result, results[0])
    assert_nearest(*results[0], exact, metric, np.float32)


@pytest.mark.parametrize("name", ALL)
def test_the_index_shows_what_it_took(name, monkeypatch):
    if name == "wide":
        pytest.importorskip("torch")
    queries, bank = shaped("plain", 20, 600, 16, np.float32)
    queries, bank = prepare_bank(queries, "cosine"), prepare_bank(bank, "cosine")
    found = auto(bank, "cosine", name, monkeypatch)
    assert found.chosen is None
    expected = found.search(queries)
    assert found.chosen == name
    again = pickle.loads(pickle.dumps(found))
    assert again.chosen is None  # that is a matter of the machine
    assert_same(again.search(queries), expected)
    forced = PatchIndex(bank.copy(), "cosine", name)
    assert_same(forced.search(queries), expected)
    assert forced.chosen == name


def test_candidates(monkeypatch):
    """Torch is not loaded for a small bank; bfloat16 is used only where it is fast and right."""
    bank = prepare_bank(shaped("plain", 1, 300, 8, np.float32)[1], "cosine")
    queries = bank[:5]

    def asked(algorithm, **sizes):
        seen = []

        def note(situation, searches, rows):
            seen.extend(searches)
            return "brute"

        monkeypatch.setattr(index, "fastest", note)
        found = PatchIndex(bank.copy(), "cosine", algorithm, tuning=Tuning(**sizes))
        found.search(queries)
        return seen or [found.chosen]

    monkeypatch.setattr(index, "fastest_dtype", lambda: "bfloat16")
    monkeypatch.setitem(sys.modules, "torch", sys)
    assert asked("auto") == ["brute", "wide"]
    assert asked("auto", small_bank=300) == ["brute", "certified", "wide"]
    assert asked("auto", small_bank=50) == ["certified", "wide"]
    monkeypatch.setattr(index, "fastest_dtype", lambda: "float32")
    assert asked("auto", small_bank=300) == ["brute", "certified"]
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(index, "fastest_dtype", None)
    assert asked("auto") == ["brute"]


def test_sums_that_are_not_of_float32_are_not_relied_on(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(index, "bfloat16_is_summed_in_float32", lambda: False)
    found = PatchIndex(np.eye(3), algorithm="wide")
    found.search(np.eye(3))
    assert found.chosen == "brute"


def test_wide_needs_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="algorithm='wide'"):
        PatchIndex(np.eye(3), algorithm="wide")


def test_what_lost_gives_its_memory_back(monkeypatch):
    pytest.importorskip("torch")
    queries, bank = shaped("plain", 20, 600, 16, np.float32)
    bank = prepare_bank(bank, "cosine")
    monkeypatch.setattr(index, "fastest_dtype", lambda: "bfloat16")

    def measured(situation, searches, rows):
        for one in searches.values():
            one(rows)
        return "certified"

    monkeypatch.setattr(index, "fastest", measured)
    found = PatchIndex(bank, tuning=Tuning(small_bank=1))
    found.search(prepare_bank(queries, "cosine"))
    assert set(found._search) == {"certified"}
    assert found._search["certified"]._wide is None


def test_what_a_measurement_left_behind_is_given_back(monkeypatch):
    """As of one that was interrupted, or of two threads that measured at once."""
    pytest.importorskip("torch")
    queries, bank = (prepare_bank(x, "cosine") for x in shaped("plain", 20, 600, 16, np.float32))
    found = auto(bank, "cosine", "certified", monkeypatch)
    found._prepared("wide")
    found.search(queries)
    assert set(found._search) == {"certified"}


def test_what_wins_for_some_queries_stays_for_them(monkeypatch):
    """Where few queries are searched for in one way and many in another, neither is made anew."""
    pytest.importorskip("torch")
    queries, bank = (prepare_bank(x, "cosine") for x in shaped("plain", 40, 600, 16, np.float32))
    monkeypatch.setattr(index, "fastest_dtype", lambda: "bfloat16")

    def by_number(situation, searches, rows):
        return "wide" if len(rows) < 20 else "certified"

    monkeypatch.setattr(index, "fastest", by_number)
    found = PatchIndex(bank, tuning=Tuning(small_bank=1))
    new = pickle.dumps(found)
    found.search(queries[:5])
    kept = found._search["wide"]
    found.search(queries)
    assert found.chosen == "certified"
    found.search(queries[:5])
    assert found.chosen == "wide" and found._search["wide"] is kept
    assert pickle.dumps(found) == new  # a file does not tell which machine searched


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
import test_search_equality as equality
for case in equality.TWO_CASES:
    for algorithm in ("brute", "certified bfloat16", "certified wide", "wide", "auto"):
        result = equality.found(algorithm, *case)
        equality.assert_nearest(result, *case)
        equality.assert_same(result, equality.reference(*case))
    print(*(x.hex() for x in equality.reference(*case)[0].sum(axis=0)))
"""


@pytest.mark.parametrize(
    "variables",
    [
        {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
        {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
        {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "OPENBLAS_CORETYPE": "Haswell"},
    ],
    ids=str,
)
def test_other_processors(variables):
    """Exact with the instructions of others, and the same to the bit as here."""
    pytest.importorskip("torch")
    script = SCRIPT.format(folder=str(Path(__file__).parent))
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    import test_search_equality as equality

    for case, line in zip(equality.TWO_CASES, result.stdout.splitlines(), strict=True):
        expected = equality.reference(*case)[0].sum(axis=0)
        assert line.split() == [x.hex() for x in expected]
