"""What ``evaluate`` and ``demo`` show and write."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from skanomaly._output import Guard, unique_names
from skanomaly.cli._options import shown

if TYPE_CHECKING:
    from skanomaly._results.file import ResultsFile
    from skanomaly.datasets import DatasetSplit

_SHOWN_OF_TABLES = ("image_auroc", "image_f1_max", "pixel_auroc", "aupro_0.3")


def evaluate_splits(
    name: str,
    detector: Any,
    splits: Sequence[DatasetSplit],
    output: Path | None,
    json_file: str | None,
    guard: Guard,
    report: Path | None = None,
) -> None:
    """Evaluate a detector on each data set, and show and write the results as they are had.

    Parameters
    ----------
    name : str
        Of the model.
    detector : estimator
        Not fitted.
    splits : sequence of DatasetSplit
        Their names differ.
    output : Path or None
        Folder for the heat maps; with several data sets, each has a folder in it.
    json_file : str or None
        File of results; "-" is the terminal.
    guard : Guard
        What must not be written over.
    report : Path or None, default=None
        File of the inspection report, of a single data set.
    """
    from skanomaly._recipes import fingerprint_of
    from skanomaly._results.digests import data_digest, file_digests
    from skanomaly.evaluation import check_n_train, check_split, evaluate_checked
    from skanomaly.report._folder import HeatMapFolder
    from skanomaly.report._html import check_report_file, save_report

    # Better said before the work than after it.
    for split in splits:
        check_n_train(detector, split.train, split.name)
    folders: list[HeatMapFolder | None] = [None] * len(splits)
    if output is not None:
        names = unique_names([split.name for split in splits]) if len(splits) > 1 else [""]
        folders = [
            HeatMapFolder(split.test, output / folder, guard)
            for split, folder in zip(splits, names, strict=True)
        ]
    results = open_results(json_file, guard, filter(None, folders))
    page = None if report is None else check_report_file(report, guard)
    for split in splits:
        check_split(split)
    model_digest = None if json_file is None else fingerprint_of(detector)
    for split, folder in zip(splits, folders, strict=True):
        run = {"model": name, "shots": None, "seed": 0}
        if json_file is not None:
            run["data_digest"] = data_digest(split, file_digests([split]))
            run["model_digest"] = model_digest

        def keep(result, run=run):
            row = {**run, **result.to_dict()}
            if results is not None:
                results.add(row)
            if json_file == "-":
                print(json.dumps(row), flush=True)
            else:
                _print_result(result)

        with folder or nullcontext() as write:
            result = evaluate_checked(detector, split, on_result=keep, on_map=write)
        if folder is not None:
            print(
                f"{folder.n_written} heat maps and scores.csv in {folder.folder}", file=sys.stderr
            )
        if page is not None:
            save_report(result, page, command=shlex.join(["skanomaly", *sys.argv[1:]]))
            print(f"inspection report in {report}", file=sys.stderr)


def open_results(json_file: str | None, guard: Guard, folders: Iterable[Any]) -> ResultsFile | None:
    """The file of results, checked before the work; None where there is none."""
    if json_file in (None, "-"):
        return None
    from skanomaly._results.file import ResultsFile

    real = os.path.realpath(json_file)
    for folder in folders:
        if real in map(os.path.realpath, (*folder.targets, folder.table)):
            raise ValueError(f"--json {json_file} is a file that --output will write; name another")
        if real in map(os.path.realpath, (folder.folder, *(t.parent for t in folder.targets))):
            raise ValueError(f"--json {json_file} is a folder that --output will make")
    return ResultsFile(json_file, guard)


def evaluate_table(
    models: Mapping[str, Any],
    splits: Sequence[DatasetSplit],
    shots: Sequence[int | None],
    seeds: int,
    json_file: str | None,
    guard: Guard,
) -> None:
    """Evaluate models on each data set, for numbers of images, and show means and deviations.

    Parameters
    ----------
    models : mapping of str to estimator
        By name; not fitted.
    splits : sequence of DatasetSplit
        Their names differ.
    shots : sequence of int or None
        Training images to take; None takes all of them.
    seeds : int
        Choices of images for each number.
    json_file : str or None
        File of results; "-" is the terminal.
    guard : Guard
        What must not be written over.
    """
    from skanomaly.benchmarking import each_run

    results = open_results(json_file, guard, ())
    rows = []
    try:
        for row in each_run(models, splits, shots=shots, seeds=seeds, results=results):
            rows.append(row)
            if json_file == "-":
                print(json.dumps(row), flush=True)
    finally:  # what was had is shown, though a later run failed
        if rows and json_file != "-":
            _print_table(rows)


def _print_table(rows):
    from skanomaly.benchmarking import summarize

    lines = summarize(rows)
    known = {
        "model": [line["model"] for line in lines],
        "data set": [line["name"] for line in lines],
        "shots": ["all" if line["shots"] is None else str(line["shots"]) for line in lines],
        "seeds": [str(line["n_seeds"]) for line in lines],
    }
    # A column tells something where its cells differ; what is measured on always does.
    columns = [name for name in known if name == "data set" or set(known[name]) > {known[name][0]}]
    table = Table(*columns, *(name.replace("_", " ") for name in _SHOWN_OF_TABLES))
    for i, line in enumerate(lines):
        cells = []
        for name in _SHOWN_OF_TABLES:
            mean, std = line["mean"].get(name), line["std"].get(name)
            text = "-" if mean is None else f"{mean:.4f}"
            cells.append(text if std is None else f"{text} ± {std:.4f}")
        table.add_row(*(shown(known[name][i]) for name in columns), *cells)
    Console().print(table)


def _print_result(result):
    table = Table(title=shown(result.name), title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    for name, value in result.rows():
        table.add_row(shown(name), value)
    Console().print(table)
