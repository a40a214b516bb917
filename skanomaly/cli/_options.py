"""What the commands of ``skanomaly`` share: options, their reading, and errors of one line."""

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Option(
        help="A name of `skanomaly models`; or a backbone: 'filterbank' (no download), "
        "dinov2_vits14, dinov3_vits16 and kin, ViT-B-16/openai and kin, or any name of timm"
    ),
]
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
def one_line_errors():
    """What a person did wrong ends the program with one line and a code, not a traceback."""
    try:
        yield
    except (OSError, ValueError, TypeError, ImportError, RuntimeError) as exc:
        message = " ".join(str(exc).split()) or type(exc).__name__
        print(f"error: {message}", file=sys.stderr)
        raise typer.Exit(1) from exc


def parse_layers(text):
    """Numbers of layers, from text such as ``"5,8"``; None stays None."""
    if text is None:
        return None
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"--layers must be numbers such as '7' or '5,8', got {text!r}") from None


def share_or_number(option, text):
    """A float of text with a point, an int of text without; None stays None."""
    if text is None:
        return None
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise ValueError(f"{option} must be a share or a number, got {text!r}") from None


def more_shots(shots, extra):
    """`--shots 1 2 4`: the numbers behind the first arrive as arguments of no option."""
    if extra and not (shots and all(text.isdigit() for text in extra)):
        raise ValueError(f"unexpected arguments: {' '.join(extra)}")
    return [*(shots or []), *map(int, extra)]


def read_splits(root, layout, category):
    """The data sets of a folder: one, or each of its categories."""
    from skanomaly.datasets import list_categories, read_dataset, sniff_layout

    if category is None and root.is_dir() and sniff_layout(root) is None:
        categories = list_categories(root)
        if categories:
            return [read_dataset(root, layout, category=name) for name in categories]
    return [read_dataset(root, layout, category=category)]
