"""Bank reduction: greedy k-center and random subsets."""

import numpy as np

from skanomaly.core._products import product


def greedy_k_center(tokens, n_centers, start=0):
    """Farthest-first traversal: the subset of PatchCore's memory bank.

    Parameters
    ----------
    tokens : ndarray of shape (n, dim)
        Finite patch tokens; distances are Euclidean.
    n_centers : int
        Size of the subset, in [1, n].
    start : int, default=0
        Row of the first centre.

    Returns
    -------
    indices : ndarray of shape (n_chosen,), int64
        Chosen rows in the order they were chosen. Fewer than `n_centers` when the rest are
        duplicates of what was chosen.
    radius : float
        Covering radius, to the precision of the dtype: no token is farther than this from its
        nearest centre. At most twice the smallest radius that any subset of that size can reach.

    Notes
    -----
    Each step takes the token farthest from the centres so far; of equal ones the lowest row.

    References
    ----------
    .. [1] Gonzalez, "Clustering to minimize the maximum intercluster distance", Theoretical
       Computer Science 38, 1985.
    .. [2] Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.coreset import greedy_k_center
    >>> greedy_k_center(np.array([[0.0], [1.0], [5.0], [6.0]]), 2)
    (array([0, 3]), 1.0)
    """
    tokens = np.ascontiguousarray(tokens)
    n, _ = tokens.shape
    if not 1 <= n_centers <= n:
        raise ValueError(f"n_centers must be in [1, {n}], got {n_centers}")
    # A common offset would drown the distances in the rounding of the expanded square.
    centred = tokens - tokens.mean(axis=0, dtype=np.float64).astype(tokens.dtype)
    norms = np.einsum("ij,ij->i", centred, centred)
    rounding = 1e-5 * float(norms.max())
    nearest = np.full(n, np.inf, dtype=tokens.dtype)  # squared distance to the nearest centre
    chosen = np.empty(n_centers, dtype=np.int64)
    row = start
    for step in range(n_centers):
        chosen[step] = row
        squared = norms + (norms[row] - 2 * product(centred, centred[row]))
        np.minimum(nearest, squared, out=nearest)
        nearest[row] = -np.inf
        row, distance = _farthest(tokens, nearest, chosen[: step + 1], rounding)
        if distance == 0:
            break
    return chosen[: step + 1], distance


def _farthest(tokens, nearest, chosen, rounding):
    """The token farthest from the centres, and its distance; duplicates of centres are struck."""
    while True:
        row = int(nearest.argmax())
        if nearest[row] == -np.inf:
            return row, 0.0
        if nearest[row] > rounding:
            return row, float(np.sqrt(nearest[row]))
        # What the expanded square leaves here is rounding: measure it as a difference.
        difference = tokens[chosen].astype(np.float64) - tokens[row]
        distance = float(np.sqrt(np.einsum("ij,ij->i", difference, difference).min()))
        if distance > 0:
            return row, distance
        nearest[row] = -np.inf


def coreset_size(coreset, n_tokens):
    """Number of tokens to keep for a ratio (float in (0, 1]) or a count (int).

    Examples
    --------
    >>> from skanomaly.core.coreset import coreset_size
    >>> coreset_size(0.1, 1000), coreset_size(50, 1000), coreset_size(5000, 1000)
    (100, 50, 1000)
    """
    if isinstance(coreset, float):
        return max(1, int(coreset * n_tokens))
    return min(int(coreset), n_tokens)
