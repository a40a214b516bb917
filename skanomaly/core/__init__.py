"""Numerics as pure functions on arrays: no estimators, no input or output."""
