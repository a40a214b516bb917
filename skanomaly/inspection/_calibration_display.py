"""Whether as many good images are flagged as the calibration promised."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import column_or_1d

from skanomaly._docstrings import document
from skanomaly._images import check_images
from skanomaly._images.training import training_images
from skanomaly._typing import FloatArray, Images
from skanomaly.inspection._drawing import DISPLAY_DOCS, axes_for, check_matplotlib
from skanomaly.inspection._maps import p_values
from skanomaly.inspection._training_images import trained_on
from skanomaly.metrics._intervals import binomial_interval, check_confidence_level

_MOST = 0.5  # the highest contamination that a scorer takes
_LEVEL_DOC = """
    confidence_level : float, default=0.95
        Of the band, in (0, 1).
    """
_DOCS = {"level": _LEVEL_DOC, **DISPLAY_DOCS}


@document(DISPLAY_DOCS)
class CalibrationDisplay:
    """Share of new good images that is flagged, against the nominal share.

    Made by :meth:`from_estimator` or :meth:`from_predictions`. The display of scikit-learn of this
    name is another: of probabilities of classifiers. Here nothing is said of defects.

    Parameters
    ----------
    nominal : ndarray of shape (n_steps,)
        Nominal shares, ascending, at which the actual share changes.
    actual : ndarray of shape (n_steps,)
        Share of the good images with a p-value of at most the nominal share.
    low, high : ndarray of shape (n_steps,)
        Confidence limits of the actual share.
    n_images : int
        How many good images it is measured on.
    confidence_level : float, default=0.95
        Of the limits.
    name : str or None, default=None
        Of the model, for the legend.

    Attributes
    ----------
    %(axes)s
    line_ : matplotlib Line2D
        The actual share.
    band_ : matplotlib PolyCollection
        Between the confidence limits.
    diagonal_ : matplotlib Line2D
        Where nominal and actual share agree.

    Notes
    -----
    To flag p-values of at most ``a`` is to set `contamination` to ``a``. A detector that is fitted
    to `n` images has p-values of at least ``1 / (n + 1)``: it flags nothing at a smaller share.

    The limits are Clopper and Pearson's, exact for independent images, and hold at one nominal
    share each, not for the whole curve. They say how well these images tell the share that this
    detector flags, not how it would vary from one set of training images to the next.

    References
    ----------
    .. [1] Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of
       the binomial", Biometrika 26(4), 1934.

    Examples
    --------
    >>> from skanomaly.inspection import CalibrationDisplay
    >>> display = CalibrationDisplay.from_estimator(pipe, new_good_images)  # doctest: +SKIP
    >>> display.figure_.savefig("calibration.png")  # doctest: +SKIP
    """

    ax_: Any
    figure_: Any
    line_: Any
    band_: Any
    diagonal_: Any

    def __init__(
        self,
        *,
        nominal: FloatArray,
        actual: FloatArray,
        low: FloatArray,
        high: FloatArray,
        n_images: int,
        confidence_level: float = 0.95,
        name: str | None = None,
    ) -> None:
        self.nominal = nominal
        self.actual = actual
        self.low = low
        self.high = high
        self.n_images = n_images
        self.confidence_level = confidence_level
        self.name = name

    @classmethod
    @document(_DOCS)
    def from_estimator(
        cls,
        estimator: Any,
        good_images: Images,
        *,
        confidence_level: float = 0.95,
        name: str | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> CalibrationDisplay:
        """Compute p-values of new good images and plot how many are flagged.

        Parameters
        ----------
        %(estimator)s
        good_images : list, tuple, 1-D array or Series of images, or a 4-D uint8 array
            Good ones that were not trained on. Paths, bytes, PIL images or arrays.
        %(level)s
        %(name)s
        %(ax)s
        %(line_kwargs)s

        Returns
        -------
        CalibrationDisplay
            The display, drawn.

        Raises
        ------
        TypeError
            When the estimator has no p-values of images.
        ValueError
            When `confidence_level` does not lie in (0, 1), there is no image, or one entered the
            model.
        %(no_matplotlib)s
        """
        check_matplotlib(cls.__name__, ax)
        check_confidence_level(confidence_level)
        items = check_images(good_images)
        _check_new(estimator, items)
        values = p_values(estimator, items)
        return cls.from_predictions(
            values, confidence_level=confidence_level, name=name, ax=ax, **kwargs
        )

    @classmethod
    @document(_DOCS)
    def from_predictions(
        cls,
        p_values: ArrayLike,
        *,
        confidence_level: float = 0.95,
        name: str | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> CalibrationDisplay:
        """Plot how many good images are flagged, from their p-values.

        Parameters
        ----------
        p_values : array-like of shape (n_images,)
            Conformal p-values of good images that were not trained on, as from
            :func:`skanomaly.p_values`.
        %(level)s
        %(name)s
        %(ax)s
        %(line_kwargs)s

        Returns
        -------
        CalibrationDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            When a p-value or `confidence_level` does not lie in (0, 1), or there is no p-value.
        %(no_matplotlib)s
        """
        check_matplotlib(cls.__name__, ax)
        check_confidence_level(confidence_level)
        values = column_or_1d(p_values).astype(np.float64)
        if not values.size or not ((values > 0) & (values <= 1)).all():
            raise ValueError("p_values must lie in (0, 1], at least one")
        n = len(values)
        nominal = np.concatenate([[0.0], np.unique(values[values <= _MOST])])
        flagged = np.searchsorted(np.sort(values), nominal, side="right")
        low, high = binomial_interval(flagged, n, confidence_level)
        display = cls(
            nominal=nominal,
            actual=flagged / n,
            low=low,
            high=high,
            n_images=n,
            confidence_level=confidence_level,
            name=name,
        )
        return display.plot(ax, **kwargs)

    @document(DISPLAY_DOCS)
    def plot(self, ax: Any = None, *, name: str | None = None, **kwargs: Any) -> CalibrationDisplay:
        """Draw the actual share with its band over the nominal one.

        Parameters
        ----------
        %(ax)s
        %(name_of_plot)s
        %(line_kwargs)s

        Returns
        -------
        CalibrationDisplay
            This display, with `ax_`, `figure_`, `line_`, `band_` and `diagonal_` set.
        """
        self.ax_, self.figure_ = axes_for(ax, type(self).__name__)
        # The last step goes on to the highest share.
        at = np.append(self.nominal, _MOST)
        actual, low, high = (np.append(v, v[-1]) for v in (self.actual, self.low, self.high))
        name = self.name if name is None else name
        told = f"{self.n_images} good images"
        options = {
            "label": told if name is None else f"{name} ({told})",
            "drawstyle": "steps-post",
            **kwargs,
        }
        (self.line_,) = self.ax_.plot(at, actual, **options)
        self.band_ = self.ax_.fill_between(
            at,
            low,
            high,
            step="post",
            color=self.line_.get_color(),
            alpha=0.2,
            linewidth=0,
            label=f"{self.confidence_level:.3g} confidence",
        )
        (self.diagonal_,) = self.ax_.plot(
            [0, _MOST], [0, _MOST], color="black", linestyle="--", linewidth=1, label="as promised"
        )
        self.ax_.set(
            xlim=(0, _MOST),
            ylim=(0, None),
            xlabel="nominal share of good images flagged",
            ylabel="actual share of good images flagged",
        )
        self.ax_.legend(loc="upper left")
        return self


def _check_new(estimator, images):
    """Training images are scored as if held out, and promise what they were calibrated on."""
    known = trained_on(estimator)
    digests = training_images(images).digests if known else ()
    found = [i for i, digest in enumerate(digests) if digest in known]
    if found:
        raise ValueError(
            f"{len(found)} of the good_images entered the model, the first is number {found[0]}: "
            "whether new images are flagged as promised only images show that did not"
        )
