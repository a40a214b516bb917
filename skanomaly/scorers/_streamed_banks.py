"""Memory banks of any number of images, whole ones and coresets, from one pass over them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

import numpy as np

from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.calibration import calibration_folds
from skanomaly.core.coreset import coreset_size
from skanomaly.core.machine import available_memory
from skanomaly.core.streamed_coreset import CoresetCandidates
from skanomaly.core.token_space import TokenSpace, places_in_grids
from skanomaly.scorers._growing_banks import GrowingBanks
from skanomaly.scorers._memory_bank import MemoryBank, MemoryBanks, banks_of_images, index_of
from skanomaly.scorers._streamed import Held, StreamedScorer
from skanomaly.scorers._token_source import TokenSource
from skanomaly.scorers._training_images import MAX_CALIBRATION_PATCHES, calibration_images

# Times the size of a coreset: so many candidates are kept for it, and as many as take so many bytes
# in any case, of which the coreset is that of a fit.
_OVERSAMPLING, _LEAST_BYTES = 4, 2**28
_ROW_BITS = 32  # of the number of a patch; above these the number of its image


class StreamedBanks(StreamedScorer, GrowingBanks):
    """Base of :class:`skanomaly.PatchKNNScorer`, as far as its banks are made from a stream."""

    def _check_reweighting(self) -> None:
        raise NotImplementedError

    def _spaces(self, dim: int) -> list[TokenSpace]:
        raise NotImplementedError

    @property
    def _problem_of_streams(self):
        if self.algorithm.startswith("faiss:"):
            return (
                f"algorithm={self.algorithm!r} has to see all patches at once; take 'auto', which "
                "is exact"
            )
        if self.coreset is not None and self.coreset_method != "k_center":
            return (
                f"coreset_method={self.coreset_method!r} has to see all patches at once; take "
                "'k_center', of which candidates are kept"
            )
        return None

    def _learn_stream(self, source):
        self._check_reweighting()
        self._held_out_factors = {}
        self.approximation_error_ = 0.0
        first = source.first()
        spaces = self._spaces(first.dim)
        if self.coreset is None:
            model = whole_banks(source, first, spaces, self.algorithm)
            images = calibration_images(source.layout())
            return model, [Held(images, model, is_known=True)]
        coresets = StreamedCoresets(source, first, spaces, self.coreset, self.algorithm)
        return coresets.model, coresets.held(self._n_folds)

    def _score_held(self, model, base, known, images):
        if self.reweighting is None:
            return super()._score_held(model, base, known, images)
        found, factors = self._scores_and_weights(model, base, known)
        self._held_out_factors.update(zip(images.tolist(), factors.tolist(), strict=True))
        return found


def whole_banks(
    source: TokenSource, first: PatchTokens, spaces: Sequence[TokenSpace], algorithm: str
) -> MemoryBanks:
    """Banks of all patches, written to their place as they come.

    Parameters
    ----------
    source : TokenSource
    first : PatchTokens
        Its first image.
    spaces : sequence of TokenSpace
    algorithm : str
        As of :class:`skanomaly.PatchKNNScorer`.

    Returns
    -------
    MemoryBanks
        Those of a fit to all tokens at once.

    Raises
    ------
    ValueError
        When they would take more memory than there is.
    """
    rows_of_first = _prepared(spaces, first)
    n_rows = source.n_images * len(first.values)
    n_bytes = n_rows * sum(rows[:1].nbytes for rows in rows_of_first)
    available = available_memory()
    if available is not None and n_bytes > available:
        raise ValueError(
            f"a bank of all patches of {source.n_images} images takes about "
            f"{n_bytes / 1e9:.1f} GB, and {available / 1e9:.1f} GB of memory are available: keep "
            "a share of the patches (coreset=0.01, on the command line --set knn__coreset=0.01), "
            "or take PatchSubspaceScorer or PatchGaussianScorer, which do not grow with the images"
        )
    tables = [_Table(n_rows, rows) for rows in rows_of_first]
    for _, tokens in source.parts():
        for table, rows in zip(tables, _prepared(spaces, tokens), strict=True):
            table.append(rows)
    layout = source.layout()
    rows = None if layout.valid.all() else np.flatnonzero(layout.valid)
    banks = []
    for space in spaces:
        patches = tables.pop(0).taken()
        banks.append(MemoryBank(space, index_of(patches, space, algorithm), rows, 0.0))
    return banks_of_images(banks, layout, True)


class _Table:
    """Rows that are appended in place, of about a number that is known."""

    def __init__(self, n_rows: int, like: FloatArray) -> None:
        # Pages that are never written to take no memory.
        self._rows, self._count = np.empty((n_rows, like.shape[1]), dtype=like.dtype), 0

    def append(self, rows: FloatArray) -> None:
        stop = self._count + len(rows)
        if stop > len(self._rows):  # images are of different sizes
            self._resize(max(stop, len(self._rows) * 9 // 8))
        self._rows[self._count : stop] = rows
        self._count = stop

    def taken(self) -> FloatArray:
        self._resize(self._count)
        return self._rows

    def _resize(self, n_rows):
        # The system moves pages without a second copy of what is in them.
        self._rows.resize((n_rows, self._rows.shape[1]), refcheck=False)


class StreamedCoresets:
    """Coresets of all patches, and those without some images, from candidates of a stream.

    Images to calibrate on come last, so that one set of candidates is of all others; of their
    patches those are kept that are far from these candidates. Models without some of them are
    chosen among the candidates and what is kept of the rest.

    Parameters
    ----------
    source : TokenSource
    first : PatchTokens
        Its first image.
    spaces : sequence of TokenSpace
    coreset : float or int
        Share or number of patches.
    algorithm : str
        As of :class:`skanomaly.PatchKNNScorer`.
    """

    def __init__(
        self,
        source: TokenSource,
        first: PatchTokens,
        spaces: Sequence[TokenSpace],
        coreset: float,
        algorithm: str,
    ) -> None:
        self._spaces, self._algorithm = spaces, algorithm
        n_rows = source.n_images * int(np.count_nonzero(first.valid))
        self._calibrated = held_images(source.group_of_image, len(first.values) // first.n_views)
        self._groups = source.group_of_image[self._calibrated]
        self._share = len(self._calibrated) / source.n_images
        size = coreset_size(coreset, n_rows)
        self._candidates = [
            CoresetCandidates(max(2, _OVERSAMPLING * size, _LEAST_BYTES // rows[:1].nbytes))
            for rows in _prepared(spaces, first)
        ]
        others = np.delete(np.arange(source.n_images), self._calibrated)
        for images, tokens in source.parts(others):
            numbers = _numbers(images, tokens)
            for candidates, rows in zip(self._candidates, _prepared(spaces, tokens), strict=True):
                candidates.add(rows, numbers)
        for images, tokens in source.parts(self._calibrated):
            numbers = _numbers(images, tokens)
            for candidates, rows in zip(self._candidates, _prepared(spaces, tokens), strict=True):
                candidates.set_aside(rows, numbers)
        self._layout = source.layout()
        size = coreset_size(coreset, int(np.count_nonzero(self._layout.valid)))
        self.model = self._model(size, np.empty(0, dtype=np.int64))

    def held(self, n_folds: int) -> Iterator[Held]:
        """Images to calibrate on, with models of as many patches that have not seen them.

        Parameters
        ----------
        n_folds : int
            Models without a fold of the images, at most; so many fewer that each is of four fifths
            of all images or more.

        Yields
        ------
        Held
        """
        n_folds = min(n_folds, ceil(n_folds * self._share))
        folds = calibration_folds(self._groups, n_folds)
        size = len(self.model.banks[0].index)
        for fold in range(folds.max() + 1):
            images = self._calibrated[folds == fold]
            model = self._model(size, images)
            if fold == folds.max():  # they take more memory than the model
                self._candidates = []
            yield Held(images, model)
            del model

    def _model(self, size, without):
        """Coresets of all images but some of those that are calibrated on."""

        def leave_out(numbers):
            return np.isin(numbers >> _ROW_BITS, without)

        banks = []
        for space, candidates in zip(self._spaces, self._candidates, strict=True):
            patches, found, radius = candidates.coreset(size, leave_out)
            chosen = self._layout.offsets[found >> _ROW_BITS] + (found & (2**_ROW_BITS - 1))
            index = index_of(patches, space, self._algorithm)
            banks.append(MemoryBank(space, index, chosen, radius))
        return banks_of_images(banks, self._layout, False)


def held_images(groups: IntArray, n_patches: int) -> IntArray:
    """Numbers of the images that a coreset of a stream is calibrated on.

    Parameters
    ----------
    groups : ndarray of shape (n_images,), int
        Group of each image.
    n_patches : int
        Of each image, about.

    Returns
    -------
    ndarray of int
        Those of all groups, or of groups at even steps, of 2**17 patches about.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.scorers._streamed_banks import held_images
    >>> held_images(np.arange(6), 2**16)
    array([0, 3])
    """
    known, firsts = np.unique(groups, return_index=True)
    step = -(-len(groups) * n_patches // MAX_CALIBRATION_PATCHES)
    return np.flatnonzero(np.isin(groups, known[np.argsort(firsts)][::step]))


def _prepared(spaces, tokens):
    """The patches of images as each bank compares them."""
    places = None
    if any(space.position_weight for space in spaces):
        places = places_in_grids(tokens.grids, tokens.n_views)
    rows = None if tokens.valid.all() else np.flatnonzero(tokens.valid)
    return [space.prepare(tokens.values, rows, places) for space in spaces]


def _numbers(images, tokens):
    """By what patches are known: the number of the image, and that of the patch in it."""
    image = tokens.image_of_row()
    within = np.arange(len(tokens.values)) - tokens.offsets[image]
    return ((images[image] << _ROW_BITS) + within)[tokens.valid]
