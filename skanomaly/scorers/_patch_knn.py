"""Nearest-neighbour distance to a memory bank of normal patches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from numbers import Integral, Real
from typing import Literal

import numpy as np
from numpy.random import RandomState

from skanomaly._docstrings import document
from skanomaly._patch_tokens import PatchTokens
from skanomaly._sklearn import Interval, RealNotInt, StrOptions
from skanomaly._typing import FloatArray
from skanomaly.core.aggregation import highest_scores, n_decisive
from skanomaly.core.parts import part_slices
from skanomaly.core.token_space import TokenSpace
from skanomaly.scorers._approximation import approximation_error
from skanomaly.scorers._cross_fitted import cross_fit
from skanomaly.scorers._docstrings import SCORER_DOCS
from skanomaly.scorers._explaining import explain_by_neighbors, neighbors_of
from skanomaly.scorers._growing_banks import highest_patch
from skanomaly.scorers._memory_bank import (
    Coreset,
    MemoryBanks,
    fit_banks,
    mean_distances,
    softmax_factors,
)
from skanomaly.scorers._streamed_banks import StreamedBanks
from skanomaly.scorers._training_images import calibration_images


@document(SCORER_DOCS)
class PatchKNNScorer(StreamedBanks):
    """Distance of each patch to its nearest patches in a memory bank of normal images.

    With the cosine distance and the mean of the top 1% this is AnomalyDINO [1]_; with the
    Euclidean distance, `aggregation="max"`, a coreset and `reweighting=9`, PatchCore [2]_.

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
        rules out most of it by bounds that hold whatever is rounded; ``"wide"`` does so by bounds
        from one product in bfloat16, for which it needs the extra ``torch``; ``"torch:cuda"``
        compares to the whole bank on the GPU. All have the same results. ``"auto"`` is the fastest
        of these, as measured on the first patches of each kind of search.
        ``"faiss:"`` with the description of an index of the faiss library [3]_, such as
        ``"faiss:HNSW32"`` or ``"faiss:IVF256,Flat"``, is approximate: see
        `approximation_error_`. It needs the extra ``faiss``.
    parts : int or sequence of int, default=1
        Where tokens are several tokens side by side, as of several layers with
        ``fusion="concat"``: how many equal ones, or the size of each. Each part has a bank, and
        a coreset, of its own; the score is the mean of the distances to all of them [4]_.
    position_weight : float, default=0.0
        What a patch pays for a match elsewhere in the image: `d` patches away, half the square of
        ``position_weight * d`` is added to the cosine distance; to the Euclidean one it is as one
        more component of that size. More than 0 needs tokens with their grids.
    reweighting : int or None, default=None
        Weigh the image score as PatchCore does, by so many patches of the bank around the nearest
        one; the paper has 9. Needs ``metric="euclidean"``, ``aggregation="max"``,
        ``n_neighbors=1`` and one part.

    Attributes
    ----------
    bank_ : ndarray of shape (n_bank, dim)
        The memory bank; unit vectors for the cosine, with weighted places at their ends. A tuple
        of such, where there are several parts.
    coverage_radius_ : float
        Euclidean distance in the bank's space within which every training patch has a patch of the
        bank; 0 without coreset. The largest of all parts.
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
    takes memory for 1.3 times the bank, for the patches it calibrates on (2**17 tokens at most) and
    some 300 MB for blocks; where torch is installed, its bfloat16 products are used, which take
    half of the bank more where they are the fastest, and it is loaded. With a coreset more than 64
    MB of tokens are read where they lie, and neither copied nor normalised as a whole: `fit` takes
    some 600 bytes a token, whatever `dim` is, and the same for blocks. A projection to 128
    components is 512 bytes more. With `position_weight` they are copied, with their places beside
    them: that takes their memory once more.

    Scores do not depend on the other images of a call, nor on their order, to the last bit, but
    for ``"faiss:"``. Images are scored some at a time, so that beyond their tokens scoring takes
    some 100 MB, besides blocks, however many they are.

    Re-weighting makes one more search a patch that is the highest of its image, in the bank without
    the image for a training image, and leaves the scores of patches as they are.

    References
    ----------
    .. [1] Damm et al., "AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with
       DINOv2", WACV 2025.
    .. [2] Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022.
    .. [3] Douze et al., "The Faiss Library", 2024.
    .. [4] Zhang et al., "Is Training Necessary for Anomaly Detection?", ICML 2026.

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
        **StreamedBanks._parameter_constraints,
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
        "parts": ["array-like", Interval(Integral, 1, None, closed="left")],
        "position_weight": [Interval(Real, 0, None, closed="left")],
        "reweighting": [None, Interval(Integral, 1, None, closed="left")],
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
        parts: int | Sequence[int] = 1,
        position_weight: float = 0.0,
        reweighting: int | None = None,
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
        self.parts = parts
        self.position_weight = position_weight
        self.reweighting = reweighting

    @property
    def bank_(self) -> FloatArray | tuple[FloatArray, ...]:
        """The memory bank, (n_bank, dim); unit vectors for the cosine. Of several parts a tuple."""
        banks = tuple(bank.index.bank for bank in self._model.banks)
        return banks[0] if len(banks) == 1 else banks

    @property
    def coverage_radius_(self) -> float:
        """Distance within which every training patch has a patch of the bank."""
        return max(bank.coverage_radius for bank in self._model.banks)

    @property
    def _uses_positions(self):
        return self.position_weight > 0

    def _fit_tokens(self, tokens):
        self._check_reweighting()
        return super()._fit_tokens(tokens)

    def _keep_held_out(self, base, images, scores):
        samples = super()._keep_held_out(base, images, scores)
        if self.reweighting is None:
            return samples
        return samples * np.array([self._held_out_factors[i] for i in self._held_out_scores])

    def _check_reweighting(self):
        if self.reweighting is None:
            return
        needed = {"metric": "euclidean", "aggregation": "max", "n_neighbors": 1}
        wrong = [f"{name}={v!r}" for name, v in needed.items() if getattr(self, name) != v]
        if not isinstance(self.parts, Integral) or self.parts != 1:
            wrong.append("parts=1")
        if wrong:
            raise ValueError(
                f"reweighting={self.reweighting} is of the highest distance to one bank: it needs "
                f"{', '.join(wrong)}; or set reweighting=None"
            )

    def _fit_model(self, tokens: PatchTokens) -> MemoryBanks:
        return self._fit_banks(tokens, self.coreset)

    def _fit_held_out_model(self, tokens):
        # As many patches as the bank has: a share of fewer would cover them less densely, and the
        # held-out scores would not be those of the bank they stand for.
        size = None if self.coreset is None else len(self._model.banks[0].index)
        return self._fit_banks(tokens, size)

    def _fit_banks(self, tokens, size):
        coreset = Coreset(size, self.coreset_method, self.random_state)
        return fit_banks(tokens, self._spaces(tokens.dim), coreset, self.algorithm)

    def _spaces(self, dim):
        return [
            TokenSpace(part.start, part.stop, self.metric, float(self.position_weight))
            for part in part_slices(dim, self.parts)
        ]

    def _score_model(self, model, tokens, known):
        return mean_distances(model, tokens, known, np.flatnonzero(tokens.valid), self.n_neighbors)

    def _score_decisive(self, model, tokens, known):
        """Scores of the patches that decide the image scores; bounds no higher for the others."""
        valid = np.flatnonzero(tokens.valid)
        offsets = np.concatenate([[0], np.cumsum(tokens.valid)])[tokens.offsets]
        counts = [n_decisive(n, self.aggregation, self.topk) for n in np.diff(offsets).tolist()]
        has_bounds = all(bank.index.has_bounds for bank in model.banks)
        if not has_bounds or 4 * sum(counts) > len(valid):
            return self._score_model(model, tokens, known)

        def evaluate(patches):
            rows = valid[patches]
            return mean_distances(model, tokens, known, rows, self.n_neighbors)[rows]

        scores = mean_distances(model, tokens, known, valid, self.n_neighbors, bounds=True)
        scores[valid] = highest_scores(scores[valid], offsets, counts, evaluate)
        return scores

    def _score_tokens(self, tokens):
        scores, of_images = super()._score_tokens(tokens)
        if self.reweighting is not None:
            of_images = of_images * self._factors(tokens, scores)
        return scores, of_images

    def _score_images(self, tokens):
        if self.reweighting is not None:  # bounds do not tell which patch is the highest
            return self._score_tokens(tokens)[1]
        return -self._aggregate(tokens, self._patch_scores(tokens, self._score_decisive))

    def _factors(self, tokens, scores):
        """Weight of each image's score; that of training images by banks without them."""
        known = self._fingerprints.match(tokens)
        held_out = np.array([image in self._held_out_factors for image in known.tolist()])
        factors = np.ones(tokens.n_images)
        factors[held_out] = [self._held_out_factors[image] for image in known[held_out].tolist()]
        new = np.flatnonzero(~held_out)
        rows = np.array([highest_patch(tokens, scores, i) for i in new], dtype=np.int64)
        factors[new] = softmax_factors(self._model, tokens, known, rows, self.reweighting)
        return factors

    def _scores_and_factors(self, model, tokens, known, of_all_rows):
        """Of each row the score and, where it may decide that of its image, its weight."""
        scores = self._score_model(model, tokens, known)
        if of_all_rows:
            rows = np.flatnonzero(tokens.valid)
        else:
            rows = np.array([highest_patch(tokens, scores, i) for i in range(tokens.n_images)])
        columns = np.stack([scores, np.ones(len(scores))], axis=1)
        columns[rows, 1] = softmax_factors(model, tokens, known, rows, self.reweighting)
        return columns

    def _explain_row(self, tokens, row, n_neighbors):
        known = int(self._fingerprints.match(tokens)[0])
        model = self._model
        found = neighbors_of(model, tokens, row, known, n_neighbors)
        return explain_by_neighbors(found, model.offsets, model.sides, self._train_numbers, known)

    def _held_out(self, tokens):
        self.approximation_error_ = approximation_error(
            tokens, self._model, self._fit_held_out_model, self._score_model, self._aggregate
        )
        by_folds = self.coreset is not None or tokens.n_groups == 1
        images = np.arange(tokens.n_images) if by_folds else calibration_images(tokens)
        base = tokens.select_view(0).select(images)
        score, columns = self._score_model, ()
        if self.reweighting is not None:
            # Quarters of one image are held out in turn: any of its rows may be the highest.
            score = partial(self._scores_and_factors, of_all_rows=tokens.n_groups == 1)
            columns = (2,)
        if by_folds:
            found = cross_fit(tokens, self._n_folds, self._fit_held_out_model, score, columns)
        else:
            found = score(self._model, base, images)
        if self.reweighting is not None:
            scores = found[:, 0]
            self._held_out_factors = {
                int(image): found[highest_patch(base, scores, i), 1]
                for i, image in enumerate(images)
            }
            found = scores
        return images, found
