"""What ``skanomaly doctor`` times: of several ways to the same numbers, which is fastest here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from skanomaly.core.choosing import choices

# Of the search: patches of a ViT-S in 8 images of 32 x 32 patches, and those of a new one.
_ROWS, _QUERIES, _DIM = 8192, 1024, 384
_KINDS = 64  # of patches, which repeat themselves as those of a good part do


def networks() -> list[dict[str, Any]]:
    """The ways to a ViT-S in bfloat16, at 224 and 448 pixels.

    Returns
    -------
    list of dict
        `question`, `winner` and `milliseconds` by way; nothing where the processor does not
        multiply in bfloat16.
    """
    import torch

    from skanomaly._networks.kernels import choose_attention, choose_packed
    from skanomaly._networks.runtimes import native_bfloat16

    if not native_bfloat16("cpu"):
        return []
    n_heads, head_dim = 6, 64
    dim = n_heads * head_dim
    choose_packed(torch.full((4 * dim, dim), 0.1, dtype=torch.bfloat16), None)
    for n_tokens in (257, 1025):
        choose_attention(n_tokens, n_heads, head_dim, torch.bfloat16)
    return _chosen()


def searches() -> list[dict[str, Any]]:
    """The exact searches, in a bank of the size of a few images.

    Returns
    -------
    list of dict
        `question`, `winner` and `milliseconds` by search.
    """
    from skanomaly.core.search.brute_force import prepare_bank
    from skanomaly.core.search.index import PatchIndex

    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((_KINDS, _DIM), dtype=np.float32)

    def patches(n: int) -> Any:
        noise = rng.standard_normal((n, _DIM), dtype=np.float32)
        return prepare_bank(kinds[rng.integers(_KINDS, size=n)] + 0.3 * noise, "cosine")

    PatchIndex(patches(_ROWS)).search(patches(_QUERIES))
    return _chosen()


def _chosen():
    return [{"question": question, **asdict(choice)} for question, choice in choices().items()]
