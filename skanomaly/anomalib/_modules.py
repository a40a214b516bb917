"""Inference with a PyTorch module of anomalib: raw scores and maps of a batch of images."""

import math
import threading

import numpy as np

from skanomaly._optional import import_optional
from skanomaly.anomalib._families import FAMILIES, family_of_class
from skanomaly.anomalib._files import Backend, uncrop
from skanomaly.anomalib._offline import keep_positions

_USER = "AnomalibDetector"


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

    raw = True

    def __init__(self, module, device, source):
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

    def predict(self, images, normalized=False):
        """Scores and maps of one batch of images, as :meth:`Backend.predict` says."""
        torch = import_optional("torch", "anomalib", _USER)
        if normalized and self.module.post_processor is None:
            raise ValueError(
                f"{self.source} has no post-processor, so that normalized=True is not possible"
            )
        with self._lock, torch.inference_mode():
            inputs = [self._prepare(image) for image in images]
            sizes = [tuple(x.shape) for x in inputs]
            scores = np.empty(len(images))
            maps = [None] * len(images)
            for rows in self._batches(sizes):
                batch = torch.stack([inputs[i] for i in rows]).to(self.device)
                scores[rows], found = self._run(batch, normalized)
                for i, heat in zip(rows, found, strict=True):
                    maps[i] = heat
        if any(heat is None for heat in maps):
            return scores, None
        ratios = [seen(self.transform, image.shape[:2]) for image in images]
        return scores, [whole(heat, ratio) for heat, ratio in zip(maps, ratios, strict=True)]

    def _batches(self, sizes):
        """Lists of the images that go through the model together, from the sizes of all inputs."""
        if self.family is not None and FAMILIES[self.family].per_image:
            return [[i] for i in range(len(sizes))]
        # They differ only where the checkpoint does not resize.
        return [[i for i, x in enumerate(sizes) if x == size] for size in dict.fromkeys(sizes)]

    def _prepare(self, image):
        """(3, h, w) input of the model: resized and normalised as in training."""
        torch = import_optional("torch", "anomalib", _USER)
        functional = import_optional("torchvision.transforms.v2.functional", "anomalib", _USER)
        x = torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))
        x = functional.to_dtype(x, torch.float32, scale=True)[None]
        return (x if self.transform is None else self.transform(x))[0]

    def _run(self, batch, normalized):
        """float64 scores and float32 maps, or Nones, of a batch of inputs."""
        data = import_optional("anomalib.data", "anomalib", _USER)
        try:
            out = self.module.model(batch)
        except ValueError as exc:
            raise ValueError(f"the model in {self.source} cannot score images: {exc}") from exc
        if not hasattr(out, "pred_score"):
            out = data.InferenceBatch(pred_score=out[0], anomaly_map=out[1])
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
            return score, [None] * len(batch)
        heat = heat.float().cpu().numpy()
        return score, list(heat.reshape(len(batch), *heat.shape[-2:]))


def thresholds(post_processor):
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
    if post_processor is None or not hasattr(post_processor, "image_threshold"):
        return None, None
    threshold = float(post_processor.image_threshold)
    if not math.isfinite(threshold) or not post_processor.enable_thresholding:
        return None, None
    if not post_processor.enable_normalization:
        return threshold, threshold
    # A sensitivity other than 0.5 moves the threshold of the normalised scores.
    normalized = 1 - float(post_processor.image_sensitivity)
    spread = float(post_processor.image_max) - float(post_processor.image_min)
    if math.isfinite(spread) and spread > 0:
        threshold += (normalized - 0.5) * spread
    else:
        normalized = threshold if math.isnan(spread) else normalized
    return threshold, normalized


def seen(transform, size):
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
    ratio, size = [1.0, 1.0], list(size)
    for step in _steps(transform):
        kind = type(step).__name__
        if kind == "Resize":
            size = _resized(size, step)
        elif kind in ("CenterCrop", "ExportableCenterCrop", "SquarePad"):
            after = [max(size)] * 2 if kind == "SquarePad" else list(step.size)
            ratio = [r * new / old for r, new, old in zip(ratio, after, size, strict=True)]
            size = after
    return tuple(ratio)


def _steps(transform):
    if transform is None:
        return []
    if type(transform).__name__ == "Compose":
        return [step for part in transform.transforms for step in _steps(part)]
    return [transform]


def _resized(size, step):
    if step.size is not None and len(step.size) == 2:
        return list(step.size)
    functional = import_optional("torchvision.transforms.v2.functional", "anomalib", _USER)
    torch = import_optional("torch", "anomalib", _USER)
    empty = torch.empty(1, *size, device="meta")
    side = None if step.size is None else list(step.size)
    return list(functional.resize(empty, side, max_size=step.max_size).shape[-2:])


def whole(heat, ratio):
    """The map of a whole image from the map of what the model sees of it.

    Parameters
    ----------
    heat : ndarray of shape (h, w)
        Map of the part in the middle, or of the image with a border around it.
    ratio : tuple of float
        As from :func:`seen`.

    Returns
    -------
    ndarray of shape (height, width)
        At the same scale; its lowest value where the model saw nothing.
    """
    size = [max(1, round(side / share)) for side, share in zip(heat.shape, ratio, strict=True)]
    skip = [max(0, side - new) // 2 for side, new in zip(heat.shape, size, strict=True)]
    inner = heat[skip[0] : skip[0] + size[0], skip[1] : skip[1] + size[1]]
    return uncrop(inner, tuple(size))
