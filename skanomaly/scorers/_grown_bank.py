"""Memory banks that take in the patches of more images, lose those of some, or become one."""

from __future__ import annotations

import numpy as np

from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import FloatArray
from skanomaly.scorers._memory_bank import MemoryBanks


def values_of(model: MemoryBanks, layout: PatchTokens) -> FloatArray:
    """The tokens of the training images, as whole banks compare them.

    Parameters
    ----------
    model : MemoryBanks
        Of all patches.
    layout : PatchTokens
        The training images.

    Returns
    -------
    ndarray of shape (n_rows, dim)
        Of unit length in each part for the cosine; NaN for masked ones.
    """
    dim = max(bank.space.stop for bank in model.banks)
    values = np.full((len(layout.valid), dim), np.nan, dtype=model.banks[0].index.dtype)
    for bank in model.banks:
        part = slice(bank.space.first, bank.space.stop)
        # Behind the components of the tokens may come their places.
        values[layout.valid, part] = bank.index.bank[:, : part.stop - part.start]
    return values
