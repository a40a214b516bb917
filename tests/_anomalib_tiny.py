"""Real checkpoints of anomalib, trained in seconds: small networks with random weights."""

import functools
import json
import logging
import shutil
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64


# ------------------------------------------------------------------------------------------ images
def texture(rng, defect=False, side=96):
    """A striped surface, (side, side, 3) uint8, with a square of noise if it has a defect.

    The second value is the mask of the defect.
    """
    y, x = np.mgrid[:side, :side]
    phase = rng.uniform(0, 2 * np.pi, 2)
    grey = 110 + 40 * np.sin(x / 5 + phase[0]) + 30 * np.sin(y / 7 + phase[1])
    grey = grey + rng.normal(0, 8, (side, side))
    image = np.stack([grey, grey * 0.9, grey * 0.7 + 20], -1).clip(0, 255).astype(np.uint8)
    mask = np.zeros((side, side), np.uint8)
    if defect:
        size = side // 5
        top, left = rng.integers(4, side - size - 4, 2)
        image[top : top + size, left : left + size] = rng.integers(0, 255, (size, size, 3))
        mask[top : top + size, left : left + size] = 255
    return image, mask


def textures(n_good, n_bad=0, seed=1, side=96):
    """Good images, then defective ones."""
    rng = np.random.default_rng(seed)
    return [texture(rng, i >= n_good, side)[0] for i in range(n_good + n_bad)]


