"""Detectors outside Python: one graph from the image to the verdict."""

__all__: list[str] = []
