"""The file of results: ours alone, whole, and shared by processes."""

import json
import os

import pytest

from skanomaly._output import Guard
from skanomaly._results.file import ResultsFile, row_key


def row(name, seed=0, version="1", **numbers):
    return {
        **{"model": "m", "name": name, "shots": None, "seed": seed},
        **{"data_digest": "d", "model_digest": "e"},
        **{"metrics": numbers, "parameters": {}, "versions": {"skanomaly": version}},
    }


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_are_added_and_the_last_of_a_run_counts(tmp_path):
    path = tmp_path / "r.jsonl"
    file = ResultsFile(path, Guard())
    assert not path.exists() and file.rows == {}
    rows = [row("a", auroc=1), row("b"), row("a", seed=1), row("a", version="2")]
    for i, new in enumerate(rows):
        file.add(new)
        assert read(path) == rows[: i + 1]
    file.add(row("a", auroc=2))
    assert read(path) == [*rows, row("a", auroc=2)]
    again = ResultsFile(path, Guard())
    assert again.rows[row_key(row("a"), "1")] == row("a", auroc=2) and len(again.rows) == 4
    assert row_key(row("b"), "1") in again.rows and row_key(row("b"), "3") not in again.rows


def test_processes_share_a_file(tmp_path):
    path = tmp_path / "r.jsonl"
    first, second = ResultsFile(path, Guard()), ResultsFile(path, Guard())
    for i in range(3):
        first.add(row("first", i))
        second.add(row("second", i))
    second.add(row("second", 0, auroc=1))
    first.add(row("first", 3))
    assert sorted((r["name"], r["seed"]) for r in read(path)) == [
        *(("first", i) for i in range(4)),
        *(("second", i) for i in (0, 0, 1, 2)),
    ]


@pytest.mark.parametrize("empty", [False, True])
def test_a_first_row_replaces_no_file_that_others_have_made(tmp_path, monkeypatch, empty):
    path = tmp_path / "r.jsonl"
    if empty:
        path.touch()
    files = [ResultsFile(path, Guard()) for _ in range(3)]

    def replace(*args):
        raise AssertionError("rows that came since the file was read are lost")

    monkeypatch.setattr(os, "replace", replace)
    for i, file in enumerate(files):
        file.add(row("a", i))
    assert read(path) == [row("a", i) for i in range(3)]


@pytest.mark.parametrize("text", ["", "\n", " \n\n"])
def test_an_empty_file_loses_nothing(tmp_path, text):
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    ResultsFile(path, Guard()).add(row("a"))
    assert read(path) == [row("a")]


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "[]",
        "3",
        "{",
        json.dumps({**row("a"), "versions": "1"}),
        json.dumps({key: value for key, value in row("a").items() if key != "model_digest"}),
    ],
)
def test_other_lines_are_not_ours(tmp_path, line):
    path = tmp_path / "r.jsonl"
    texts = [line, line + "\n", line + "\n" + json.dumps(row("a")) + "\n"]
    texts.append(json.dumps(row("a")) + "\n" + line + "\n")
    for text in texts:
        path.write_text(text)
        with pytest.raises(FileExistsError, match="did not write"):
            ResultsFile(path, Guard())
        assert path.read_text() == text
    file = ResultsFile(path, Guard(overwrite=True))
    assert path.read_text() == text  # as long as there is nothing in its place
    file.add(row("b"))
    assert read(path) == [row("b")]


def test_a_row_is_written_in_whole_or_not_at_all(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "r.jsonl"
    file = ResultsFile(path, Guard())
    file.add(row("a"))
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
    try:
        for new in (row("b"), row("a", x="y" * 1000)):  # appended, replaced
            with pytest.raises(OSError):
                file.add(new)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    file.add(row("b"))
    assert read(path) == [row("a"), row("b")]
