"""Any number of images, in bounded memory."""

from skanomaly.streaming._files import score_files
from skanomaly.streaming._scores import Failure, iter_scores

__all__ = ["Failure", "iter_scores", "score_files"]
