"""What the commands of ``skanomaly`` share: options, their reading, and plain errors."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from PIL import Image
from rich.text import Text

if TYPE_CHECKING:
    from skanomaly.datasets import DatasetSplit


def home(value: Any) -> Any:
    """A path, or a list of them, from the home folder: shells leave a ``~`` behind ``=`` to us."""
    if isinstance(value, list):
        return [home(item) for item in value]
    expanded = os.path.expanduser(value) if str(value).startswith("~") else value
    return type(value)(expanded) if isinstance(value, Path) else expanded


Plugin = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        callback=lambda values: home(values or []),  # typer 0.16 cannot take None from it
        help="File or module that registers scorers or embedders of your own; repeatable.",
    ),
]
Root = Annotated[
    Path,
    typer.Argument(callback=home, help="Data set, one category or the folder of several."),
]
Layout = Annotated[str | None, typer.Option(help="Layout of the data set; recognised by default.")]
Category = Annotated[str | None, typer.Option(help="One category of several.")]
Output = Annotated[
    Path | None,
    typer.Option(
        callback=home,
        help="Folder for the heat maps of the test images, as PNG files, and scores.csv; those of "
        "an earlier run are replaced.",
    ),
]
Json = Annotated[
    str | None,
    typer.Option(
        "--json",
        callback=home,
        help="File for the results, one JSON line each; '-' for the terminal. Earlier results in "
        "it are kept; of the same model, images and version the last row counts.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Write over files of others where --output or --json would; never over images, masks "
        "and what else is read.",
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Take images of up to so many pixels; without it, Pillow's limit."
    ),
]


@contextmanager
def plain_errors(max_pixels: int | None = None) -> Iterator[None]:
    """What a person did wrong ends the program with a message and a code, not a traceback.

    Warnings are shown as their text alone.

    Parameters
    ----------
    max_pixels : int or None, default=None
        Images of up to so many pixels are taken for the time; None leaves Pillow's limit.
    """
    # Names that the terminal cannot show are shown by their codes, not an error after the work.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    limit = Image.MAX_IMAGE_PIXELS
    if max_pixels is not None:
        Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _print_warning
            yield
        sys.stdout.flush()
    except KeyboardInterrupt as exc:
        print("interrupted; what was written until now is kept", file=sys.stderr)
        raise typer.Exit(130) from exc
    except BrokenPipeError as exc:  # such as of `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from exc
    except (OSError, ValueError, TypeError, ImportError, RuntimeError) as exc:
        print(f"error: {_printable_lines(exc) or type(exc).__name__}", file=sys.stderr)
        raise typer.Exit(1) from exc
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _printable_lines(message: object) -> str:
    lines = [line.expandtabs(4).rstrip() for line in str(message).splitlines() if line.strip()]
    return "\n".join(map(printable, lines))


def _print_warning(message: object, *_where: object, **_options: object) -> None:
    """A warning as a person at a terminal wants it: the line of code tells them nothing."""
    print(f"warning: {_printable_lines(message)}", file=sys.stderr)


def printable(text: str) -> str:
    """A stranger's name without what steers a terminal, or cannot be shown by it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown(text: str) -> Text:
    """A stranger's name for a table, which takes no part of it for markup."""
    return Text(printable(text))


def more_shots(shots: list[int] | None, root: Path, context: typer.Context) -> list[int]:
    """`--shots 1 2 4`: the numbers behind the first arrive as arguments of no option."""
    extra = context.args
    # An option that there is not takes the place of the data set where it stands before it.
    for text in extra if root.exists() else [str(root), *extra]:
        if text.startswith("-"):
            raise ValueError(_no_option(text, context))
    if extra and not (shots and all(text.isdigit() for text in extra)):
        raise ValueError(f"unexpected arguments: {' '.join(extra)}")
    return [*(shots or []), *map(int, extra)]


def _no_option(text, context):
    """What to say of an option that there is not."""
    option, _, value = text.partition("=")
    known = [name for parameter in context.command.params for name in parameter.opts]
    close = get_close_matches(option, known, n=1, cutoff=0.8)
    if close:
        return f"there is no option {option}; did you mean {close[0]}?"
    name = option.lstrip("-").replace("-", "_")
    return (
        f"there is no option {option}; a parameter of the model is given as --set "
        f"{name}={value or 'VALUE'} (`skanomaly models NAME` lists those of a model)"
    )


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
