"""The command ``skanomaly fit``."""

from __future__ import annotations

import shlex
import sys
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from sklearn.base import clone

import skanomaly
from skanomaly._output import Guard
from skanomaly.cli._inputs import ImageArguments, Null
from skanomaly.cli._model_files import check_new_model, least_share, promise_of
from skanomaly.cli._options import (
    DATA,
    DEFAULT_MODEL,
    OUTPUT,
    TRAINING,
    Contamination,
    JsonSummary,
    MaxPixels,
    ModelName,
    Overwrite,
    Plugin,
    Scorer,
    Settings,
    Trust,
    Weights,
    home,
    import_plugins,
    plain_errors,
    printable,
)
from skanomaly.cli._resting import note_of, rests_on
from skanomaly.cli._settings import check_caches, make_model, options_to_load, with_region
from skanomaly.cli._streamed import Stream
from skanomaly.cli._summary import check_summary, give_summary
from skanomaly.cli._typed import WrongUsage


def fit(
    context: typer.Context,
    images: ImageArguments,
    *,
    null: Null = False,
    groups_by_folder: Annotated[
        bool,
        typer.Option(
            "--groups-by-folder",
            rich_help_panel=DATA,
            help="Take the images of one folder for photographs of one part, which vouch for each "
            "other: they are held out together where the threshold is found.",
        ),
    ] = False,
    model: ModelName = DEFAULT_MODEL,
    weights: Weights = None,
    scorer: Scorer = None,
    settings: Settings = None,
    plugin: Plugin = None,
    contamination: Contamination = None,
    roi: Annotated[
        Path | None,
        typer.Option(
            "--roi",
            metavar="FILE",
            callback=home,
            rich_help_panel=TRAINING,
            show_default=False,
            help="Look at this region of the images only, in training and ever after: a mask, an "
            "image that is black elsewhere, or a JSON file of polygons, [[[x, y], ...], ...] in "
            "shares of width and height.",
        ),
    ] = None,
    stream: Stream = None,
    update: Annotated[
        Path | None,
        typer.Option(
            "--update",
            metavar="MODEL",
            callback=home,
            rich_help_panel=TRAINING,
            show_default=False,
            help="Take the images into the trained model of this file, beside those that it knows, "
            "in place of training a new one.",
        ),
    ] = None,
    trust: Trust = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="MODEL",
            callback=home,
            rich_help_panel=OUTPUT,
            show_default=False,
            help="Write the trained model into this file, such as parts.skan.",
        ),
    ],
    include_weights: Annotated[
        bool,
        typer.Option(
            "--include-weights",
            rich_help_panel=OUTPUT,
            help="Put the weights of a pretrained network into the file, so that it needs no "
            "download elsewhere.",
        ),
    ] = False,
    no_image_paths: Annotated[
        bool,
        typer.Option(
            "--no-image-paths",
            rich_help_panel=OUTPUT,
            help="Leave the paths of the training images out of the file.",
        ),
    ] = False,
    json_file: JsonSummary = None,
    overwrite: Overwrite = False,
    max_pixels: MaxPixels = None,
) -> None:
    """Train a model on images of good parts, and keep it in one file."""
    with plain_errors(max_pixels):
        from skanomaly._grouped_fit import takes_groups
        from skanomaly.cli._streamed import fit_good
        from skanomaly.cli._training_set import training_set
        from skanomaly.cli._update import check_update, fit_more
        from skanomaly.scorers._groups import images_named
        from skanomaly.streaming._fit import check_streams

        if update is not None:
            check_update(context)
            fit_more(
                images,
                update,
                output,
                null=null,
                groups_by_folder=groups_by_folder,
                plugin=plugin,
                trust=trust,
                include_weights=include_weights,
                image_paths=not no_image_paths,
                json_file=json_file,
                overwrite=overwrite,
            )
            return
        if trust:
            raise WrongUsage("--trust is for the file of --update; a new model needs none")
        import_plugins(plugin)
        detector = make_model(
            model, scorer=scorer, weights=weights, contamination=contamination, settings=settings
        )
        if roi is not None:
            detector = with_region(detector, model, roi)
        check_caches(detector)
        if stream:
            check_streams(detector)
        if groups_by_folder and not takes_groups(detector):
            raise ValueError(f"--groups-by-folder: {model} takes no groups")
        check_new_model(output, overwrite)
        _check_kept(detector)
        good = training_set(images, detector, null=null, groups_by_folder=groups_by_folder)
        read = [*images, *good.paths, *filter(None, [weights, roi, *(plugin or ())])]
        guard = Guard(read, overwrite)
        guard.check([output], lambda path: True)
        check_summary(json_file, guard, [output])
        n_groups = None if good.groups is None else len(set(good.groups))
        _check_enough(detector, len(good.paths), n_groups)
        start = time.perf_counter()
        with images_named([printable(str(path)) for path in good.paths]):
            fitted = fit_good(detector, good, stream)
        fit_seconds = time.perf_counter() - start
        skanomaly.save_model(
            fitted, output, include_weights=include_weights, image_paths=not no_image_paths
        )
        summary = {
            "command": "fit",
            "skanomaly": skanomaly.__version__,
            "model": model,
            "file": str(output),
            "bytes": output.stat().st_size,
            "n_images": len(good.paths),
            "n_groups": n_groups,
            **promise_of(fitted, n_groups or len(good.paths)),
            "rests_on": rests_on(fitted),
            "seconds": fit_seconds,
        }
        give_summary(summary, lambda: print(_as_text(summary), flush=True), json_file)
        named = "".join(f" {_quoted(word)}" for word in options_to_load(output, plugin))
        print(
            printable(f"Next: skanomaly score {_quoted(output)} path/to/new/images{named}"),
            file=sys.stderr,
        )


