"""The command ``skanomaly explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import skanomaly
from skanomaly._output import Guard, check_folder, is_own_picture, save_picture
from skanomaly.cli._options import (
    MODEL,
    OUTPUT,
    JsonSummary,
    MaxPixels,
    ModelFile,
    Overwrite,
    Plugin,
    Trust,
    home,
    plain_errors,
    printable,
)
from skanomaly.cli._settings import load_kept
from skanomaly.cli._summary import check_summary, give_summary


def explain(
    model: ModelFile,
    image: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGE", callback=home, show_default=False, help="The image to explain."
        ),
    ],
    neighbors: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            rich_help_panel=MODEL,
            help="Look for so many near patches of the training images.",
        ),
    ] = 3,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            show_default=False,
            metavar="FILE",
            callback=home,
            rich_help_panel=OUTPUT,
            help="Write a picture into this PNG file: the image and its worst patch, beside the "
            "patches of training images that it was compared to.",
        ),
    ] = None,
    plugin: Plugin = None,
    trust: Trust = None,
    json_file: JsonSummary = None,
    overwrite: Overwrite = False,
    max_pixels: MaxPixels = None,
) -> None:
    """Show where an image is most anomalous, and what it differs from there."""
    with plain_errors(max_pixels):
        from skanomaly._pipelines import split_pipeline
        from skanomaly.decisions._decide import decisions_of
        from skanomaly.inspection._explain import check_explains, explained, regions_of
        from skanomaly.report._explanation_picture import explanation_picture

        if not image.is_file():
            what = "is a folder" if image.is_dir() else "is not there"
            raise FileNotFoundError(f"{image} {what}: name the file of one image")
        estimator = load_kept(model, plugin, trust)
        guard = Guard([model, image, *(plugin or ()), *_training_files(estimator)], overwrite)
        if output is not None:
            if not output.parent.is_dir():
                raise FileNotFoundError(f"there is no folder for --output {output}")
            guard.check([output], is_own_picture)
            check_folder(output.parent)
        check_summary(json_file, guard, [] if output is None else [output])
        try:
            check_explains(estimator)
            found, tokens = explained(estimator, image, neighbors, regions_of(estimator))
            (decision,) = decisions_of(split_pipeline(estimator), [image], tokens)
        except skanomaly.ImageReadError as exc:  # of one image no number is of use
            raise skanomaly.ImageReadError(str(exc).replace("image 0 (", "image (", 1)) from exc
        if output is not None:
            judged = decision.score, decision.threshold, decision.p_value
            save_picture(explanation_picture(found, *judged, image.name), output)
        judgement = {k: v for k, v in decision.to_dict().items() if k not in ("index", "image")}
        summary = {
            "command": "explain",
            "skanomaly": skanomaly.__version__,
            "model": str(model),
            "image": str(image),
            **judgement,
            "explanation": found.to_dict(),
            "picture": None if output is None else str(output),
        }
        give_summary(
            summary,
            lambda: print("\n".join(map(printable, _lines(summary, found))), flush=True),
            json_file,
        )


def _lines(summary: dict[str, Any], found: Any) -> list[str]:
    sign = "<" if summary["decision"] == "anomalous" else ">="
    chance = "" if summary["p_value"] is None else f", p-value {summary['p_value']:.3g}"
    verdict = (
        f"{summary['decision']}: score {summary['score']:.6g} {sign} threshold "
        f"{summary['threshold']:.6g}{chance}"
    )
    lines = [verdict, *found.lines()]
    if found.neighbors and all(near.path is None for near in found.neighbors):
        lines.append("(the model file holds no paths of training images: they have numbers only)")
    if summary["picture"] is not None:
        lines.append(f"picture: {summary['picture']}")
    return lines


def _training_files(estimator: Any) -> list[str]:
    """Paths of the training images, which no output may replace."""
    from skanomaly._pipelines import split_pipeline

    known = split_pipeline(estimator).train_images
    return [] if known is None else [path for path in known.paths if path is not None]
