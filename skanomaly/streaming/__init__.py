"""Any number of images, in bounded memory."""

from skanomaly.streaming._scores import Failure, iter_scores

__all__ = ["Failure", "iter_scores"]
