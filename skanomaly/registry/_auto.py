"""Which scorer an embedder gets where nobody asks for one, as data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

AUTO = "auto"


def _is_filter_bank(embedder):
    from skanomaly.embedders import FilterBankPatches

    return isinstance(embedder, FilterBankPatches)


# The first that fits decides. Chosen by what `python -m benchmarks.accuracy` measures: see
# docs/accuracy.md.
_SCORERS: tuple[tuple[Callable[[Any], bool], str], ...] = ((_is_filter_bank, "local"),)
_OTHERS = "knn"


def scorer_for(embedder: Any) -> str:
    """Name of the scorer that goes with an embedder.

    Parameters
    ----------
    embedder : transformer

    Returns
    -------
    str
        Of :func:`skanomaly.registry.list_scorers`.

    Examples
    --------
    >>> from skanomaly import FilterBankPatches
    >>> from skanomaly.registry._auto import scorer_for
    >>> scorer_for(FilterBankPatches())
    'local'
    """
    return next((scorer for fits, scorer in _SCORERS if fits(embedder)), _OTHERS)
