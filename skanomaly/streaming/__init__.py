"""Any number of images, in bounded memory."""

from skanomaly.streaming._files import score_files
from skanomaly.streaming._fit import fit_stream
from skanomaly.streaming._scores import Failure, iter_scores

__all__ = ["Failure", "fit_stream", "iter_scores", "score_files"]
