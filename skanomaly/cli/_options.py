"""What the commands of ``skanomaly`` share: options, their reading, and plain errors."""

from __future__ import annotations

import errno
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from PIL import Image
from rich.text import Text

from skanomaly.cli._typed import WrongUsage, share

if TYPE_CHECKING:
    from skanomaly.datasets import DatasetSplit

# Groups of options in `--help`.
DATA, MODEL, TRAINING, OUTPUT, LIMITS = "Data", "Model", "Training", "Output", "Limits"


def home(value: Any) -> Any:
    """A path, or a list of them, from the home folder: shells leave a ``~`` behind ``=`` to us."""
    if isinstance(value, list):
        return [home(item) for item in value]
    expanded = os.path.expanduser(value) if str(value).startswith("~") else value
    return type(value)(expanded) if isinstance(value, Path) else expanded


def known_models(incomplete: str) -> list[str]:
    """Names of models that begin so, for the shell."""
    from skanomaly.registry import list_models

    return [name for name in list_models() if name.startswith(incomplete)]


def known_scorers(incomplete: str) -> list[str]:
    """Names of scorers that begin so, for the shell."""
    from skanomaly.registry import list_scorers

    return [name for name in ("auto", *list_scorers()) if name.startswith(incomplete)]


# Data

Root = Annotated[
    Path,
    typer.Argument(
        metavar="ROOT",
        callback=home,
        show_default=False,
        help="Folder of a data set, of one of its categories or of several; or a manifest.",
    ),
]
Layout = Annotated[
    str | None,
    typer.Option(
        show_default=False,
        metavar="NAME",
        rich_help_panel=DATA,
        help="Read the folder as this layout, such as mvtec, visa or folder; without it, the "
        "layout is recognised.",
    ),
]
Category = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", rich_help_panel=DATA, help="Take this one of the categories that are there."
    ),
]

# Model

ModelFile = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        callback=home,
        show_default=False,
        help="File of a trained model, from `skanomaly fit`.",
    ),
]
DEFAULT_MODEL = "filterbank+tiny"  # needs no torch, no extra and no network
MODEL_HELP = (
    "Take this model: a name of `skanomaly models`; or a backbone, such as dinov2_vits14 (or "
    "another of DinoV2Patches), ViT-B-16/openai (or another of open_clip), or any name of timm; "
    "or several of these, joined by +."
)
ModelName = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="NAME",
        rich_help_panel=MODEL,
        autocompletion=known_models,
        help=MODEL_HELP,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        show_default=False,
        metavar="FILE",
        callback=home,
        rich_help_panel=MODEL,
        help="Load the model's weights from this file, or the checkpoint of a model of anomalib; "
        "without it, pretrained weights are downloaded.",
    ),
]
Scorer = Annotated[
    str | None,
    typer.Option(
        show_default=False,
        metavar="NAME",
        rich_help_panel=MODEL,
        autocompletion=known_scorers,
        help="Use this scorer in place of the model's own: one that `skanomaly models` lists, or "
        "auto, the one that goes with the embedder, which a backbone has.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        show_default=False,
        metavar="NAME=VALUE",
        rich_help_panel=MODEL,
        help="Set any other parameter of the model, by its name or as step__name, such as "
        "image_size=448, layers=5,8, knn__coreset=0.1, device=cuda:0, cache_dir=FOLDER; "
        "repeatable. `skanomaly models NAME` lists them.",
    ),
]
Plugin = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        show_default=False,
        metavar="FILE",
        rich_help_panel=MODEL,
        callback=lambda values: home(values or []),  # typer 0.16 cannot take None from it
        help="Import this file or module, which registers scorers or embedders of your own; "
        "repeatable.",
    ),
]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        show_default=False,
        metavar="NAME",
        rich_help_panel=MODEL,
        callback=lambda values: values or [],
        help="Take a type or function of this name from the file of the model, as an error asks "
        "for; what --plugin defines needs no name. Name none that you do not know; repeatable.",
    ),
]

# Training

