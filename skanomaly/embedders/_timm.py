"""Any timm backbone as an embedder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from skanomaly._docstrings import document
from skanomaly._networks.fusion import fuse_maps
from skanomaly._networks.network import LoadedModel, Network, layer_numbers, patchcore_stages
from skanomaly._networks.timm import fast_forward, forward, load_timm, weight_files
from skanomaly._typing import Augmentation, PathLike, ValueRange
from skanomaly.embedders._docstrings import EMBEDDER_DOCS
from skanomaly.embedders._torch_base import TorchPatches


@document(EMBEDDER_DOCS)
class TimmPatches(TorchPatches):
    """Patch tokens of any backbone of timm.

    Parameters
    ----------
    model_name : str, default="wide_resnet50_2"
        A name from ``timm.list_models()``, with or without the tag of its weights.
    %(layers)s
    %(fusion)s
    %(class_token)s
    image_size : int or None, default=None
        Side of the square, or the shortest side, in pixels; a multiple of the patch, or of the
        coarsest stride. None: the model's own, rounded to one.
    %(resize)s
    %(augmentation)s
    %(value_range)s
    weights : str or os.PathLike, default="pretrained"
        ``"random"``: random weights from a fixed seed, for tests. ``"pretrained"``: those of the
        tag in `model_name`, or else of timm's first; downloaded by timm at first use, into its
        own cache (``HF_HOME``; ``HF_HUB_OFFLINE=1`` forbids downloads). A tag that timm has for
        this model, such as ``"a1_in1k"``, as in ``timm.list_pretrained("resnet18.*")``. A path: a
        local ``.safetensors`` or ``.pth`` file of exactly this model.
        %(weights_order)s
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
    Blocks of a transformer pass through its final normalisation layer; prefix tokens are dropped.
    Stages of other networks are averaged over 3x3 cells and brought to the finest grid among them
    by bilinear interpolation, as in PatchCore [1]_.

    Mean, standard deviation and interpolation come from the model's own configuration. An image is
    embedded the same whatever else is in the batch, up to float32 rounding.

    In bfloat16 a plain transformer takes about half the time. Its tokens are as close to those in
    float32 as other ways to bfloat16 leave them, a median cosine of 0.9999 (ViT-Tiny/16, block 5),
    which moved the image AUROC of no data set it was tried on. Tokens of reduced precision are
    rounded to float16 precision, still as float32 arrays, so that `cache_dir` takes half the space.
    What ``"auto"`` means is decided in `fit` and pickled: a model that was fitted in bfloat16
    computes in it on every machine, slowly where the processor cannot; OpenVINO, which then cannot
    at all, raises. What a GPU gains is not measured.

    In reduced precision a plain transformer has several ways to its attention and its linear maps
    on a CPU, of which another one is the fastest on another kind of processor. They are timed at
    the first use of a size, in a tenth of a second; a process stays with its choice, all that share
    a `cache_dir` make the same, and ``verbose=True`` shows it. Processors of different kinds round
    bfloat16 differently (a median cosine of 0.999999); where they, or two processes, differ in the
    way too, tokens differ as much as bfloat16 does from float32 (0.9995). That moved scores by 0.8%
    at most in block 5 of ViT-Tiny/16 and by 5% in its last one, on four kinds of parts, there with
    another decision on a borderline image. Training images are recognised on another processor, but
    perhaps not where the way differs too: they are then scored as new ones.

    OpenVINO is faster than torch, but to convert a model takes it 10 to 30 seconds for each size of
    input, and each process then compiles it for some seconds: so it has to be asked for. Converted
    models are kept in the user's cache folder (``XDG_CACHE_HOME``) and checked against torch.
    ``resize="squash"`` makes one size of all images. ``batch_size=1`` gives one image all threads.

    int8, for ``runtime="onnx"`` alone, is faster still, and costs accuracy: it lost 0.004 of the
    image AUROC on one data set and nothing on another. Only products of matrices are int8 there, so
    that it is for transformers. Check the effect on your own images.

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

    _parameter_constraints: dict = TorchPatches._parameter_constraints

    def __init__(
        self,
        model_name: str = "wide_resnet50_2",
        *,
        layers: int | Sequence[int] | None = None,
        fusion: str = "concat",
        class_token: bool = False,
        image_size: int | None = None,
        resize: str = "squash",
        augmentation: Augmentation | None = None,
        value_range: ValueRange | None = None,
        weights: PathLike = "pretrained",
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
        self.layers = layers
        self.fusion = fusion
        self.class_token = class_token
        self.image_size = image_size
        self.resize = resize
        self.augmentation = augmentation
        self.value_range = value_range
        self.weights = weights
        self.batch_size = batch_size
        self.device = device
        self.dtype = dtype
        self.runtime = runtime
        self.cache_dir = cache_dir
        self.cache_size = cache_size
        self.stream = stream
        self.verbose = verbose

    def _timm_name(self) -> str:
        return self.model_name

    def _any_size(self) -> bool:
        """Whether one model is to take inputs of every size."""
        return self.resize != "squash"

    def _weight_files(self, fetch: bool) -> tuple[str, str | None, list[Path]] | None:
        found = weight_files(self._timm_name(), self.weights, fetch, type(self).__name__)
        return None if found is None else ("weights", *found)

    def _model(self) -> LoadedModel:
        any_size = self._any_size()
        return load_timm(
            self._timm_name(),
            self.weights,
            square=None if any_size or self.image_size is None else int(self.image_size),
            any_size=any_size,
            device=str(self._device()),
            user=type(self).__name__,
        )

    def _network(self) -> Network:
        return self._network_by(forward, fast_forward, "timm")

    def _default_block(self, count: int) -> int:
        """Which of the blocks of a transformer ``layers=None`` stands for."""
        # Later blocks of a classifier know what a thing is, and less and less what it looks like.
        return max(1, count // 3) - 1

    def _network_by(
        self, forward: Callable[..., Any], fast_forward: Callable[..., Any] | None, rule: str
    ) -> Network:
        """The network of a forward pass, which `rule` names."""
        model = self._model()
        count = len(model.reductions)
        default = patchcore_stages(model.reductions)
        if not model.hierarchical:
            default = [self._default_block(count)]
        layers = layer_numbers(self.layers, count, default, self.model_name)
        if self.class_token and not model.has_class_token:
            raise ValueError(
                f"class_token=True, but {self.model_name} has no class token; leave it False"
            )
        wanted = {"class_token": True} if self.class_token else {}
        fast = None
        if fast_forward is not None and model.plain_vit is not None:
            fast = partial(fast_forward, layers=layers, **wanted)
        return Network(
            name=self.model_name,
            model=model,
            layers=layers,
            forward=partial(forward, layers=layers, **wanted),
            fuse=partial(
                fuse_maps, n_layers=len(layers), fusion=self.fusion, staged=model.hierarchical
            ),
            fast_forward=fast,
            options={"model_name": self.model_name, "forward": rule, **wanted},
        )
