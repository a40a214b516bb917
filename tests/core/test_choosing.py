"""What is measured to be fastest is taken, and remembered."""

import json
import os
import threading
import time
from itertools import chain, count, repeat

import pytest

from skanomaly.core import choosing
from skanomaly.core.choosing import (
    FILE,
    Choice,
    choices,
    choose,
    machine,
    recall,
    remember_in,
    settle,
)


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    """Function that forgets all choices, as a new process does; called before each test."""

    def forget():
        for name in ("_made", "_read", "_files"):
            memory.setattr(choosing, name, {})

    with monkeypatch.context() as memory:
        forget()
        yield forget


@pytest.fixture
def clock(monkeypatch):
    """Function from seconds to a way that takes them, by a clock that stands still otherwise."""
    now = [0.0]

    def way(seconds):
        def run():
            now[0] += seconds

        return run

    monkeypatch.setattr(choosing.time, "thread_time", lambda: now[0])
    monkeypatch.setattr(choosing.time, "perf_counter", lambda: now[0])
    return way


def not_called():
    raise AssertionError("was measured")


@pytest.mark.parametrize(
    "seconds, winner",
    [
        ((3e-3, 2e-3, 1e-3), "c"),
        ((3e-3, 1e-3, 2e-3), "b"),
        ((1e-3, 2e-3, 3e-3), "a"),
        ((1e-3, 0.95e-3, 0.91e-3), "a"),  # not clearly
        ((1e-3, 0.89e-3, 0.85e-3), "b"),  # the last not clearly faster than the one before it
        ((5.0, 3.0, 1.0), "c"),  # so slow that they are called twice each
    ],
)
def test_the_fastest_wins_if_it_is_clearly_so(clock, seconds, winner):
    ways = dict(zip("abc", map(clock, seconds), strict=True))
    assert choose("what", ways) == winner
    (choice,) = choices().values()
    assert choice.winner == winner
    assert choice.milliseconds == pytest.approx(
        {name: 1e3 * s for name, s in zip("abc", seconds, strict=True)}
    )


def test_the_first_call_does_not_count(clock):
    turns = chain([0.02], repeat(1e-3))
    slow_at_first = {"a": clock(2e-3), "b": lambda: clock(next(turns))()}
    assert choose("what", slow_at_first) == "b"
    assert choices()["what"].milliseconds["b"] == pytest.approx(1.0)


def test_other_work_of_the_machine_falls_on_all_alike(clock):
    """While something else runs, everything takes three times as long."""
    n_calls = count()
    busy = {
        name: lambda seconds=seconds: clock(seconds * (3 if next(n_calls) < 4 else 1))()
        for name, seconds in (("a", 1.5e-3), ("b", 1e-3))
    }
    assert choose("what", busy) == "b"
    assert choices()["what"].milliseconds == pytest.approx({"a": 1.5, "b": 1})


def test_slow_ways_are_not_waited_for(clock):
    n_calls = []

    def slow():
        n_calls.append(0)
        clock(0.02)()

    assert choose("what", {"a": clock(1e-3), "slow": slow}) == "a"
    assert len(n_calls) == 2


def test_a_choice_stands(clock):
    assert choose("what", {"a": clock(2e-3), "b": clock(1e-3)}) == "b"
    assert choose("what", {"a": not_called, "b": not_called}) == "b"
    assert choose("something else", {"a": clock(1e-3), "b": clock(1e-3)}) == "a"


