"""Data sets of inspection images: readers of image folders and a generator of surfaces."""

from skanomaly.datasets._mvtec import read_mvtec
from skanomaly.datasets._records import DatasetSplit, ImageSet
from skanomaly.datasets._surfaces import make_surfaces

__all__ = ["DatasetSplit", "ImageSet", "make_surfaces", "read_mvtec"]
