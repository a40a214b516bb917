"""Which kind of file a checkpoint is, told by its content, and what all loaded models share."""

from __future__ import annotations

import pickletools
import zipfile
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sklearn.exceptions import NotFittedError

from skanomaly._stamps import file_digest, file_stamp
from skanomaly.anomalib import _old_files, _onnx_file

if TYPE_CHECKING:
    from skanomaly._typing import FloatArray, PathLike

_EXPORT = "export it from anomalib again, e.g. engine.export(model, 'onnx')"


class Backend:
    """A loaded model: batches of images in, maps and scores out.

    Attributes
    ----------
    family : str or None
        Key of the table of families, when known.
    unclipped : bool or None
        Whether :meth:`predict` can give scores from before anomalib's post-processor, which clips
        them to [0, 1]; None when the scores come from an object that does not say.
    threshold : float or None
        The checkpoint's own image threshold, on the scale of the scores of ``predict(images)``;
        None when it has none, or NaN.
    normalized_threshold : float or None
        The same on the scale of ``predict(images, normalized=True)``.
    """

    family: str | None = None
    unclipped: bool | None = True
    threshold: float | None = None
    normalized_threshold: float | None = None

    def offset(self, normalized: bool) -> float:
        """The model's own threshold in scikit-learn's sign; NotFittedError where it has none."""
        threshold = self.normalized_threshold if normalized else self.threshold
        if threshold is None:
            raise NotFittedError(
                "This detector is not fitted yet, and its model brings no threshold of its own: "
                "call fit with good images, or rank by score_samples"
            )
        return -float(threshold)

    def predict(
        self, images: list[FloatArray], normalized: bool = False
    ) -> tuple[list[FloatArray] | None, FloatArray]:
        """Maps and scores of one batch of images.

        Parameters
        ----------
        images : list of ndarray of shape (H, W, 3)
            uint8, or float32 in [0, 1]; their sizes may differ. They are not modified.
        normalized : bool, default=False
            Give anomalib's own scores and maps in [0, 1].

        Returns
        -------
        maps : list of ndarray of shape (h, w), float32, or None
            Each covers its whole image; None when the model gives no maps.
        scores : ndarray of shape (n,), float64
            Higher is more anomalous.
        """
        raise NotImplementedError


def uncrop(heat: FloatArray, size: tuple[int, int]) -> FloatArray:
    """The map of a whole image from the map of its central crop.

    Parameters
    ----------
    heat : ndarray of shape (h, w)
        Map of the crop.
    size : tuple of int
        Height and width of what it was cropped from, in the same pixels.

    Returns
    -------
    ndarray of shape `size`
        The lowest value of the map where the model saw nothing.
    """
    rest = [max(side - inner, 0) for side, inner in zip(size, heat.shape, strict=True)]
    before = [int(round(side / 2)) for side in rest]  # as torchvision's CenterCrop
    around = [(first, side - first) for first, side in zip(before, rest, strict=True)]
    return np.pad(heat, around, constant_values=heat.min())


