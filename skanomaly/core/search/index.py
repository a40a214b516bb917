"""A memory bank that is prepared for searches, exact ones unless told otherwise."""

from __future__ import annotations

import functools
import importlib.util
import sys
from typing import Any

import numpy as np

from skanomaly._optional import import_optional
from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.products import squared_norms
from skanomaly.core.search.brute_force import measure, nearest_patches
from skanomaly.core.search.certified import CertifiedSearch
from skanomaly.core.search.choice import Situation, fastest
from skanomaly.core.search.low_precision import bfloat16_is_summed_in_float32, fastest_dtype
from skanomaly.core.search.sorting import sort_bank
from skanomaly.core.search.torch_device import DeviceSearch
from skanomaly.core.search.tuning import DEFAULT_TUNING, Tuning
from skanomaly.core.search.wide import WideSearch
from skanomaly.core.threads import blas_threads, map_products


class PatchIndex:
    """A memory bank, and what makes the search in it fast.

    Parameters
    ----------
    bank : ndarray of shape (n, dim), float32 or float64
        As from :func:`skanomaly.core.search.brute_force.prepare_bank`. The index takes it over,
        and may sort its rows.
    metric : {"cosine", "euclidean"}, default="cosine"
    algorithm : {"auto", "brute", "certified", "wide"} or str, default="auto"
        ``"brute"`` compares each query to every row. ``"certified"`` rules out most rows by bounds
        that hold whatever is rounded, so that it finds the same rows; queries for which it rules
        out too little go to brute force. ``"wide"`` takes such bounds of one product with all
        coordinates in bfloat16; it needs torch. ``"torch:"`` with a device, such as
        ``"torch:cuda"``, is brute force there. All have the same results. ``"auto"`` is
        ``"torch:cuda"`` where torch sees such a device and the bank has 4,096 rows or more; else
        the fastest of the others, as measured on the first queries.
    tuning : Tuning, optional
        Sizes and thresholds, which change how fast the search is and not what it finds.

    Raises
    ------
    ValueError
        For an unknown algorithm.
    ImportError
        For ``"wide"`` or a device without torch.

    Attributes
    ----------
    chosen : str or None
        The algorithm that the last search took.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.search.brute_force import prepare_bank
    >>> from skanomaly.core.search.index import PatchIndex
    >>> index = PatchIndex(prepare_bank(np.eye(3), "cosine"))
    >>> index.search(np.array([[0.0, 1.0, 0.0]]))
    (array([[0.]]), array([[1]]))
    """

    chosen: str | None = None
    _keeps_wide = False  # whether searches of some size are fastest by "wide" on this machine

    def __init__(
        self,
        bank: FloatArray,
        metric: str = "cosine",
        algorithm: str = "auto",
        *,
        tuning: Tuning = DEFAULT_TUNING,
    ) -> None:
        if algorithm not in ("auto", "brute", "certified", "wide") and not algorithm.startswith(
            "torch:"
        ):
            raise ValueError(
                "algorithm must be 'auto', 'brute', 'certified', 'wide', 'torch:' with a device, "
                f"or 'faiss:' with the description of a faiss index, got {algorithm!r}"
            )
        if algorithm == "wide":
            import_optional("torch", "torch", "algorithm='wide'")
        self.metric, self.tuning, self._algorithm = metric, tuning, algorithm
        self._bank, self._order, self._parts = bank, None, None
        self._search: dict[str, Any] | None = None
        self._places: IntArray | None = None
        large = len(bank) >= tuning.small_bank
        if algorithm == "auto" and large and _has_cuda():
            self._algorithm = "torch:cuda"
        elif algorithm != "brute" and not algorithm.startswith("torch:"):
            # Beyond these norms squares of float32 over- or underflow, and no bound would tell.
            if not 1e-15 < np.sqrt(squared_norms(bank).max()) < 1e15:
                self._algorithm = "brute"
            elif algorithm == "certified" or (algorithm == "auto" and large):
                self._order, self._parts = sort_bank(
                    bank, tuning.rows_per_block, tuning.rows_per_part
                )

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

        def by_candidates(name, rows):
            groups = None if query_groups is None else (query_groups[rows], bank_groups)
            q, r, left = self._prepared(name).candidates(queries[rows], n_neighbors, groups)
            done = np.setdiff1d(np.arange(len(rows)), left)
            pairs = np.searchsorted(done, q), r
            distances[rows[done]], indices[rows[done]] = self._measure(
                queries[rows[done]], pairs, n_neighbors
            )
            return rows[left]

        def run(name, rows):
            if name != "brute":
                left = self._map(name, functools.partial(by_candidates, name), rows)
                rows = np.concatenate([np.empty(0, dtype=np.int64), *left])
            self._map("brute", by_brute_force, rows)

        rows = np.arange(len(queries))
        name = "brute"
        if n_neighbors <= len(self) and rows.size:
            name = self._choose(run, rows, n_neighbors, query_groups is not None)
        self.chosen = name
        run(name, rows)
        return distances, indices

    def _choose(self, run, rows, n_neighbors, grouped):
        """The algorithm, which is measured on some of the queries where it is left open."""
        names = self._candidates()
        if len(names) == 1:
            return names[0]
        rows = rows[: self.tuning.queries_at_once]
        situation = Situation(
            rows=len(self).bit_length(),
            queries=len(rows).bit_length() // 4,
            dim=self._bank.shape[1],
            n_neighbors=n_neighbors,
            threads=blas_threads(),
            kind=(self.metric, str(self.dtype), "grouped" if grouped else "all", *names),
        )
        searches = {name: functools.partial(run, name) for name in names}
        name = fastest(situation, searches, rows)
        self._keeps_wide = self._keeps_wide or name == "wide"
        if not self._keeps_wide and self._search and self._search.pop("wide", None):
            if self._parts is not None:
                self._prepared("certified").release_wide()
        return name

    def _candidates(self):
        """Algorithms that may be the fastest one."""
        if self._algorithm == "wide" and not bfloat16_is_summed_in_float32():
            return ["brute"]
        if self._algorithm != "auto":
            return [self._algorithm]
        small = self._parts is None
        names = ["brute"] if len(self) <= 4 * self.tuning.small_bank else []
        names += [] if small else ["certified"]
        # Torch takes seconds to load: not for a small bank.
        if (not small or "torch" in sys.modules) and fastest_dtype() == "bfloat16":
            names.append("wide")
        return names

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
        prepared = self._prepared("certified")

        def search(rows):
            groups = None if query_groups is None else (query_groups[rows], bank_groups)
            q, r = prepared.first_candidates(queries[rows], n_neighbors, groups)
            found, q = np.unique(q, return_inverse=True)
            bounds[rows[found]], _ = self._measure(queries[rows[found]], (q, r), n_neighbors)

        self._map("certified", search, np.arange(len(queries)))
        return bounds

    def _map(self, name, function, rows):
        """Call a function with some queries at a time, until all were there; list the results."""
        if not rows.size:
            return []
        tuning = self.tuning
        per_thread = (
            tuning.queries_per_thread_by_brute_force
            if name == "brute"
            else tuning.queries_per_thread
        )
        n_threads, size = 1, tuning.queries_at_once
        if not name.startswith("torch:"):
            n_threads = blas_threads()
        if name == "certified":
            in_memory = tuning.pairs_of_bounds * tuning.rows_per_block // len(self)
            size = min(size, max(per_thread, in_memory))
        n_parts = max(1, -(-len(rows) // size), min(n_threads, len(rows) // per_thread))
        return map_products(function, np.array_split(rows, n_parts), n_threads)

    def _measure(self, queries, pairs, n_neighbors):
        return measure(queries, self._bank, pairs, n_neighbors, self.metric, self._order)

    def _prepared(self, name):
        """What an algorithm needs beyond the bank, made at its first search."""
        searches = self._search
        if searches is None:
            searches = self._search = {}
        search = searches.get(name)
        if search is None:
            if name == "certified":
                search = CertifiedSearch(self._bank, self._parts, self.metric, self.tuning)
            elif name == "wide" and self._parts is not None:
                search = self._prepared("certified").wide
            elif name == "wide":
                search = WideSearch(self._bank, self.metric, self.tuning)
            else:
                device = name.removeprefix("torch:")
                search = DeviceSearch(self._bank, self.metric, device, self.tuning)
            search = searches.setdefault(name, search)
        return search  # another thread may have taken it out meanwhile

    def __getstate__(self) -> dict[str, Any]:
        """Without what is made again from the bank at the first search."""
        state = {**self.__dict__, "_search": None, "_places": None}
        for name in ("chosen", "_keeps_wide"):  # of this machine: a file does not depend on it
            state.pop(name, None)
        return state


def _has_cuda():
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()