def test_threads_that_ask_at_once_get_one_answer():
    calls = []

    def slow():
        calls.append(threading.get_ident())
        time.sleep(0.001)

    answers = []
    ways = {"a": slow, "b": slow}
    threads = [
        threading.Thread(target=lambda: answers.append(choose("what", ways))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4 and len(set(answers)) == 1 and len(set(calls)) == 1


@pytest.mark.parametrize("error", [RuntimeError, AttributeError, NotImplementedError])
def test_ways_that_do_not_work_are_left_out(clock, error):
    def broken():
        raise error("not on this processor")

    assert choose("what", {"a": clock(2e-3), "broken": broken, "c": clock(1e-3)}) == "c"
    assert set(choices()["what"].milliseconds) == {"a", "c"}
    assert choose("without the first", {"broken": broken, "a": clock(1e-3)}) == "a"
    with pytest.raises(error, match="not on this"):
        choose("without any", {"broken": broken})
    assert "without any" not in choices()


def test_other_errors_are_not_hidden(clock):
    with pytest.raises(ZeroDivisionError):
        choose("what", {"a": clock(1e-3), "b": lambda: 1 / 0})


def test_one_thread_is_timed_and_the_others_are_back_after_it():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        seen = []
        choose("what", {"a": lambda: seen.append(torch.get_num_threads())})
        assert set(seen) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_who_measures_otherwise_has_its_choice_remembered_too():
    assert recall("what", ["a", "b"]) is None
    assert settle("what", Choice("b", {"b": 2.0})) == "b"
    assert recall("what", ["a", "b"]) == "b"
    assert recall("what", ["a"]) is None
    assert choose("what", {"a": not_called, "b": not_called}) == "b"


def test_what_a_processor_may_not_use_makes_it_another_one(monkeypatch):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    machine.cache_clear()
    before = machine()
    try:
        monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
        assert machine() == before  # looked at once a process, as the libraries do
        machine.cache_clear()
        assert machine() != before and "OPENBLAS_CORETYPE=Nehalem" in machine()
    finally:
        machine.cache_clear()


# Folders


def test_a_folder_remembers(clock, forgetful, tmp_path):
    remember_in(tmp_path)
    assert choose("what", {"a": clock(2e-3), "b": clock(1e-3)}) == "b"
    kept = json.loads((tmp_path / FILE).read_text())
    assert kept == {"version": 1, "machines": {machine(): {"what": "b"}}}
    forgetful()
    remember_in(os.path.relpath(tmp_path))
    assert choose("what", {"a": not_called, "b": not_called}) == "b"
    assert choices() == {"what": Choice("b", {})}
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_several_folders_remember_what_is_chosen_later(clock, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        remember_in(tmp_path / name)
    remember_in(tmp_path / "gone")
    choose("what", {"a": clock(1e-3)})
    for name in ("one", "two"):
        assert machine() in json.loads((tmp_path / name / FILE).read_text())["machines"]
    assert not (tmp_path / "gone").exists()


def test_without_a_folder_nothing_is_written(clock, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    remember_in(None)
    choose("what", {"a": clock(1e-3)})
    assert not list(tmp_path.iterdir())


def test_what_was_chosen_before_the_folder_was_known_is_kept_there(clock, tmp_path):
    choose("what", {"a": clock(2e-3), "b": clock(1e-3)})
    remember_in(tmp_path)
    assert json.loads((tmp_path / FILE).read_text())["machines"] == {machine(): {"what": "b"}}


def test_a_choice_of_this_process_stands_against_the_folder_and_the_folder_against_it(
    clock, forgetful, tmp_path
):
    """So that neither a running process nor those that share a folder change their minds."""
    remember_in(tmp_path)
    choose("what", {"a": clock(2e-3), "b": clock(1e-3)})
    forgetful()
    ways = {"a": clock(1e-3), "b": clock(2e-3)}
    assert choose("what", ways) == "a"
    remember_in(tmp_path)
    assert choose("what", ways) == "a"
    choose("new", ways)
    assert json.loads((tmp_path / FILE).read_text())["machines"] == {
        machine(): {"what": "b", "new": "a"}
    }


def test_other_machines_are_passed_over_and_kept(clock, tmp_path):
    others = {"a Zen 4, torch 2.0": {"what": "b"}}
    (tmp_path / FILE).write_text(json.dumps({"version": 1, "machines": others}))
    remember_in(tmp_path)
    assert choose("what", {"a": clock(1e-3), "b": clock(2e-3)}) == "a"
    machines = json.loads((tmp_path / FILE).read_text())["machines"]
    assert machines == {**others, machine(): {"what": "a"}}


@pytest.mark.parametrize(
    "contents",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        '"what"',
        '{"version": 2, "machines": {"MACHINE": {"what": "b"}}}',
        '{"version": 1}',
        '{"version": 1, "machines": 5}',
        '{"version": 1, "machines": {"MACHINE": ["b"]}}',
        '{"version": 1, "machines": {"MACHINE": {"what": 5}}}',
        '{"version": 1, "machines": {"MACHINE": {"what": "unheard of"}}}',
        '{"version": 1, "machines": {"MACHINE": {"what": "b"}}}' + " " * 2**20,
        b"\xff\xfe",
    ],
    ids=lambda contents: repr(contents[:50]),
)
def test_a_damaged_file_counts_as_missing(clock, tmp_path, contents):
    if isinstance(contents, str):
        contents = contents.replace("MACHINE", machine()).encode()
    (tmp_path / FILE).write_bytes(contents)
    remember_in(tmp_path)
    assert choose("what", {"a": clock(1e-3), "b": clock(2e-3)}) == "a"


def test_a_folder_that_cannot_be_written_to_is_no_error(clock, tmp_path):
    (tmp_path / "file").write_text("in the way")
    remember_in(tmp_path / "file")
    assert choose("what", {"a": clock(1e-3)}) == "a"
    assert (tmp_path / "file").read_text() == "in the way"