def checkpoint_kind(path: PathLike) -> str:
    """Tell by its content what an anomalib file is; nothing in it is run.

    Parameters
    ----------
    path : str or os.PathLike
        The file.

    Returns
    -------
    {"ckpt", "pt", "onnx", "openvino"}
        A Lightning checkpoint, an exported PyTorch module, an ONNX graph or an OpenVINO graph.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When it is none of these, or damaged; the message says what to do.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the model file in it (.ckpt, .onnx, .xml, .pt)")
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint_path={str(path)!r} is not an existing file")
    return _kind_of_file(path, file_stamp(path))


@lru_cache(maxsize=64)
def _kind_of_file(path: Path, stamp: tuple[object, ...]) -> str:
    with path.open("rb") as file:
        head = file.read(4096)
    if not head:
        raise ValueError(f"{path} is empty; {_EXPORT}")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a Git LFS pointer, not the model; fetch it with: git lfs pull")
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        if b"<net " not in head:
            raise ValueError(f"{path} is XML or HTML, but not an OpenVINO graph; {_EXPORT}")
        return "openvino"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        raise ValueError(
            f"{path} is a safetensors file: bare weights, without the settings of the model that "
            "they belong to. Give the .ckpt that training wrote, or an exported graph"
        )
    if head[:1] == b"\x80":
        raise ValueError(
            f"{path} is a plain pickle, which could run any code, not a file that anomalib 2 "
            f"writes; it is refused. Give the .ckpt that training wrote, or {_EXPORT}"
        )
    if path.suffix == ".bin" and path.with_suffix(".xml").is_file():
        raise ValueError(f"{path} holds the weights only; give {path.with_suffix('.xml')}")
    if _onnx_file.looks_like_onnx(path):
        return "onnx"
    raise ValueError(
        f"{path} is not a file that can be used here, or damaged: its content is neither that of "
        f"a .ckpt, .pt, .onnx nor OpenVINO .xml file of anomalib; {_EXPORT}"
    )


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            pickles = [name for name in names if name.endswith("data.pkl") and name.count("/") < 2]
            if any("/code/" in name for name in names):
                raise ValueError(
                    f"{path} is TorchScript, which anomalib 2 does not write; {_EXPORT}"
                )
            if not pickles:
                raise ValueError(f"{path} is a zip archive, but no file of PyTorch; {_EXPORT}")
            if archive.getinfo(pickles[0]).compress_size < archive.getinfo(pickles[0]).file_size:
                raise ValueError(f"{path} is compressed, as no file of PyTorch is; {_EXPORT}")
            strings = pickle_strings(archive.read(pickles[0]))
    except (zipfile.BadZipFile, EOFError, OSError) as exc:
        raise ValueError(f"{path} is truncated or damaged ({exc}); copy it again") from exc
    if {"state_dict", "pytorch-lightning_version"}.issubset(strings) or (
        {"state_dict", "hyper_parameters"}.issubset(strings)
    ):
        _old_files.check_checkpoint(path, strings)
        return "ckpt"
    if "model" in strings and any(text.split(".")[0] == "anomalib" for text in strings):
        _old_files.check_module(path, strings)
        return "pt"
    raise ValueError(
        f"{path} was saved by PyTorch, but neither by anomalib's training (a .ckpt with its "
        "settings) nor by anomalib's export (a .pt with the whole model); it may be bare weights"
    )


def pickle_strings(data: bytes) -> list[str]:
    """All strings in a pickle, and ``module.name`` of all its globals, without unpickling it.

    Parameters
    ----------
    data : bytes
        The pickle.

    Returns
    -------
    list of str
        In the order of the pickle.

    Raises
    ------
    EOFError
        When it is cut or damaged.
    """
    strings = []
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if isinstance(argument, str):
                strings.append(argument.replace(" ", ".") if opcode.name == "GLOBAL" else argument)
    except Exception as exc:
        raise EOFError(f"its pickle cannot be read: {exc}") from exc
    return strings


def checkpoint_digest(path: PathLike, kind: str | None = None) -> str:
    """sha256 of a checkpoint, with the files that belong to it.

    Parameters
    ----------
    path : str or os.PathLike
        The checkpoint; ``~`` is expanded.
    kind : str or None, default=None
        As from :func:`checkpoint_kind`, which is asked where it is None.

    Returns
    -------
    str
        64 hexadecimal digits. A file is hashed again only when its size or time has changed.
    """
    digest = sha256()
    for file in checkpoint_files(path, kind):
        digest.update(bytes.fromhex(file_digest(file)))
    return digest.hexdigest()


def checkpoint_files(path: PathLike, kind: str | None = None) -> list[Path]:
    """A checkpoint, and the files that belong to it.

    Parameters
    ----------
    path, kind
        As for :func:`checkpoint_digest`.

    Returns
    -------
    list of pathlib.Path
        The checkpoint first.
    """
    path = Path(path).expanduser()
    files, kind = [path], kind or checkpoint_kind(path)
    if kind == "openvino":
        files.append(weights_of_openvino(path))
    elif kind == "onnx":
        files += _onnx_file.external_files(path)
    return files


def weights_of_openvino(path: Path) -> Path:
    """The .bin file of an OpenVINO graph: beside it, or beside what it is a link to."""
    candidates = [place.with_suffix(".bin") for place in (path, path.resolve())]
    for file in candidates:
        if file.is_file():
            return file
    raise FileNotFoundError(
        f"the weights of {path} are missing: an OpenVINO graph is two files, and "
        f"{candidates[0]} is not there"
    )
