"""The embedder that needs no download: a bank of fixed filters."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import numpy as np
from joblib import Parallel, delayed

from skanomaly._docstrings import document
from skanomaly._typing import Augmentation, PathLike, ValueRange
from skanomaly.core.filter_bank import filter_bank_features, filter_bank_names
from skanomaly.embedders._base import BasePatchEmbedder
from skanomaly.embedders._docstrings import EMBEDDER_DOCS

STRIDE = 8  # side of a patch in pixels
# Tokens depend on it, as others do on weights: to be raised whenever a feature changes.
FILTERS_VERSION = 1


@document(EMBEDDER_DOCS)
class FilterBankPatches(BasePatchEmbedder):
    """Patch tokens of colour, texture and edges from a fixed bank of filters.

    Needs nothing but NumPy and SciPy, and no weights.

    Parameters
    ----------
    image_size : int or None, default=256
        Side of the square, or the shortest side, in pixels; a multiple of 8. None: 256.
    resize : {"squash", "shortest_edge"}, default="squash"
        ``"squash"`` resizes the whole image to a square; ``"shortest_edge"`` keeps the aspect but
        for rounding both sides to a multiple of 8. The image is never cropped.
    %(augmentation)s
    %(value_range)s
    batch_size : int, default=8
        Images read at a time.
    %(cache_dir)s
    %(cache_size)s
    %(n_jobs)s
    %(stream)s
    %(verbose)s

    See Also
    --------
    skanomaly.core.filter_bank.filter_bank_features : The features themselves.

    Notes
    -----
    The features are centred, and the strength of an edge or a colour is in the length of a token,
    which the cosine distance ignores: use :class:`~skanomaly.PatchGaussianScorer`, or
    ``PatchKNNScorer(metric="euclidean")``. Images are computed one by one: an image has the same
    tokens in every batch, to the last bit.

    ``get_feature_names_out()`` says what each of the 102 components is.

    Examples
    --------
    >>> from skanomaly import FilterBankPatches
    >>> from skanomaly.datasets import make_surfaces
    >>> surfaces = make_surfaces(2, image_size=64, random_state=0)
    >>> FilterBankPatches(image_size=64).transform(surfaces.images).shape[:3]
    (2, 8, 8)
    """

    _parameter_constraints: dict = {
        **BasePatchEmbedder._parameter_constraints,
        "n_jobs": [None, Integral],
    }

    def __init__(
        self,
        *,
        image_size: int | None = 256,
        resize: str = "squash",
        augmentation: Augmentation | None = None,
        value_range: ValueRange | None = None,
        batch_size: int = 8,
        cache_dir: PathLike | None = None,
        cache_size: int = 20_000_000_000,
        n_jobs: int | None = None,
        stream: bool = False,
        verbose: bool | int = False,
    ) -> None:
        self.image_size = image_size
        self.resize = resize
        self.augmentation = augmentation
        self.value_range = value_range
        self.batch_size = batch_size
        self.cache_dir = cache_dir
        self.cache_size = cache_size
        self.n_jobs = n_jobs
        self.stream = stream
        self.verbose = verbose

    # The features take time and memory in proportion to its square.
    _max_side = 8192

    def _cell(self) -> int:
        return STRIDE

    def _default_image_size(self) -> int:
        return 256

    def _component_names(self) -> list[str]:
        return filter_bank_names()

    def _fingerprint(self) -> dict[str, object]:
        return {
            "filters": FILTERS_VERSION,
            "image_size": self._side(),
            "resize": self.resize,
            "interpolation": self._interpolation(),
        }

    def _embed_batch(self, images: np.ndarray) -> Sequence[np.ndarray]:
        pool = Parallel(n_jobs=self.n_jobs, prefer="threads")
        return pool(delayed(filter_bank_features)(image, STRIDE) for image in images)
