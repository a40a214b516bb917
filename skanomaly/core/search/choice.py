"""The fastest of several exact searches, measured on the first queries and remembered.

All of them find the same, to the last bit: a measurement decides how long a search takes, and
nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from skanomaly._typing import IntArray
from skanomaly.core.choosing import Choice, recall, settle

_ROUNDS = 2
_CLEAR = 1.5  # so many times faster in the first round: no second one is needed


class Situation(NamedTuple):
    """What decides which search is the fastest, on one machine.

    Parameters
    ----------
    rows : int
        Bits of the number of rows of the bank: a class of sizes.
    queries : int
        A quarter of the bits of the number of queries that are searched for at a time.
    dim : int
    n_neighbors : int
    threads : int
        Of BLAS.
    kind : tuple of str
        Whatever else there is, such as the metric.
    """

    rows: int
    queries: int
    dim: int
    n_neighbors: int
    threads: int
    kind: tuple[str, ...] = ()

    @property
    def question(self) -> str:
        """In words.

        Examples
        --------
        >>> from skanomaly.core.search.choice import Situation
        >>> Situation(14, 2, 384, 1, 2, ("cosine",)).question
        'search of < 16384 rows of 384, < 2048 queries, neighbours: 1, threads: 2, cosine'
        """
        parts = (
            f"search of < {2**self.rows} rows of {self.dim}",
            f"< {2 ** (4 * self.queries + 3)} queries",
            f"neighbours: {self.n_neighbors}",
            f"threads: {self.threads}",
        )
        return ", ".join([*parts, *self.kind])


def fastest(
    situation: Situation, searches: dict[str, Callable[[IntArray], object]], queries: IntArray
) -> str:
    """Name of the search that takes the least time, measured when a situation is first met.

    Parameters
    ----------
    situation : Situation
    searches : dict of str to callable
        Called with numbers of queries: with one, to prepare what there is, and with all, once or
        twice.
    queries : ndarray of int64
        Those to measure with.

    Returns
    -------
    str

    Notes
    -----
    Time is that of the clock, with all threads. Several threads that ask at once measure each for
    itself: a search has threads of its own, which must not wait for a lock.

    Examples
    --------
    >>> import time
    >>> import numpy as np
    >>> from skanomaly.core.search.choice import Situation, fastest
    >>> searches = {"slow": lambda queries: time.sleep(0.05), "fast": lambda queries: None}
    >>> fastest(Situation(4, 1, 3, 1, 1, ("an example",)), searches, np.arange(9))
    'fast'
    """
    name = recall(situation.question, searches)
    if name is not None:
        return name
    for search in searches.values():
        search(queries[:1])
    seconds = dict.fromkeys(searches, float("inf"))
    for _ in range(_ROUNDS):
        for name, search in searches.items():
            start = time.perf_counter()
            search(queries)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
        first, second, *_ = sorted(seconds.values())
        if second > _CLEAR * first:
            break
    winner = min(seconds, key=seconds.__getitem__)
    return settle(situation.question, Choice(winner, {k: 1e3 * s for k, s in seconds.items()}))
