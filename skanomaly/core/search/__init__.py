"""Exact nearest neighbours of patch tokens."""
