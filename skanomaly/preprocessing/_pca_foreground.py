"""Foreground by the first principal component of the patch tokens of an image."""

from __future__ import annotations

from dataclasses import replace
from numbers import Real

import numpy as np

from skanomaly._docstrings import document
from skanomaly._faults import of_an_image
from skanomaly._patch_tokens import PatchTokens
from skanomaly._sklearn import Interval, StrOptions
from skanomaly.core.foreground import first_component, foreground_of
from skanomaly.preprocessing._base import MASK_DOCS, PatchMask, tokens_in_form


@document(MASK_DOCS)
class PCAForeground(PatchMask):
    """Masks the background of each image, found by the first principal component of its tokens.

    The step of AnomalyDINO [1]_ that keeps clutter around an object from being scored. It stands in
    a Pipeline between embedder and scorer.

    Parameters
    ----------
    threshold : float, default=10.0
        Patches whose first principal component is above it are foreground. The default is the
        published one, for the tokens of DINOv2's last block after its normalisation, where a
        component spans some 100; tokens of other embedders have other scales.
    border : float, default=0.2
        Share of the grid, at each side, that is not its centre. Where no more than 35% of the
        centre are foreground, the sign of the component is turned.
    mask_training : bool, default=False
        Whether the background of training images is kept out of the model too. False, as
        published: the model knows it, so that background which the mask misses in a new image is
        nothing unusual. Scorers that learn from no views, such as
        :class:`skanomaly.MutualScorer`, need True.
    no_foreground : {"error", "keep"}, default="error"
        What becomes of an image without any foreground: an error that names it, or all of its
        patches are kept. Masked as a whole it would have nothing left to be scored by.

    Attributes
    ----------
    %(features_in)s

    See Also
    --------
    RegionOfInterest : A region that is the same in all images.

    Notes
    -----
    Each image is masked by itself, so that an image has the same mask in every batch. The principal
    component is computed in float64; of its axis, the loading of largest magnitude is positive, as
    scikit-learn has it. What is above the threshold is dilated, and small holes are closed, by
    squares of 3 x 3.

    With ``mask_training=False`` `fit_transform` differs from ``fit(X).transform(X)``, as does
    scikit-learn's `TargetEncoder`: the training image comes masked, as new images will, and its
    background as one more view. The model thus holds all of its patches, each once, while the
    threshold is that of masked images: the published code has no threshold, and one from unmasked
    images would be that of their background too. Training images are recognised when they are
    scored again, since they are masked in the same way, as long as their tokens are the same: where
    another processor rounds tokens otherwise, most of all in half precision, a patch near the
    threshold may change sides, and the image is scored as a new one.

    A training image takes twice its memory for that, in `fit` alone.

    What differs from the published code: the principal component there is a randomised one, in
    float32, with a sign that depends on the version of scikit-learn. An image without foreground
    there has the score 0, the most normal one.

    References
    ----------
    .. [1] Damm et al., "AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with
       DINOv2", WACV 2025.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly import PCAForeground
    >>> rng = np.random.default_rng(0)
    >>> tokens = rng.normal(size=(1, 10, 10, 8))
    >>> tokens[0, 3:7, 3:7] += 20  # an object
    >>> masked = PCAForeground().transform(tokens)
    >>> (~np.isnan(masked[0, :, :, 0])).sum(axis=1)
    array([0, 0, 6, 6, 6, 6, 6, 6, 0, 0])
    """

    _parameter_constraints: dict = {
        "threshold": [Interval(Real, 0, None, closed="left")],
        "border": [Interval(Real, 0, 0.5, closed="left")],
        "mask_training": ["boolean"],
        "no_foreground": [StrOptions({"error", "keep"})],
    }

    def __init__(
        self,
        threshold: float = 10.0,
        *,
        border: float = 0.2,
        mask_training: bool = False,
        no_foreground: str = "error",
    ) -> None:
        self.threshold = threshold
        self.border = border
        self.mask_training = mask_training
        self.no_foreground = no_foreground

    # Number of the view of training images that is their background, which explanations undo.
    _background_view: int | None = None

    def _masked(self, tokens: PatchTokens) -> np.ndarray:
        masked = np.zeros(len(tokens.values), dtype=bool)
        for image in range(tokens.n_images):
            rows = tokens.rows(image)
            for start in range(rows.start, rows.stop, (rows.stop - rows.start) // tokens.n_views):
                stop = start + (rows.stop - rows.start) // tokens.n_views
                masked[start:stop] = ~self._foreground(tokens, image, slice(start, stop))
        return masked

    def _foreground(self, tokens, image, rows):
        """Which of the rows of one image, or of one of its views, are foreground."""
        valid, grid = tokens.valid[rows], tokens.grids[image]
        if not valid.any():  # a view may be masked as a whole
            return valid
        component = np.zeros(len(valid))
        component[valid] = first_component(tokens.values[rows][valid])
        found = foreground_of(
            component.reshape(grid), valid.reshape(grid), self.threshold, self.border
        ).ravel()
        if found.any():
            return found
        if self.no_foreground == "keep":
            return valid
        raise of_an_image(
            ValueError(
                f"image {tokens.first + image} has no foreground: the first principal component "
                f"of its tokens reaches {np.abs(component).max():.3g}, and threshold is "
                f"{self.threshold:.3g}, which has to fit the embedder. Set another threshold, or "
                "no_foreground='keep' to keep all patches of such images"
            )
        )

    def _training_tokens(self, tokens: PatchTokens) -> np.ndarray:
        self._background_view = None
        if self.mask_training:
            return super()._training_tokens(tokens)
        return self._with_background(tokens)

    def _with_background(self, tokens):
        """The training tokens with one more view, the background of the first."""
        first = tokens.select_view(0)
        background = self._masked(first)
        lengths = np.diff(first.offsets)
        offsets = np.concatenate([[0], np.cumsum(lengths * (tokens.n_views + 1))])
        values = np.empty((offsets[-1], tokens.dim), dtype=tokens.values.dtype)
        for image, length in enumerate(lengths):
            rows = first.rows(image)
            start, last = offsets[image], offsets[image + 1] - length
            values[start:last] = tokens.values[tokens.rows(image)]
            values[start : start + length][background[rows]] = np.nan
            values[last : last + length] = first.values[rows]
            values[last : last + length][~background[rows]] = np.nan
        self._background_view = tokens.n_views
        more = replace(tokens, values=values, offsets=offsets, n_views=tokens.n_views + 1)
        return tokens_in_form(more, values)

    def _origin_text(self) -> str:
        return f"{type(self).__name__}({self.threshold!r}, border={self.border!r})"
