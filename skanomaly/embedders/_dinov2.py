"""DINOv2 and DINOv3 backbones as embedders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skanomaly._docstrings import document
from skanomaly._networks import dinov2
from skanomaly._networks.network import LoadedModel, Network
from skanomaly._sklearn import StrOptions
from skanomaly._typing import Augmentation, PathLike, ValueRange
from skanomaly.embedders._docstrings import EMBEDDER_DOCS
from skanomaly.embedders._timm import TimmPatches


@document(EMBEDDER_DOCS)
class DinoV2Patches(TimmPatches):
    """Patch tokens of DINOv2, with or without registers, and of DINOv3.

    They are described in [1]_, [2]_ and [3]_.

    The numbers are those of the official implementation at every image size: the tokens of the
    last block after its layer normalisation, without class and register tokens.

    Parameters
    ----------
    model_name : str, default="dinov2_vits14"
        ``"dinov2_vit{s,b,l,g}14"``, with ``"_reg"`` appended for registers, or
        ``"dinov3_vit{s,splus,b,l,hplus,7b}16"``.
    image_size : int or None, default=448
        Side of the square, or the shortest side, in pixels; a multiple of the patch.
    layers : int, sequence of int or None, default=None
        Blocks, counted from 0; negative from the last. None: the last.
    %(fusion)s
    %(class_token)s
    %(resize)s
    %(augmentation)s
    %(value_range)s
    weights : str or os.PathLike, default="pretrained"
        ``"random"``: random weights from a fixed seed, for tests. ``"pretrained"``: downloaded at
        first use (``HF_HOME``; ``HF_HUB_OFFLINE=1`` forbids it). A tag that timm has for this
        model, such as ``"lvd142m"``. A path: a local ``.safetensors`` or ``.pth`` file, of timm or
        of the official repository.
        %(weights_order)s
    source : {"timm", "hub"}, default="timm"
        ``"timm"`` loads safetensors and runs no code but that of the installed packages.
        ``"hub"`` lets torch.hub download the official repository, at a fixed commit, and run its
        code; only for DINOv2 and its pretrained weights.
    %(batch_size)s
    %(device)s
    %(dtype)s
    %(runtime)s
    %(cache_dir)s
    %(cache_size)s
    %(stream)s
    %(verbose)s

    Notes
    -----
    Without registers the official code interpolates the position embedding bicubically, without
    antialiasing, by a scale factor of ``(grid + 0.1) / 37``. timm antialiases, which moves tokens
    by some 0.7% at 448 pixels; here timm's weights are used with the official rule.

    For precisions and runtimes see the notes of :class:`TimmPatches`.

    References
    ----------
    .. [1] Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024.
    .. [2] Darcet et al., "Vision Transformers Need Registers", ICLR 2024.
    .. [3] Siméoni et al., "DINOv3", arXiv:2508.10104, 2025.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly import DinoV2Patches
    >>> embedder = DinoV2Patches(image_size=70, weights="random")
    >>> embedder.transform([np.zeros((100, 80, 3), dtype=np.uint8)]).shape
    (1, 5, 5, 384)
    """

    _parameter_constraints: dict = {
        **TimmPatches._parameter_constraints,
        "source": [StrOptions({"timm", "hub"})],
    }

    def __init__(
        self,
        model_name: str = "dinov2_vits14",
        *,
        image_size: int | None = 448,
        layers: int | Sequence[int] | None = None,
        fusion: str = "concat",
        class_token: bool = False,
        resize: str = "squash",
        augmentation: Augmentation | None = None,
        value_range: ValueRange | None = None,
        weights: PathLike = "pretrained",
        source: str = "timm",
        batch_size: int = 8,
        device: str = "auto",
        dtype: str = "auto",
        runtime: str = "auto",
        cache_dir: PathLike | None = None,
        cache_size: int = 20_000_000_000,
        stream: bool = False,
        verbose: bool | int = False,
    ) -> None:
        super().__init__(
            model_name,
            layers=layers,
            fusion=fusion,
            class_token=class_token,
            image_size=image_size,
            resize=resize,
            augmentation=augmentation,
            value_range=value_range,
            weights=weights,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            runtime=runtime,
            cache_dir=cache_dir,
            cache_size=cache_size,
            stream=stream,
            verbose=verbose,
        )
        self.source = source

    def _timm_name(self) -> str:
        return dinov2.timm_name(self.model_name)

    def _default_block(self, count: int) -> int:
        return count - 1  # as published

    def _any_size(self) -> bool:
        # The rule for the position embedding needs it as it was trained, at every size.
        return True

    def _weight_files(self, fetch: bool) -> tuple[str, str | None, list[Path]] | None:
        if self.source == "timm":
            return super()._weight_files(fetch)
        if fetch:
            raise ValueError(
                "source='hub' runs code that is downloaded, which no model file holds: fit with "
                "source='timm' to save with include_weights=True"
            )
        return None

    def _model(self) -> LoadedModel:
        if self.source == "timm":
            return super()._model()
        if self.weights != "pretrained" or not self.model_name.startswith("dinov2_"):
            raise ValueError("source='hub' serves DINOv2 with weights='pretrained' only")
        self._timm_name()  # refuses unknown names
        device = str(self._device())
        return dinov2.load_official(self.model_name, device)

    def _network(self) -> Network:
        if self.source == "hub":
            return self._network_by(dinov2.forward_official, None, "official")
        if dinov2.has_official_rule(self.model_name):
            return self._network_by(dinov2.forward, dinov2.fast_forward, "dinov2")
        return super()._network()
