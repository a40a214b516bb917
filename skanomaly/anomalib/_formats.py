"""Opening a checkpoint of any kind, once in this process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from skanomaly._networks.loading import load_once
from skanomaly.anomalib._checkpoints import load_checkpoint, load_exported_module
from skanomaly.anomalib._families import FAMILIES
from skanomaly.anomalib._files import Backend, checkpoint_digest, checkpoint_kind
from skanomaly.anomalib._onnx import load_onnx
from skanomaly.anomalib._openvino import load_openvino

if TYPE_CHECKING:
    from skanomaly._typing import PathLike


def open_checkpoint(
    path: PathLike,
    device: str,
    family: str | None,
    trust: bool,
    interpolation: str | None,
    expected: str | None = None,
) -> tuple[Backend, str]:
    """Load a checkpoint of any kind, once in this process.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    device, family, trust, interpolation
        Parameters of :class:`skanomaly.AnomalibDetector`.
    expected : str or None
        The digest it must have.

    Returns
    -------
    backend : Backend
        Shared by all who ask for the same.
    digest : str
        As from :func:`checkpoint_digest`.

    Raises
    ------
    FileNotFoundError, ValueError
        When it cannot be used, is of another family, or has changed.
    """
    path = Path(path).expanduser()
    try:
        kind = checkpoint_kind(path)
    except FileNotFoundError as exc:
        if expected is None:
            raise
        raise FileNotFoundError(
            f"{exc}: the file of this detector has moved, or is not on this machine; bring it "
            "back there, or make a new AnomalibDetector"
        ) from exc
    digest = checkpoint_digest(path, kind)
    if expected not in (None, digest):
        raise ValueError(
            f"{path} has changed since this detector was made of it: its sha256 is "
            f"{digest[:12]}..., not {expected[:12]}...; bring the old file back, fit again, or "
            "make a new AnomalibDetector"
        )
    if interpolation is not None and kind in ("ckpt", "pt"):
        raise ValueError(
            f"interpolation={interpolation!r} is for exported graphs; {path} brings its own"
        )
    if family is not None and family not in FAMILIES:
        raise ValueError(f"family={family!r} is not known; known are {', '.join(FAMILIES)}")

    def load() -> Backend:
        if kind in ("onnx", "openvino"):
            load_graph = load_onnx if kind == "onnx" else load_openvino
            default = FAMILIES[family].interpolation if family else "bilinear"
            return load_graph(
                path, device=device, interpolation=interpolation, default_interpolation=default
            )
        if kind == "ckpt":
            return load_checkpoint(path, family=family, trust=trust, device=device)
        return load_exported_module(path, trust=trust, device=device)

    where = str(path.resolve()), digest
    key = ("anomalib", *where, device, family, trust, interpolation)
    backend = load_once(key, load)
    if None not in (family, backend.family) and family != backend.family:
        raise ValueError(f"{path} is a model of the family {backend.family!r}, not {family!r}")
    return backend, digest
