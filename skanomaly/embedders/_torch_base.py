"""What the embedders of torch models share: their options, their runtimes, the fusion of layers."""

from numbers import Integral

import numpy as np
from sklearn.utils._param_validation import StrOptions

from skanomaly._networks.runtimes import (
    DTYPES,
    RUNTIMES,
    make_plan,
    round_to_half,
    run,
    runtime_device,
)
from skanomaly._optional import import_optional
from skanomaly.core.threads import limit_openmp
from skanomaly.embedders._base import BasePatchEmbedder
from skanomaly.embedders._resize import RESIZE_VERSION, fast_resize


class TorchPatches(BasePatchEmbedder):
    """Base of the embedders of torch models.

    A subclass loads its model (`_model`), numbers the layers (`_layers`), passes a batch through
    it (`_forward`, and `_fast_forward` where `_is_plain`), and says what this depends on besides
    weights and layers (`_graph`).
    """

    _parameter_constraints: dict = {
        **BasePatchEmbedder._parameter_constraints,
        "model_name": [str],
        "layers": [None, Integral, "array-like"],
        "fusion": [StrOptions({"concat", "mean"})],
        "device": [str],
        "dtype": [StrOptions(set(DTYPES))],
        "runtime": [StrOptions(set(RUNTIMES))],
    }

    _max_side = 16384
    _libraries = ("torch", "timm")  # the models are made of

    # What the base asks for.

    def _cell(self):
        return self._model().cell

    def _default_image_size(self):
        return self._model().image_size

    @property
    def _interpolation(self):
        return self._model().interpolation

    def _resize(self, image, size):
        return fast_resize(image, size, self._interpolation, type(self).__name__)

    _start_reading = staticmethod(limit_openmp)

    def _fingerprint(self):
        model = self._model()
        return {
            "weights": model.digest,
            **self._graph(model),
            "layers": self._layers(model),
            "fusion": self.fusion,
            "image_size": self._side(),
            "resize": self.resize,
            "mean": list(model.mean),
            "std": list(model.std),
            "interpolation": model.interpolation,
            "resize_version": RESIZE_VERSION,
            **self._plan().fingerprint(),
        }

    def _embed_batch(self, images):
        model, plan = self._model(), self._plan()
        torch = import_optional("torch", "torch", type(self).__name__)
        with torch.inference_mode():
            maps = run(plan, model, normalise(images, model, plan.device), self)
            tokens = self._fuse(model, maps).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return round_to_half(tokens) if plan.reduced else tokens

    # Overridden where a model differs.

    def _tower(self, model, shape):
        """The module that `_forward` calls for inputs of that (B, 3, height, width)."""
        return model.module

    def _is_plain(self, model):
        """Whether there is a fast form of what is asked of the model."""
        return model.plain

    def _fuse(self, model, maps):
        """One (B, dim, grid_h, grid_w) map of those from `_forward`."""
        return (fuse_stages if model.hierarchical else fuse_blocks)(maps, self.fusion)

    def _plan(self):
        device = runtime_device(self.runtime, self.device)
        return make_plan(self.runtime, self.dtype, device, self._is_plain(self._model()))

    def _numbers(self, count, default):
        """Layers as sorted, unique, non-negative numbers."""
        if self.layers is None:
            return default
        layers = [self.layers] if isinstance(self.layers, Integral) else list(self.layers)
        bad = [i for i in layers if not isinstance(i, Integral) or not -count <= i < count]
        if bad or not layers:
            raise ValueError(
                f"layers={self.layers!r}: {self.model_name} has layers 0 to {count - 1}"
            )
        return sorted({int(i) % count for i in layers})


def normalise(images, model, device):
    """(B, 3, height, width) float32 input of a model, on the device, from a batch of images."""
    torch = import_optional("torch", "torch", "this embedder")

    def moved(tensor):
        if device.type == "cuda":  # from pinned memory, a copy to the GPU is not waited for
            tensor = tensor.pin_memory()
        return tensor.to(device, non_blocking=True)

    x = moved(torch.from_numpy(images)).permute(0, 3, 1, 2)
    x = x.float().div_(255) if images.dtype == np.uint8 else x.float()
    mean, std = (moved(torch.tensor(values)).view(1, 3, 1, 1) for values in (model.mean, model.std))
    return (x - mean) / std


def fuse_blocks(maps, fusion):
    """Maps of several blocks of a transformer as one: each token of unit length, then fused."""
    torch = import_optional("torch", "torch", "this embedder")
    if len(maps) == 1:
        return maps[0]
    maps = [torch.nn.functional.normalize(m, dim=1) for m in maps]
    return torch.cat(maps, 1) if fusion == "concat" else torch.stack(maps).mean(0)


def fuse_stages(maps, fusion):
    """Maps of stages as one, as in PatchCore: averaged over 3x3 cells, at the finest grid."""
    torch = import_optional("torch", "torch", "this embedder")
    functional = torch.nn.functional
    if fusion == "mean" and len({m.shape[1] for m in maps}) > 1:
        raise ValueError("fusion='mean' needs layers of one dimension; use fusion='concat'")
    grid = max(m.shape[-2:] for m in maps)
    maps = [functional.avg_pool2d(m, 3, stride=1, padding=1) for m in maps]
    maps = [
        functional.interpolate(m, size=grid, mode="bilinear", align_corners=False) for m in maps
    ]
    return torch.cat(maps, 1) if fusion == "concat" else torch.stack(maps).mean(0)
