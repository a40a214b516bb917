"""Any timm backbone as an embedder."""

import os
from numbers import Integral

import numpy as np
from sklearn.utils._param_validation import StrOptions

from skanomaly._optional import import_optional
from skanomaly.embedders._base import BasePatchEmbedder
from skanomaly.embedders._resize import RESIZE_VERSION, fast_resize
from skanomaly.embedders._runtimes import (
    DTYPES,
    RUNTIMES,
    make_plan,
    round_to_half,
    run,
    runtime_device,
)
from skanomaly.embedders._streams import one_thread
from skanomaly.embedders._weights import (
    LoadedModel,
    build_timm,
    feature_info,
    load_once,
    weights_key,
)


class TimmPatches(BasePatchEmbedder):
    """Patch tokens of any backbone of timm.

    Parameters
    ----------
    model_name : str, default="wide_resnet50_2"
        A name from ``timm.list_models()``, with or without the tag of its weights.
    layers : int, sequence of int or None, default=None
        Blocks of a vision transformer, or stages of a convolutional network, counted from 0;
        negative from the last. None: the last block; of a network with stages, those at 1/8 and
        1/16 of the image, as in PatchCore [1]_.
    fusion : {"concat", "mean"}, default="concat"
        How several layers become one token. Of a transformer each layer's token is brought to
        unit length before.
    image_size : int or None, default=None
        Side of the square, or the shortest side, in pixels; a multiple of the patch, or of the
        coarsest stride. None: the model's own, rounded to one.
    resize : {"squash", "shortest_edge"}, default="squash"
        ``"squash"`` resizes the whole image to a square; ``"shortest_edge"`` keeps the aspect but
        for rounding both sides to a multiple of the patch. The image is never cropped.
    augmentation : {None, "rotate90", "dihedral"}, default=None
        Views that `fit_transform` adds: rotations by quarter turns, or these and their mirror
        images.
    weights : str or os.PathLike, default="pretrained"
        ``"pretrained"``: downloaded by timm at first use, into its own cache (``HF_HOME``;
        ``HF_HUB_OFFLINE=1`` forbids downloads). A path: a local ``.safetensors`` or ``.pth`` file
        of exactly this model. ``"random"``: random weights from a fixed seed, for tests.
    batch_size : int, default=8
        Images in one forward pass.
    device : str, default="auto"
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:0"``, ``"mps"``.
    dtype : {"auto", "float32", "bfloat16", "float16", "int8"}, default="auto"
        Precision of the model. ``"auto"``: bfloat16 for plain vision transformers where the
        processor or the GPU multiplies matrices in it, else float32. ``"int8"``: with
        ``runtime="openvino"`` only.
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
    Blocks of a transformer pass through its final normalisation layer; prefix tokens are dropped.
    Stages of other networks are averaged over 3x3 cells and brought to the finest grid among them
    by bilinear interpolation, as in PatchCore.

    Mean, standard deviation and interpolation come from the model's own configuration. An image is
    embedded the same whatever else is in the batch, up to float32 rounding.

    In bfloat16 a plain transformer takes about half the time. Its tokens are as close to those in
    float32 as other ways to bfloat16 leave them, a median cosine of 0.9999 (ViT-Tiny/16, block 5),
    which moved the image AUROC of no data set it was tried on. Tokens of reduced precision are
    rounded to float16 precision, still as float32 arrays, so that `cache_dir` takes half the space.
    A machine without bfloat16 gives slightly other tokens: set `dtype` where a fitted pipeline
    moves between machines. What a GPU gains is not measured.

    OpenVINO is faster than torch, but to convert a model takes it 10 to 30 seconds for each size of
    input, and each process then compiles it for some seconds: so it has to be asked for. Converted
    models are kept in the user's cache folder (``XDG_CACHE_HOME``) and checked against torch.
    ``resize="squash"`` makes one size of all images. Images go through it one a thread;
    ``batch_size=1`` gives one image all threads. int8 is faster still, takes a minute or two to
    convert, and costs accuracy: 0.03 of the image AUROC on two data sets. Check its effect on
    your own images.

    References
    ----------
    .. [1] Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly import TimmPatches
    >>> embedder = TimmPatches("vit_tiny_patch16_224", layers=6, image_size=64)
    >>> embedder.set_params(weights="random").transform(
    ...     np.zeros((2, 100, 80, 3), dtype=np.uint8)
    ... ).shape
    (2, 4, 4, 192)
    """

    _parameter_constraints: dict = {
        **BasePatchEmbedder._parameter_constraints,
        "model_name": [str],
        "layers": [None, Integral, "array-like"],
        "fusion": [StrOptions({"concat", "mean"})],
        "weights": [str, os.PathLike],
        "device": [str],
        "dtype": [StrOptions(set(DTYPES))],
        "runtime": [StrOptions(set(RUNTIMES))],
    }

    _max_side = 16384

    def __init__(
        self,
        model_name="wide_resnet50_2",
        *,
        layers=None,
        fusion="concat",
        image_size=None,
        resize="squash",
        augmentation=None,
        weights="pretrained",
        batch_size=8,
        device="auto",
        dtype="auto",
        runtime="auto",
        cache_dir=None,
        cache_size=20_000_000_000,
        n_jobs=None,
        verbose=False,
    ):
        self.model_name = model_name
        self.layers = layers
        self.fusion = fusion
        self.image_size = image_size
        self.resize = resize
        self.augmentation = augmentation
        self.weights = weights
        self.batch_size = batch_size
        self.device = device
        self.dtype = dtype
        self.runtime = runtime
        self.cache_dir = cache_dir
        self.cache_size = cache_size
        self.n_jobs = n_jobs
        self.verbose = verbose

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

    _start_reading = staticmethod(one_thread)

    def _fingerprint(self):
        model = self._model()
        return {
            "weights": model.digest,
            "model_name": self.model_name,
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
        torch = import_optional("torch", "torch", type(self).__name__)
        model, plan = self._model(), self._plan()
        with torch.inference_mode():
            maps = run(plan, model, normalise(images, model, plan.device), self)
            fused = (fuse_stages if model.hierarchical else fuse_blocks)(maps, self.fusion)
            tokens = fused.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return round_to_half(tokens) if plan.reduced else tokens

    # Overridden where a model needs another forward pass or other names.

    def _forward(self, model, x, layers):
        """(B, dim, grid_h, grid_w) maps of the layers."""
        norm = {} if model.hierarchical else {"norm": True}
        return model.module.forward_intermediates(
            x, indices=layers, intermediates_only=True, output_fmt="NCHW", stop_early=True, **norm
        )

    def _embed_patches(self, module, x):
        """What enters the first block of a plain transformer, and the grid of its patches."""
        tokens = module.norm_pre(module._pos_embed(module.patch_embed(x)))
        return tokens, module.patch_embed.dynamic_feat_size(x.shape[-2:])

    def _timm_name(self):
        return self.model_name

    def _any_size(self):
        """Whether one model is to take inputs of every size."""
        return self.resize != "squash"

    def _model(self):
        name, any_size = self._timm_name(), self._any_size()
        square = None if any_size or self.image_size is None else int(self.image_size)
        device = str(runtime_device(self.runtime, self.device))
        key = ("timm", name, weights_key(self.weights), square, any_size, device)

        def build():
            module = build_timm(name, self.weights, square, any_size, type(self).__name__)
            module = module.eval().requires_grad_(False).to(device)
            reductions = {info["reduction"] for info in feature_info(module)}
            cell = int(max(reductions))
            # Some networks were trained at sizes that their strides do not divide, such as 299.
            cells = max(1, round(module.pretrained_cfg["input_size"][-1] / cell))
            return LoadedModel(
                module=module,
                mean=tuple(module.pretrained_cfg["mean"]),
                std=tuple(module.pretrained_cfg["std"]),
                interpolation=module.pretrained_cfg["interpolation"] or "bicubic",
                image_size=cells * cell,
                cell=cell,
                hierarchical=len(reductions) > 1,
            )

        return load_once(key, build)

    def _layers(self, model):
        """Layers as sorted, unique, non-negative numbers."""
        info = feature_info(model.module)
        if self.layers is None:
            if not model.hierarchical:
                return [len(info) - 1]
            return [i for i, stage in enumerate(info) if stage["reduction"] in (8, 16)]
        layers = [self.layers] if isinstance(self.layers, Integral) else list(self.layers)
        bad = [i for i in layers if not isinstance(i, Integral) or not -len(info) <= i < len(info)]
        if bad or not layers:
            raise ValueError(
                f"layers={self.layers!r}: {self.model_name} has layers 0 to {len(info) - 1}"
            )
        return sorted({int(i) % len(info) for i in layers})

    def _plan(self):
        device = runtime_device(self.runtime, self.device)
        return make_plan(self.runtime, self.dtype, device, self._model())


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
