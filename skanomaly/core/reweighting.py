"""PatchCore's weight of an image score, by the neighbours of the patch that is nearest."""

from __future__ import annotations

import numpy as np

from skanomaly._typing import FloatArray


def highest_row(scores: FloatArray, values: FloatArray) -> int:
    """The patch of the highest score; of several the one whose token comes first in order.

    So it does not depend on the order of the patches.

    Parameters
    ----------
    scores : ndarray of shape (n_patches,)
    values : ndarray of shape (n_patches, dim)
        Their tokens.

    Returns
    -------
    int

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.reweighting import highest_row
    >>> highest_row(np.array([1.0, 2.0, 2.0]), np.array([[0.0], [7.0], [5.0]]))
    2
    """
    tied = np.flatnonzero(scores == scores.max())
    if len(tied) > 1:
        tied = tied[np.lexsort(values[tied].T[::-1])[:1]]
    return int(tied[0])


def softmax_factor(query: FloatArray, neighbors: FloatArray) -> float:
    """By how much the distance of a patch to the nearest one counts, in [0, 1].

    Parameters
    ----------
    query : ndarray of shape (dim,)
        The patch.
    neighbors : ndarray of shape (n_neighbors, dim)
        The patch of the bank that is nearest to it, first, and those nearest to that one.

    Returns
    -------
    float
        One less the softmax of the distances, at the nearest: low where the nearest patch is about
        as far from the query as its own neighbours are. 1 where it has no neighbours.

    References
    ----------
    .. [1] Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022, eq. 7.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.reweighting import softmax_factor
    >>> softmax_factor(np.array([0.0]), np.array([[1.0], [-1.0]]))
    0.5
    """
    if len(neighbors) == 1:
        return 1.0
    difference = neighbors.astype(np.float64) - query.astype(np.float64)
    distances = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    shares = np.exp(distances - distances.max())
    return float(1.0 - shares[0] / shares.sum())
