"""Which scorer an embedder gets where nobody asks for one."""

from __future__ import annotations

from typing import Any

AUTO = "auto"


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
    from skanomaly.embedders import FilterBankPatches, TinyPatches

    # By what `python -m benchmarks.accuracy` measures: see docs/accuracy.md.
    return "local" if isinstance(embedder, (FilterBankPatches, TinyPatches)) else "knn"