Contamination = Annotated[
    float | None,
    typer.Option(
        show_default=False,
        metavar="SHARE",
        callback=share,
        rich_help_panel=TRAINING,
        help="Flag this share of good images, above 0 and up to 0.5, such as 0.05; without it, the "
        "model's own (0.1).",
    ),
]
Shots = Annotated[
    list[int] | None,
    typer.Option(
        show_default=False,
        metavar="N...",
        rich_help_panel=TRAINING,
        help="Train on so many of the good images: --shots 1 2 4 measures each of these.",
    ),
]
Seeds = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        rich_help_panel=TRAINING,
        help="Repeat each of --shots with so many choices of images.",
    ),
]

# Output

Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        show_default=False,
        metavar="FOLDER",
        callback=home,
        rich_help_panel=OUTPUT,
        help="Write the heat maps of the test images into this folder, as PNG files, and "
        "scores.csv; those of an earlier run are replaced.",
    ),
]
Json = Annotated[
    str | None,
    typer.Option(
        "--json",
        show_default=False,
        metavar="FILE",
        callback=home,
        rich_help_panel=OUTPUT,
        help="Add the results to this file, one JSON object a line; '-' prints them in place of "
        "tables. Earlier results are kept; of the same model, images and version the last counts.",
    ),
]
JsonSummary = Annotated[
    str | None,
    typer.Option(
        "--json",
        show_default=False,
        metavar="FILE",
        callback=home,
        rich_help_panel=OUTPUT,
        help="Write the result to this file, as one JSON object; '-' prints it in place of text.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        rich_help_panel=OUTPUT,
        help="Replace files that are in the way of the output; never images, masks and what else "
        "is read.",
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        show_default=False,
        min=1,
        metavar="N",
        rich_help_panel=LIMITS,
        help="Take images of up to so many pixels; without it, up to Pillow's limit of 89 million.",
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
            warnings.showwarning = _printer_of_warnings()
            # Our own error says it, with the option.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
        sys.stdout.flush()
    except typer.Exit:  # the code that a command ends with, and a RuntimeError
        raise
    except KeyboardInterrupt as exc:
        print("interrupted; what was written until now is kept", file=sys.stderr)
        raise typer.Exit(130) from exc
    except BrokenPipeError as exc:  # such as of `| head`
        _drop_output()
        raise typer.Exit(1) from exc
    except (OSError, ValueError, TypeError, ImportError, RuntimeError) as exc:
        text = _printable_lines(exc) or type(exc).__name__
        if getattr(exc, "errno", None) == errno.ENOSPC and exc.filename is None:  # type: ignore[union-attr]
            text = f"standard output cannot be written: {text}"
            _drop_output()
        elif "value_range=" in text and "--set" not in text:
            text += "\n(on the command line: --set value_range=..., where the model is fitted)"
        print(f"error: {text}", file=sys.stderr)
        raise typer.Exit(2 if isinstance(exc, WrongUsage) else 1) from exc
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _drop_output() -> None:
    """Let what still waits to be printed go nowhere: at the end it would be an error again."""
    with suppress(OSError, ValueError):  # ValueError: it is no file, as in tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _printable_lines(message: object) -> str:
    lines = [line.expandtabs(4).rstrip() for line in str(message).splitlines() if line.strip()]
    return "\n".join(map(printable, lines))


def _printer_of_warnings() -> Callable[..., None]:
    """Shows a warning as a person at a terminal wants it: once, without the line of code."""
    shown_before: set[str] = set()

    def show(message: object, *_where: object, **_options: object) -> None:
        text = _printable_lines(message)
        if text not in shown_before:
            shown_before.add(text)
            print(f"warning: {text}", file=sys.stderr)

    return show


def printable(text: str) -> str:
    """A stranger's name without what steers a terminal, or cannot be shown by it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown(text: str) -> Text:
    """A stranger's name for a table, which takes no part of it for markup."""
    return Text(printable(text))


def import_plugins(sources: list[str] | None) -> list[ModuleType]:
    """Import what ``--plugin`` names, each of which registers scorers or embedders."""
    from skanomaly.registry._plugins import import_plugin

    return [import_plugin(source) for source in sources or ()]


def read_splits(root: Path, layout: str | None, category: str | None) -> list[DatasetSplit]:
    """The data sets of a folder: one, or each of its categories."""
    from skanomaly.datasets import list_categories, read_dataset, sniff_layout

    if category is None and root.is_dir() and sniff_layout(root) is None:
        categories = list_categories(root)
        if categories:
            return [read_dataset(root, layout, category=name) for name in categories]
    return [read_dataset(root, layout, category=category)]
