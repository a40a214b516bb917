"""``skanomaly fit --update``: more images for a model that is trained already."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

import skanomaly
from skanomaly._output import Guard
from skanomaly._pipelines import split_pipeline
from skanomaly.cli._changed import as_text, brings_weights, described, plural
from skanomaly.cli._model_files import check_new_model
from skanomaly.cli._options import printable
from skanomaly.cli._settings import load_kept
from skanomaly.cli._summary import check_summary, give_summary
from skanomaly.cli._training_set import training_set
from skanomaly.cli._typed import WrongUsage
from skanomaly.growth import update_model
from skanomaly.growth._parts import check_changes, leaf_of
from skanomaly.scorers._groups import images_named

# Options of `fit` that say how a model is made.
_OF_NEW_MODELS = {
    "model": "--model",
    "scorer": "--scorer",
    "weights": "--weights",
    "settings": "--set",
    "contamination": "--contamination",
    "roi": "--roi",
    "stream": "--stream",
}


def check_update(context: typer.Context) -> None:
    """Raise where options were typed that say how a model is made, which is there already.

    Parameters
    ----------
    context : typer.Context
        Of the command ``fit``.

    Raises
    ------
    WrongUsage
    """
    given = [
        option
        for name, option in _OF_NEW_MODELS.items()
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise WrongUsage(
            f"--update takes a model as it is: leave out {', '.join(given)}, or leave out --update "
            "to train a new one"
        )


def fit_more(
    images: Sequence[str],
    model: Path,
    output: Path,
    *,
    null: bool,
    groups_by_folder: bool,
    plugin: list[str] | None,
    trust: list[str] | None,
    include_weights: bool,
    image_paths: bool,
    json_file: str | None,
    overwrite: bool,
) -> None:
    """Take images into the model of a file, and keep it in another one.

    Parameters
    ----------
    images : sequence of str
        Arguments of the command.
    model : Path
        Value of ``--update``.
    output : Path
        Value of ``--output``.
    null, groups_by_folder, plugin, trust, include_weights, image_paths, json_file, overwrite
        Values of the options of ``fit``.

    Raises
    ------
    Exception
        As the commands do: what can be known is said before the work.
    """
    check_new_model(output, overwrite)
    before = load_kept(model, plugin, trust)
    check_changes(before)
    more = training_set(images, before, null=null, groups_by_folder=groups_by_folder)
    guard = Guard([*images, *more.paths, model, *(plugin or ())], overwrite)
    guard.check([output], lambda path: True)
    check_summary(json_file, guard, [output])
    old = described(before)
    start = time.perf_counter()
    with images_named([*_names_in(before), *(printable(str(path)) for path in more.paths)]):
        after = update_model(before, more.paths, groups=more.groups)
    seconds = time.perf_counter() - start
    brought = include_weights or brings_weights(model)
    skanomaly.save_model(after, output, include_weights=brought, image_paths=image_paths)
    summary = {
        "command": "fit",
        "skanomaly": skanomaly.__version__,
        "model": str(model),
        "file": str(output),
        "bytes": output.stat().st_size,
        "n_new": leaf_of(after)._layout.n_images - old["n_images"],
        "before": old["threshold"],
        **described(after),
        "seconds": seconds,
    }
    what = (
        f"updated    {model} with {plural(summary['n_new'])}, to {summary['n_images']}, in "
        f"{seconds:.1f} s"
    )
    give_summary(summary, lambda: print(as_text(summary, what), flush=True), json_file)


def _names_in(model: Any) -> list[str]:
    """Of the images that a model was trained on, as far as it knows their files."""
    known = split_pipeline(model).train_images
    paths = () if known is None else known.paths
    return [
        f"{number} of the model" if path is None else printable(str(path))
        for number, path in enumerate(paths)
    ]
