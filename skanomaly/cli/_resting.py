"""What commands say of a threshold that rests on few images far below all others."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Images that a line of text names.
_NAMED = 3


def rests_on(fitted: Any, paths: Sequence[Path] | None = None) -> dict[str, Any] | None:
    """The few outlying images that a threshold rests on.

    Parameters
    ----------
    fitted : estimator
        With a threshold.
    paths : sequence of Path or None, default=None
        Images that it was calibrated on; None: those that it was trained on, as it knows them.

    Returns
    -------
    dict or None
        `images` (None for each without a path), `scores` and `next_score`, the lowest of all other
        images; None where the threshold rests on no such image.
    """
    from skanomaly._pipelines import split_pipeline
    from skanomaly.decisions._resting import rest_of

    split = split_pipeline(fitted)
    scorer = split.scorer
    if (rest := rest_of(scorer)) is None:
        return None
    names: Sequence[Any] = ()
    numbers = rest.positions
    if paths is not None:
        names = paths
    elif getattr(scorer, "_calibrated_on", None) is None and split.train_images is not None:
        names = split.train_images.paths
        of_scores = getattr(scorer, "_calibration_numbers", None)
        if of_scores is not None:
            numbers = [int(of_scores[i]) for i in numbers]
        elif len(names) != len(scorer.train_scores_):
            names = ()  # which score is of which image is not known
    return {
        "images": [_name(names[i]) if i < len(names) else None for i in numbers],
        "scores": rest.scores,
        "next_score": rest.next_score,
    }


def note_of(rest: Mapping[str, Any] | None, again: str) -> list[str]:
    """Lines for people about such a threshold; none where there is nothing to say.

    Parameters
    ----------
    rest : mapping or None
        From :func:`rests_on`.
    again : str
        What to do without these images: "train" or "calibrate".

    Returns
    -------
    list of str
    """
    if rest is None:
        return []
    n = len(rest["scores"])
    told = [
        f"{'an image' if name is None else name} scores {score:.6g}"
        for name, score in list(zip(rest["images"], rest["scores"], strict=True))[:_NAMED]
    ]
    told += [f"{n - _NAMED} more up to {rest['scores'][-1]:.6g}"] if n > _NAMED else []
    this, it, part = (
        ("this image", "it", "it is no usual good part")
        if n == 1
        else ("these images", "them", "they are no usual good parts")
    )
    return [
        f"note       {', '.join(told)}, all other images {rest['next_score']:.6g} or higher.",
        f"           The threshold is below these others, and rests on {this}: defects that",
        f"           score between pass. Look at {this}. If {part},",
        f"           leave {it} out, and {again} again. Score known defects, to see whether they",
        "           are still found.",
    ]


def _name(path: Any) -> str | None:
    return None if path is None else os.fspath(path)
