"""The command ``skanomaly export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import skanomaly
from skanomaly._optional import require_optional
from skanomaly._output import Guard
from skanomaly.cli._inputs import ImageArguments, Null, image_paths
from skanomaly.cli._options import (
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

_RUNTIMES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}


def export(
    model: ModelFile,
    images: ImageArguments,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            show_default=False,
            metavar="FILE",
            callback=home,
            rich_help_panel=OUTPUT,
            help="Write the graph into this file: .onnx, or .xml for OpenVINO, with a .bin beside.",
        ),
    ],
    null: Null = False,
    any_size: Annotated[
        bool,
        typer.Option(
            "--any-size",
            rich_help_panel=OUTPUT,
            help="Let the graph take images of any size; without it, of that of IMAGES alone, "
            "which is faster.",
        ),
    ] = False,
    plugin: Plugin = None,
    trust: Trust = None,
    json_file: JsonSummary = None,
    overwrite: Overwrite = False,
    max_pixels: MaxPixels = None,
) -> None:
    """Write a trained model as one graph, for ONNX Runtime or OpenVINO without Python.

    IMAGES are good ones, such as it was trained on: on altered copies of them the graph has to say
    what the model says, or it is not written.
    """
    with plain_errors(max_pixels):
        from skanomaly import export_model

        kind = _check_target(output, overwrite)
        require_optional("onnx", "onnx", "skanomaly export")
        require_optional("onnxruntime" if kind == "onnx" else kind, kind, "skanomaly export")
        paths = list(image_paths(images, null=null))
        guard = Guard([*paths, model, *(plugin or ())], overwrite)
        guard.check([output], lambda path: True)
        check_summary(json_file, guard, [output])
        fitted = load_kept(model, plugin, trust)
        found = export_model(fitted, output, images=paths, format=kind, any_size=any_size)
        summary = {
            "command": "export",
            "skanomaly": skanomaly.__version__,
            "model": str(model),
            "format": kind,
            **found,
        }
        give_summary(summary, lambda: print(_as_text(summary), flush=True), json_file)


def _check_target(output: Path, overwrite: bool) -> Any:
    """The format of a file by its name; an error where it cannot be written."""
    from skanomaly.deployment._files import SUFFIXES, check_target

    kinds = {suffix: kind for kind, suffix in SUFFIXES.items()}
    if output.suffix not in kinds:
        raise ValueError(f"--output {output} must end in .onnx, or in .xml for OpenVINO")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"there is no folder for --output {output}")
    check_target(output)
    if output.exists() and not overwrite:
        raise FileExistsError(
            f"{output} is there already: name another file, or replace it with --overwrite"
        )
    return kinds[output.suffix]


def _as_text(summary: dict[str, Any]) -> str:
    height, width, found = summary["height"], summary["width"], summary["verified"]
    of_size = "any size" if height == "any" else f"height {height}, width {width}"
    n = found["n_images"]
    lines = [
        f"graph     {summary['file']}, {summary['bytes'] / 1e6:.1f} MB, for "
        f"{_RUNTIMES[summary['format']]}",
        f"input     image: any number of images of {of_size}, RGB of 8 bits",
        f"verified  on altered copies of {n} image{'s' * (n != 1)}: the same decisions, "
        f"{found['n_anomalous']} of {n} anomalous;",
        f"          scores within {found['score_deviation']:.1g}, maps within "
        f"{found['map_deviation']:.1g} of their range",
    ]
    return "\n".join(map(printable, lines))
