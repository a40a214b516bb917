"""Which scorer an embedder gets where nobody asks for one, as data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

AUTO = "auto"


def _is_filter_bank(embedder):
    from skanomaly.embedders import FilterBankPatches

    return isinstance(embedder, FilterBankPatches)


def _is_plain_vit(embedder):
    from skanomaly.embedders import DinoV2Patches, TimmPatches

    return (
        isinstance(embedder, TimmPatches)
        and not isinstance(embedder, DinoV2Patches)
        and embedder.model_name.startswith(("vit_", "deit_", "deit3_"))
    )


# The first that fits decides. Chosen by what benchmarks/accuracy.py measures.
_SCORERS: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (_is_filter_bank, "local"),
    (_is_plain_vit, "knn"),
)
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
