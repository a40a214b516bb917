"""Files of other versions of anomalib than this one reads: told by names in them, never run."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

# Names of weights in checkpoints of anomalib 0.x and 1.x; its 2.x keeps thresholds elsewhere.
_OLD_WEIGHTS = {"image_threshold.value", "pixel_threshold.value", "image_threshold_class"}
# Every checkpoint of anomalib 2.x names the parts around its model: as weights, or as settings.
_PARTS_OF_2 = {"pre_processor", "post_processor"}


def check_checkpoint(path: Path, strings: Sequence[str]) -> None:
    """Refuse a Lightning checkpoint that anomalib 2.x did not write.

    Parameters
    ----------
    path : pathlib.Path
        The file, for the message.
    strings : sequence of str
        What its pickle holds, in order.

    Raises
    ------
    ValueError
        When anomalib 0.x or 1.x wrote it, or another project.
    """
    lightning = _after(strings, "pytorch-lightning_version")
    if _OLD_WEIGHTS.intersection(strings):
        # anomalib 0.x was made for Lightning 1, and its 1.x for Lightning 2.
        version = {"0": "0.x", "1": "0.x", None: "0.x or 1.x"}.get(
            lightning and lightning.partition(".")[0], "1.x"
        )
        raise ValueError(_too_old(path, version, lightning))
    if not _PARTS_OF_2.issubset(strings):
        raise ValueError(
            f"{path} is a checkpoint of PyTorch Lightning"
            f"{f' {lightning}' if lightning else ''}, but of another project: nothing in it is of "
            "anomalib. Give a .ckpt that anomalib's training wrote; any other model fits in as "
            "AnomalibDetector(inferencer=...), or as a skanomaly.FunctionPatches"
        )


def check_module(path: Path, strings: Sequence[str]) -> None:
    """Refuse a .pt that anomalib 0.x or 1.x exported: a network, and metadata beside it.

    Parameters
    ----------
    path : pathlib.Path
        The file, for the message.
    strings : sequence of str
        What its pickle holds, in order.

    Raises
    ------
    ValueError
        When it is one.
    """
    if "metadata" not in strings:
        return
    if any(text.startswith("anomalib.deploy.export") for text in strings):
        raise ValueError(_too_old(path, "1.x"))
    if "image_threshold" in strings:
        raise ValueError(_too_old(path, "0.x"))


def foreign_graph(path: Path, outputs: Sequence[str]) -> str:
    """What to say of an exported graph that lacks the outputs of anomalib 2.x.

    Parameters
    ----------
    path : pathlib.Path
        The graph. anomalib 0.x and 1.x wrote a ``metadata.json`` beside it.
    outputs : sequence of str
        Names of its outputs.

    Returns
    -------
    str
    """
    try:
        metadata = json.loads((path.parent / "metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        metadata = None
    if isinstance(metadata, dict) and "image_threshold" in metadata:
        # 0.x kept the preprocessing beside the graph, and 1.x in it.
        return _too_old(path, "0.x" if "transform" in metadata else "1.x")
    return (
        f"{path} has the outputs {list(outputs)}, not 'pred_score' and 'anomaly_map': it is an "
        "export of another project, or of anomalib before 2.0. Export the model again with "
        "outputs of these names: scores of shape (n,), maps of shape (n, 1, height, width)"
    )


def _too_old(path: Path, version: str, lightning: str | None = None) -> str:
    trained = f" (with Lightning {lightning})" if lightning else ""
    return (
        f"{path} was written by anomalib {version}{trained}, which is too old: models of anomalib "
        "2 are read here, and it converts no older ones. Train the model again with anomalib 2.7. "
        f"To keep this one, go to where anomalib {version} is installed: export it with outputs "
        "named pred_score and anomaly_map, or pass an inferencer of that anomalib to "
        "AnomalibDetector(inferencer=...); the page 'Models of anomalib' of the documentation "
        "shows both under 'Models of anomalib 0.x and 1.x'"
    )


def _after(strings: Sequence[str], key: str) -> str | None:
    """The version that follows a key in a pickle, or None."""
    following = next((b for a, b in zip(strings, strings[1:], strict=False) if a == key), "")
    return following if re.fullmatch(r"\d+\.\d[\w.+-]*", following) else None
