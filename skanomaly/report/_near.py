"""The nearest normal patch of what was flagged: why it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def nearest_normal(
    estimator: Any, images: Sequence[Any], chosen: Sequence[int]
) -> dict[int, dict[str, Any]]:
    return {}
