"""The numbers that make the exact search fast: sizes of steps, and when to change the method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Tuning:
    """Sizes and thresholds of the exact search. They decide how fast it is, never what it finds.

    The methods are described in ``docs/development/search.md``.

    Parameters
    ----------
    small_bank : int, default=4096
        With fewer rows in the bank, ``algorithm="auto"`` is brute force, which is as fast there.
    queries_at_once : int, default=1024
        Queries that one thread searches for at a time, at most.
    queries_per_thread, queries_per_thread_by_brute_force : int, default=64 and 256
        A further thread takes part for each so many queries.
    pairs_of_bounds : int, default=2**24
        Pairs of a query and a block of which bounds are in memory at a time, about.
    rows_per_product : int, default=2048
        Rows of the bank in one matrix product of brute force.
    ties_to_measure : int, default=32
        When a query has more candidates in such a product, these are thinned before they are
        measured in float64. Only duplicates, or patches that the dtype cannot rank by their inner
        products, ever get that many.
    rows_per_part : int, default=12288
        Rows of a part of the sorted bank, about.
    rows_per_block : int, default=32
        Rows that are ruled out, or compared with a query, together; divides `rows_per_sign`.
    rows_per_sign : int, default=512
        Rows in one matrix product of which only the signs are wanted: its result stays in the
        cache.
    precision : {"bfloat16", "float32"} or None, default=None
        Of the products that bound; None for the faster one.
    guide_directions : int, default=32
        Coordinates by which the blocks to compare with first are chosen.
    first_blocks : int, default=2
        Blocks that a query is compared with first; twice as many for several neighbours.
    comparison_cost : float, default=4
        To compare a query with a block costs so many times the block's share in brute force. With
        0, brute force never looks cheaper.
    least_brute_force : int, default=24
        Brute force for fewer queries costs as much as for so many.
    sampled_queries, sampled_blocks : int, default=64
        Queries, and blocks of each part, that show how much the bounds rule out.
    least_sample : int, default=16
        With fewer queries in the sample, the bounds are computed without trying them first.
    hopeless_share : float, default=0.7
        The bounds are given up where brute force would be cheaper for more than this share of the
        sample.
    queries_for_all_coordinates : int, default=64
        As many queries have to be left over before all coordinates are multiplied for them.
    rows_per_wide_product : int, default=2048
        Rows that are multiplied with all coordinates at a time, a multiple of 128.
    pairs_at_once : int, default=2**14
        Pairs of a query and a block that are compared at a time.
    candidates_at_once : int, default=2**22
        With more candidates, queries that have too many of them are left to brute force.
    candidates_per_query : int, default=4096
        More of them are too many.
    rows_per_device_product : int, default=2**15
        Rows of the bank in one matrix product on a device.

    Examples
    --------
    >>> from skanomaly.core.search.tuning import Tuning
    >>> Tuning().comparing_pays(24, 100), Tuning().comparing_pays(26, 100)
    (True, False)
    """

    small_bank: int = 4096
    queries_at_once: int = 1024
    queries_per_thread: int = 64
    queries_per_thread_by_brute_force: int = 256
    pairs_of_bounds: int = 2**24
    rows_per_product: int = 2048
    ties_to_measure: int = 32
    rows_per_part: int = 12288
    rows_per_block: int = 32
    rows_per_sign: int = 512
    precision: Literal["bfloat16", "float32"] | None = None
    guide_directions: int = 32
    first_blocks: int = 2
    comparison_cost: float = 4
    least_brute_force: int = 24
    sampled_queries: int = 64
    sampled_blocks: int = 64
    least_sample: int = 16
    hopeless_share: float = 0.7
    queries_for_all_coordinates: int = 64
    rows_per_wide_product: int = 2048
    pairs_at_once: int = 2**14
    candidates_at_once: int = 2**22
    candidates_per_query: int = 4096
    rows_per_device_product: int = 2**15

    def comparing_pays(self, count, n_blocks):
        """Whether to compare `count` of `n_blocks` blocks is cheaper than brute force on all.

        Parameters
        ----------
        count : int or ndarray of int
        n_blocks : int

        Returns
        -------
        bool or ndarray of bool
        """
        return count * self.comparison_cost <= n_blocks


DEFAULT_TUNING = Tuning()
