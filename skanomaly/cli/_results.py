"""What ``evaluate`` and ``demo`` show and write."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_SHOWN_OF_FEW_SHOTS = ("image_auroc", "image_f1_max", "pixel_auroc", "aupro_0.3")


def evaluate_splits(detector: Any, splits: Any, output: Path | None, json_file: str | None) -> None:
    """Evaluate a detector on each data set, and show and write the results as they are had."""
    from skanomaly.evaluation import evaluate_split
    from skanomaly.report._folder import HeatMapFolder

    # Better said before the work than after it.
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    if json_file not in (None, "-"):
        with open(json_file, "a", encoding="utf-8"):
            pass
    lines = []
    for split in splits:
        folder = None
        if output is not None:
            folder = output if len(splits) == 1 else output / split.name
            folder.mkdir(exist_ok=True)
        with nullcontext() if folder is None else HeatMapFolder(split.test, folder) as write:
            result = evaluate_split(detector, split, on_map=write)
        lines.append(json.dumps(result.to_dict()) + "\n")
        if json_file == "-":
            print(lines[-1], end="")
        else:
            _print_result(result)
        if folder is not None:
            print(f"{len(split.test)} heat maps and scores.csv in {folder}", file=sys.stderr)
    if json_file not in (None, "-"):
        Path(json_file).write_text("".join(lines), encoding="utf-8")


def evaluate_few_shots(
    name: str, detector: Any, splits: Any, shots: list[int], seeds: int, json_file: str | None
) -> None:
    """Evaluate a detector after training on few images, and show means and deviations."""
    from skanomaly.benchmarking import benchmark, summarize

    path = None if json_file == "-" else json_file
    rows = benchmark({name: detector}, splits, shots=shots, seeds=seeds, path=path)
    if json_file == "-":
        for row in rows:
            print(json.dumps(row))
        return
    titles = (name.replace("_", " ") for name in _SHOWN_OF_FEW_SHOTS)
    table = Table("data set", "shots", "seeds", *titles)
    for line in summarize(rows):
        cells = []
        for name in _SHOWN_OF_FEW_SHOTS:
            mean, std = line["mean"].get(name), line["std"].get(name)
            text = "-" if mean is None else f"{mean:.4f}"
            cells.append(text if std is None else f"{text} ± {std:.4f}")
        table.add_row(line["name"], str(line["shots"]), str(line["n_seeds"]), *cells)
    Console().print(table)


def _print_result(result):
    table = Table(title=result.name, title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    for name, value in result.rows():
        table.add_row(name, value)
    Console().print(table)
