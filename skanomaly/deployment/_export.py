"""A fitted detector as one graph in a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from skanomaly._images import check_images, load_image
from skanomaly._images.names import path_of
from skanomaly._pipelines import offset_of, split_detector
from skanomaly._typing import Images, PathLike
from skanomaly._warn import warn_user
from skanomaly.deployment._detectors import check_detector, detector_graph
from skanomaly.deployment._files import FORMAT, KEY, NAME, SUFFIXES, check_target, write_files
from skanomaly.deployment._graph import OPSET, Graph
from skanomaly.deployment._maps import maps_graph
from skanomaly.deployment._running import (
    onnx_run,
    openvino_files,
    openvino_model,
    openvino_run,
)
from skanomaly.deployment._verdict import conformal, decided
from skanomaly.deployment._verification import Verified, verify
from skanomaly.inspection._maps import check_sigma
from skanomaly.persistence._manifest import describe, plain

_MOST_BYTES = 2**31 - 2**20  # of a protobuf message


def export_model(
    estimator: Any,
    path: PathLike,
    *,
    images: Images,
    format: Literal["onnx", "openvino"] = "onnx",
    any_size: bool = False,
    sigma: float = 4.0,
) -> dict[str, Any]:
    """Write a fitted detector as one graph, from the pixels of an image to the verdict on it.

    The file runs with ONNX Runtime or OpenVINO alone: preprocessing, embedder, scorer, threshold,
    heat map and p-value are in it. :class:`skanomaly.DeployedDetector` brings it back.

    Parameters
    ----------
    estimator : Pipeline or detector
        A fitted Pipeline of an embedder and a scorer, with :class:`skanomaly.RegionOfInterest`
        between them or not; an :class:`skanomaly.ImageUnion` of such; or a search of these.
    path : str or os.PathLike
        The file: ``.onnx``, or for OpenVINO ``.xml``, beside which a ``.bin`` is written. ``~`` is
        expanded. An exported model that is there is replaced once the new one is whole; any other
        file, and a link, is an error.
    images : list, tuple, 1-D array or Series of images, or a 4-D uint8 array
        The training images, or others of the line. Of copies of them, altered so that they are new
        to the model, graph and pipeline have to say the same. Their size becomes that of the graph.
    format : {"onnx", "openvino"}, default="onnx"
        The runtime.
    any_size : bool, default=False
        Whether the graph takes images of any size, and `images` may be of several. It is larger and
        slower then, and the embedder needs ``resize="squash"``.
    sigma : float, default=4.0
        Of the heat maps: standard deviation, in pixels, of the Gaussian that smooths them.

    Returns
    -------
    dict of str to object
        `file`, `bytes`, the size of the file (for OpenVINO of both files together), `height` and
        `width`, which may be ``"any"``, and `verified`: `n_images`, `n_anomalous`, how many copies
        both call anomalous, and the largest `score_deviation` and `map_deviation`.

    Raises
    ------
    ValueError
        When a step has no form as a graph, which the message names with the reason; when images
        are of several sizes without `any_size`, or of more than 8 bits; or when graph and pipeline
        differ: in a score by more than 1e-4 of it (or of the usual score of good images, if that is
        more), in a decision, or in a map by more than 1e-3 of the range of all maps.
    NotFittedError
        When the detector is not fitted, or has no threshold.
    FileExistsError, OSError
        When `path` is a file of others, or cannot be written.
    ImportError
        When the extra ``onnx`` or ``openvino`` is missing; both formats need ``onnx``.
        ``pip install "skanomaly[onnx]"`` installs the first; the page "Installing" of the
        documentation lists all extras.

    Warns
    -----
    UserWarning
        When none or all of the copies are anomalous, so that decisions were compared on one side of
        the threshold only.

    Notes
    -----
    Input of the graph is ``image``, uint8 of shape (batch, height, width, 3), RGB; the batch may be
    of any size. Its outputs are ``score``, float64 (batch,), as from `score_samples`;
    ``decision``, int64 (batch,), +1 for normal and -1 for anomalous; ``anomaly_map``, float32
    (batch, height, width), as from :func:`skanomaly.anomaly_maps`; ``patch_scores``, float32
    (batch, grid_h, grid_w), of which the map is made; and ``p_value``, float64 (batch,), unless the
    detector has none, as one by texts that saw no image.

    All images are new to the graph: training images get the score of any other image from it, and
    not their held-out score as from the pipeline.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import DeployedDetector, FilterBankPatches, PatchKNNScorer, export_model
    >>> from skanomaly.datasets import make_surfaces
    >>> made = make_surfaces(9, 1, image_size=64, random_state=0)
    >>> pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer())
    >>> _ = pipe.fit(made.images[:9])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = export_model(pipe, f"{folder}/parts.onnx", images=made.images[:9])
    ...     detector = DeployedDetector(f"{folder}/parts.onnx")
    ...     print(detector.predict(made.images[9:]), detector.p_values(made.images[9:]))
    [-1] [0.1]
    >>> report["verified"]["n_images"], report["verified"]["score_deviation"] < 1e-4
    (9, True)
    """
    if format not in SUFFIXES:
        raise ValueError(f"format must be 'onnx' or 'openvino', got {format!r}")
    check_sigma(sigma)
    place = Path(path).expanduser()
    if place.suffix != SUFFIXES[format]:
        raise ValueError(
            f"{place} must end in {SUFFIXES[format]} for format={format!r}"
            + "".join(f"; {s} is of format={f!r}" for f, s in SUFFIXES.items() if s == place.suffix)
        )
    scorer = split_detector(estimator).scorer
    check_is_fitted(estimator)
    offset_of(scorer)
    check_detector(estimator)
    items = check_images(images)
    paths = [path_of(item) for item in items]
    check_target(place, [Path(path) for path in paths if path is not None])
    arrays = _loaded(items, any_size)
    height, width = arrays[0].shape[:2]
    size = None if any_size else (height, width)
    names = [f"image {i}" + (f" ({p})" if p else "") for i, p in enumerate(paths)]
    model = _model_of(estimator, size, arrays[0], sigma)
    content = model.SerializeToString()
    if format == "onnx":
        run = onnx_run(content)[0]
    else:
        converted = openvino_model(content)
        run = openvino_run(converted)
    verified = verify(run, estimator, arrays, names, sigma)
    del run
    manifest = json.dumps(_manifest(estimator, size, sigma, verified), allow_nan=False)
    if format == "onnx":
        model.metadata_props.add(key=KEY, value=manifest)
        contents = [model.SerializeToString()]
    else:
        contents = openvino_files(converted, manifest)
    n_bytes = write_files(place, contents)
    if verified.one_sided:
        warn_user(verified.one_sided)
    return {
        "file": str(place),
        "bytes": n_bytes,
        **_sides(size),
        "verified": verified.to_dict(),
    }


def _sides(size: tuple[int, int] | None) -> dict[str, int | str]:
    height, width = ("any", "any") if size is None else size
    return {"height": height, "width": width}


def _loaded(items: Sequence[Any], any_size: bool) -> list[NDArray[np.uint8]]:
    """Images as arrays, of one size unless they may be of any."""
    arrays: list[NDArray[np.uint8]] = []
    for i, item in enumerate(items):
        array = load_image(item, i)
        if array.dtype != np.uint8:
            raise ValueError(
                f"image {i} has more than 8 bits, and a graph takes those of 8 bits: bring images "
                "to 8 bits before fitting"
            )
        if arrays and not any_size and array.shape != arrays[0].shape:
            raise ValueError(
                f"image {i} is {array.shape[:2]}, image 0 is {arrays[0].shape[:2]} (height, "
                "width): a graph takes images of one size. Give images of that of the line, or set "
                "any_size=True (--any-size)"
            )
        arrays.append(array)
    return arrays


def _model_of(
    estimator: Any, size: tuple[int, int] | None, probe: NDArray[np.uint8], sigma: float
) -> Any:
    """The graph of a detector; `probe` is an image of the size, if there is one."""
    graph, (height, width) = Graph(), size or ("height", "width")
    scorer = split_detector(estimator).scorer
    image = graph.input("image", np.uint8, ["batch", height, width, 3])
    scored = detector_graph(graph, estimator, image, size, probe)
    maps = maps_graph(graph, scored.patches, size, image=image, sigma=sigma)
    graph.output(scored.scores, "score", np.float64, ["batch"])
    decision = decided(graph, scored.scores, offset_of(scorer))
    graph.output(decision, "decision", np.int64, ["batch"])
    graph.output(maps, "anomaly_map", np.float32, ["batch", height, width])
    graph.output(scored.patches, "patch_scores", np.float32, ["batch", *scored.grid])
    train_scores = getattr(scorer, "train_scores_", None)
    if train_scores is not None:
        p_values = conformal(graph, scored.scores, train_scores, scorer._train_groups)
        graph.output(p_values, "p_value", np.float64, ["batch"])
    if graph.n_bytes > _MOST_BYTES:
        raise ValueError(
            f"the model takes {graph.n_bytes / 1e9:.1f} GB, and one file of ONNX holds 2 GB: fit "
            "with a coreset, which keeps fewer patches"
        )
    return graph.model({})


def _manifest(
    estimator: Any, size: tuple[int, int] | None, sigma: float, verified: Verified
) -> dict[str, Any]:
    """What the file says of itself, in plain values."""
    scorer = split_detector(estimator).scorer
    scores, groups = getattr(scorer, "train_scores_", None), scorer._train_groups
    limits = getattr(scorer, "patch_limits_", None)
    known: dict[str, Any] = plain(describe(estimator, image_paths=False))
    return {
        "format": NAME,
        "format_version": FORMAT,
        **known,
        "opset": OPSET,
        "batch": "any",
        **_sides(size),
        "sigma": float(sigma),
        "verified": plain(verified.to_dict()),
        "threshold": plain(
            {
                "offset": float(offset_of(scorer)),
                "train_scores": None if scores is None else np.asarray(scores, dtype=np.float64),
                "groups": None if groups is None else np.unique(groups, return_inverse=True)[1],
                "calibration": getattr(scorer, "calibration_", {}),
                "patch_limits": limits,
            }
        ),
    }
