"""What the commands share that change a trained model: ``fit --update``, ``forget``, ``merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import skanomaly
from skanomaly.cli._model_files import promise_of
from skanomaly.cli._options import OUTPUT, home, printable
from skanomaly.cli._resting import note_of, rests_on

NewModel = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="MODEL",
        callback=home,
        rich_help_panel=OUTPUT,
        show_default=False,
        help="Write the changed model into this file; those that are read stay as they are.",
    ),
]


def brings_weights(*models: Path) -> bool:
    """Whether a file of one of the models holds its weights, which go on with it."""
    manifests = [skanomaly.model_manifest(model) for model in models]
    return any(one["included"] for manifest in manifests for one in manifest.get("weights", []))


def described(model: Any) -> dict[str, Any]:
    """How many images a changed model knows, its threshold and what it promises.

    Parameters
    ----------
    model : estimator
        One that takes in images.

    Returns
    -------
    dict
        `n_images`, `n_groups`, and as from :func:`~skanomaly.cli._model_files.promise_of`;
        `rests_on`, from :func:`~skanomaly.cli._resting.rests_on`.
    """
    from skanomaly.growth._parts import leaf_of

    layout = leaf_of(model)._layout
    n_groups = None if layout.groups is None else layout.n_groups
    n_images = layout.n_images
    return {
        "n_images": n_images,
        "n_groups": n_groups,
        **promise_of(model, n_groups or n_images),
        "rests_on": rests_on(model),
    }


def as_text(summary: dict[str, Any], what: str) -> str:
    """What a command prints of the model that it changed.

    Parameters
    ----------
    summary : dict
        With what :func:`described` returns, and `before`, the threshold before, or None.
    what : str
        The first line: what was done.

    Returns
    -------
    str
    """
    old = "" if summary["before"] is None else f"; it was {summary['before']:.6g}"
    lines = [what, f"threshold  {summary['threshold']:.6g}{old}"]
    if summary["expected_share"] is not None:
        low, high = summary["expected_share_interval"]
        lines.append(
            f"promise    {summary['expected_share']:.1%} of new good images will be flagged; "
            f"expect {low:.1%} to {high:.1%}"
        )
    lines += note_of(summary["rests_on"], "train")
    lines.append(f"model file {summary['file']}")
    return "\n".join(map(printable, lines))


def plural(n: int) -> str:
    """How many good images, in words."""
    return f"{n} good image{'s' * (n != 1)}"
