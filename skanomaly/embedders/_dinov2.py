"""DINOv2 and DINOv3 backbones as embedders."""

import re

from sklearn.utils._param_validation import StrOptions

from skanomaly._networks.loading import LoadedModel, load_once
from skanomaly._networks.runtimes import runtime_device
from skanomaly._optional import import_optional
from skanomaly.embedders._timm import TimmPatches

# The code that torch.hub runs is that of this commit, whatever its branch becomes.
HUB_REPOSITORY = "facebookresearch/dinov2:b8931f7bf91576930313be2c6d6af376033b35f0"

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SIZES = {"s": "small", "b": "base", "l": "large", "g": "giant"}
_SIZES_V3 = {
    "s": "small",
    "splus": "small_plus",
    "b": "base",
    "l": "large",
    "hplus": "huge_plus",
    "7b": "7b",
}


class DinoV2Patches(TimmPatches):
    """Patch tokens of DINOv2 [1]_, with or without registers [2]_, and of DINOv3 [3]_.

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
    fusion : {"concat", "mean"}, default="concat"
        How several layers, each brought to unit length, become one token.
    resize : {"squash", "shortest_edge"}, default="squash"
        ``"squash"`` resizes the whole image to a square; ``"shortest_edge"`` keeps the aspect but
        for rounding both sides to a multiple of the patch. The image is never cropped.
    augmentation : {None, "rotate90", "dihedral"}, default=None
        Views that `fit_transform` adds: rotations by quarter turns, or these and their mirror
        images.
    weights : str or os.PathLike, default="pretrained"
        ``"pretrained"``: downloaded at first use (``HF_HOME``; ``HF_HUB_OFFLINE=1`` forbids it).
        A path: a local ``.safetensors`` or ``.pth`` file, of timm or of the official repository.
        ``"random"``: random weights from a fixed seed, for tests.
    source : {"timm", "hub"}, default="timm"
        ``"timm"`` loads safetensors and runs no code but that of the installed packages.
        ``"hub"`` lets torch.hub download the official repository, at a fixed commit, and run its
        code; only for DINOv2 and its pretrained weights.
    batch_size : int, default=8
        Images taken at a time: on a CPU side by side, among which torch's threads are shared out,
        on a GPU in one forward pass.
    device : str, default="auto"
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:0"``, ``"mps"``.
    dtype : {"auto", "float32", "bfloat16", "float16", "int8"}, default="auto"
        Precision of the model. ``"auto"``: bfloat16 for plain vision transformers where the
        processor or the GPU multiplies matrices in it, else float32. ``"int8"``: with
        ``runtime="openvino"`` or ``"onnx"`` only.
    runtime : {"auto", "torch", "openvino", "onnx"}, default="auto"
        What runs the model; ``"auto"`` is torch. ``"openvino"`` and ``"onnx"`` are for CPUs and
        need the extras of these names. See Notes.
    cache_dir : str, os.PathLike or None, default=None
        Folder for tokens, one file an image; each image is then embedded once.
    cache_size : int, default=20_000_000_000
        Bytes that folder may hold before the least recently used files are removed.
    n_jobs : int or None, default=None
        Threads that decode and resize the next images while the model runs; None is one.
    verbose : bool or int, default=False
        Show a progress bar.

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
        model_name="dinov2_vits14",
        *,
        image_size=448,
        layers=None,
        fusion="concat",
        resize="squash",
        augmentation=None,
        weights="pretrained",
        source="timm",
        batch_size=8,
        device="auto",
        dtype="auto",
        runtime="auto",
        cache_dir=None,
        cache_size=20_000_000_000,
        n_jobs=None,
        verbose=False,
    ):
        super().__init__(
            model_name,
            layers=layers,
            fusion=fusion,
            image_size=image_size,
            resize=resize,
            augmentation=augmentation,
            weights=weights,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            runtime=runtime,
            cache_dir=cache_dir,
            cache_size=cache_size,
            n_jobs=n_jobs,
            verbose=verbose,
        )
        self.source = source

    def _timm_name(self):
        match = re.fullmatch(r"dinov2_vit([sblg])14(_reg)?", self.model_name)
        if match:
            registers = "_reg4" if match[2] else ""
            return f"vit_{_SIZES[match[1]]}_patch14{registers}_dinov2"
        match = re.fullmatch(r"dinov3_vit(s|splus|b|l|hplus|7b)16", self.model_name)
        if match:
            return f"vit_{_SIZES_V3[match[1]]}_patch16_dinov3"
        raise ValueError(
            f"model_name={self.model_name!r} is not one of dinov2_vit{{s,b,l,g}}14, "
            "dinov2_vit{s,b,l,g}14_reg, dinov3_vit{s,splus,b,l,hplus,7b}16"
        )

    def _any_size(self):
        # The rule for the position embedding needs it as it was trained, at every size.
        return True

    def _forward(self, model, x, layers):
        if self.source == "hub":
            return model.module.get_intermediate_layers(x, n=layers, reshape=True, norm=True)
        if not self._official_rule():
            return super()._forward(model, x, layers)
        return _official_intermediates(model.module, x, layers)

    def _embed_patches(self, module, x):
        if not self._official_rule():
            return super()._embed_patches(module, x)
        return _official_embedding(module, x)

    def _official_rule(self):
        """Whether the position embedding is not interpolated as by timm."""
        return re.fullmatch(r"dinov2_vit[sblg]14", self.model_name) is not None

    def _model(self):
        if self.source == "timm":
            return super()._model()
        if self.weights != "pretrained" or not self.model_name.startswith("dinov2_"):
            raise ValueError("source='hub' serves DINOv2 with weights='pretrained' only")
        self._timm_name()  # refuses unknown names
        device = str(runtime_device(self.runtime, self.device))
        key = ("hub", self.model_name, device)
        return load_once(key, lambda: self._build_from_hub(device))

    def _build_from_hub(self, device):
        torch = import_optional("torch", "torch", type(self).__name__)
        try:
            # A commit is neither a branch nor a tag, among which the validation would look for it.
            module = torch.hub.load(
                HUB_REPOSITORY, self.model_name, trust_repo=True, skip_validation=True
            )
        except OSError as exc:
            raise OSError(
                f"{self.model_name} could not be downloaded through torch.hub ({exc}). Connect "
                "once to download it into TORCH_HOME, or use source='timm'"
            ) from exc
        module = module.eval().requires_grad_(False).to(device)
        module.feature_info = [{"reduction": 14}] * module.n_blocks
        return LoadedModel(
            module=module,
            mean=_IMAGENET_MEAN,
            std=_IMAGENET_STD,
            interpolation="bicubic",
            image_size=518,
            cell=14,
            hierarchical=False,
        )


def _official_intermediates(module, x, layers):
    """Forward pass of timm's model by the official rule for the position embedding."""
    tokens, grid = _official_embedding(module, x)
    maps = []
    for number, block in enumerate(module.blocks[: max(layers) + 1]):
        tokens = block(tokens)
        if number in layers:
            patches = module.norm(tokens)[:, 1:]
            maps.append(patches.transpose(1, 2).unflatten(2, grid))
    return maps


