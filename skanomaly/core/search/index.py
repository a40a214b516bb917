"""A memory bank that is prepared for searches, exact ones unless told otherwise."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.products import squared_norms
from skanomaly.core.search.brute_force import measure, nearest_patches
from skanomaly.core.search.certified import CertifiedSearch
from skanomaly.core.search.sorting import sort_bank
from skanomaly.core.search.torch_device import DeviceSearch
from skanomaly.core.search.tuning import DEFAULT_TUNING, Tuning
from skanomaly.core.threads import blas_threads, map_products


class PatchIndex:
    """A memory bank, and what makes the search in it fast.

    Parameters
    ----------
    bank : ndarray of shape (n, dim), float32 or float64
        As from :func:`skanomaly.core.search.brute_force.prepare_bank`. The index takes it over,
        and may sort its rows.
    metric : {"cosine", "euclidean"}, default="cosine"
    algorithm : {"auto", "brute", "certified"} or str, default="auto"
        ``"brute"`` compares each query to every row. ``"certified"`` rules out most rows by bounds
        that hold whatever is rounded, so that it finds the same rows; queries for which it rules
        out too little go to brute force. ``"torch:"`` with a device, such as ``"torch:cuda"``, is
        brute force there, with the same results. ``"auto"`` is ``"brute"`` for less than 4,096
        rows; else ``"torch:cuda"`` where torch sees such a device, and ``"certified"`` elsewhere.
    tuning : Tuning, optional
        Sizes and thresholds, which change how fast the search is and not what it finds.

    Raises
    ------
    ValueError
        For an unknown algorithm.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.search.brute_force import prepare_bank
    >>> from skanomaly.core.search.index import PatchIndex
    >>> index = PatchIndex(prepare_bank(np.eye(3), "cosine"))
    >>> index.search(np.array([[0.0, 1.0, 0.0]]))
    (array([[0.]]), array([[1]]))
    """

    def __init__(
        self,
        bank: FloatArray,
        metric: str = "cosine",
        algorithm: str = "auto",
        *,
        tuning: Tuning = DEFAULT_TUNING,
    ) -> None:
        if algorithm not in ("auto", "brute", "certified") and not algorithm.startswith("torch:"):
            raise ValueError(
                "algorithm must be 'auto', 'brute', 'certified', 'torch:' with a device, or "
                f"'faiss:' with the description of a faiss index, got {algorithm!r}"
            )
        self.metric, self.tuning, self._algorithm = metric, tuning, algorithm
        self._bank, self._order, self._parts = bank, None, None
        self._search = None
        self._places: IntArray | None = None
        if algorithm == "auto" and len(bank) < tuning.small_bank:
            self._algorithm = "brute"
        elif algorithm == "auto":
            self._algorithm = "torch:cuda" if _has_cuda() else "certified"
        if self._algorithm == "certified":
            # Beyond these norms squares of float32 over- or underflow, and no bound would tell.
            if 1e-15 < np.sqrt(squared_norms(bank).max()) < 1e15:
                self._order, self._parts = sort_bank(
                    bank, tuning.rows_per_block, tuning.rows_per_part
                )
            else:
                self._algorithm = "brute"

    def __len__(self) -> int:
        return len(self._bank)

    @property
    def bank(self) -> FloatArray:
        """The bank in its order at the start; a copy if it has been sorted."""
        if self._order is None:
            return self._bank
        out = np.empty_like(self._bank)
        out[self._order] = self._bank
        return out

    def take(self, rows: IntArray) -> FloatArray:
        """Some rows of the bank, by their numbers at the start.

        Parameters
        ----------
        rows : ndarray of int

        Returns
        -------
        ndarray of shape (n_rows, dim)
        """
        if self._order is not None:
            if self._places is None:
                self._places = np.argsort(self._order)
            rows = self._places[rows]
        return self._bank[rows]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the bank."""
        return self._bank.dtype

    def search(
        self,
        queries: FloatArray,
        n_neighbors: int = 1,
        query_groups: IntArray | None = None,
        bank_groups: IntArray | None = None,
    ) -> tuple[FloatArray, IntArray]:
        """Nearest rows: as :func:`skanomaly.core.search.brute_force.nearest_patches`.

        Parameters
        ----------
        queries : ndarray of shape (n_queries, dim)
            Prepared, of the dtype of the bank.
        n_neighbors : int, default=1
        query_groups, bank_groups : ndarray of int, optional
            A query never finds a row of its own group; group -1 excludes nothing.

        Returns
        -------
        distances : ndarray of shape (n_queries, n_neighbors), float64
            Ascending.
        indices : ndarray of shape (n_queries, n_neighbors), int64
            Rows of the bank in its order at the start.

        Raises
        ------
        ValueError
            When a query is left with fewer than `n_neighbors` rows.
        """
        if bank_groups is not None and self._order is not None:
            bank_groups = bank_groups[self._order]
        distances = np.empty((len(queries), n_neighbors))
        indices = np.empty((len(queries), n_neighbors), dtype=np.int64)

        def by_brute_force(rows):
            distances[rows], indices[rows] = nearest_patches(
                queries[rows],
                self._bank,
                n_neighbors,
                self.metric,
                None if query_groups is None else query_groups[rows],
                bank_groups,
                row_numbers=self._order,
                tuning=self.tuning,
            )

        per_thread = self.tuning.queries_per_thread_by_brute_force
        if self._algorithm == "brute" or n_neighbors > len(self):
            self._map(by_brute_force, np.arange(len(queries)), per_thread)
            return distances, indices
        prepared = self._prepared()

        def search(rows):
            groups = None if query_groups is None else (query_groups[rows], bank_groups)
            q, r, left = prepared.candidates(queries[rows], n_neighbors, groups)
            done = np.setdiff1d(np.arange(len(rows)), left)
            pairs = np.searchsorted(done, q), r
            distances[rows[done]], indices[rows[done]] = self._measure(
                queries[rows[done]], pairs, n_neighbors
            )
            return rows[left]

        left = self._map(search, np.arange(len(queries)))
        left = np.concatenate([np.empty(0, dtype=np.int64), *left])
        self._map(by_brute_force, left, per_thread)
        return distances, indices

    @property
    def has_bounds(self) -> bool:
        """Whether :meth:`upper_bounds` are cheaper than the distances."""
        return self._parts is not None

    def upper_bounds(
        self,
        queries: FloatArray,
        n_neighbors: int = 1,
        query_groups: IntArray | None = None,
        bank_groups: IntArray | None = None,
    ) -> FloatArray:
        """Distances to some rows near each query: no smaller than those of :meth:`search`.

        Parameters
        ----------
        queries, n_neighbors, query_groups, bank_groups
            As for :meth:`search`.

        Returns
        -------
        ndarray of shape (n_queries, n_neighbors), float64
            Ascending; infinite where none were found.
        """
        bounds = np.full((len(queries), n_neighbors), np.inf)
        if bank_groups is not None:
            bank_groups = bank_groups[self._order]
        prepared = self._prepared()

        def search(rows):
            groups = None if query_groups is None else (query_groups[rows], bank_groups)
            q, r = prepared.first_candidates(queries[rows], n_neighbors, groups)
            found, q = np.unique(q, return_inverse=True)
            bounds[rows[found]], _ = self._measure(queries[rows[found]], (q, r), n_neighbors)

        self._map(search, np.arange(len(queries)))
        return bounds

    def _map(self, function, rows, per_thread=None):
        """Call a function with some queries at a time, until all were there; list the results."""
        if not rows.size:
            return []
        tuning = self.tuning
        per_thread = tuning.queries_per_thread if per_thread is None else per_thread
        n_threads, size = 1, tuning.queries_at_once
        if not self._algorithm.startswith("torch:"):
            in_memory = tuning.pairs_of_bounds * tuning.rows_per_block // len(self)
            n_threads, size = blas_threads(), min(size, max(per_thread, in_memory))
        n_parts = max(1, -(-len(rows) // size), min(n_threads, len(rows) // per_thread))
        return map_products(function, np.array_split(rows, n_parts), n_threads)

    def _measure(self, queries, pairs, n_neighbors):
        return measure(queries, self._bank, pairs, n_neighbors, self.metric, self._order)

    def _prepared(self):
        if self._search is None:
            if self._algorithm == "certified":
                self._search = CertifiedSearch(self._bank, self._parts, self.metric, self.tuning)
            else:
                device = self._algorithm.removeprefix("torch:")
                self._search = DeviceSearch(self._bank, self.metric, device, self.tuning)
        return self._search

    def __getstate__(self) -> dict[str, Any]:
        """Without what is made again from the bank at the first search."""
        return {**self.__dict__, "_search": None, "_places": None}


def _has_cuda():
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()
