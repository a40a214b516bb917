"""Data sets of inspection images: readers of the public layouts and a generator of surfaces."""

from skanomaly.datasets._btad import read_btad
from skanomaly.datasets._check import find_problems
from skanomaly.datasets._folder import read_folder, read_folders
from skanomaly.datasets._loco import DefectType, read_loco
from skanomaly.datasets._manifest import read_manifest
from skanomaly.datasets._mvtec import read_mvtec
from skanomaly.datasets._mvtec2 import read_mvtec2
from skanomaly.datasets._realiad import read_realiad
from skanomaly.datasets._records import DatasetSplit, ImageSet, LayoutError
from skanomaly.datasets._sniff import list_categories, read_dataset, sniff_layout
from skanomaly.datasets._surfaces import make_surfaces
from skanomaly.datasets._visa import read_visa

__all__ = [
    "DatasetSplit",
    "DefectType",
    "ImageSet",
    "LayoutError",
    "find_problems",
    "list_categories",
    "make_surfaces",
    "read_btad",
    "read_dataset",
    "read_folder",
    "read_folders",
    "read_loco",
    "read_manifest",
    "read_mvtec",
    "read_mvtec2",
    "read_realiad",
    "read_visa",
    "sniff_layout",
]