def _check_kept(detector):
    """Raise before the work where a model of this kind cannot be kept in a file."""
    from skanomaly.persistence import ModelTrustWarning

    with TemporaryDirectory(prefix="skanomaly-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", ModelTrustWarning)  # said when the model is kept
        skanomaly.save_model(clone(detector), Path(folder, "model.skan"))


def _check_enough(detector, n_images, n_groups):
    from skanomaly._pipelines import min_images_of, split_detector

    scorer = split_detector(detector).scorer
    least = min_images_of(scorer)
    found, what = (n_images, "good images") if n_groups is None else (n_groups, "groups of images")
    if found < least:
        raise ValueError(
            f"{type(scorer).__name__} needs at least {least} {what} to train on, not {found}; "
            "--scorer knn takes a single image"
        )


def _as_text(summary):
    size, n, share = summary["bytes"], summary["n_images"], summary["expected_share"]
    lines = [
        f"trained    {summary['model']} on {n} good image{'s' * (n != 1)}"
        + ("" if summary["n_groups"] is None else f" of {summary['n_groups']} groups")
        + f", in {summary['seconds']:.1f} s",
        f"threshold  {summary['threshold']:.6g}; images that score lower are anomalous",
    ]
    if share is not None:
        low, high = summary["expected_share_interval"]
        lines.append(
            f"promise    {share:.1%} of new good images will be flagged; as the threshold rests on "
            f"{summary['n_groups'] or n} {'images' if summary['n_groups'] is None else 'groups'}, "
            f"expect {low:.1%} to {high:.1%}"
        )
        lines += least_share(share, summary["contamination"])
    lines += note_of(summary["rests_on"], "train")
    lines.append(f"model file {summary['file']} ({_size(size)})")
    return "\n".join(map(printable, lines))


def _size(n_bytes):
    return f"{n_bytes / 1e3:.0f} kB" if n_bytes < 1e6 else f"{n_bytes / 1e6:.1f} MB"


def _quoted(path):
    return shlex.quote(str(path))