def _official_embedding(module, x):
    """What enters the first block, and the grid."""
    torch = import_optional("torch", "torch", "DinoV2Patches")
    tokens = module.patch_embed(x)  # (B, grid_h, grid_w, dim)
    grid = tokens.shape[1:3]
    tokens = torch.cat([module.cls_token.expand(len(x), -1, -1), tokens.flatten(1, 2)], dim=1)
    return module.norm_pre(tokens + interpolate_position_embedding(module.pos_embed, grid)), grid


def interpolate_position_embedding(embedding, grid):
    """Position embedding of DINOv2 without registers for another grid.

    Parameters
    ----------
    embedding : torch.Tensor of shape (1, 1 + side * side, dim)
        Of the class token and of the square grid the model was trained with.
    grid : tuple of int
        ``(grid_h, grid_w)``.

    Returns
    -------
    torch.Tensor of shape (1, 1 + grid_h * grid_w, dim)
        Bicubic, not antialiased, by a scale factor of ``(grid + 0.1) / side``.
    """
    torch = import_optional("torch", "torch", "DinoV2Patches")
    # int: while a model is converted, its shapes are no numbers.
    side, grid = round((int(embedding.shape[1]) - 1) ** 0.5), tuple(map(int, grid))
    if grid == (side, side):
        return embedding
    patches = embedding[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    factor = tuple(float(length + 0.1) / side for length in grid)
    patches = torch.nn.functional.interpolate(patches, scale_factor=factor, mode="bicubic")
    patches = patches.flatten(2).transpose(1, 2)
    return torch.cat([embedding[:, :1], patches.to(embedding.dtype)], dim=1)
