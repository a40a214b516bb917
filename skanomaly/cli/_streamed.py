"""What ``skanomaly fit`` does with more images than memory holds the tokens of."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from skanomaly.cli._options import TRAINING
from skanomaly.cli._training_set import TrainingSet

# Bytes of tokens up to which all are held, unless told otherwise.
MOST_HELD = 4 * 10**9

Stream = Annotated[
    bool | None,
    typer.Option(
        "--stream/--no-stream",
        show_default=False,
        rich_help_panel=TRAINING,
        help="Never hold the tokens of all images: they are embedded some at a time, and those "
        "that the threshold rests on twice (--set cache_dir=FOLDER saves the second time). Without "
        "either, this is done where the tokens would take more than 4 GB and the scorer can: knn, "
        "gaussian and subspace.",
    ),
]


def fit_good(detector: Any, good: TrainingSet, stream: bool | None) -> Any:
    """Fit to good images, to all of their tokens at once or some at a time.

    Parameters
    ----------
    detector : Pipeline or detector
    good : TrainingSet
    stream : bool or None
        As the option says; None decides by the size of the tokens.

    Returns
    -------
    estimator
        The fitted detector.
    """
    from skanomaly._grouped_fit import fit_with_groups
    from skanomaly.streaming._fit import check_streams, fit_stream, token_bytes

    if stream is None:
        try:
            check_streams(detector)
        except (TypeError, ValueError):
            stream = False
    if stream is None:
        n_bytes = token_bytes(detector, good.paths)
        stream = n_bytes > MOST_HELD
        if stream:
            print(
                f"the patch tokens of {len(good.paths)} images take about {n_bytes / 1e9:.1f} GB: "
                "they are embedded some at a time, and those that the threshold rests on twice "
                "(--no-stream holds all)",
                file=sys.stderr,
            )
    if stream:
        return fit_stream(detector, good.paths, groups=good.groups)
    return fit_with_groups(detector, good.paths, None, good.groups)
