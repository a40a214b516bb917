"""Approximate nearest patches by an index of the faiss library."""

import numpy as np

from skanomaly._optional import import_optional
from skanomaly.core.search.brute_force import measure, nearest_patches

_MORE = 4  # factor by which more neighbours are asked for where too many are of the own group
_MOST = 1024  # neighbours asked for before the search becomes exact


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

    def __init__(self, bank, metric, description):
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

    def __len__(self):
        return len(self._bank)

    @property
    def bank(self):
        """The bank."""
        return self._bank

    @property
    def dtype(self):
        return self._bank.dtype

    def search(self, queries, n_neighbors=1, query_groups=None, bank_groups=None):
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
        while left.size and asked <= min(_MOST, len(self)):
            _, rows = self._faiss.search(tokens[left], asked)
            usable = rows >= 0
            if query_groups is not None:
                own = query_groups[left][:, None]
                usable &= ~((bank_groups[rows] == own) & (own >= 0))
            enough = usable.sum(axis=1) >= n_neighbors
            q, column = np.nonzero(usable[enough])
            done = left[enough]
            distances[done], indices[done] = measure(
                queries[done], self._bank, (q, rows[enough][q, column]), n_neighbors, self.metric
            )
            left, asked = left[~enough], asked * _MORE
        if left.size:
            groups = None if query_groups is None else query_groups[left]
            distances[left], indices[left] = nearest_patches(
                queries[left], self._bank, n_neighbors, self.metric, groups, bank_groups
            )
        return distances, indices

    def __getstate__(self):
        faiss = import_optional("faiss", "faiss", "an algorithm that starts with 'faiss:'")
        return {**self.__dict__, "_faiss": faiss.serialize_index(self._faiss)}

    def __setstate__(self, state):
        faiss = import_optional("faiss", "faiss", "an algorithm that starts with 'faiss:'")
        self.__dict__.update(state)
        self._faiss = faiss.deserialize_index(state["_faiss"])
