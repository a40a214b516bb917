"""What a scorer accepts, patch tokens of the form it was fitted on, and what it keeps of `fit`."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import validate_data

from skanomaly._calibrated import CONTAMINATION, MappedEstimator
from skanomaly._faults import of_an_image
from skanomaly._origins import differences, origin_of
from skanomaly._parameters import check_integer
from skanomaly._patch_tokens import PatchTokens
from skanomaly._sklearn import Interval, RealNotInt, StrOptions
from skanomaly._token_stream import TokenStream
from skanomaly._tokens import check_tokens
from skanomaly._typing import ArrayLike, FloatArray
from skanomaly.core.aggregation import aggregate_patch_scores
from skanomaly.core.explanations import PatchExplanation

PART_BYTES = 2**25  # of tokens that are scored at a time

# What takes tokens to be scored.
_SCORING = {"score_samples", "score_patches", "decision_function", "predict", "p_values"}


class CheckedScorer(MappedEstimator):
    """Base of the scorers, as far as it checks what they are given and that they are fitted.

    :class:`skanomaly.base.BasePatchScorer` is the class to derive from.
    """

    _parameter_constraints: dict = {
        "topk": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="right"),
        ],
        "aggregation": [
            StrOptions({"topk_mean", "max", "mean"}),
            Interval(Real, 0, 1, closed="both"),
        ],
        "contamination": [CONTAMINATION],
    }

    # Set by the constructor of a subclass.
    topk: float
    aggregation: str | float
    contamination: Any  # a share; a word where the subclass has a `_fixed_offset` for it

    _needs_fit = True
    # Whether it is handed streams of tokens unasked, see skanomaly._pipelines.
    _takes_streams = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Methods of others may want an array.
        if not cls.__module__.startswith("skanomaly.") and _SCORING & vars(cls).keys():
            cls._takes_streams = False

    @available_if(lambda self: hasattr(self, "_explain_row"))
    def explain_patch(
        self, X: ArrayLike, row: int, column: int, *, n_neighbors: int = 3
    ) -> PatchExplanation:
        """Say why a patch of an image has its score; see :func:`skanomaly.explain`.

        Parameters
        ----------
        X : array-like of shape (1, grid_h, grid_w, dim)
            Patch tokens of one image.
        row, column : int
            The patch.
        n_neighbors : int, default=3
            How many near patches of the training images are looked for, by scorers that do.

        Returns
        -------
        skanomaly.base.PatchExplanation
            What ``_explain_row`` returns, which has to be there.

        Raises
        ------
        ValueError
            When there is no such patch, or it is masked.
        TypeError
            When ``_explain_row`` returns something else.
        """
        check_integer(n_neighbors, "n_neighbors", 1)
        tokens = self._check_tokens(X, reset=False)
        if tokens.n_images != 1 or len(tokens.grids[0]) != 2:
            raise ValueError(
                f"X must hold the tokens of one image, of shape (1, grid_h, grid_w, dim), got "
                f"{tokens.n_images} images of the grid {tokens.grids[0]}"
            )
        height, width = tokens.grids[0]
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(f"there is no patch ({row}, {column}) in a grid of {height} x {width}")
        number = row * width + column
        if not tokens.valid[number]:
            raise ValueError(f"patch ({row}, {column}) is masked, and has no score to explain")
        found = self._explain_row(tokens, number, n_neighbors)
        if not isinstance(found, PatchExplanation):
            raise TypeError(
                f"{type(self).__name__}._explain_row has to return a "
                f"skanomaly.base.PatchExplanation, not {type(found).__name__}"
            )
        return found

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = self._needs_fit
        tags.input_tags.three_d_array = True
        return tags

    def _parts(self, X: ArrayLike) -> Iterator[PatchTokens]:
        """Valid tokens to be scored, so many images at a time that memory is bounded."""
        if isinstance(X, TokenStream):
            if self._needs_fit:
                self._check_calibrated()  # before the first image is embedded
            self._check_origin(X, reset=False)
            first = 0
            for block in X.blocks(PART_BYTES):
                yield self._check_tokens(block, reset=False, first=first)
                first += len(block)
                del block  # while the next one is embedded
        else:
            yield from self._check_tokens(X, reset=False).parts(PART_BYTES)

    def _check_tokens(
        self, X: ArrayLike, *, reset: bool, views: bool | None = None, first: int = 0
    ) -> PatchTokens:
        """Valid tokens; those to be scored go with those of `fit`, if there was one."""
        fitted = hasattr(self, "train_scores_")
        if not reset and self._needs_fit:
            self._check_calibrated()
        self._check_origin(X, reset)
        if reset or fitted:
            # Only the names of a DataFrame's columns: the number of features is checked below.
            validate_data(self, X, reset=reset, skip_check_array=True, ensure_2d=False)
        views = reset if views is None else views
        tokens = check_tokens(X, views=views, estimator=self, first=first)
        if reset:
            self.n_features_in_ = tokens.dim
        elif fitted and tokens.dim != self.n_features_in_:
            raise ValueError(
                f"X has {tokens.dim} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input."
            )
        return tokens

    def _check_origin(self, X: ArrayLike, reset: bool) -> None:
        """Raise where X is known to come from another embedder than the tokens of `fit`.

        Where either is not known, as of an array that was copied, nothing is checked.
        """
        origin = origin_of(X)
        if reset:
            self._origin_at_fit = origin
            return
        at_fit = self.__dict__.get("_origin_at_fit")
        if origin is not None and at_fit is not None and (found := differences(at_fit, origin)):
            raise NotFittedError(  # which is a ValueError, but of no single image
                f"X holds other tokens than this {type(self).__name__} was fitted on: "
                f"{', '.join(found.values())}. Make them by the embedder of fit, or call fit again"
            )

    def _aggregate(self, tokens: PatchTokens, scores: FloatArray) -> FloatArray:
        """Image scores, higher for more anomalous images, from the score of each row."""
        out = np.empty(tokens.n_images)
        for i in range(tokens.n_images):
            rows = tokens.rows(i)
            try:
                out[i] = aggregate_patch_scores(
                    scores[rows][tokens.valid[rows]], self.aggregation, self.topk
                )
            except ValueError as exc:
                raise of_an_image(ValueError(f"image {tokens.first + i}: {exc}")) from exc
        return out
