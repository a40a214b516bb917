"""Scores of images, batch by batch, from any backend; injected inferencers; checks of both."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from skanomaly._faults import of_an_image
from skanomaly._images import image_size, load_with_span, warn_of_small_range
from skanomaly.anomalib._files import Backend
from skanomaly.core.maps import upsample_map
from skanomaly.core.threads import map_threads, reading_threads

if TYPE_CHECKING:
    from skanomaly._images.values import Span
    from skanomaly._typing import FloatArray, ImageLike, ValueRange

# Inferencers are called by one thread at a time: most keep a single request or module.
_lock = threading.RLock()
_STEPS = np.linspace(0, 1, 257)  # of the quantiles that stand for a map


class InferencerBackend(Backend):
    """An object with ``predict``, given by the user, that scores one image a call.

    Parameters
    ----------
    inferencer : object
        Its ``predict`` takes a path or an array, and returns a dict or an object with
        ``pred_score`` and ``anomaly_map``.
    """

    unclipped = None

    def __init__(self, inferencer: Any) -> None:
        self.inferencer = inferencer

    def predict(
        self,
        images: Sequence[Any],
        normalized: bool = False,
        names: Sequence[str] | None = None,
    ) -> tuple[list[Any], FloatArray]:
        """Maps and scores of images, one call each.

        Parameters
        ----------
        images : list of (str, os.PathLike or ndarray)
            What ``predict`` of the inferencer is called with.
        normalized : bool
            Ignored: the inferencer gives what it gives.
        names : list of str or None
            Of the images, for messages.

        Returns
        -------
        maps : list of (ndarray of shape (h, w), float32, or None)
        scores : ndarray of shape (n,), float64
        """
        names = names or [f"image {i}" for i in range(len(images))]
        maps, scores = [], np.empty(len(images))
        for i, (image, name) in enumerate(zip(images, names, strict=True)):
            try:
                with _lock:
                    result = self.inferencer.predict(image)
            except Exception as exc:
                kind = type(self.inferencer).__name__
                error = RuntimeError(f"{name}: {kind}.predict raised {type(exc).__name__}: {exc}")
                if isinstance(exc, ValueError):  # its word for an image that is of no use to it
                    of_an_image(error)
                raise error from exc
            scores[i] = _score_of(_entry(result, "pred_score"), name)
            maps.append(_map_of(_entry(result, "anomaly_map"), name))
        return maps, scores


def score_batches(
    items: Sequence[ImageLike],
    backend: Backend,
    size: str | None,
    normalized: bool,
    value_range: ValueRange | None,
    batch_size: int,
    verbose: bool | int,
    training: Callable[[int, FloatArray], None] | None = None,
) -> tuple[list[FloatArray], FloatArray]:
    """Maps of images, and their scores, from one pass.

    Parameters
    ----------
    items : list of images
        Paths, bytes, PIL images or arrays.
    backend : Backend
        The model.
    size : {None, "image", "model", "any", "sample"}
        Give no maps, maps of each image's size, maps of the model's size, these or None where there
        is no map, or in place of each map
        its quantiles in even steps, the highest value last, and none where there is no map.
    normalized : bool
        Ask for anomalib's normalised scores.
    value_range, batch_size, verbose
        As for :class:`skanomaly.AnomalibDetector`.
    training : callable, optional
        In `fit`, with ``size="sample"``: takes the number of an image and its map, of the model's
        size. Images of more than 8 bits that use a small part of their range are then warned of.

    Returns
    -------
    maps : list of ndarray of shape (height, width), float32
        Higher is more anomalous; empty without `size`. Quantiles are of shape (257,), or
        (0,).
    scores : ndarray of shape (n,), float64
        Higher is more normal.

    Raises
    ------
    ValueError
        When an image has no finite score, or no map where one is asked for; it is named.
    """
    injected = isinstance(backend, InferencerBackend)
    read = partial(_read, keep_paths=injected and value_range is None, value_range=value_range)
    maps: list[Any] = []
    scores = []
    spans: list[Span | None] = []
    with tqdm(total=len(items), desc="score", unit="image", disable=not verbose) as bar:
        for start in range(0, len(items), batch_size):
            part = list(enumerate(items[start : start + batch_size], start))
            names = [_name(i, item) for i, item in part]
            read_images = map_threads(read, part, reading_threads())
            images = [image for image, _ in read_images]
            spans += [span for _, span in read_images]
            options: dict[str, Any] = {"names": names} if injected else {"normalized": normalized}
            heats, found = _check_output(*backend.predict(images, **options), names)
            scores.append(-found)
            if size is not None:
                for (i, item), image, heat, name in zip(part, images, heats, names, strict=True):
                    if size == "sample":
                        maps.append(np.empty(0) if heat is None else np.quantile(heat, _STEPS))
                        if heat is not None and training is not None:
                            training(i, heat)
                        continue
                    if size == "any":
                        maps.append(heat)
                        continue
                    if heat is None:
                        raise ValueError(f"{name}: this model gives scores, but no anomaly_map")
                    if size == "image":
                        is_read = isinstance(image, np.ndarray)
                        own_size = image.shape[:2] if is_read else image_size(item, i)
                        heat = upsample_map(heat, own_size, sigma=0)
                    maps.append(heat)
            bar.update(len(part))
    if training is not None and value_range is None:
        warn_of_small_range(spans)
    return maps, np.concatenate(scores)


def _name(index: int, item: object) -> str:
    if isinstance(item, (str, os.PathLike)):
        return f"image {index} ({os.fsdecode(item)!r})"
    return f"image {index}"


def _read(
    numbered: tuple[int, Any], keep_paths: bool, value_range: ValueRange | None
) -> tuple[Any, Span | None]:
    index, item = numbered
    if keep_paths and isinstance(item, (str, os.PathLike)):
        return item, None
    return load_with_span(item, index, value_range)


def _check_output(
    maps: Any, scores: Any, names: list[str]
) -> tuple[list[FloatArray | None], FloatArray]:
    """Raise where a model has returned something else than finite scores and maps."""
    scores = np.asarray(scores, dtype=np.float64)
    maps = [None] * len(names) if maps is None else list(maps)
    if scores.shape != (len(names),) or len(maps) != len(names):
        raise ValueError(
            f"the model returned scores of shape {scores.shape} and {len(maps)} maps for "
            f"{len(names)} images ({names[0]} to {names[-1]})"
        )
    for score, heat, name in zip(scores, maps, names, strict=True):
        if not np.isfinite(score):
            what = f"the model's pred_score is {score}, not a finite number"
            raise of_an_image(ValueError(f"{name}: {what}"))
        if heat is not None and not np.isfinite(heat).all():
            raise of_an_image(ValueError(f"{name}: the model's anomaly_map is not finite"))
    return maps, scores


def _entry(result: Any, key: str) -> Any:
    return result.get(key) if hasattr(result, "get") else getattr(result, key, None)


def _score_of(value: Any, name: str) -> float:
    if value is None:
        raise ValueError(
            f"{name}: the inferencer returned no pred_score; its predict must return a dict or an "
            "object with pred_score, and anomaly_map for maps"
        )
    array = _to_numpy(value, "pred_score", name)
    if array.size != 1 or array.ndim > 2:
        raise ValueError(
            f"{name}: pred_score has the shape {array.shape}; one image has one score, of shape "
            "(), (1,) or (1, 1)"
        )
    return float(array.reshape(()))


def _map_of(value: Any, name: str) -> FloatArray | None:
    if value is None:
        return None
    array = _to_numpy(value, "anomaly_map", name)
    if array.ndim not in (2, 3, 4) or array.size == 0 or set(array.shape[:-2]) - {1}:
        raise ValueError(
            f"{name}: anomaly_map has the shape {array.shape}; the map of one image has the shape "
            "(H, W), (1, H, W) or (1, 1, H, W)"
        )
    with np.errstate(over="ignore"):  # infinity is an error later on, which names the image
        return array.reshape(array.shape[-2:]).astype(np.float32)  # a copy: memory may be shared


def _to_numpy(value: Any, what: str, name: str) -> Any:
    try:
        if hasattr(value, "detach"):  # a tensor of torch, of whatever type, on whatever device
            value = value.detach().cpu()
            value = value.double() if value.is_floating_point() else value
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as exc:  # such as ragged lists, sparse tensors
        raise ValueError(f"{name}: {what} is no array of numbers ({exc})") from exc
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name}: {what} is {type(value).__name__}, not numbers")
    return array
