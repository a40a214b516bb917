"""Any timm backbone as an embedder."""

import os

from skanomaly._networks.fast_vit import embed_patches
from skanomaly._networks.loading import (
    LoadedModel,
    load_once,
    weights_key,
)
from skanomaly._networks.runtimes import runtime_device
from skanomaly._networks.timm import build_timm, feature_info
from skanomaly.embedders._torch_base import TorchPatches


class TimmPatches(TorchPatches):
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
    ``resize="squash"`` makes one size of all images. ``batch_size=1`` gives one image all threads.

    int8 is faster still, and costs accuracy. ONNX Runtime, which takes the range of each product
    from the image itself, lost 0.004 of the image AUROC on one data set and nothing on another;
    only products of matrices are int8 there, so that it is for transformers. OpenVINO, whose
    ranges are fixed while it converts, for a minute or two, lost 0.03. Check the effect on your
    own images.

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
        **TorchPatches._parameter_constraints,
        "weights": [str, os.PathLike],
    }

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

    # Overridden where a model needs another forward pass or other names.

    def _forward(self, model, x, layers):
        """(B, dim, grid_h, grid_w) maps of the layers."""
        norm = {} if model.hierarchical else {"norm": True}
        return model.module.forward_intermediates(
            x, indices=layers, intermediates_only=True, output_fmt="NCHW", stop_early=True, **norm
        )

    def _fast_forward(self, model, fast, x, layers):
        """The same of a plain transformer, by its fast form."""
        return fast(*self._embed_patches(model.module, x), layers, model.module.norm)

    def _embed_patches(self, module, x):
        """What enters the first block of a plain transformer, and the grid of its patches."""
        return embed_patches(module, x)

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
        default = [len(info) - 1]
        if model.hierarchical:
            default = [i for i, stage in enumerate(info) if stage["reduction"] in (8, 16)]
        return self._numbers(len(info), default)

    def _graph(self, model):
        return {"model_name": self.model_name}
