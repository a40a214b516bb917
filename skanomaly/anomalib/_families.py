"""The model families of anomalib whose checkpoints can be loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Family:
    """A family of anomalib's image models.

    Attributes
    ----------
    name : str
        Its key in :data:`FAMILIES`.
    class_name : str
        Its class in ``anomalib.models``.
    title : str
        What its authors call it.
    paper : str
        Its source.
    interpolation : {"bilinear", "bicubic"}
        How anomalib resizes images for it unless told otherwise.
    data_folder : str or None
        Constructor argument that names a folder of training images, which inference does not need
        but the constructor looks for.
    per_image : bool
        Whether images must be scored one by one, because anomalib's model relates the scores of
        an image to the other images of its batch.
    """

    name: str
    class_name: str
    title: str
    paper: str
    interpolation: str = "bilinear"
    data_folder: str | None = None
    per_image: bool = False


_TABLE = (
    Family(
        "anomaly_dino",
        "AnomalyDINO",
        "AnomalyDINO",
        "Damm et al., AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with DINOv2, "
        "WACV 2025, arXiv:2405.14529",
        interpolation="bicubic",
    ),
    Family(
        "anomalyvfm",
        "AnomalyVFM",
        "AnomalyVFM",
        "Fucka et al., AnomalyVFM - Transforming Vision Foundation Models into Zero-Shot Anomaly "
        "Detectors, CVPR 2026, arXiv:2601.20524",
    ),
    Family(
        "cfa",
        "Cfa",
        "CFA",
        "Lee et al., CFA: Coupled-hypersphere-based Feature Adaptation for Target-Oriented Anomaly "
        "Localization, IEEE Access 2022, arXiv:2206.04325",
    ),
    Family(
        "cflow",
        "Cflow",
        "CFlow-AD",
        "Gudovskiy et al., CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization "
        "via Conditional Normalizing Flows, WACV 2022, arXiv:2107.12571",
        per_image=True,
    ),
    Family(
        "csflow",
        "Csflow",
        "CS-Flow",
        "Rudolph et al., Fully Convolutional Cross-Scale-Flows for Image-based Defect Detection, "
        "WACV 2022, arXiv:2110.02855",
    ),
    Family(
        "dfkde",
        "Dfkde",
        "DFKDE",
        "Deep features with kernel density estimation, by the authors of anomalib",
    ),
    Family(
        "dfm",
        "Dfm",
        "DFM",
        "Ahuja et al., Probabilistic Modeling of Deep Features for Out-of-Distribution and "
        "Adversarial Detection, 2019, arXiv:1909.11786",
    ),
    Family(
        "dinomaly",
        "Dinomaly",
        "Dinomaly",
        "Guo et al., Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly "
        "Detection, CVPR 2025, arXiv:2405.14325",
    ),
    Family(
        "draem",
        "Draem",
        "DRAEM",
        "Zavrtanik et al., DRAEM - A Discriminatively Trained Reconstruction Embedding for Surface "
        "Anomaly Detection, ICCV 2021, arXiv:2108.07610",
        data_folder="dtd_dir",
    ),
    Family(
        "dsr",
        "Dsr",
        "DSR",
        "Zavrtanik et al., DSR - A Dual Subspace Re-Projection Network for Surface Anomaly "
        "Detection, ECCV 2022, arXiv:2208.01521",
    ),
    Family(
        "efficient_ad",
        "EfficientAd",
        "EfficientAD",
        "Batzner et al., EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level "
        "Latencies, WACV 2024, arXiv:2303.14535",
    ),
    Family(
        "fastflow",
        "Fastflow",
        "FastFlow",
        "Yu et al., FastFlow: Unsupervised Anomaly Detection and Localization via 2D Normalizing "
        "Flows, 2021, arXiv:2111.07677",
    ),
    Family(
        "foundad",
        "FoundAD",
        "FoundAD",
        "Zhai et al., Foundation Visual Encoders Are Secretly Few-Shot Anomaly Detectors, "
        "ICLR 2026, arXiv:2510.01934",
    ),
    Family(
        "fre",
        "Fre",
        "FRE",
        "Ndiour et al., FRE: A Fast Method For Anomaly Detection And Segmentation, BMVC 2023, "
        "arXiv:2211.12650",
    ),
    Family(
        "ganomaly",
        "Ganomaly",
        "GANomaly",
        "Akcay et al., GANomaly: Semi-Supervised Anomaly Detection via Adversarial Training, "
        "ACCV 2018, arXiv:1805.06725",
    ),
    Family(
        "general_ad",
        "GeneralAD",
        "GeneralAD",
        "Straeter et al., GeneralAD: Anomaly Detection Across Domains by Attending to Distorted "
        "Features, ECCV 2024, arXiv:2407.12427",
        interpolation="bicubic",
    ),
    Family(
        "glass",
        "Glass",
        "GLASS",
        "Chen et al., A Unified Anomaly Synthesis Strategy with Gradient Ascent for Industrial "
        "Anomaly Detection and Localization, ECCV 2024, arXiv:2407.09359",
        data_folder="anomaly_source_path",
    ),
    Family(
        "inp_former",
        "InpFormer",
        "INP-Former",
        "Luo et al., Exploring Intrinsic Normal Prototypes within a Single Image for Universal "
        "Anomaly Detection, CVPR 2025, arXiv:2503.02424",
    ),
    Family(
        "l2bt",
        "L2BT",
        "L2BT",
        "Costanzino et al., Learning to Be a Transformer to Pinpoint Anomalies, 2025",
        interpolation="bicubic",
    ),
    Family(
        "mh_patchcore",
        "MHPatchcore",
        "MH-PatchCore",
        "Mahalanobis PatchCore, a variant of PatchCore with whitened features, in anomalib 2.7",
    ),
    Family(
        "padim",
        "Padim",
        "PaDiM",
        "Defard et al., PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and "
        "Localization, ICPR Workshops 2020, arXiv:2011.08785",
    ),
    Family(
        "patchcore",
        "Patchcore",
        "PatchCore",
        "Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022, "
        "arXiv:2106.08265",
    ),
    Family("patchflow", "Patchflow", "PatchFlow", "PatchFlow, 2026, arXiv:2602.05238"),
    Family(
        "rad",
        "Rad",
        "RAD",
        "RAD: Retrieval-based Anomaly Detection, 2026, arXiv:2601.22763",
    ),
    Family(
        "reverse_distillation",
        "ReverseDistillation",
        "Reverse Distillation",
        "Deng and Li, Anomaly Detection via Reverse Distillation from One-Class Embedding, "
        "CVPR 2022, arXiv:2201.10703",
    ),
    Family(
        "stfpm",
        "Stfpm",
        "STFPM",
        "Wang et al., Student-Teacher Feature Pyramid Matching for Anomaly Detection, BMVC 2021, "
        "arXiv:2103.04257",
    ),
    Family(
        "super_add",
        "SuperADD",
        "SuperADD",
        "SuperADD, a memory bank of DINOv3 features on overlapping tiles, in anomalib 2.7",
    ),
    Family(
        "supersimplenet",
        "Supersimplenet",
        "SuperSimpleNet",
        "Rolih et al., SuperSimpleNet: Unifying Unsupervised and Supervised Learning for Fast and "
        "Reliable Surface Defect Detection, ICPR 2024, arXiv:2408.03143",
    ),
    Family(
        "uflow",
        "Uflow",
        "U-Flow",
        "Tailanian et al., U-Flow: A U-shaped Normalizing Flow for Anomaly Detection with "
        "Unsupervised Threshold, JMIV 2024, arXiv:2211.12353",
    ),
    Family(
        "uninet",
        "UniNet",
        "UniNet",
        "Wei et al., UniNet: A Contrastive Learning-guided Unified Framework with Feature "
        "Selection for Anomaly Detection, CVPR 2025",
    ),
    Family(
        "winclip",
        "WinClip",
        "WinCLIP",
        "Jeong et al., WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation, CVPR 2023, "
        "arXiv:2303.14814",
        interpolation="bicubic",
    ),
)

FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in _TABLE})

# Image models of anomalib that no image detector can be made of, by class, with the reason.
UNSUPPORTED: Mapping[str, str] = MappingProxyType(
    {
        "CFM": "it scores an image together with a 3-D point cloud of the same scene",
        "VlmAd": "it asks a language model of another program or company and gives no scores",
    }
)


def family_of_class(class_name: str) -> Family | None:
    """The family of a class of anomalib, or None.

    Parameters
    ----------
    class_name : str
        Such as ``"Padim"``.
    """
    return next((f for f in FAMILIES.values() if f.class_name == class_name), None)
