"""Inference with a PyTorch module of anomalib: maps and raw scores of a batch of images."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from skanomaly._optional import import_optional
from skanomaly.anomalib._families import FAMILIES, family_of_class
from skanomaly.anomalib._files import Backend, uncrop
from skanomaly.anomalib._offline import keep_positions
from skanomaly.anomalib._opening import USER, inference_batch, post_processor_settings
from skanomaly.core.threads import prepare_torch

if TYPE_CHECKING:
    from skanomaly._typing import FloatArray


class ModuleBackend(Backend):
    """A model of anomalib on a device, in evaluation mode.

    Parameters
    ----------
    module : anomalib.models.components.AnomalibModule
        With its weights. It belongs to this object afterwards.
    device : torch.device
        Where it shall run.
    source : str
        The file it is from, for error messages.
    """

    def __init__(self, module: Any, device: Any, source: str) -> None:
        self.source = source
        family = family_of_class(type(module).__name__)
        self.family = None if family is None else family.name
        keep_positions(module)
        self.module = module.eval().requires_grad_(False).to(device)
        self.device = device
        self.transform = getattr(module.pre_processor, "transform", None)
        self.threshold, self.normalized_threshold = thresholds(module.post_processor)
        # Some models keep what they compute on themselves while they run.
        self._lock = threading.Lock()

    def predict(
        self, images: list[FloatArray], normalized: bool = False
    ) -> tuple[list[FloatArray] | None, FloatArray]:
        """Maps and scores of one batch of images, as :meth:`Backend.predict` says."""
        torch = import_optional("torch", "anomalib", USER)
        if normalized and self.module.post_processor is None:
            raise ValueError(
                f"{self.source} has no post-processor, so that normalized=True is not possible"
            )
        prepare_torch()
        with self._lock, torch.inference_mode():
            inputs = [self._prepare(image) for image in images]
            sizes = [tuple(x.shape) for x in inputs]
            scores = np.empty(len(images))
            maps: list[Any] = [None] * len(images)
            for rows in self._batches(sizes):
                batch = torch.stack([inputs[i] for i in rows]).to(self.device)
                found, scores[rows] = self._run(batch, normalized)
                for i, heat in zip(rows, found, strict=True):
                    maps[i] = heat
        if any(heat is None for heat in maps):
            return None, scores
        shares = [visible_share(self.transform, image.shape[:2]) for image in images]
        return [map_of_image(heat, share) for heat, share in zip(maps, shares, strict=True)], scores

    def _batches(self, sizes):
        """Lists of the images that go through the model together, from the sizes of all inputs."""
        if self.family is not None and FAMILIES[self.family].per_image:
            return [[i] for i in range(len(sizes))]
        # They differ only where the checkpoint does not resize.
        return [[i for i, x in enumerate(sizes) if x == size] for size in dict.fromkeys(sizes)]

    def _prepare(self, image):
        """(3, h, w) input of the model: resized and normalised as in training."""
        torch = import_optional("torch", "anomalib", USER)
        functional = import_optional("torchvision.transforms.v2.functional", "anomalib", USER)
        x = torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))
        x = functional.to_dtype(x, torch.float32, scale=True)[None]
        return (x if self.transform is None else self.transform(x))[0]

    def _run(self, batch, normalized):
        """float32 maps, or Nones, and float64 scores of a batch of inputs."""
        try:
            out = inference_batch(self.module.model(batch))
        except ValueError as exc:
            raise ValueError(f"the model in {self.source} cannot score images: {exc}") from exc
        score, heat = out.pred_score, out.anomaly_map
        if score is None:
            if heat is None:
                raise ValueError(f"the model in {self.source} gives neither scores nor maps")
            score = heat.flatten(1).amax(1)
            out = out._replace(pred_score=score)
        if normalized:
            out = self.module.post_processor(out)
            score, heat = out.pred_score, out.anomaly_map
        score = score.double().cpu().numpy().reshape(-1)
        if len(score) != len(batch):
            raise ValueError(
                f"the model in {self.source} gave {len(score)} scores for {len(batch)} images"
            )
        if heat is None:
            return [None] * len(batch), score
        heat = heat.float().cpu().numpy()
        return list(heat.reshape(len(batch), *heat.shape[-2:])), score


def thresholds(post_processor: Any) -> tuple[float | None, float | None]:
    """Image thresholds of a post-processor, for raw and for normalised scores.

    Parameters
    ----------
    post_processor : anomalib.post_processing.PostProcessor or None
        Of a loaded model.

    Returns
    -------
    raw, normalized : float or None
        An image whose score is higher is anomalous. None when the validation that would have set
        it never ran, or had no usable result.
    """
    settings = post_processor_settings(post_processor)
    if settings is None:
        return None, None
    threshold = settings["image_threshold"]
    if not math.isfinite(threshold) or not settings["enable_thresholding"]:
        return None, None
    if not settings["enable_normalization"]:
        return threshold, threshold
    # A sensitivity other than 0.5 moves the threshold of the normalised scores.
    normalized = 1 - settings["image_sensitivity"]
    spread = settings["image_max"] - settings["image_min"]
    if math.isfinite(spread) and spread > 0:
        threshold += (normalized - 0.5) * spread
    else:
        normalized = threshold if math.isnan(spread) else normalized
    return threshold, normalized


def visible_share(transform: Any, size: tuple[int, int]) -> tuple[float, float]:
    """How much of an image a pre-processor shows to the model.

    Parameters
    ----------
    transform : torchvision.transforms.v2.Transform or None
        Of the pre-processor.
    size : tuple of int
        Height and width of the image.

    Returns
    -------
    tuple of float
        Height and width of the part in the middle that the model sees, as shares of the image;
        above 1 where the image is padded.
    """
    share, now = [1.0, 1.0], list(size)
    for step in _steps(transform):
        kind = type(step).__name__
        if kind == "Resize":
            now = _resized(now, step)
        elif kind in ("CenterCrop", "ExportableCenterCrop", "SquarePad"):
            after = [max(now)] * 2 if kind == "SquarePad" else list(step.size)
            share = [part * new / old for part, new, old in zip(share, after, now, strict=True)]
            now = after
    return share[0], share[1]


def _steps(transform):
    if transform is None:
        return []
    if type(transform).__name__ == "Compose":
        return [step for part in transform.transforms for step in _steps(part)]
    return [transform]


def _resized(size, step):
    if step.size is not None and len(step.size) == 2:
        return list(step.size)
    functional = import_optional("torchvision.transforms.v2.functional", "anomalib", USER)
    torch = import_optional("torch", "anomalib", USER)
    empty = torch.empty(1, *size, device="meta")
    side = None if step.size is None else list(step.size)
    return list(functional.resize(empty, side, max_size=step.max_size).shape[-2:])


def map_of_image(heat: FloatArray, share: tuple[float, float]) -> FloatArray:
    """The map of a whole image from the map of what the model sees of it.

    Parameters
    ----------
    heat : ndarray of shape (h, w)
        Map of the part in the middle, or of the image with a border around it.
    share : tuple of float
        As from :func:`visible_share`.

    Returns
    -------
    ndarray of shape (height, width)
        At the same scale; its lowest value where the model saw nothing.
    """
    size = [max(1, round(side / part)) for side, part in zip(heat.shape, share, strict=True)]
    skip = [max(0, side - new) // 2 for side, new in zip(heat.shape, size, strict=True)]
    inner = heat[skip[0] : skip[0] + size[0], skip[1] : skip[1] + size[1]]
    return uncrop(inner, (size[0], size[1]))
