"""The command ``skanomaly``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

import skanomaly
from skanomaly.cli import _weights
from skanomaly.cli._benchmark import benchmark
from skanomaly.cli._calibrate import calibrate
from skanomaly.cli._command import Command, examples
from skanomaly.cli._datasets import datasets
from skanomaly.cli._demo import demo
from skanomaly.cli._doctor import doctor
from skanomaly.cli._evaluate import evaluate
from skanomaly.cli._explain import explain
from skanomaly.cli._export import export
from skanomaly.cli._fit import fit
from skanomaly.cli._forget import forget
from skanomaly.cli._info import info
from skanomaly.cli._merge import merge
from skanomaly.cli._models import models
from skanomaly.cli._report import report
from skanomaly.cli._score import score
from skanomaly.cli._score_files import score_files
from skanomaly.cli._start import INTERRUPTED, check_streams, ignore_interrupts, interruptible, leave

_EVERY_DAY, _MEASURE, _SET_UP = "Every day", "Measure", "Set up"

# Each command with its place in `--help`, in the order shown, and examples for its own `--help`.
_COMMANDS: tuple[tuple[Callable[..., None], str, tuple[str, ...]], ...] = (
    (
        fit,
        _EVERY_DAY,
        (
            "skanomaly fit path/to/good -o parts.skan",
            "skanomaly fit path/to/good --model dinov2_vits14 --contamination 0.02 -o parts.skan",
            "skanomaly fit path/to/more/good --update parts.skan -o parts-2.skan",
        ),
    ),
    (
        score,
        _EVERY_DAY,
        (
            "skanomaly score parts.skan path/to/new --regions --maps heatmaps",
            "skanomaly score parts.skan path/to/new --csv scores.csv --on-error skip --resume",
            "find . -name '*.png' -print0 | skanomaly score parts.skan - -0 --fail-on-anomaly",
        ),
    ),
    (
        score_files,
        _EVERY_DAY,
        (
            "skanomaly score-files parts.skan path/to/new -o scores",
            "skanomaly score-files parts.skan path/to/new -o scores --shard 0/4",
        ),
    ),
    (
        explain,
        _EVERY_DAY,
        (
            "skanomaly explain parts.skan part.png",
            "skanomaly explain parts.skan part.png --output why.png",
        ),
    ),
    (
        calibrate,
        _EVERY_DAY,
        (
            "skanomaly calibrate parts.skan --contamination 0.02 -o strict.skan",
            "skanomaly calibrate parts.skan path/to/good/of/today --in-place",
            "skanomaly calibrate parts.skan more/good --anomalous defects --prevalence 0.01 "
            "--cost-miss 50 -o tuned.skan",
        ),
    ),
    (
        report,
        _EVERY_DAY,
        (
            "skanomaly report parts.skan path/to/new/images -o report.html",
            "skanomaly report parts.skan --data path/to/category -o report.html",
        ),
    ),
    (forget, _EVERY_DAY, ("skanomaly forget parts.skan path/to/bad.png -o parts-2.skan",)),
    (merge, _EVERY_DAY, ("skanomaly merge line-1.skan line-2.skan -o parts.skan",)),
    (info, _EVERY_DAY, ("skanomaly info parts.skan",)),
    (
        export,
        _EVERY_DAY,
        (
            "skanomaly export parts.skan path/to/good -o parts.onnx",
            "skanomaly export parts.skan path/to/good -o parts.xml",
        ),
    ),
    (
        evaluate,
        _MEASURE,
        (
            "skanomaly evaluate path/to/category --output report",
            "skanomaly evaluate --normal parts/may --test parts/june",
            "skanomaly evaluate path/to/category --model dinov2_vits14 --shots 1 2 4 --seeds 3",
        ),
    ),
    (
        benchmark,
        _MEASURE,
        ("skanomaly benchmark path/to/data --models vision_tiny dinov2_vits14 --json runs.jsonl",),
    ),
    (datasets, _MEASURE, ("skanomaly datasets path/to/data --deep",)),
    (demo, _MEASURE, ("skanomaly demo", "skanomaly demo --surface fabric --images 30")),
    (models, _SET_UP, ("skanomaly models", "skanomaly models vision_patchcore")),
    (doctor, _SET_UP, ("skanomaly doctor", "skanomaly doctor --json -")),
)


class _Program(typer.Typer):
    """The application as a program: it may be interrupted at any time."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it, and end the process."""
        try:
            with interruptible():
                check_streams()
                return super().__call__(*args, **kwargs)
        except SystemExit as exc:
            ignore_interrupts()
            if exc.code == INTERRUPTED:
                leave()
            raise
        finally:
            ignore_interrupts()


app = _Program(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for _function, _panel, _examples in _COMMANDS:
    app.command(cls=Command, rich_help_panel=_panel, epilog=examples(*_examples))(_function)
app.add_typer(_weights.app, name="weights", rich_help_panel=_SET_UP)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(skanomaly.__version__)
        raise typer.Exit


@app.callback(
    epilog="Exit codes: 0 done, 1 error, 2 wrong usage, 3 anomalies found where --fail-on-anomaly "
    "asks for it, 130 interrupted."
)
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Find defects in photographs: train on good parts, then judge new ones."""
