"""Deep patch tokens without torch and without a download: a network of our own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from numbers import Integral
from pathlib import Path

import numpy as np
from joblib import effective_n_jobs

from skanomaly._docstrings import document
from skanomaly._networks.runtimes import RUNTIMES, Plan, embed, make_plan, runtime_device
from skanomaly._networks.tiny import (
    IMAGE_SIZE,
    INTERPOLATION,
    load_tiny,
    torch_network,
    weight_file,
)
from skanomaly._sklearn import Options, StrOptions
from skanomaly._typing import Augmentation, PathLike, ValueRange
from skanomaly.core.threads import blas_threads, map_products
from skanomaly.core.tiny_network import GRIDS, tiny_tokens
from skanomaly.embedders._base import BasePatchEmbedder
from skanomaly.embedders._docstrings import EMBEDDER_DOCS


@document(EMBEDDER_DOCS)
class TinyPatches(BasePatchEmbedder):
    """Deep patch tokens of a small network whose weights are part of this package.

    Needs nothing but NumPy, and no download. The network was trained for this package to see what
    larger ones see; :doc:`/models/tiny` says from what, how, and where it fails.

    Parameters
    ----------
    image_size : int or None, default=256
        Side of the square, or the shortest side, in pixels; a multiple of the patch. None: 256.
    grid : {16, 32}, default=32
        Patches along 256 pixels, and in proportion for other sizes and aspects: 32 is for patches
        of 8 pixels, which overlap, 16 for patches of 16 pixels. Fewer of them are faster to score.
    %(resize)s
    %(augmentation)s
    %(value_range)s
    weights : str or os.PathLike, default="pretrained"
        ``"pretrained"``: those in the package. ``"random"``: as before the training, from a fixed
        seed, for tests and comparisons. A path: a ``.safetensors`` file of the same layout.
    batch_size : int, default=8
        Images read at a time.
    device : str, default="auto"
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:0"``, ``"mps"``; for ``runtime="torch"`` alone.
    runtime : {"numpy", "torch", "openvino", "onnx"}, default="numpy"
        What runs the network; all but ``"numpy"`` need the extra ``torch``, and the last two those
        of their names. See Notes.
    %(cache_dir)s
    %(cache_size)s
    n_jobs : int or None, default=None
        Images that ``runtime="numpy"`` embeds side by side, at most `batch_size`, each in a thread
        of its own. None: as many as the threads that products of NumPy may use; -1: all cores.
    %(stream)s
    %(verbose)s

    See Also
    --------
    skanomaly.FilterBankPatches : Tokens of fixed filters, whose components have names.
    skanomaly.core.tiny_network.tiny_tokens : The forward pass on NumPy.

    Notes
    -----
    Images are computed one by one: an image has the same tokens in every batch and with any number
    of threads, to the last bit. Other runtimes give the same but for rounding; a fitted embedder
    keeps to that of `fit`.

    NumPy is nearly as fast as torch on a processor; ``runtime="torch"`` takes a GPU where there is
    one, which may round more. For ``"openvino"`` and ``"onnx"`` the network is converted at first
    use for each size of input, as in :class:`~skanomaly.TimmPatches`.

    ``create_model("vision_tiny")`` joins these tokens with :class:`~skanomaly.LocalKNNScorer`.

    Examples
    --------
    >>> from skanomaly import TinyPatches
    >>> from skanomaly.datasets import make_surfaces
    >>> surfaces = make_surfaces(2, image_size=64, random_state=0)
    >>> TinyPatches(image_size=64).transform(surfaces.images).shape
    (2, 8, 8, 128)
    """

    _parameter_constraints: dict = {
        **BasePatchEmbedder._parameter_constraints,
        "grid": [Options(Integral, set(GRIDS))],
        "weights": [str, os.PathLike],
        "device": [str],
        "runtime": [StrOptions({"numpy", *RUNTIMES} - {"auto"})],
        "n_jobs": [None, Integral],
    }

    def __init__(
        self,
        *,
        image_size: int | None = 256,
        grid: int = 32,
        resize: str = "squash",
        augmentation: Augmentation | None = None,
        value_range: ValueRange | None = None,
        weights: PathLike = "pretrained",
        batch_size: int = 8,
        device: str = "auto",
        runtime: str = "numpy",
        cache_dir: PathLike | None = None,
        cache_size: int = 20_000_000_000,
        n_jobs: int | None = None,
        stream: bool = False,
        verbose: bool | int = False,
    ) -> None:
        self.image_size = image_size
        self.grid = grid
        self.resize = resize
        self.augmentation = augmentation
        self.value_range = value_range
        self.weights = weights
        self.batch_size = batch_size
        self.device = device
        self.runtime = runtime
        self.cache_dir = cache_dir
        self.cache_size = cache_size
        self.n_jobs = n_jobs
        self.stream = stream
        self.verbose = verbose

    # Tokens take time and memory in proportion to its square.
    _max_side = 8192

    def _cell(self) -> int:
        return IMAGE_SIZE // int(self.grid)

    def _default_image_size(self) -> int:
        return IMAGE_SIZE

    def _interpolation(self) -> str:
        return INTERPOLATION

    def _weight_files(self, fetch: bool) -> tuple[str, str | None, list[Path]] | None:
        file = weight_file(self.weights)
        if file is None:
            return None
        tagged = os.fspath(self.weights).partition("@")[0] == "pretrained"
        return "weights", "pretrained" if tagged else None, [file]

    def _fingerprint(self) -> dict[str, object]:
        plan, tiny = self._plan(), load_tiny(self.weights)
        return {
            "weights": tiny.digest,
            "dilations": tiny.network.dilations,
            "grid": int(self.grid),
            "image_size": self._side(),
            "resize": self.resize,
            "interpolation": self._interpolation(),
            **({"runtime": "numpy"} if plan is None else plan.fingerprint()),
        }

    def _plan(self) -> Plan | None:
        """How torch, or what is converted from it, runs the network; None for NumPy."""
        if self.runtime == "numpy":
            if self.device not in ("auto", "cpu"):
                raise ValueError(
                    "runtime='numpy' runs on the CPU; use device='cpu' or runtime='torch'"
                )
            return None
        device = runtime_device(self.runtime, self.device)
        return make_plan(self.runtime, "float32", device, plain=False)

    def _embed_batch(self, images: np.ndarray) -> Sequence[np.ndarray] | np.ndarray:
        if (plan := self._plan()) is not None:
            network = torch_network(self.weights, int(self.grid), str(plan.device))
            return embed(network, plan, images, self.batch_size)
        forward = partial(tiny_tokens, network=load_tiny(self.weights).network, grid=self.grid)
        n_threads = blas_threads() if self.n_jobs is None else effective_n_jobs(self.n_jobs)
        return map_products(forward, list(images), n_threads, always_one=True)
