"""The command ``skanomaly demo``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from skanomaly._output import Guard
from skanomaly.cli._options import Json, Overwrite, home, plain_errors
from skanomaly.cli._results import evaluate_splits, open_results
from skanomaly.cli._settings import make_model

# To test on: enough good parts for their flagged share to be near the nominal one, and ten of each
# of the five defects.
_N_GOOD, _N_DEFECTIVE = 50, 50


def demo(
    output: Annotated[
        Path, typer.Option(callback=home, help="Folder for images and heat maps.")
    ] = Path("skanomaly-demo"),
    surface: Annotated[str, typer.Option(help="Surface to make, see make_surfaces.")] = "disc",
    images: Annotated[int, typer.Option(min=3, help="Good images to train on.")] = 100,
    size: Annotated[int, typer.Option(min=32, help="Side of the images in pixels.")] = 384,
    seed: Annotated[int, typer.Option(help="Seed of the images.")] = 0,
    json_file: Json = None,
    overwrite: Overwrite = False,
) -> None:
    """Make pictures of parts, good and defective, train on the good ones and find the defects."""
    with plain_errors():
        from skanomaly._results.digests import split_files
        from skanomaly.datasets import read_mvtec
        from skanomaly.datasets._surfaces import write_surfaces

        open_results(json_file, Guard(overwrite=overwrite), ())  # an error before the images
        # One folder for each set of options, so that no run finds the images of another.
        data = output / f"{surface}-{size}px-{images}-seed{seed}"
        counts = {"n_good": _N_GOOD, "n_defective": _N_DEFECTIVE}
        write_surfaces(data, surface, images, size, seed, overwrite=overwrite, **counts)
        model = make_model("filterbank")
        split = read_mvtec(data)
        guard = Guard(split_files(split), overwrite)
        report = output / "report.html"
        evaluate_splits("filterbank", model, [split], output / "heatmaps", json_file, guard, report)
        print(
            f"The parts are in {data}, what the model says of each test part in "
            f"{output / 'heatmaps'}: a folder of pictures for each defect, and scores.csv.\n"
            f"Open {report} in a browser to see it all, and to move the threshold.\n"
            "With your own images, good ones in train/good, others in test/NAME:\n"
            "  skanomaly evaluate path/to/your/parts --report report.html",
            file=sys.stderr,
        )
