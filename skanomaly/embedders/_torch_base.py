"""What the embedders of torch models share: their options and their runtimes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skanomaly._networks.network import LoadedModel, Network
from skanomaly._networks.runtimes import (
    DTYPES,
    RUNTIMES,
    Plan,
    embed,
    make_plan,
    manner,
    runtime_device,
)
from skanomaly._sklearn import StrOptions
from skanomaly._typing import PathLike
from skanomaly.core.threads import limit_openmp
from skanomaly.embedders._base import BasePatchEmbedder
from skanomaly.embedders._resize import RESIZE_VERSION, fast_resize

if TYPE_CHECKING:
    import torch


class TorchPatches(BasePatchEmbedder):
    """Base of the embedders of torch models.

    A subclass loads its model (`_model`), and says which network is made of it by the parameters
    (`_network`).
    """

    _parameter_constraints: dict = {
        **BasePatchEmbedder._parameter_constraints,
        "model_name": [str],
        "layers": [None, Integral, "array-like"],
        "fusion": [StrOptions({"concat", "mean"})],
        "class_token": ["boolean"],
        "weights": [str, os.PathLike],
        "device": [str],
        "dtype": [StrOptions(set(DTYPES))],
        "runtime": [StrOptions(set(RUNTIMES))],
    }

    _max_side = 16384

    model_name: str
    layers: int | Sequence[int] | None
    fusion: str
    class_token: bool
    weights: PathLike
    device: str
    dtype: str
    runtime: str

    # What a subclass says.

    def _model(self) -> LoadedModel:
        """The model with its weights, loaded at first use."""
        raise NotImplementedError

    def _network(self) -> Network:
        """What the parameters ask of the model."""
        raise NotImplementedError

    def _weight_files(self, fetch: bool) -> tuple[str, str | None, list[Path]] | None:
        """Name of the parameter, tag or None, and files of the weights.

        None where there are none. With `fetch` they are downloaded where they are missing.
        """
        raise NotImplementedError

    # What the base asks for.

    def _cell(self) -> int:
        return self._model().preprocessing.cell

    def _default_image_size(self) -> int:
        return self._model().preprocessing.image_size

    def _interpolation(self) -> str:
        return self._model().preprocessing.interpolation

    def _resize(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return fast_resize(image, size, self._interpolation(), type(self).__name__)

    def _start_reading(self) -> None:
        limit_openmp()

    def _fingerprint(self) -> dict[str, object]:
        network = self._network()
        preprocessing = network.preprocessing
        return {
            **network.fingerprint(),
            "fusion": self.fusion,
            "image_size": self._side(),
            "resize": self.resize,
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "interpolation": preprocessing.interpolation,
            "resize_version": RESIZE_VERSION,
            **self._plan(network).fingerprint(),
        }

    def _embed_batch(self, images: np.ndarray) -> np.ndarray:
        network = self._network()
        return embed(network, self._plan(network), images, self.batch_size)

    def _manner(self) -> str:
        network = self._network()
        return manner(network, self._plan(network))

    def _plan(self, network: Network) -> Plan:
        """Runtime, precision and device of a network."""
        runtime = self._runtime()
        at_fit = self.__dict__.get("_origin_at_fit", {})
        kept = self.dtype == "auto" and at_fit.get("runtime") == runtime
        dtype = at_fit["dtype"] if kept else self.dtype
        return make_plan(runtime, dtype, self._device(), self._may_reduce(network))

    def _runtime(self) -> str:
        """The runtime; for "auto" that of `fit`, if there was one: so with `dtype`."""
        at_fit = self.__dict__.get("_origin_at_fit", {})
        return at_fit.get("runtime", self.runtime) if self.runtime == "auto" else self.runtime

    def _device(self) -> torch.device:
        return runtime_device(self._runtime(), self.device)

    def _may_reduce(self, network: Network) -> bool:
        """Whether ``dtype="auto"`` may be less than float32."""
        return network.fast_forward is not None
