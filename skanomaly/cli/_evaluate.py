"""The command ``skanomaly evaluate``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skanomaly._output import Guard
from skanomaly.cli._options import (
    DATA,
    DEFAULT_MODEL,
    OUTPUT,
    Category,
    Contamination,
    Json,
    Layout,
    MaxPixels,
    ModelName,
    Output,
    Overwrite,
    Plugin,
    Scorer,
    Seeds,
    Settings,
    Shots,
    Weights,
    home,
    import_plugins,
    plain_errors,
    read_splits,
)
from skanomaly.cli._results import evaluate_splits, evaluate_table
from skanomaly.cli._settings import check_caches, make_model
from skanomaly.cli._typed import WrongUsage

if TYPE_CHECKING:
    from skanomaly.datasets import DatasetSplit


def evaluate(
    root: Annotated[
        Path | None,
        typer.Argument(
            metavar="ROOT",
            callback=home,
            show_default=False,
            help="Folder of a data set, of one of its categories or of several; or a manifest. "
            "Leave it out with --normal and --test.",
        ),
    ] = None,
    normal: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            show_default=False,
            callback=home,
            rich_help_panel=DATA,
            help="Train on the images of this folder, all of them good; with --test.",
        ),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            show_default=False,
            callback=home,
            rich_help_panel=DATA,
            help="Test on the images of this folder: good ones in good/, others in folders named "
            "after their defects; with --normal.",
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            show_default=False,
            callback=home,
            rich_help_panel=DATA,
            help="Take the masks of the defects from folders in this one, named as in --test.",
        ),
    ] = None,
    category: Category = None,
    layout: Layout = None,
    model: ModelName = DEFAULT_MODEL,
    weights: Weights = None,
    scorer: Scorer = None,
    settings: Settings = None,
    plugin: Plugin = None,
    contamination: Contamination = None,
    shots: Shots = None,
    seeds: Seeds = 1,
    output: Output = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            callback=home,
            rich_help_panel=OUTPUT,
            help="Write an inspection report into this HTML file; it needs no network.",
        ),
    ] = None,
    json_file: Json = None,
    overwrite: Overwrite = False,
    max_pixels: MaxPixels = None,
) -> None:
    """Measure a model on a data set: train on its good images, find the defects of the others."""
    with plain_errors(max_pixels):
        _check_sources(root, normal, test, masks, layout, category)
        if shots and output is not None:
            raise WrongUsage("--output is for one training set; leave out --shots")
        if shots and report is not None:
            raise WrongUsage("--report is for one training set; leave out --shots")
        if seeds > 1 and not shots:
            raise WrongUsage("--seeds is for --shots")
        import_plugins(plugin)
        splits = _read_splits(root, normal, test, masks, layout, category)
        if report is not None and len(splits) > 1:
            raise ValueError("--report is for one data set: name a --category")
        folders = [folder for folder in (root, normal, test, masks) if folder is not None]
        if output is not None:
            for folder in folders:
                _check_apart(output, folder)
        detector = make_model(
            model,
            scorer=scorer,
            weights=weights,
            contamination=contamination,
            settings=settings,
        )
        check_caches(detector)
        guard = Guard(inputs_of(splits, root, [weights, *(plugin or ())]), overwrite)
        if shots:
            evaluate_table({model: detector}, splits, shots, seeds, json_file, guard)
        else:
            evaluate_splits(model, detector, splits, output, json_file, guard, report)


def _check_sources(root, normal, test, masks, layout, category):
    """Raise where the options name no images, or too many."""
    if root is not None and (normal or test or masks):
        raise WrongUsage(
            f"pass either {root}, which holds training and test images, or --normal and --test "
            "with the folders of each"
        )
    if root is None and (normal is None or test is None):
        raise WrongUsage(
            "name the images: the folder of a data set, or --normal FOLDER --test FOLDER"
        )
    if root is None and (layout is not None or category is not None):
        raise WrongUsage("--layout and --category are for a data set, not for --normal and --test")


def _read_splits(root, normal, test, masks, layout, category):
    """The data sets that the options name."""
    if root is not None:
        return read_splits(root, layout, category)
    from skanomaly.cli._training_set import check_no_drawings
    from skanomaly.datasets import read_folders

    split = read_folders(normal, test, masks)
    check_no_drawings([*split.train.images, *split.test.images])
    return [split]


def _check_apart(output, data):
    """Raise where the next run would look for images and find the pictures."""
    out, root = Path(os.path.realpath(output)), Path(os.path.realpath(data))
    if data.is_dir() and (out.is_relative_to(root) or out == root.parent):
        where = "holds" if out == root.parent else "lies in"
        raise ValueError(
            f"--output {output} {where} {data}, where the next run would take its folders for "
            "classes or data sets: name a folder of its own outside of the data set"
        )


def inputs_of(splits: list[DatasetSplit], root: Path | None, others: list[Any]) -> Iterator[Any]:
    """The files that a run reads.

    Parameters
    ----------
    splits : list of DatasetSplit
        What is evaluated on.
    root : Path or None
        Where they were found: a manifest or a list of files may lie in it.
    others : list of path-like or None
        What else is read.

    Yields
    ------
    path-like
    """
    from skanomaly._results.digests import split_files
    from skanomaly.datasets._loco import CONFIG
    from skanomaly.datasets._realiad import LISTS

    yield from (path for path in (root, *others) if path is not None)
    for pattern in ("manifest.*", "split_csv/*", f"{LISTS}/*", CONFIG):
        for place in (pattern, f"*/{pattern}"):
            yield from root.glob(place) if root is not None and root.is_dir() else ()
    for split in splits:
        yield from split_files(split)
