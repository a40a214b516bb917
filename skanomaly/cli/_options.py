"""What the commands of ``skanomaly`` share: options, their reading, and errors of one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from skanomaly.datasets import DatasetSplit

Plugin = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        help="File or module that registers scorers or embedders of your own; repeatable.",
    ),
]
Root = Annotated[Path, typer.Argument(help="Data set, one category or the folder of several.")]
Layout = Annotated[str | None, typer.Option(help="Layout of the data set; recognised by default.")]
Category = Annotated[str | None, typer.Option(help="One category of several.")]
Output = Annotated[
    Path | None, typer.Option(help="Folder for the heat maps of the test images, as PNG files.")
]
Json = Annotated[
    str | None, typer.Option("--json", help="File for the results as JSON; '-' for the terminal.")
]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """What a person did wrong ends the program with one line and a code, not a traceback."""
    try:
        yield
    except (OSError, ValueError, TypeError, ImportError, RuntimeError) as exc:
        message = " ".join(str(exc).split()) or type(exc).__name__
        print(f"error: {message}", file=sys.stderr)
        raise typer.Exit(1) from exc


def more_shots(shots: list[int] | None, extra: list[str]) -> list[int]:
    """`--shots 1 2 4`: the numbers behind the first arrive as arguments of no option."""
    if extra and not (shots and all(text.isdigit() for text in extra)):
        raise ValueError(f"unexpected arguments: {' '.join(extra)}")
    return [*(shots or []), *map(int, extra)]


def import_plugins(sources: list[str] | None) -> None:
    """Import what ``--plugin`` names, each of which registers scorers or embedders."""
    from skanomaly.registry._plugins import import_plugin

    for source in sources or ():
        import_plugin(source)


def read_splits(root: Path, layout: str | None, category: str | None) -> list[DatasetSplit]:
    """The data sets of a folder: one, or each of its categories."""
    from skanomaly.datasets import list_categories, read_dataset, sniff_layout

    if category is None and root.is_dir() and sniff_layout(root) is None:
        categories = list_categories(root)
        if categories:
            return [read_dataset(root, layout, category=name) for name in categories]
    return [read_dataset(root, layout, category=category)]
