"""Trained models of anomalib as estimators."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skanomaly.anomalib._detector import AnomalibDetector

__all__ = ["AnomalibDetector"]


def __getattr__(name: str) -> object:
    # At first use: the registry lists the families of anomalib without importing NumPy.
    if name == "AnomalibDetector":
        return importlib.import_module("skanomaly.anomalib._detector").AnomalibDetector
    raise AttributeError(f"module 'skanomaly.anomalib' has no attribute {name!r}")
