"""CLIP and its kin, by open_clip, as an embedder."""

import os
from functools import partial
from numbers import Integral

from sklearn.utils._param_validation import Interval

from skanomaly._networks.fast_vit import embed_patches
from skanomaly._networks.openclip import load_model
from skanomaly._networks.openclip_towers import (
    family,
    final_normalisation,
    has_value_attention,
    intermediates,
    project,
    value_tokens,
    window_embeddings,
)
from skanomaly._networks.runtimes import make_plan, runtime_device
from skanomaly._optional import import_optional
from skanomaly.embedders._torch_base import TorchPatches, fuse_blocks, fuse_stages


class OpenClipPatches(TorchPatches):
    """Patch tokens of the image towers of open_clip: CLIP [1]_, SigLIP, CoCa, EVA02, and more.

    Parameters
    ----------
    model_name : str, default="ViT-B-16"
        A name from ``open_clip.list_models()``.
    weights : str or os.PathLike, default="pretrained"
        A tag from ``open_clip.list_pretrained_tags_by_model(model_name)``: downloaded at first use
        into ``HF_HOME``; ``HF_HUB_OFFLINE=1`` forbids downloads. ``"pretrained"``: the first of
        these tags, which of ``"ViT-B-16"`` is ``"openai"``. The path of a local ``.safetensors``
        or ``.pt`` file of exactly this model, text tower included. ``"random"``: weights from a
        fixed seed, for tests.
    layers : int, sequence of int or None, default=None
        Blocks of a vision transformer, or stages of a convolutional network, counted from 0;
        negative from the last. None: the last block; of a network with stages, those at 1/8 and
        1/16 of the image, but the last with `project`.
    fusion : {"concat", "mean"}, default="concat"
        How several layers become one token. Of a transformer each layer's token is brought to
        unit length before.
    project : bool, default=False
        Bring the tokens into the joint space of images and texts, as prompts need them.
    value_attention : bool or int, default=False
        The last block, or the last so many blocks, attend by the likeness of values, without the
        feed-forward network [2]_: such tokens agree better with texts. For vision transformers of
        open_clip itself; with the last layer.
    windows : sequence of int or None, default=None
        Sides of the windows of WinCLIP [3]_ in patches, such as ``(2, 3)``. Each token then is
        ``[patch | window of each size | image]``, every part an embedding in the joint space, of
        unit length. Needs `project` and a plain vision transformer of open_clip.
    image_size : int or None, default=None
        Side of the square, or the shortest side, in pixels; a multiple of the patch, or of the
        coarsest stride. None: the model's own, rounded down to one.
    resize : {"squash", "shortest_edge"}, default="squash"
        ``"squash"`` resizes the whole image to a square; ``"shortest_edge"`` keeps the aspect but
        for rounding both sides to a multiple of the patch. The image is never cropped.
    augmentation : {None, "rotate90", "dihedral"}, default=None
        Views that `fit_transform` adds: rotations by quarter turns, or these and their mirror
        images.
    batch_size : int, default=8
        Images taken at a time: on a CPU side by side, among which torch's threads are shared out,
        on a GPU in one forward pass.
    device : str, default="auto"
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:0"``, ``"mps"``.
    dtype : {"auto", "float32", "bfloat16", "float16", "int8"}, default="auto"
        Precision of the model; ``"auto"`` is float32. ``"int8"``: with ``runtime="openvino"``
        or ``"onnx"`` only.
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
    Without `project`, blocks of a transformer pass through its final layer normalisation (but for
    CoCa, whose normalisation comes after its pooling), and stages of a convolutional network are
    averaged over 3x3 cells and brought to the finest grid among them, as in PatchCore.

    With `project`, each patch is treated as the model treats its pooled feature: final
    normalisation, then projection; where the model pools by attention (CoCa, SigLIP, PE-Core) each
    patch is pooled as if it were the only one. Towers other than the vision transformers and
    ResNets of open_clip, and those of timm that are vision transformers, EVA, ConvNeXt or FastViT
    (MobileCLIP), cannot be projected.

    The position embedding is interpolated where the input has another size than the model was
    trained with.

    Precisions and runtimes are those of :class:`TimmPatches`; see its notes. But ``"auto"`` is
    float32: no trained weights were at hand on which to show that reduced precision leaves
    zero-shot scores unmoved. bfloat16 takes half the time (ViT-B-16 at 224 pixels: a median cosine
    of 0.99999 to float32, with random weights). `windows` take the longest to convert.

    Mean, standard deviation, interpolation and activation (QuickGELU) are those of the tag. A
    local file says nothing of them: the first three are then those of the first tag that open_clip
    lists for the model, and the activation is the one that `model_name` says, so that OpenAI's
    weights of a ViT-B-16 in a file are a ``"ViT-B-16-quickgelu"``.

    References
    ----------
    .. [1] Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
       ICML 2021.
    .. [2] Li et al., "A Closer Look at the Explainability of Contrastive Language-Image
       Pre-training", Pattern Recognition, 2025.
    .. [3] Jeong et al., "WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation",
       CVPR 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly import OpenClipPatches
    >>> embedder = OpenClipPatches("ViT-S-32", weights="random", image_size=128, project=True)
    >>> embedder.transform([np.zeros((100, 80, 3), dtype=np.uint8)]).shape
    (1, 4, 4, 384)
    """

    _parameter_constraints: dict = {
        **TorchPatches._parameter_constraints,
        "weights": [str, os.PathLike],
        "project": ["boolean"],
        "value_attention": ["boolean", Interval(Integral, 1, None, closed="left")],
        "windows": [None, "array-like"],
    }

    _libraries = ("torch", "timm", "open_clip")

    def __init__(
        self,
        model_name="ViT-B-16",
        *,
        weights="pretrained",
        layers=None,
        fusion="concat",
        project=False,
        value_attention=False,
        windows=None,
        image_size=None,
        resize="squash",
        augmentation=None,
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
        self.weights = weights
        self.layers = layers
        self.fusion = fusion
        self.project = project
        self.value_attention = value_attention
        self.windows = windows
        self.image_size = image_size
        self.resize = resize
        self.augmentation = augmentation
        self.batch_size = batch_size
        self.device = device
        self.dtype = dtype
        self.runtime = runtime
        self.cache_dir = cache_dir
        self.cache_size = cache_size
        self.n_jobs = n_jobs
        self.verbose = verbose

    # What the base asks for.

    def _model(self):
        user = type(self).__name__
        import_optional("torch", "clip", user)  # or else its absence would name the extra torch
        device = str(runtime_device(self.runtime, self.device))
        return load_model(self.model_name, self.weights, device=device, user=user)

    def _plan(self):
        device = runtime_device(self.runtime, self.device)
        return make_plan(self.runtime, self.dtype, device, plain=False)

    def _graph(self, model):
        return {
            "model": model.config,
            "project": bool(self.project),
            "value_attention": int(self.value_attention),
            "windows": self._windows(model),
        }

    def _tower(self, model, shape):
        return model.visual(*map(int, shape[-2:]))  # int: in a conversion they are no numbers

    def _forward(self, model, x, layers):
        """(B, dim, grid_h, grid_w) maps of the layers; with windows, of them and of the image."""
        visual, windows = self._tower(model, x.shape), self._windows(model)
        if windows or not self.value_attention:
            maps, image = intermediates(visual, x, layers, not self.project, pooled=bool(windows))
        if self.value_attention:
            maps = [value_tokens(visual, x, int(self.value_attention))]
            if not self.project:
                maps = [final_normalisation(visual)(m) for m in maps]
        if self.project:
            maps = [project(visual, m) for m in maps]
        if windows:
            maps += [*window_embeddings(visual, x, windows), image[:, None, None]]
        return [m.permute(0, 3, 1, 2) for m in maps]

    def _is_plain(self, model):
        return model.plain and not self.value_attention and self.windows is None

    def _fast_forward(self, model, fast, x, layers):
        """The same of a plain transformer, by its fast form."""
        visual = self._tower(model, x.shape)
        finish = partial(project, visual) if self.project else final_normalisation(visual)
        return fast(*embed_patches(getattr(visual, "trunk", visual), x), layers, finish)

    def _fuse(self, model, maps):
        torch = import_optional("torch", "clip", type(self).__name__)
        count = len(self._layers(model))
        staged = model.hierarchical and not self.project
        patches = (fuse_stages if staged else fuse_blocks)(maps[:count], self.fusion)
        if len(maps) == count:
            return patches
        parts = [torch.nn.functional.normalize(part, dim=1) for part in (patches, *maps[count:])]
        return torch.cat([part.expand(-1, -1, *patches.shape[2:]) for part in parts], dim=1)

    def _layers(self, model):
        """Layers as sorted, unique, non-negative numbers; those that the other options allow."""
        count = len(model.reductions)
        if self.project and family(model.module) is None:
            raise ValueError(
                f"project=True does not serve the tower of {self.model_name} "
                f"({self._kind(model)}); choose another model, or project=False"
            )
        if self.value_attention and not has_value_attention(model.module):
            raise ValueError(
                "value_attention needs a vision transformer of open_clip itself, which "
                f"{self.model_name} ({self._kind(model)}) is not"
            )
        default = [count - 1]
        if model.hierarchical and not self.project:
            default = [i for i, step in enumerate(model.reductions) if step in (8, 16)]
        layers = self._numbers(count, default)
        if layers == [count - 1]:
            pass
        elif self.project and model.hierarchical:
            raise ValueError(f"project=True needs the last stage, not layers={self.layers!r}")
        elif self.value_attention:
            raise ValueError(f"value_attention needs the last block, not layers={self.layers!r}")
        if int(self.value_attention) > count:
            raise ValueError(
                f"value_attention={self.value_attention}: {self.model_name} has {count} blocks"
            )
        return layers

    def _windows(self, model):
        if self.windows is None:
            return []
        windows = list(self.windows)
        good = [side for side in windows if isinstance(side, Integral) and side >= 1]
        if not windows or len(set(good)) < len(windows):
            raise ValueError(
                f"windows={self.windows!r} must be different sides in patches, such as (2, 3)"
            )
        if not self.project:
            raise ValueError("windows needs project=True: its embeddings are in the joint space")
        if family(model.module) != "vit":
            raise ValueError(
                "windows needs a plain vision transformer of open_clip itself, which "
                f"{self.model_name} ({self._kind(model)}) is not"
            )
        if self.fusion == "concat" and len(self._layers(model)) > 1:
            raise ValueError("windows with several layers needs fusion='mean'")
        return [int(size) for size in windows]

    def _kind(self, model):
        return type(model.transformer).__name__
