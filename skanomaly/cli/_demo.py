"""The command ``skanomaly demo``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from skanomaly._output import Guard
from skanomaly.cli._options import DATA, DEFAULT_MODEL, OUTPUT, Json, Overwrite, home, plain_errors
from skanomaly.cli._results import evaluate_splits, open_results
from skanomaly.cli._settings import make_model

# To test on: enough good parts for their flagged share to be near the nominal one, and ten of each
# of the five defects.
_N_GOOD, _N_DEFECTIVE = 50, 50


def _known_surfaces(incomplete: str) -> list[str]:
    from skanomaly.datasets._textures import SURFACES

    return [name for name in sorted(SURFACES) if name.startswith(incomplete)]


def demo(
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            callback=home,
            rich_help_panel=OUTPUT,
            help="Write the images and the heat maps into this folder.",
        ),
    ] = Path("skanomaly-demo"),
    surface: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            rich_help_panel=DATA,
            autocompletion=_known_surfaces,
            help="Make parts of this surface: disc, fabric, ... (see make_surfaces).",
        ),
    ] = "disc",
    images: Annotated[
        int,
        typer.Option(
            min=3, metavar="N", rich_help_panel=DATA, help="Train on so many good images."
        ),
    ] = 100,
    size: Annotated[
        int,
        typer.Option(
            min=32, metavar="N", rich_help_panel=DATA, help="Make images of so many pixels a side."
        ),
    ] = 384,
    seed: Annotated[
        int,
        typer.Option(
            metavar="N",
            rich_help_panel=DATA,
            help="Draw the images by this number; another one gives others.",
        ),
    ] = 0,
    json_file: Json = None,
    overwrite: Overwrite = False,
) -> None:
    """Try it: make pictures of parts, train on good ones, and find the defects of the others."""
    with plain_errors():
        from skanomaly._results.digests import split_files
        from skanomaly.datasets import read_mvtec
        from skanomaly.datasets._surfaces import write_surfaces

        open_results(json_file, Guard(overwrite=overwrite), ())  # an error before the images
        # One folder for each set of options, so that no run finds the images of another.
        data = output / f"{surface}-{size}px-{images}-seed{seed}"
        counts = {"n_good": _N_GOOD, "n_defective": _N_DEFECTIVE}
        write_surfaces(data, surface, images, size, seed, overwrite=overwrite, **counts)
        model = make_model(DEFAULT_MODEL)
        split = read_mvtec(data)
        guard = Guard(split_files(split), overwrite)
        report = output / "report.html"
        evaluate_splits(
            DEFAULT_MODEL, model, [split], output / "heatmaps", json_file, guard, report
        )
        print(
            f"Where 10% of all good parts are flagged, it is 2% to 18% of {_N_GOOD} of them, by "
            "chance: so few cannot tell these shares apart.\n"
            f"The parts are in {data}, what the model says of each test part in "
            f"{output / 'heatmaps'}: a folder of pictures for each defect, and scores.csv.\n"
            f"Open {report} in a browser to see it all, and to move the threshold.\n"
            "Next, train a model that is kept in a file, on these or on your own images:\n"
            f"  skanomaly fit {shlex.quote(str(data / 'train' / 'good'))} -o parts.skan\n"
            "or measure on your own, good ones in train/good, others in test/NAME:\n"
            "  skanomaly evaluate path/to/your/parts --report report.html",
            file=sys.stderr,
        )
