"""Files of models that commands write, and what is said of the threshold in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skanomaly._output import check_folder

# How sure one may be of the share that will be flagged.
_CONFIDENCE = 0.9


def check_new_model(output: Path, overwrite: bool) -> None:
    """Raise where a model cannot be written, or is there: it is not made again at once.

    Parameters
    ----------
    output : Path
        Value of the option.
    overwrite : bool
        Whether another model may be replaced. Other files never are.

    Raises
    ------
    OSError
        The message says what to do.
    """
    from skanomaly.persistence._container import is_model

    if output.is_dir():
        raise IsADirectoryError(f"--output {output} is a folder: name a file in it")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"there is no folder for --output {output}")
    if output.is_symlink() or (output.exists() and not is_model(output)):
        raise FileExistsError(f"{output} is no model file, and is never replaced: name another")
    if output.exists() and not overwrite:
        raise FileExistsError(
            f"{output} is there already: name another file, or replace it with --overwrite"
        )
    check_folder(output.parent)


def promise_of(fitted: Any, n: int) -> dict[str, Any]:
    """The threshold, and what share of new good images falls below it.

    Parameters
    ----------
    fitted : estimator
        With a threshold.
    n : int
        Images that it rests on, or groups of them.

    Returns
    -------
    dict
        `threshold`, `contamination`, `expected_share` and `expected_share_interval`, of 90%; the
        last three are None where the threshold is no share.
    """
    from scipy.stats import beta

    from skanomaly._pipelines import contamination_of, offset_of, split_detector

    scorer = split_detector(fitted).scorer
    share = contamination_of(scorer)
    promise = {"threshold": float(offset_of(scorer)), "contamination": share}
    if share is None:
        return {**promise, "expected_share": None, "expected_share_interval": None}
    # The i-th of n held-out scores stands for the share i / (n + 1); the share below it is Beta
    # distributed over training sets. No score stands for less than the first does.
    least = 1 / (n + 1)
    rank = max(share, least) * (n + 1)
    interval = beta.interval(_CONFIDENCE, rank, max(n + 1 - rank, 1e-9))
    return {
        **promise,
        "expected_share": max(share, least),
        "expected_share_interval": [float(edge) for edge in interval],
    }


def least_share(expected: float, asked: float) -> list[str]:
    """A line for a share that is greater than the one asked for; none where it is not."""
    if expected <= asked:
        return []
    return [f"           (not {asked:.1%}: with so few, no threshold flags less)"]
