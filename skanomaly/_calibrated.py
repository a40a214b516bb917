"""What every scorer and detector does with its threshold, and with the scores that it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, TypeVar

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from skanomaly._parameters import Estimator, copy_of_estimator
from skanomaly._sklearn import Interval
from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.calibration import (
    conformal_p_values,
    contamination_offset,
    patch_score_limits,
    resting_on,
)

# A share of normal images that a threshold may flag.
CONTAMINATION = Interval(Real, 0, 0.5, closed="right")

_Scorer = TypeVar("_Scorer", bound="CalibratedEstimator")

# Kinds of calibration whose threshold is a number that somebody gave.
_GIVEN = ("threshold", "cost")


class CalibratedEstimator(Estimator):
    """Base of the scorers and detectors, as far as they hold a threshold that can be moved.

    :class:`skanomaly.base.BasePatchScorer` is the class to derive from, and
    :func:`skanomaly.recalibrate` what moves thresholds.
    """

    contamination: Any
    offset_: float
    train_scores_: FloatArray
    calibration_: dict[str, Any]

    _train_groups: IntArray | None = None  # of each of the training scores
    # Digests of the images that these are of; None where they are the training images.
    _calibrated_on: Sequence[str] | None = None
    # Numbers, in the X of `fit`, of the images that these are of, and the held-out patches too;
    # None where that is not known.
    _calibration_numbers: IntArray | None = None

    @property
    def _fixed_offset(self) -> float | None:
        """Threshold that needs no training image."""
        return None

    def _measure(self, X: Any) -> FloatArray:
        """`score_samples` of images to calibrate on; limits of colours are set by them."""
        raise NotImplementedError

    def _params_changed(self) -> list[str]:
        """Names of the parameters that threshold or scores depend on and are not those of `fit`."""
        return self._changed_params()

    def _check_params(self) -> None:
        """NotFittedError where a parameter is not that of `fit`, if there was one."""
        changed = self._params_changed()
        if not changed:
            return
        what = f"{', '.join(changed)} of this {type(self).__name__} changed since fit; call "
        if changed == ["contamination"]:
            what += (
                f"skanomaly.recalibrate(estimator, contamination={self.contamination!r}), which "
                "moves the threshold alone, or "
            )
        raise NotFittedError(f"{what}fit again")

    def _check_calibrated(self) -> None:
        """Raise where what was learned and the threshold are not those of the parameters."""
        check_is_fitted(self, "train_scores_")
        self._check_params()

    def _offset(self) -> float:
        """The threshold; an error where it belongs to other parameters, or there is none."""
        if self.__dict__.get("calibration_", {}).get("kind") in _GIVEN:
            self._check_params()
            return self.offset_
        if self._fixed_offset is not None:
            return self._fixed_offset
        self._check_calibrated()
        return self.offset_

    def _p_values_of(self, scores: FloatArray) -> FloatArray | None:
        """P-values of scores; None without held-out scores that belong to the parameters."""
        if not hasattr(self, "train_scores_") or self._params_changed():
            return None
        return conformal_p_values(self.train_scores_, scores, self._train_groups)

    def _calibrate(
        self,
        scores: FloatArray,
        groups: IntArray | None = None,
        images: Sequence[str] | None = None,
    ) -> None:
        """Set the threshold by scores of normal images that the model has not seen.

        `images` has the digests of images that are calibrated on in place of the training images.
        """
        fixed = self._fixed_offset
        if fixed is None and not isinstance(self.contamination, Real):
            raise ValueError(
                f"contamination={self.contamination!r} is no threshold of this "
                f"{type(self).__name__}: give a share of normal images, such as 0.1"
            )
        self.offset_ = contamination_offset(scores, self.contamination) if fixed is None else fixed
        self.train_scores_, self._train_groups, self._calibrated_on = scores, groups, images
        kind = "contamination" if images is None else "images"
        self._describe(*("auto", None) if fixed is not None else (kind, float(self.contamination)))
        self._remember_params()

    def _describe(
        self, kind: str, contamination: float | None, images: Sequence[str] = (), **more: Any
    ) -> None:
        """Say where the threshold is from, in plain values; `images` are those that chose it."""
        scores, groups = self.__dict__.get("train_scores_", ()), self._train_groups
        # A threshold that is a number rests on no image.
        low = 0 if contamination is None else resting_on(scores, self.offset_)
        digests = [*(self._calibrated_on or ()), *images]
        self.calibration_ = {
            "kind": kind,
            "contamination": contamination,
            "n_images": len(scores),
            "n_groups": None if groups is None else len(np.unique(groups)),
            "n_resting_on": low,
            **({"image_digests": digests} if digests else {}),
            **more,
        }

    def _with_contamination(self: _Scorer, contamination: Any) -> _Scorer:
        """A copy that shares what was learned, with another share as its threshold."""
        check_is_fitted(self, "train_scores_")
        made = self._copy_with(contamination)
        made._calibrate(self.train_scores_, self._train_groups, self._calibrated_on)
        return made

    def _with_threshold(self: _Scorer, threshold: float, kind: str, **origin: Any) -> _Scorer:
        """A copy that shares what was learned, with a number as its threshold."""
        if self.__sklearn_tags__().requires_fit:
            check_is_fitted(self, "train_scores_")
        made = self._copy_with(self.contamination)
        made.offset_ = threshold
        made._describe(kind, None, **origin)
        return made

    def _with_images(
        self: _Scorer, X: Any, contamination: Any, groups: IntArray | None, images: Sequence[str]
    ) -> _Scorer:
        """A copy that shares what was learned, calibrated on other images than those of `fit`."""
        check_is_fitted(self, "train_scores_")
        made = self._copy_with(contamination)
        made._calibrate(made._measure(X), groups, images)
        return made

    def _copy_with(self: _Scorer, contamination: Any) -> _Scorer:
        """A copy whose contamination counts as that of `fit`; other changes since are an error."""
        made: _Scorer = copy_of_estimator(self)
        made.contamination = contamination
        made._validate_params()
        if "_params_at_fit" in vars(self):
            made._params_at_fit["contamination"] = contamination
            made._check_params()
        else:  # of one that needs no fit
            made._remember_params()
        return made


class MappedEstimator(CalibratedEstimator):
    """Base of what keeps held-out patch scores, by which regions and colours are calibrated."""

    @property
    def patch_limits_(self) -> tuple[float, float]:
        """Limits of colours, from held-out patch scores of the training images."""
        if "_patch_limits" not in vars(self):
            raise AttributeError(f"patch_limits_ of {type(self).__name__} is known after fit")
        return self._patch_limits

    @property
    def held_out_patches_(self) -> list[FloatArray]:
        """Held-out patch scores of the training images that are calibrated on."""
        if "_held_out_grids" not in vars(self):
            raise AttributeError(f"held_out_patches_ of {type(self).__name__} are known after fit")
        return self._held_out_grids

    def _keep_patches(self, grids: list[FloatArray]) -> None:
        """Keep held-out patch scores, and set the limits of colours by them."""
        self._patch_limits = patch_score_limits([grid[~np.isnan(grid)] for grid in grids])
        with np.errstate(over="ignore"):  # what is too large becomes infinite
            self._held_out_grids = [grid.astype(np.float32) for grid in grids]
        if any(np.isinf(grid).any() for grid in self._held_out_grids):
            raise ValueError(
                "patch scores of the training images are beyond float32: multiply all tokens by a "
                "number that brings them near 1"
            )
