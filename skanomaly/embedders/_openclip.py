"""CLIP and models like it, by open_clip, as an embedder."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from pathlib import Path

from skanomaly._docstrings import document
from skanomaly._networks.network import Network
from skanomaly._networks.openclip import OpenClipModel, load_model
from skanomaly._networks.openclip_tokens import clip_network
from skanomaly._networks.openclip_weights import weight_files
from skanomaly._optional import import_optional
from skanomaly._sklearn import Interval
from skanomaly._typing import Augmentation, PathLike, ValueRange
from skanomaly.embedders._docstrings import EMBEDDER_DOCS
from skanomaly.embedders._torch_base import TorchPatches


@document(EMBEDDER_DOCS)
class OpenClipPatches(TorchPatches):
    """Patch tokens of the image towers of open_clip: CLIP, SigLIP, CoCa, EVA02, and more.

    The first of them is CLIP [1]_.

    Parameters
    ----------
    model_name : str, default="ViT-B-16"
        A name from ``open_clip.list_models()``.
    weights : str or os.PathLike, default="pretrained"
        ``"random"``: weights from a fixed seed, for tests. ``"pretrained"``: the first tag that
        open_clip lists, which of ``"ViT-B-16"`` is ``"openai"``. A tag from
        ``open_clip.list_pretrained_tags_by_model(model_name)``: downloaded at first use into
        ``HF_HOME``; ``HF_HUB_OFFLINE=1`` forbids downloads. A path: a local ``.safetensors`` or
        ``.pt`` file of exactly this model, text tower included.
        %(weights_order)s
    layers : int, sequence of int or None, default=None
        Blocks of a vision transformer, or stages of a convolutional network, counted from 0;
        negative from the last. None: the last block; of a network with stages, those at 1/8 and
        1/16 of the image, but the last with `project`.
    %(fusion)s
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
    class_token : bool, default=False
        Append the embedding of the image in the joint space, of unit length, to every token, as a
        last part; what comes before it is brought to unit length too. Not with `windows`, which
        have it.
    image_size : int or None, default=None
        Side of the square, or the shortest side, in pixels; a multiple of the patch, or of the
        coarsest stride. None: the model's own, rounded down to one.
    %(resize)s
    %(augmentation)s
    %(value_range)s
    %(batch_size)s
    %(device)s
    dtype : {"auto", "float32", "bfloat16", "float16", "int8"}, default="auto"
        Precision of the model; ``"auto"`` is float32. ``"int8"``: with ``runtime="onnx"`` only.
    %(runtime)s
    %(cache_dir)s
    %(cache_size)s
    %(stream)s
    %(verbose)s

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
        "project": ["boolean"],
        "value_attention": ["boolean", Interval(Integral, 1, None, closed="left")],
        "windows": [None, "array-like"],
    }

    def __init__(
        self,
        model_name: str = "ViT-B-16",
        *,
        weights: PathLike = "pretrained",
        layers: int | Sequence[int] | None = None,
        fusion: str = "concat",
        project: bool = False,
        value_attention: bool | int = False,
        windows: Sequence[int] | None = None,
        class_token: bool = False,
        image_size: int | None = None,
        resize: str = "squash",
        augmentation: Augmentation | None = None,
        value_range: ValueRange | None = None,
        batch_size: int = 8,
        device: str = "auto",
        dtype: str = "auto",
        runtime: str = "auto",
        cache_dir: PathLike | None = None,
        cache_size: int = 20_000_000_000,
        stream: bool = False,
        verbose: bool | int = False,
    ) -> None:
        self.model_name = model_name
        self.weights = weights
        self.layers = layers
        self.fusion = fusion
        self.project = project
        self.value_attention = value_attention
        self.windows = windows
        self.class_token = class_token
        self.image_size = image_size
        self.resize = resize
        self.augmentation = augmentation
        self.value_range = value_range
        self.batch_size = batch_size
        self.device = device
        self.dtype = dtype
        self.runtime = runtime
        self.cache_dir = cache_dir
        self.cache_size = cache_size
        self.stream = stream
        self.verbose = verbose

    def _weight_files(self, fetch: bool) -> tuple[str, str | None, list[Path]] | None:
        found = weight_files(self.model_name, self.weights, fetch, type(self).__name__)
        return None if found is None else ("weights", *found)

    def _model(self) -> OpenClipModel:
        user = type(self).__name__
        import_optional("torch", "clip", user)  # or else its absence would name the extra torch
        device = str(self._device())
        return load_model(self.model_name, self.weights, device=device, user=user)

    def _network(self) -> Network:
        return clip_network(
            self.model_name,
            self._model(),
            layers=self.layers,
            fusion=self.fusion,
            project=self.project,
            value_attention=self.value_attention,
            windows=self.windows,
            class_token=self.class_token,
        )

    def _may_reduce(self, network: Network) -> bool:
        return False  # even where there is a fast form: see Notes
