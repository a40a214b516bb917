"""Runs of rows of a sorted bank, which are ruled out, or compared with a query, together."""

import numpy as np

from skanomaly.core.search.brute_force import pairs_of, squared_norms

BLOCK = 32  # rows of a run
_PAIRS = 2**14  # pairs of a query and a block that are compared at a time
_MAX_FOUND = 2**22  # candidates kept before queries with too many of them are given up ...
_MANY = 4096  # ... which is so many

# A block that is compared for a query costs about four times its share in brute force.
_COST = 4


def cheap(count, n_blocks):
    """Whether to compare `count` of `n_blocks` blocks is cheaper than brute force on all."""
    return count * _COST <= n_blocks


class Blocks:
    """The blocks of a bank.

    Parameters
    ----------
    bank : ndarray of shape (n, dim)
        Prepared, and sorted by :func:`skanomaly.core.search.sorting.sort_bank`.
    parts : list of Part
        Of that function; a block never reaches across two of them.
    metric : {"cosine", "euclidean"}

    Attributes
    ----------
    starts, stops : ndarray of shape (n_blocks,), int64
        Rows of each block.
    half_norms : ndarray of shape (n,), float64, or None
        Half the squared norms of the rows; None for unit vectors.
    """

    def __init__(self, bank, parts, metric):
        self.bank, self.metric = bank, metric
        self.half_norms = None if metric == "cosine" else 0.5 * squared_norms(bank)
        self.starts = np.concatenate([np.arange(part.start, part.stop, BLOCK) for part in parts])
        ends = np.repeat([part.stop for part in parts], [part.n_blocks(BLOCK) for part in parts])
        self.stops = np.minimum(self.starts + BLOCK, ends)

    def __len__(self):
        return len(self.starts)

    def similarities(self, queries, q, block, groups):
        """Similarities to the rows of a block, for pairs that are sorted by block; else -inf.

        Parameters
        ----------
        queries : ndarray of shape (n_queries, dim)
        q, block : ndarray of int64
            The pairs.
        groups : tuple of (query_groups, bank_groups) or None

        Returns
        -------
        ndarray of shape (n_pairs, BLOCK)
            ``y.z`` of unit vectors, else ``y.z - |z|^2 / 2``: the larger the nearer.
        """
        out = np.full((len(q), BLOCK), -np.inf, dtype=queries.dtype)
        left, first = queries[q], np.flatnonzero(np.diff(block, prepend=-1))
        starts, stops = self.starts[block[first]].tolist(), self.stops[block[first]].tolist()
        last = [*first[1:].tolist(), len(q)]
        with np.errstate(invalid="ignore", over="ignore"):  # see skanomaly.core.products
            for i, j, start, stop in zip(first.tolist(), last, starts, stops, strict=True):
                np.matmul(left[i:j], self.bank[start:stop].T, out=out[i:j, : stop - start])
        if self.half_norms is not None or groups is not None:
            rows = np.minimum(self.starts[block][:, None] + np.arange(BLOCK), len(self.bank) - 1)
            if self.half_norms is not None:
                out -= self.half_norms[rows].astype(out.dtype)
            if groups is not None:
                own = groups[0][q][:, None]
                out[(groups[1][rows] == own) & (own >= 0)] = -np.inf
        return out

    def compare(self, queries, q, block, reached, groups):
        """Rows of blocks whose similarity reaches that which is asked for.

        Parameters
        ----------
        queries, q, block, groups
            As for :meth:`similarities`.
        reached : ndarray of shape (n_queries,)
            What a similarity must be at least.

        Returns
        -------
        q, rows : ndarray of int64
            Pairs of a query and a row.
        similarity : ndarray
            Of the pairs.
        given_up : ndarray of shape (n_queries,), bool
            Queries with too many such rows, and none among the pairs.
        """
        given_up = np.zeros(len(queries), dtype=bool)
        found = [(q[:0], block[:0], np.empty(0, dtype=queries.dtype))]
        for start in range(0, len(q), _PAIRS):
            pairs = slice(start, start + _PAIRS)
            similarity = self.similarities(queries, q[pairs], block[pairs], groups)
            pair, row = pairs_of(similarity >= reached[q[pairs], None])
            rows = self.starts[block[pairs][pair]] + row
            found.append((q[pairs][pair], rows, similarity[pair, row]))
            if sum(len(part[0]) for part in found) > _MAX_FOUND:
                given_up |= too_many(joined(found)[0], len(queries))
                found = [tuple(x[~given_up[part[0]]] for x in part) for part in found]
        q, rows, similarity = joined(found)
        kept = ~given_up[q]
        return q[kept], rows[kept], similarity[kept], given_up


def too_many(q, n_queries):
    """Which queries have more candidates than are kept."""
    return np.bincount(q, minlength=n_queries) > _MANY


def joined(found):
    """Triples of arrays as one."""
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


def near_best(q, similarity, n_neighbors, slack):
    """Which pairs are within `slack` of the `n_neighbors`-th best pair of their query.

    Parameters
    ----------
    q : ndarray of int64
    similarity : ndarray of the same shape
    n_neighbors : int
    slack : ndarray of shape (n_queries,)

    Returns
    -------
    ndarray of bool
        All pairs of a query with fewer.
    """
    order = np.lexsort((-similarity, q))
    first = np.searchsorted(q[order], q[order])
    kth = np.minimum(first + n_neighbors - 1, len(q) - 1)
    kept = np.empty(len(q), dtype=bool)
    kept[order] = similarity[order] >= similarity[order][kth] - slack[q[order]]
    return kept
