"""Nearest-neighbour distance to a memory bank of normal patches."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral
from typing import Literal

import numpy as np
from numpy.random import RandomState
from sklearn.utils import check_random_state

from skanomaly._docstrings import document
from skanomaly._patch_tokens import PatchTokens
from skanomaly._sklearn import Interval, RealNotInt, StrOptions
from skanomaly._typing import FloatArray
from skanomaly.core.aggregation import highest_scores, n_decisive
from skanomaly.core.coreset import (
    coreset_size,
    covering_radius,
    greedy_k_center,
    projected_k_center,
)
from skanomaly.core.prepared import PreparedRows
from skanomaly.core.search.brute_force import prepare_bank
from skanomaly.core.search.faiss_index import FaissIndex
from skanomaly.core.search.index import PatchIndex
from skanomaly.scorers._cross_fitted import CrossFittedScorer
from skanomaly.scorers._docstrings import SCORER_DOCS
from skanomaly.scorers._explaining import neighbors_of
from skanomaly.scorers._memory_bank import MemoryBank, index_of, mean_distances, origin_of_rows
from skanomaly.scorers._training_images import calibration_images

_MEASURED_IMAGES = 16  # at most, for the error of an approximate search


@document(SCORER_DOCS)
class PatchKNNScorer(CrossFittedScorer):
    """Distance of each patch to its nearest patches in a memory bank of normal images.

    With the cosine distance and the mean of the top 1% this is AnomalyDINO [1]_; with the
    Euclidean distance, `aggregation="max"` and a coreset, PatchCore [2]_ without its re-weighting.

    Parameters
    ----------
    n_neighbors : int, default=1
        A patch's score is the mean distance to so many nearest patches of the bank.
    metric : {"cosine", "euclidean"}, default="cosine"
        The cosine distance is 1 - cos, in [0, 2]; a zero token is at distance 1 from any other
        than a zero token.
    %(topk)s
    %(aggregation)s
    %(contamination)s
    coreset : float, int or None, default=None
        Share (float in (0, 1]) or number (int) of training patches to keep in the bank; None for
        all.
    coreset_method : {"k_center", "projected_k_center", "random"}, default="k_center"
        How they are chosen: greedy k-center, exactly; the same on a Gaussian random projection to
        128 components, which covers less well; or at random.
    random_state : int, RandomState instance or None, default=None
        Only for the other methods than ``"k_center"``. None draws anew at each fit.
    algorithm : str, default="auto"
        How the nearest patches are found. ``"brute"`` compares to the whole bank; ``"certified"``
        rules out most of it by bounds that hold whatever is rounded, with the same results;
        ``"torch:cuda"`` compares to the whole bank on the GPU; ``"auto"`` is the fastest of these.
        ``"faiss:"`` with the description of an index of the faiss library [3]_, such as
        ``"faiss:HNSW32"`` or ``"faiss:IVF256,Flat"``, is approximate: see
        `approximation_error_`. It needs the extra ``faiss``.

    Attributes
    ----------
    bank_ : ndarray of shape (n_bank, dim)
        The memory bank; unit vectors for the cosine.
    coverage_radius_ : float
        Euclidean distance in the bank's space within which every training patch has a patch of the
        bank; 0 without coreset.
    approximation_error_ : float
        Largest relative error of an image score among up to 16 held-out training images, compared
        to the exact search; 0 for the exact algorithms, NaN with one training image or group.
    %(train_scores_bounded)s
    %(offset_)s
    %(calibration_)s
    %(patch_limits_)s
    %(features_in)s

    Notes
    -----
    A bank that holds an image's own patches scores that image 0. Training images are therefore
    scored, in `fit` and whenever they are seen again, without their own patches and views, and
    those of their group: exactly so (leave-one-out) without coreset, and by 5-fold cross-fitting,
    which builds five more coresets, with one. The model is for scoring new images; `fit_predict`
    returns these held-out decisions.

    The search is exact but for ``"faiss:"``, in blocks. An approximate search tends to miss the
    neighbours of unusual patches, which decide the image score: the share of neighbours it finds
    says little, `approximation_error_` what it costs. Beyond the tokens that are passed in, `fit`
    takes memory for 1.3 times the bank, for the patches it calibrates on (2**17 tokens at most)
    and some 300 MB for blocks; where torch is installed, its bfloat16 products are used, and it is
    loaded. With a coreset more than 64 MB of tokens are read where they lie, and neither copied
    nor normalised as a whole: `fit` takes some 600 bytes a token, whatever `dim` is, and the same
    for blocks. A projection to 128 components is 512 bytes more.

    Scores do not depend on the other images of a call, nor on their order, to the last bit, but
    for ``"faiss:"``. Images are scored some at a time, so that beyond their tokens scoring takes
    some 100 MB, besides blocks, however many they are.

    References
    ----------
    .. [1] Damm et al., "AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with
       DINOv2", WACV 2025.
    .. [2] Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022.
    .. [3] Douze et al., "The Faiss Library", 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly import PatchKNNScorer
    >>> rng = np.random.default_rng(0)
    >>> good = rng.normal(size=(20, 8, 8, 16)) + 3
    >>> bad = good[:1] + rng.normal(size=(1, 8, 8, 16)) + 0.1
    >>> bad[0, 2, 3] = -5
    >>> scorer = PatchKNNScorer(contamination=0.1).fit(good)
    >>> scorer.predict(bad)
    array([-1])
    >>> np.argwhere(scorer.score_patches(bad)[0] == scorer.score_patches(bad).max())
    array([[2, 3]])
    """

    _parameter_constraints: dict = {
        **CrossFittedScorer._parameter_constraints,
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "metric": [StrOptions({"cosine", "euclidean"})],
        "coreset": [
            None,
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="right"),
        ],
        "coreset_method": [StrOptions({"k_center", "projected_k_center", "random"})],
        "random_state": ["random_state"],
        "algorithm": [str],
    }

    def __init__(
        self,
        n_neighbors: int = 1,
        *,
        metric: Literal["cosine", "euclidean"] = "cosine",
        topk: float = 0.01,
        aggregation: str | float = "topk_mean",
        contamination: float = 0.1,
        coreset: float | None = None,
        coreset_method: Literal["k_center", "projected_k_center", "random"] = "k_center",
        random_state: int | RandomState | None = None,
        algorithm: str = "auto",
    ):
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.topk = topk
        self.aggregation = aggregation
        self.contamination = contamination
        self.coreset = coreset
        self.coreset_method = coreset_method
        self.random_state = random_state
        self.algorithm = algorithm

    @property
    def bank_(self) -> FloatArray:
        """The memory bank, (n_bank, dim); unit vectors for the cosine."""
        return self._model.index.bank

    @property
    def coverage_radius_(self) -> float:
        """Distance within which every training patch has a patch of the bank."""
        return self._model.coverage_radius

    def _fit_model(self, tokens: PatchTokens) -> MemoryBank:
        return self._fit_bank(tokens, size=None)

    def _fit_held_out_model(self, tokens):
        # As many patches as the bank has: a share of fewer would cover them less densely, and the
        # held-out scores would not be those of the bank they stand for.
        return self._fit_bank(tokens, None if self.coreset is None else len(self._model.index))

    def _fit_bank(self, tokens, size):
        """A bank, of a coreset of `size` patches, or of as many as `coreset` says."""
        rows = None if tokens.valid.all() else np.flatnonzero(tokens.valid)
        if self.coreset is None:
            bank = prepare_bank(tokens.values, self.metric, rows)
            groups = tokens.group_of_image
            group_of_row = groups[tokens.image_of_row()][tokens.valid]
            index = index_of(bank, self.metric, self.algorithm)
            return MemoryBank(index, group_of_row, groups, 0.0, *origin_of_rows(tokens, rows))
        patches = PreparedRows(tokens.values, self.metric, rows)
        size = min(size or coreset_size(self.coreset, len(patches)), len(patches))
        if self.coreset_method == "random":
            rng = check_random_state(self.random_state)
            chosen = np.sort(rng.choice(len(patches), size, replace=False))
            radius = covering_radius(patches, chosen)
        elif self.coreset_method == "projected_k_center":
            chosen, radius = projected_k_center(patches, size, random_state=self.random_state)
        else:
            chosen, radius = greedy_k_center(patches, size)
        origin = origin_of_rows(tokens, chosen if rows is None else rows[chosen])
        index = index_of(patches[chosen], self.metric, self.algorithm)
        return MemoryBank(index, None, tokens.group_of_image, radius, *origin)

    def _score_model(self, model, tokens, known):
        search = model.index.search
        return self._score_rows(search, model, tokens, known, np.flatnonzero(tokens.valid))

    def _score_rows(self, search, model, tokens, known, rows):
        """Scores of some patches, by a method of the index that returns distances; else 0."""
        return mean_distances(search, model, tokens, known, rows, self.n_neighbors)

    def _score_decisive(self, model, tokens, known):
        """Scores of the patches that decide the image scores; bounds no higher for the others."""
        index, valid = model.index, np.flatnonzero(tokens.valid)
        offsets = np.concatenate([[0], np.cumsum(tokens.valid)])[tokens.offsets]
        counts = [n_decisive(n, self.aggregation, self.topk) for n in np.diff(offsets).tolist()]
        if not index.has_bounds or 4 * sum(counts) > len(valid):
            return self._score_model(model, tokens, known)

        def evaluate(patches):
            rows = valid[patches]
            return self._score_rows(index.search, model, tokens, known, rows)[rows]

        scores = self._score_rows(index.upper_bounds, model, tokens, known, valid)
        scores[valid] = highest_scores(scores[valid], offsets, counts, evaluate)
        return scores

    def _score_images(self, tokens):
        return -self._aggregate(tokens, self._patch_scores(tokens, self._score_decisive))

    def _explain_row(self, tokens, row, n_neighbors):
        known = int(self._fingerprints.match(tokens)[0])
        query = tokens.values[row : row + 1]
        return neighbors_of(
            self._model, query, known, self._train_numbers, self.metric, n_neighbors
        )

    def _held_out(self, tokens):
        self.approximation_error_ = self._approximation_error(tokens)
        if self.coreset is not None or tokens.n_groups == 1:
            return super()._held_out(tokens)
        images = calibration_images(tokens)
        base = tokens.select_view(0).select(images)
        return images, self._score_model(self._model, base, images)

    def _approximation_error(self, tokens):
        """Largest relative error among the scores of images that the model has not seen."""
        if not isinstance(self._model.index, FaissIndex):
            return 0.0
        groups, firsts = np.unique(tokens.group_of_image, return_index=True)
        if len(groups) == 1:
            return np.nan
        model, base = self._model, tokens.select_view(0)
        measured = np.arange(0, len(firsts), -(-len(firsts) // _MEASURED_IMAGES))
        images = known = firsts[measured]
        if self.coreset is not None:  # its patches are of all images
            images = images[measured % 2 == 0]
            known = np.full(len(images), -1)
            seen = np.isin(tokens.group_of_image, tokens.group_of_image[images])
            model = self._fit_held_out_model(tokens.select(np.flatnonzero(~seen)))
        exact = replace(model, index=PatchIndex(model.index.bank.copy(), self.metric))
        base = base.select(images)
        approximate, expected = (
            self._aggregate(base, self._score_model(fitted, base, known))
            for fitted in (model, exact)
        )
        scale = np.where(expected > 0, expected, 1)
        return float(np.max(np.abs(approximate - expected) / scale))
