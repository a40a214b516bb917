"""The curve that AUPRO is the area under."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from numpy.typing import ArrayLike

from skanomaly._docstrings import document
from skanomaly._images import check_images
from skanomaly._typing import FloatArray, Images
from skanomaly.inspection._drawing import DISPLAY_DOCS, axes_for, check_matplotlib, check_truth
from skanomaly.inspection._maps import anomaly_maps
from skanomaly.metrics._docstrings import METRIC_DOCS
from skanomaly.metrics._pixel import pro_curve_and_area
from skanomaly.metrics._validation import check_max_fpr


class PROCurveDisplay:
    """The per-region overlap against the false-positive rate of pixels, and the area under it.

    Made by :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    fpr, pro : ndarray of shape (n_points,)
        From :func:`skanomaly.metrics.pro_curve`.
    aupro : float or None, default=None
        Area under the curve up to `max_fpr`, divided by it: :func:`skanomaly.metrics.aupro`.
    max_fpr : float, default=0.3
        The limit.
    name : str or None, default=None
        Of the model, for the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    line_ : matplotlib Line2D
        The curve.

    See Also
    --------
    skanomaly.metrics.aupro : The area alone.

    Examples
    --------
    >>> from skanomaly.inspection import PROCurveDisplay
    >>> masks = [[[True, False, True, False]], [[False, False, False, False]]]
    >>> maps = [[[9.0, 7.0, 8.0, 1.0]], [[2.0, 8.5, 1.0, 0.0]]]
    >>> display = PROCurveDisplay.from_predictions(masks, maps, max_fpr=0.5)  # doctest: +SKIP
    >>> display.line_.get_label()  # doctest: +SKIP
    'AUPRO up to 0.5 = 0.833'
    """

    ax_: Any
    figure_: Any
    line_: Any

    def __init__(
        self,
        *,
        fpr: FloatArray,
        pro: FloatArray,
        aupro: float | None = None,
        max_fpr: float = 0.3,
        name: str | None = None,
    ) -> None:
        self.fpr = fpr
        self.pro = pro
        self.aupro = aupro
        self.max_fpr = max_fpr
        self.name = name

    @classmethod
    @document(DISPLAY_DOCS)
    def from_estimator(
        cls,
        estimator: Any,
        images: Images,
        masks: Sequence[ArrayLike],
        *,
        max_fpr: float = 0.3,
        sigma: float = 4.0,
        name: str | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> PROCurveDisplay:
        """Compute the maps of images and plot the curve.

        Parameters
        ----------
        %(estimator)s
        images : list, tuple, 1-D array or Series of images, or a 4-D uint8 array
            Paths, bytes, PIL images or arrays: good and anomalous ones.
        masks : sequence of array-like of shape (height, width), bool
            True where there is a defect; all False for a good image.
        max_fpr : float, default=0.3
            The limit of the false-positive rate, in (0, 1].
        %(sigma)s
        %(name)s
        %(ax)s
        %(line_kwargs)s

        Returns
        -------
        PROCurveDisplay
            The display, drawn.

        Raises
        ------
        TypeError
            When the estimator gives no maps of images.
        ValueError
            As from :meth:`from_predictions`.
        %(no_matplotlib)s
        """
        check_matplotlib(cls.__name__, ax)
        check_max_fpr(max_fpr)
        items = check_images(images)
        check_truth(masks, items, all_known=True)
        maps = anomaly_maps(estimator, items, sigma=sigma, stack=False)
        return cls.from_predictions(masks, maps, max_fpr=max_fpr, name=name, ax=ax, **kwargs)

    @classmethod
    @document({**METRIC_DOCS, **DISPLAY_DOCS})
    def from_predictions(
        cls,
        masks: Iterable[ArrayLike],
        maps: Iterable[ArrayLike],
        *,
        max_fpr: float = 0.3,
        name: str | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> PROCurveDisplay:
        """Plot the curve of maps.

        Parameters
        ----------
        %(masks)s
        %(maps)s
        max_fpr : float, default=0.3
            The limit of the false-positive rate, in (0, 1].
        %(name)s
        %(ax)s
        %(line_kwargs)s

        Returns
        -------
        PROCurveDisplay
            The display, drawn.

        Raises
        ------
        %(pixel_errors)s
        %(no_matplotlib)s
        """
        check_matplotlib(cls.__name__, ax)
        max_fpr = check_max_fpr(max_fpr)
        fpr, pro, area = pro_curve_and_area(masks, maps, max_fpr)
        display = cls(fpr=fpr, pro=pro, aupro=area, max_fpr=max_fpr, name=name)
        return display.plot(ax, **kwargs)

    @document(DISPLAY_DOCS)
    def plot(self, ax: Any = None, *, name: str | None = None, **kwargs: Any) -> PROCurveDisplay:
        """Draw the curve up to the limit.

        Parameters
        ----------
        %(ax)s
        %(name_of_plot)s
        %(line_kwargs)s

        Returns
        -------
        PROCurveDisplay
            This display, with `ax_`, `figure_` and `line_` set.
        """
        self.ax_, self.figure_ = axes_for(ax, type(self).__name__)
        name = self.name if name is None else name
        area = None if self.aupro is None else f"AUPRO up to {self.max_fpr:g} = {self.aupro:.3f}"
        label = f"{name} ({area})" if name and area else name or area
        (self.line_,) = self.ax_.plot(self.fpr, self.pro, **{"label": label, **kwargs})
        self.ax_.set(
            xlim=(0, self.max_fpr),
            ylim=(0, 1.01),
            xlabel="false-positive rate (share of the good pixels)",
            ylabel="per-region overlap",
        )
        if label is not None:
            self.ax_.legend(loc="lower right")
        return self
