"""How AnomalyDINO was set for each product of the data sets on which it was published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from skanomaly.registry._table import similar


@dataclass(frozen=True)
class _Products:
    """Products of a data set, and what is done for which.

    Attributes
    ----------
    masked : frozenset of str
        Whose background is masked.
    turned : frozenset of str
        Which lie at any angle, as one knows who has seen them ("informed").
    others : frozenset of str
        All else.
    """

    masked: frozenset[str]
    turned: frozenset[str]
    others: frozenset[str]

    @property
    def names(self) -> list[str]:
        return sorted(self.masked | self.turned | self.others)


# Masked are those of whose first image the mask shows the object, neither less nor more.
_DATA_SETS = {
    "mvtec": _Products(
        masked=frozenset("capsule hazelnut pill screw toothbrush".split()),
        turned=frozenset("hazelnut screw".split()),
        others=frozenset(
            "bottle cable carpet grid leather metal_nut tile transistor wood zipper".split()
        ),
    ),
    "visa": _Products(
        masked=frozenset(
            "candle capsules cashew chewinggum fryum macaroni1 macaroni2 pcb1 pcb2 pcb3 pcb4 "
            "pipe_fryum".split()
        ),
        turned=frozenset(),
        others=frozenset(),
    ),
}
_PREPROCESS = ("agnostic", "informed")


def anomalydino_settings(
    dataset: str, category: str, preprocess: str = "agnostic"
) -> dict[str, Any]:
    """Parameters of ``vision_anomalydino`` for a product, as published.

    Parameters
    ----------
    dataset : {"mvtec", "visa"}
        The data set: MVTec AD or VisA.
    category : str
        The product, by the name of its folder.
    preprocess : {"agnostic", "informed"}, default="agnostic"
        ``"agnostic"``, the main setting of the paper: training images of every product are turned
        too. ``"informed"``: only of products known to lie at any angle. The background is masked
        in both, where the mask was seen to fit the product.

    Returns
    -------
    dict of str to object
        For :func:`~skanomaly.create_model`: `augmentation`, and `foreground__threshold` where the
        background is masked.

    Raises
    ------
    ValueError
        For a name that is not known; the message names similar ones.

    References
    ----------
    .. [1] Damm et al., "AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with
       DINOv2", WACV 2025.

    Examples
    --------
    >>> from skanomaly.registry import anomalydino_settings
    >>> anomalydino_settings("mvtec", "screw")
    {'augmentation': 'rotate45', 'foreground__threshold': 10.0}
    >>> anomalydino_settings("mvtec", "cable", preprocess="informed")
    {'augmentation': None}
    """
    for what, value, known in (
        ("data set", dataset, list(_DATA_SETS)),
        ("preprocess", preprocess, list(_PREPROCESS)),
    ):
        if value not in known:
            raise ValueError(f"there is no {what} {value!r}{similar(value, known)} Known: {known}")
    products = _DATA_SETS[dataset]
    if category not in products.names:
        raise ValueError(
            f"{dataset} has no product {category!r}{similar(category, products.names)} Known: "
            f"{products.names}"
        )
    turned = preprocess == "agnostic" or category in products.turned
    settings: dict[str, Any] = {"augmentation": "rotate45" if turned else None}
    if category in products.masked:
        settings["foreground__threshold"] = 10.0
    return settings
