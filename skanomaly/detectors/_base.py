"""What every detector of images does with its scores."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from sklearn.base import OutlierMixin

from skanomaly._calibrated import CalibratedEstimator
from skanomaly._docstrings import document
from skanomaly._typing import FloatArray, Images, IntArray
from skanomaly.core.calibration import conformal_p_values
from skanomaly.embedders._docstrings import EMBEDDER_DOCS


@document(EMBEDDER_DOCS)
class ImageDetector(OutlierMixin, CalibratedEstimator):
    """Base of the detectors of images: decisions and p-values from `score_samples`."""

    @abstractmethod
    def score_samples(self, X: Images) -> FloatArray:
        """Score of each image: higher is more normal.

        Parameters
        ----------
        %(X)s

        Returns
        -------
        ndarray of shape (n_images,), float64
        """

    def decision_function(self, X: Images) -> FloatArray:
        """``score_samples(X) - offset_``: negative for images that are called anomalous.

        Parameters
        ----------
        %(X)s

        Returns
        -------
        ndarray of shape (n_images,), float64
            Signed distance to the threshold.
        """
        offset = self._offset()
        return self.score_samples(X) - offset

    def predict(self, X: Images) -> IntArray:
        """Call each image normal (+1) or anomalous (-1).

        Parameters
        ----------
        %(X)s

        Returns
        -------
        ndarray of shape (n_images,), int
            -1 where the decision function is negative, else +1.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_values(self, X: Images) -> FloatArray:
        """Conformal p-value of each image: how usual so low a score is among images of `fit`.

        Parameters
        ----------
        %(X)s

        Returns
        -------
        ndarray of shape (n_images,), float64
            ``(1 + #{images of fit at least as anomalous}) / (n + 1)``, at least ``1 / (n + 1)``.
            Valid for images that are exchangeable with those of `fit`. Where `fit` was given
            groups, each counts as one: `n` is their number.
        """
        self._check_calibrated()
        return conformal_p_values(self.train_scores_, self.score_samples(X), self._train_groups)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags
