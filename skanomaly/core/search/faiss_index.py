"""Approximate nearest patches by an index of the faiss library."""

from __future__ import annotations

from typing import Any

import numpy as np

from skanomaly._optional import import_optional
from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.search.brute_force import measure, nearest_patches

# A query whose neighbours are mostly of its own group asks for more of them, several times ...
_GROWTH = 4
_MOST_NEIGHBORS = 1024  # ... and beyond so many goes to brute force.


class FaissIndex:
    """A memory bank in an index that finds most of the nearest patches.

    Parameters
    ----------
    bank : ndarray of shape (n, dim)
        As from :func:`skanomaly.core.search.brute_force.prepare_bank`.
    metric : {"cosine", "euclidean"}
    description : str
        Of the index, for ``faiss.index_factory``.

    Notes
    -----
    Distances are those to the patches found, measured as by the exact search: never too small. A
    query that is left with too few of them goes to brute force. An index that is trained on more
    points than the bank has is an error of faiss.
    """

    has_bounds = False

    def __init__(self, bank: FloatArray, metric: str, description: str) -> None:
        faiss = import_optional("faiss", "faiss", "an algorithm that starts with 'faiss:'")
        self.metric, self._bank = metric, bank
        try:
            index = faiss.index_factory(bank.shape[1], description, faiss.METRIC_L2)
            tokens = np.ascontiguousarray(bank, dtype=np.float32)
            index.train(tokens)
            index.add(tokens)
        except RuntimeError as exc:
            raise ValueError(
                f"algorithm='faiss:{description}' does not fit a bank of {len(bank)} patches of "
                f"{bank.shape[1]} components: {str(exc).splitlines()[0]}"
            ) from exc
        self._faiss = index

    def __len__(self) -> int:
        return len(self._bank)

    @property
    def bank(self) -> FloatArray:
        """The bank."""
        return self._bank

    def take(self, rows: IntArray) -> FloatArray:
        """Some rows of the bank.

        Parameters
        ----------
        rows : ndarray of int

        Returns
        -------
        ndarray of shape (n_rows, dim)
        """
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
        """Near rows, most of them the nearest.

        As :func:`skanomaly.core.search.brute_force.nearest_patches`.

        Parameters
        ----------
        queries, n_neighbors, query_groups, bank_groups
            As for that function.

        Returns
        -------
        distances, indices
            As from that function.
        """
        distances = np.empty((len(queries), n_neighbors))
        indices = np.empty((len(queries), n_neighbors), dtype=np.int64)
        left = np.arange(len(queries))
        asked = n_neighbors if query_groups is None else n_neighbors + 16
        tokens = np.ascontiguousarray(queries, dtype=np.float32)
        while left.size and asked <= min(_MOST_NEIGHBORS, len(self)):
            _, rows = self._opened().search(tokens[left], asked)
            usable = rows >= 0
            if query_groups is not None and bank_groups is not None:
                own = query_groups[left][:, None]
                usable &= ~((bank_groups[rows] == own) & (own >= 0))
            enough = usable.sum(axis=1) >= n_neighbors
            q, column = np.nonzero(usable[enough])
            done = left[enough]
            distances[done], indices[done] = measure(
                queries[done], self._bank, (q, rows[enough][q, column]), n_neighbors, self.metric
            )
            left, asked = left[~enough], asked * _GROWTH
        if left.size:
            groups = None if query_groups is None else query_groups[left]
            distances[left], indices[left] = nearest_patches(
                queries[left], self._bank, n_neighbors, self.metric, groups, bank_groups
            )
        return distances, indices

    def __getstate__(self):
        index = self._faiss
        if not isinstance(index, np.ndarray):
            faiss = import_optional("faiss", "faiss", "an algorithm that starts with 'faiss:'")
            index = faiss.serialize_index(index)
        return {**self.__dict__, "_faiss": index}

    def _opened(self):
        """The index, which a pickle and a model file hold as bytes until the first search."""
        if isinstance(self._faiss, np.ndarray):
            faiss = import_optional("faiss", "faiss", "an algorithm that starts with 'faiss:'")
            self._faiss = faiss.deserialize_index(self._faiss)
        return self._faiss