def write_dataset(root, n_train=8, n_test=4):
    """Folders of good images to train on, and of both kinds for validation."""
    rng = np.random.default_rng(0)
    kinds = ["train/good"] * n_train + ["test/good"] * n_test + ["test/defect"] * n_test
    for i, kind in enumerate(kinds):
        image, mask = texture(rng, defect=kind == "test/defect")
        files = {kind: image}
        if kind == "test/defect":
            files["masks/defect"] = mask
        for folder, pixels in files.items():
            (Path(root) / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(Path(root) / folder / f"{i:03d}.png")
    return Path(root)


# ---------------------------------------------------------------------------------------- networks
@contextmanager
def small_networks(folder):
    """Make anomalib's constructors build small random networks where their size is fixed.

    Checkpoints of DRAEM, WinCLIP, Dinomaly and INP-Former made here can only be loaded here.
    """
    import anomalib.models.image.dinomaly.torch_model as dinomaly
    import anomalib.models.image.draem.torch_model as draem
    import anomalib.models.image.efficient_ad.torch_model as efficient_ad
    import anomalib.models.image.inp_former.torch_model as inp_former
    import anomalib.models.image.l2bt.teacher as l2bt
    import anomalib.models.image.winclip.torch_model as winclip
    import open_clip
    import timm
    import torch
    from anomalib.models import EfficientAd
    from anomalib.models.components.feature_extractors import TimmFeatureExtractor
    from anomalib.models.image.foundad.components import encoder_loader
    from timm.models._registry import _model_entrypoints

    def vit(pretrained=False, pretrained_cfg=None, pretrained_cfg_overlay=None, **kwargs):
        kwargs.pop("cache_dir", None)
        return timm.models.vision_transformer.VisionTransformer(
            **{"img_size": 70, "patch_size": 14, "embed_dim": 32, "depth": 12, "num_heads": 2}
            | {"num_classes": 0}
            | kwargs
        )

    def l2bt_features(**kwargs):
        return TimmFeatureExtractor(**{**kwargs, "backbone": TINY_VIT})

    def small_teacher(self, out_channels, padding=False):
        large_teacher(self, out_channels, padding)
        for name, inputs, outputs in (
            ("1", 3, 8),
            ("2", 8, 8),
            ("3", 8, 8),
            ("4", 8, out_channels),
        ):
            old = getattr(self, f"conv{name}")
            conv = torch.nn.Conv2d(inputs, outputs, old.kernel_size, padding=old.padding)
            setattr(self, f"conv{name}", conv)

    def narrow(network):
        return network, "__init__", functools.partialmethod(network.__init__, base_width=4)

    large_teacher = efficient_ad.SmallPatchDescriptionNetwork.__init__
    clip = Path(folder) / "clip"
    clip.mkdir(parents=True, exist_ok=True)
    vision = {"image_size": 240, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}
    (clip / "clip-tiny-240.json").write_text(json.dumps(config))
    open_clip.add_model_config(clip)
    # Not the classes: exported modules are pickled, and refer to them.
    replaced = [
        narrow(draem.ReconstructiveSubNetwork),
        narrow(draem.DiscriminativeSubNetwork),
        (efficient_ad.SmallPatchDescriptionNetwork, "__init__", small_teacher),
        (EfficientAd, "prepare_pretrained_model", lambda self: None),
        (l2bt, "TimmFeatureExtractor", l2bt_features),
        (winclip, "BACKBONE", "clip-tiny-240"),
        (encoder_loader, "TIMM_MODEL_NAMES", {"dinov2_vit_small_14": TINY_VIT}),
    ]
    for module, name in ((dinomaly, "DINO_ARCHITECTURES"), (inp_former, "DINOV2_ARCHITECTURES")):
        sizes = getattr(module, name)
        tiny = {**sizes, "small": {**sizes["small"], "embed_dim": 32, "num_heads": 2}}
        replaced.append((module, name, tiny))
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
    # timm has no way to take a model out of its registry other than this.
    _model_entrypoints[TINY_VIT] = vit
    for owner, name, value in replaced:
        setattr(owner, name, value)
    try:
        yield
    finally:
        del _model_entrypoints[TINY_VIT]
        for owner, name, value in originals:
            setattr(owner, name, value)


TINY_VIT = "vit_small_patch14_dinov2tiny"


@contextmanager
def random_weights():
    """No pretrained weights for what is trained here; written apart from the code under test."""
    import open_clip
    import timm
    import torch
    from torchvision.models._api import WeightsEnum

    create, create_clip = timm.create_model, open_clip.create_model_and_transforms
    load, get = torch.nn.Module.load_state_dict, WeightsEnum.get_state_dict
    timm.create_model = lambda *args, **kwargs: create(*args, **{**kwargs, "pretrained": False})
    open_clip.create_model_and_transforms = lambda *args, **kwargs: create_clip(
        *args, **{**kwargs, "pretrained": None}
    )
    WeightsEnum.get_state_dict = lambda self, *args, **kwargs: {}
    torch.nn.Module.load_state_dict = lambda self, state, *args, **kwargs: (
        load(self, state, *args, **kwargs) if state else None
    )
    try:
        yield
    finally:
        timm.create_model, open_clip.create_model_and_transforms = create, create_clip
        torch.nn.Module.load_state_dict, WeightsEnum.get_state_dict = load, get


# ----------------------------------------------------------------------------------------- recipes
def _resnet(class_name, side=SIDE, **arguments):
    def make(models, folder):
        model = getattr(models, class_name)
        return model(
            backbone="resnet18",
            pre_processor=model.configure_pre_processor((side, side)),
            **arguments,
        )

    return make


def _other(class_name, side=SIDE, **arguments):
    def make(models, folder):
        model = getattr(models, class_name)
        return model(pre_processor=model.configure_pre_processor((side, side)), **arguments)

    return make


def _cropped(class_name, **arguments):
    def make(models, folder):
        model = getattr(models, class_name)
        pre_processor = model.configure_pre_processor(image_size=(84, 84), crop_size=70)
        return model(encoder_name=TINY_VIT, pre_processor=pre_processor, **arguments)

    return make


def _draem(models, folder):
    pre_processor = models.Draem.configure_pre_processor((SIDE, SIDE))
    return models.Draem(dtd_dir=_folder(folder / "dtd" / "x").parent, pre_processor=pre_processor)


def _glass(models, folder):
    return models.Glass(
        input_shape=(SIDE, SIDE),
        anomaly_source_path=str(_folder(folder / "dtd" / "x").parent),
        backbone="resnet18",
        pretrain_embed_dim=64,
        target_embed_dim=64,
        discriminator_hidden=32,
        step=1,
        pre_processor=models.Glass.configure_pre_processor((SIDE, SIDE)),
    )


def _efficient_ad(models, folder):
    return models.EfficientAd(
        imagenet_dir=_folder(folder / "imagenet" / "x").parent,
        teacher_out_channels=8,
        pre_processor=models.EfficientAd.configure_pre_processor((256, 256)),
    )


def _mh_patchcore(models, folder):
    return models.MHPatchcore(
        backbone="resnet18",
        pre_trained=False,
        memory_bank_size=64,
        local_coreset_size=16,
        pre_processor=models.Padim.configure_pre_processor((SIDE, SIDE)),
    )


def _rad(models, folder):
    pre_processor = models.Rad.configure_pre_processor((84, 84), center_crop_size=(70, 70))
    return models.Rad(
        backbone=TINY_VIT, pre_trained=False, k_image=4, layers=[11], pre_processor=pre_processor
    )


def _super_add(models, folder):
    return models.SuperADD(
        backbone=TINY_VIT,
        patch_size=70,
        patch_overlap=14,
        layers=[5, 11],
        pre_processor=models.SuperADD.configure_pre_processor((112, 112)),
    )


def _folder(path):
    path.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(textures(2, side=SIDE)):
        Image.fromarray(image).save(path / f"{i}.png")
    return path


RECIPES = {
    "padim": _resnet("Padim", layers=["layer1"], pre_trained=False, n_features=16),
    "stfpm": _resnet("Stfpm", layers=["layer1"]),
    "draem": _draem,
    "fastflow": _resnet("Fastflow", pre_trained=False, flow_steps=1, hidden_ratio=0.1),
    "reverse_distillation": _resnet("ReverseDistillation", pre_trained=False),
    "dfm": _resnet("Dfm", layer="layer1", pre_trained=False, pooling_kernel_size=4),
    "cflow": _resnet(
        "Cflow",
        layers=["layer2"],
        pre_trained=False,
        coupling_blocks=1,
        condition_vector=8,
        fiber_batch_size=256,
    ),
    "patchcore": _resnet(
        "Patchcore", layers=["layer2"], pre_trained=False, coreset_sampling_ratio=0.05
    ),
    "efficient_ad": _efficient_ad,
    "anomaly_dino": _other("AnomalyDINO", side=84, encoder_name=TINY_VIT),
    "winclip": lambda models, folder: models.WinClip(class_name="surface"),
    "dinomaly": _cropped("Dinomaly"),
    "cfa": _resnet("Cfa"),
    "dfkde": _resnet("Dfkde", layers=["layer1"], pre_trained=False, n_pca_components=4),
    "foundad": _other(
        "FoundAD", side=70, encoder_name="dinov2_vit_small_14", pred_depth=1, pred_emb_dim=48
    ),
    "fre": _resnet(
        "Fre",
        layer="layer1",
        pre_trained=False,
        pooling_kernel_size=4,
        input_dim=64 * 4 * 4,
        latent_dim=16,
    ),
    "ganomaly": _other("Ganomaly", n_features=8, latent_vec_size=8),
    "general_ad": _other(
        "GeneralAD",
        side=70,
        backbone=TINY_VIT,
        layers=(12,),
        hidden_dim=32,
        epochs=1,
        pre_trained=False,
    ),
    "glass": _glass,
    "inp_former": _cropped("InpFormer"),
    "mh_patchcore": _mh_patchcore,
    "patchflow": _resnet("Patchflow", pre_trained=False, flow_feature_dim=8, flow_hidden_dim=8),
    "rad": _rad,
    "super_add": _super_add,
    "supersimplenet": _other(
        "Supersimplenet", side=96, backbone="resnet18.tv_in1k", layers=["layer2", "layer3"]
    ),
    "l2bt": _other("L2BT", side=70),
}
_ENGINE = {"efficient_ad": {"max_steps": 1000}, "mh_patchcore": {"max_epochs": 3}}
_DATA = {"efficient_ad": {"train_batch_size": 1}}


# ---------------------------------------------------------------------------------------- training
@dataclass
class Trained:
    """A checkpoint and what anomalib's own model in memory said of the test images.

    Attributes
    ----------
    path : Path
        The ``.ckpt``.
    model : anomalib.models.AnomalibModule
        The trained model.
    images : list of ndarray
        Test images: four good ones, four with a defect.
    scores, normalized : ndarray of shape (8,)
        Before and after the post-processor.
    maps : ndarray of shape (8, h, w) or None
        Before the post-processor.
    """

    path: Path
    model: object
    images: list
    scores: np.ndarray
    normalized: np.ndarray
    maps: np.ndarray | None


class TinyCheckpoints:
    """Trains each family when it is first asked for."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self._trained, self._exported = {}, {}

    def get(self, family):
        """The :class:`Trained` of a family."""
        if family not in self._trained:
            self._trained[family] = train(family, self.folder / family)
        return self._trained[family]

    def export(self, family, kind):
        """Path of the model in another format: ``"torch"``, ``"onnx"`` or ``"openvino"``."""
        if (family, kind) not in self._exported:
            model = self.get(family).model
            with third_party():
                root, size = self.folder / family, model.input_size
                if kind == "torch":
                    path = model.to_torch(root)
                elif kind == "onnx":
                    path = model.to_onnx(root, input_size=size)
                else:
                    graph = self.export(family, "onnx")
                    # anomalib goes by way of the same ONNX graph, which takes seconds to make.
                    model.to_onnx = lambda *args, **kwargs: graph
                    path = model.to_openvino(root, input_size=size)
                    del model.to_onnx
            self._exported[family, kind] = Path(path)
        return self._exported[family, kind]


@contextmanager
def third_party():
    """Leave no trace of training and exporting: messages, nor what anomalib does to timm."""
    import timm.models.vision_transformer as vit

    resample = vit.resample_abs_pos_embed
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        vit.resample_abs_pos_embed = resample


@contextmanager
def one_thread():
    """So small networks cost more to share between threads than to compute."""
    import torch

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def train(family, folder):
    """Train a small model of a family with anomalib's engine."""
    import torch
    from anomalib import models
    from anomalib.data import Folder
    from anomalib.engine import Engine

    slow = family == "efficient_ad"
    root = write_dataset(folder / "data", *((2, 1) if slow else (8, 4)))
    data = Folder(
        name="tiny",
        root=root,
        normal_dir="train/good",
        abnormal_dir="test/defect",
        normal_test_dir="test/good",
        mask_dir="masks/defect",
        num_workers=0,
        val_split_mode="same_as_test",
        **{"train_batch_size": 4, "eval_batch_size": 4, **_DATA.get(family, {})},
    )
    with third_party(), random_weights(), one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = RECIPES[family](models, folder)
        engine = Engine(
            accelerator="cpu",
            devices=1,
            logger=False,
            default_root_dir=str(folder / "engine"),
            enable_progress_bar=False,
            enable_model_summary=False,
            **{"max_epochs": 1, **_ENGINE.get(family, {})},
        )
        path = folder / "model.ckpt"
        if family == "winclip":
            engine.validate(model=model, datamodule=data)
            engine.trainer.save_checkpoint(path)
        else:
            engine.fit(model=model, datamodule=data)
            shutil.move(
                engine.best_model_path or engine.trainer.checkpoint_callback.last_model_path, path
            )
        shutil.rmtree(folder / "engine", ignore_errors=True)
        images = textures(4, 4)
        batches = [images]
        if family == "cflow":  # whose scores are relative to the batch
            batches = [[image] for image in images]
        outputs = zip(*(own_output(model, batch) for batch in batches), strict=True)
        joined = [None if part[0] is None else np.concatenate(part) for part in outputs]
        return Trained(path, model, images, *joined)


def rounding(trained, least=1e-5):
    """How far another order of float32 sums may move the maps, at most `least` of their scale.

    PatchCore alone needs more: it takes the square root of |x|^2 - 2 x y + |y|^2, so that the error
    of these sums, of as many products as a patch has components, is divided by twice the distance.
    """
    if type(trained.model).__name__ != "Patchcore":
        return least
    bank = trained.model.model.memory_bank
    squares = np.sqrt(bank.shape[1]) * 2.0**-24 * (2 * float(bank.norm(dim=1).max())) ** 2
    return max(least, squares / (2 * trained.maps.min()) / max(1.0, trained.maps.max()))


def own_output(model, images):
    """Scores, normalised scores and maps of anomalib's model, as its engine makes them."""
    import torch

    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous() / 255
    with torch.no_grad():
        model.eval()
        out = model.model(model.pre_processor.transform(x))
        maps = None
        if out.anomaly_map is not None:
            maps = out.anomaly_map.numpy().reshape(len(x), *out.anomaly_map.shape[-2:])
        scores = out.anomaly_map.flatten(1).amax(1) if out.pred_score is None else out.pred_score
        out = model.post_processor(out._replace(pred_score=scores))
    return scores.numpy().reshape(-1), out.pred_score.numpy().reshape(-1), maps
