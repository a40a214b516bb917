"""The models of this package, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from skanomaly.anomalib._families import FAMILIES


@dataclass(frozen=True)
class Entry:
    """A model by name.

    Attributes
    ----------
    summary : str
        What it is, in a line.
    tags : tuple of str
        For :func:`skanomaly.list_models`.
    steps : tuple of (str, str or callable, dict)
        Name, class and parameters of each step of the Pipeline; a class of this package by its
        name. One step without a name is an image detector by itself. Parameter `scorers` of a
        step: such triples again.
    extras : tuple of str
        Extras that bring what it needs.
    paper, licence, notes : str
        The source, the licence of the default weights, and what differs from the paper.
    image_size : int or None
        Side in pixels to which an image is brought by default; None where the model decides.
    """

    summary: str
    tags: tuple[str, ...]
    steps: tuple[tuple[str, str | Callable[..., Any], dict[str, Any]], ...]
    extras: tuple[str, ...] = ()
    paper: str = ""
    licence: str = ""
    image_size: int | None = None
    notes: str = ""


_CLIP = ("vision", "deep", "clip", "openclip")
_PROMPTS = (*_CLIP, "prompts", "zero-shot")
_WINCLIP = {
    "model_name": "ViT-B-16-plus-240",
    "weights": "laion400m_e32",
    "windows": (2, 3),
}
_WINCLIP_PAPER = (
    "Jeong et al., WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation, CVPR 2023"
)

_models = {
    "vision_filterbank": Entry(
        summary="Filter bank of edges, spots and colours, nearest patches near the same place",
        tags=("vision", "no-download", "aligned"),
        steps=(("emb", "FilterBankPatches", {}), ("local", "LocalKNNScorer", {})),
        licence="none needed: there are no weights",
        image_size=256,
        notes="No paper: for parts that lie in nearly the same place, where nothing can be "
        "downloaded.",
    ),
    "vision_tiny": Entry(
        summary="Small network of this package, nearest patches near the same place",
        tags=("vision", "deep", "no-download", "aligned"),
        steps=(("emb", "TinyPatches", {}), ("local", "LocalKNNScorer", {})),
        licence="BSD-3-Clause (in this package)",
        image_size=256,
        notes="No paper: the page 'The network of TinyPatches' of the documentation says how it "
        "was trained. Deep tokens where nothing can be downloaded and torch is not there.",
    ),
    "vision_anomalydino": Entry(
        summary="Nearest DINOv2 patches of normal images, which are turned (AnomalyDINO)",
        tags=("vision", "deep", "dinov2", "few-shot"),
        steps=(
            (
                "emb",
                "DinoV2Patches",
                {
                    "model_name": "dinov2_vits14",
                    "image_size": 448,
                    "resize": "shortest_edge",
                    "augmentation": "rotate45",
                },
            ),
            ("foreground", "PCAForeground", {"no_foreground": "keep"}),
            ("knn", "PatchKNNScorer", {"metric": "cosine", "n_neighbors": 1, "topk": 0.01}),
        ),
        extras=("torch",),
        paper="Damm et al., AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with "
        "DINOv2, WACV 2025",
        licence="Apache-2.0 (DINOv2)",
        image_size=448,
        notes="The paper's main setting, agnostic: references turned by 45 degrees. The background "
        "of new images is masked with foreground__threshold=10, which the paper does for "
        "products of which the mask shows the whole object, 5 of 15 of MVTec AD; of textures "
        "and of what fills the image it would hide defects. anomalydino_settings() has the "
        "paper's choice for each product of MVTec AD and VisA. The whole image is resized "
        "where the paper crops to a multiple of the patch; the image score is the mean of the "
        "top 1% of the patches that are not masked, in the paper of as many as 1% of all; the "
        "principal component is exact, there randomised; an image without foreground is "
        "scored by all of its patches, there it scores 0.",
    ),
    "vision_patchcore": Entry(
        summary="Nearest patches of a wide residual network in a coreset (PatchCore)",
        tags=("vision", "deep", "timm"),
        steps=(
            (
                "emb",
                "TimmPatches",
                {"model_name": "wide_resnet50_2.tv_in1k", "layers": (2, 3), "image_size": 256},
            ),
            (
                "knn",
                "PatchKNNScorer",
                {
                    "metric": "euclidean",
                    "n_neighbors": 1,
                    "aggregation": "max",
                    "coreset": 0.01,
                    "reweighting": 9,
                },
            ),
        ),
        extras=("torch",),
        paper="Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022",
        licence="BSD-3-Clause (torchvision)",
        image_size=256,
        notes="The 1% variant. The whole image at 256 pixels where the paper crops 224 of 256; "
        "tokens of 1536 components, not pooled to 1024; the coreset is greedy in the space of "
        "the tokens, not in a random projection. Stages are averaged over 3x3 cells and the image "
        "score is weighed by 9 neighbours, as in the paper; set reweighting=None for another "
        "metric, aggregation or number of neighbours.",
    ),
    "vision_rad": Entry(
        summary="Nearest DINOv3 patches, by place, of the most similar normal images (RAD)",
        tags=("vision", "deep", "dinov3", "timm", "aligned"),
        steps=(
            (
                "emb",
                "TimmPatches",
                {
                    "model_name": "vit_base_patch16_dinov3.lvd1689m",
                    "layers": (3, 6, 9, 11),
                    "class_token": True,
                    "image_size": 448,
                },
            ),
            (
                "retrieval",
                "RetrievalKNNScorer",
                {
                    "n_retrieved": 150,
                    "radius": 1,
                    "parts": 5,
                    "class_token": True,
                    "topk": 0.01,
                },
            ),
        ),
        extras=("torch",),
        paper="Zhang et al., Is Training Necessary for Anomaly Detection?, ICML 2026",
        licence="DINOv3 License (Meta; not an open-source licence)",
        image_size=448,
        notes="One model for many products. The whole image at 448 pixels where the paper crops "
        "448 of 512; the image score is of the patches, not of the map at the size of the image.",
    ),
    "vision_padim": Entry(
        summary="A Gaussian of residual-network patches at each position (PaDiM)",
        tags=("vision", "deep", "timm", "aligned"),
        steps=(
            (
                "emb",
                "TimmPatches",
                {"model_name": "resnet18.tv_in1k", "layers": (1, 2, 3), "image_size": 256},
            ),
            (
                "gaussian",
                "PatchGaussianScorer",
                {"n_components": 100, "aggregation": "max", "random_state": 0},
            ),
        ),
        extras=("torch",),
        paper="Defard et al., PaDiM: a Patch Distribution Modeling Framework for Anomaly "
        "Detection and Localization, ICPR 2021",
        licence="BSD-3-Clause (torchvision)",
        image_size=256,
        notes="The ResNet-18 variant of 100 random components. The whole image at 256 pixels "
        "where the paper crops 224 of 256; tokens are averaged over 3x3 cells and "
        "interpolated bilinearly, the paper repeats them; the diagonal grows by 0.1 of each "
        "component's variance, in the paper by 0.01; the image score is the largest patch "
        "score, before the map is smoothed.",
    ),
    "vision_subspacead": Entry(
        summary="Distance from the principal subspace of DINOv2 patches (SubspaceAD)",
        tags=("vision", "deep", "dinov2", "few-shot"),
        steps=(
            (
                "emb",
                "DinoV2Patches",
                {
                    "model_name": "dinov2_vitg14_reg",
                    "layers": (-18, -17, -16, -15, -14, -13, -12),
                    "fusion": "mean",
                    "image_size": 672,
                },
            ),
            ("subspace", "PatchSubspaceScorer", {"explained_variance": 0.99, "topk": 0.01}),
        ),
        extras=("torch",),
        paper="Lendering et al., SubspaceAD: Training-Free Few-Shot Anomaly Detection via Subspace "
        "Modeling, CVPR 2026",
        licence="Apache-2.0 (DINOv2)",
        image_size=672,
        notes="The giant model, of 4.5 GB. A smaller one takes model_name= and layers=: the paper "
        "has layers=(-5, -4) for dinov2_vits14 and dinov2_vitb14, and (-11, ..., -7) for "
        "dinov2_vitl14, at 448 pixels. Each layer passes through the last normalisation and is "
        "brought to unit length before the mean, in the paper neither; the image score is the "
        "mean of the top 1% of patches, in the paper of the pixels of the smoothed map; no 30 "
        "randomly rotated copies of each training image, see augmentation=.",
    ),
    "vision_openclip_patchknn": Entry(
        summary="Nearest CLIP patches of normal images",
        tags=(*_CLIP, "few-shot"),
        steps=(
            ("emb", "OpenClipPatches", {}),
            ("knn", "PatchKNNScorer", {"metric": "cosine", "n_neighbors": 1, "topk": 0.01}),
        ),
        extras=("clip",),
        paper="Radford et al., Learning Transferable Visual Models From Natural Language "
        "Supervision, ICML 2021 (the model)",
        licence="MIT (OpenAI)",
        image_size=224,
        notes="The scoring is that of AnomalyDINO.",
    ),
    "vision_musc": Entry(
        summary="Unlabelled images that score each other, by CLIP patches (MuSc)",
        tags=(*_CLIP, "unlabelled"),
        steps=(
            (
                "emb",
                "OpenClipPatches",
                {
                    "model_name": "ViT-L-14-336",
                    "weights": "openai",
                    "layers": (5, 11, 17, 23),
                    "class_token": True,
                    "image_size": 518,
                },
            ),
            (
                "mutual",
                "MutualScorer",
                {"parts": (1024, 1024, 1024, 1024, 768), "class_token": True},
            ),
        ),
        extras=("clip",),
        paper="Li et al., MuSc: Zero-Shot Industrial Anomaly Classification and Segmentation with "
        "Mutual Scoring of the Unlabeled Images, ICLR 2024",
        licence="MIT (OpenAI)",
        image_size=518,
        notes="It has fit_predict, and no predict. Blocks pass through the final layer "
        "normalisation, in the published code they do not, but are shifted by the mean of the "
        "image; the image score is the largest patch score, before the map is brought to the size "
        "of the image.",
    ),
    "vision_openclip_promptscore": Entry(
        summary="CLIP patches compared with texts of normal and of defective objects",
        tags=_PROMPTS,
        steps=(
            ("emb", "OpenClipPatches", {"project": True, "value_attention": True}),
            ("prompt", "PromptScorer", {}),
        ),
        extras=("clip",),
        paper="Zhou et al., Extract Free Dense Labels from CLIP, ECCV 2022 (dense tokens); Jeong "
        "et al., WinCLIP, CVPR 2023 (texts)",
        licence="MIT (OpenAI)",
        image_size=224,
        notes="A composition of both, not a published model.",
    ),
    "vision_winclip": Entry(
        summary="CLIP windows compared with texts of normal and of defective objects (WinCLIP)",
        tags=_PROMPTS,
        steps=(
            ("emb", "OpenClipPatches", {**_WINCLIP, "project": True}),
            ("prompt", "PromptScorer", {**_WINCLIP, "aggregation": "class_token"}),
        ),
        extras=("clip",),
        paper=_WINCLIP_PAPER,
        licence="MIT (LAION)",
        image_size=240,
        notes="Zero-shot; the texts are written after the paper's description.",
    ),
    "vision_winclip_fewshot": Entry(
        summary="WinCLIP, and nearest windows of normal images (WinCLIP+)",
        tags=(*_CLIP, "prompts", "few-shot"),
        steps=(
            ("emb", "OpenClipPatches", {**_WINCLIP, "project": True}),
            (
                "union",
                "ScoreUnion",
                {
                    "scorers": (
                        ("prompt", "PromptScorer", {**_WINCLIP, "aggregation": "class_token"}),
                        ("knn", "PatchKNNScorer", {"metric": "cosine", "aggregation": "max"}),
                    ),
                    "aggregation": "members",
                    "normalization": None,
                    "scorer_weights": (2, 1),
                },
            ),
        ),
        extras=("clip",),
        paper=_WINCLIP_PAPER,
        licence="MIT (LAION)",
        image_size=240,
        notes="As vision_winclip; the paper searches the neighbours of patches and of windows of "
        "each size in maps of their own, here those of all in one token. Its weights follow "
        "from its distance, which is half of ours.",
    ),
}

_DETECTOR_NOTES = (
    "Reads .ckpt, .onnx, .xml and, with trust=True, .pt files. Scores are those before "
    "anomalib's normalisation, which clamps them."
)
_models["vision_anomalib_checkpoint"] = Entry(
    summary="A checkpoint or exported model of anomalib, of any family",
    tags=("vision", "deep", "anomalib", "prefit"),
    steps=(("", "AnomalibDetector", {}),),
    extras=("anomalib",),
    paper="Akcay et al., Anomalib: A Deep Learning Library for Anomaly Detection, ICIP 2022",
    licence="that of your checkpoint",
    notes=_DETECTOR_NOTES,
)
for _name, _family in FAMILIES.items():
    _models[f"vision_{_name}_anomalib"] = Entry(
        summary=f"A checkpoint of anomalib's {_family.title}",
        tags=("vision", "deep", "anomalib", "prefit"),
        steps=(("", "AnomalibDetector", {"family": _name}),),
        extras=("anomalib",),
        paper=_family.paper,
        licence="that of your checkpoint",
        notes=_DETECTOR_NOTES,
    )

MODELS = MappingProxyType(_models)
