"""Embedders: images to patch tokens, as scikit-learn transformers."""

from skanomaly.embedders._dinov2 import DinoV2Patches
from skanomaly.embedders._filter_bank import FilterBankPatches
from skanomaly.embedders._function import FunctionPatches
from skanomaly.embedders._openclip import OpenClipPatches
from skanomaly.embedders._tiled import Tiled
from skanomaly.embedders._timm import TimmPatches
from skanomaly.embedders._tiny import TinyPatches

__all__ = [
    "DinoV2Patches",
    "FilterBankPatches",
    "FunctionPatches",
    "OpenClipPatches",
    "Tiled",
    "TimmPatches",
    "TinyPatches",
]
