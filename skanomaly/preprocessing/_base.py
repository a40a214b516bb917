"""What the transformers of patch tokens share: forms, streams, origins, changed parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import OneToOneFeatureMixin
from sklearn.exceptions import NotFittedError

from skanomaly._docstrings import document
from skanomaly._origins import origin_of, set_origin
from skanomaly._parameters import Estimator
from skanomaly._patch_tokens import PatchTokens
from skanomaly._token_output import TokenOutput
from skanomaly._token_stream import TokenStream
from skanomaly._tokens import check_tokens
from skanomaly._typing import ArrayLike, FloatArray

MASK_DOCS = {
    "X": """
X : array-like of shape (n_images, grid_h, grid_w, dim)
    Patch tokens, or a 1-D object array of (grid_h, grid_w, dim) where grids differ. Patches that
    are NaN stay NaN.
""",
    "X_views": """
X : array-like of shape (n_images, [n_views,] grid_h, grid_w, dim)
    Patch tokens, with or without views; a 1-D object array of each image's where grids differ.
    Patches that are NaN stay NaN.
""",
    "y": """
y : Ignored
    Present for scikit-learn's API.
""",
    "masked": """
ndarray of shape (n_images, grid_h, grid_w, dim)
    The tokens, C-contiguous, masked ones NaN; a 1-D object array where grids differ. Of a stream
    of tokens a stream.
""",
    "features_in": """
n_features_in_ : int
    Components of a token.
""",
}

_Mask = TypeVar("_Mask", bound="PatchMask")


@document(MASK_DOCS)
class PatchMask(OneToOneFeatureMixin, TokenOutput, Estimator, ABC):
    """Base of transformers that mask patches: the tokens of these become NaN, the others stay.

    A subclass implements ``_masked(tokens)``, which patches to mask, and ``_origin_text()``, which
    says by what.
    """

    @abstractmethod
    def _masked(self, tokens: PatchTokens) -> NDArray[np.bool_]:
        """Of each row, whether it is to be masked; what one image gets depends on it alone."""

    @abstractmethod
    def _origin_text(self) -> str:
        """What a scorer is to know of the mask, by which it tells tokens of `fit` from others."""

    def _learn(self, tokens: PatchTokens) -> None:
        """What there is to learn in `fit` besides the number of components."""

    @document(MASK_DOCS)
    def fit(self: _Mask, X: ArrayLike, y: Any = None) -> _Mask:
        """Check the parameters and the tokens.

        Parameters
        ----------
        %(X_views)s
        %(y)s

        Returns
        -------
        self : object
            The transformer.
        """
        self._fit(X)
        return self

    @document(MASK_DOCS)
    def transform(self, X: ArrayLike) -> Any:
        """Mask patches of each image, whatever the other images are.

        Parameters
        ----------
        %(X)s

        Returns
        -------
        %(masked)s

        Raises
        ------
        NotFittedError
            When a parameter changed since `fit`.
        ValueError
            When tokens have no grid, or other components than those of `fit`.
        """
        self._validate_params()
        self._check_unchanged()
        if isinstance(X, TokenStream):
            stream = X.map(self.transform)
            self._mark(stream, X)
            return stream
        tokens = self._check(X, views=False)
        expected = getattr(self, "n_features_in_", tokens.dim)
        if tokens.dim != expected:
            raise ValueError(
                f"X has {tokens.dim} features, but {type(self).__name__} is expecting {expected} "
                "features as input."
            )
        out = masked_tokens(tokens, self._masked(tokens))
        self._mark(out, X)
        return out

    @document(MASK_DOCS)
    def fit_transform(self, X: ArrayLike, y: Any = None) -> np.ndarray:
        """Mask patches of training images.

        Parameters
        ----------
        %(X_views)s
        %(y)s

        Returns
        -------
        ndarray of shape (n_images, grid_h, grid_w, dim) or (n_images, n_views, grid_h, grid_w, dim)
            As from :meth:`transform`, in the form of the training tokens.
        """
        tokens = self._fit(X)
        out = self._training_tokens(tokens)
        self._mark(out, X)
        return out

    def _fit_stream(self, stream: TokenStream) -> TokenStream:
        """As `fit_transform`: nothing is learned from tokens but how many components they have."""
        first = stream[0][None]
        self._fit(first)
        out = stream.map(lambda X: self._training_tokens(self._check(X, views=True)))
        self._training_tokens(self._check(first, views=True))  # sets what it does for all
        self._mark(out, stream)
        return out

    def _training_tokens(self, tokens: PatchTokens) -> np.ndarray:
        return masked_tokens(tokens, self._masked(tokens))

    def _fit(self, X: ArrayLike) -> PatchTokens:
        self._validate_params()
        tokens = self._check(X, views=True)
        self._learn(tokens)
        self.n_features_in_ = tokens.dim
        self._remember_params()
        return tokens

    def _check(self, X: ArrayLike, views: bool) -> PatchTokens:
        tokens = check_tokens(X, views=views, estimator=self)
        if any(len(grid) != 2 for grid in tokens.grids):
            raise ValueError(
                f"{type(self).__name__} needs to know where patches are: X must have the shape "
                f"(n_images, grid_h, grid_w, dim), got patches of the shape {tokens.grids[0]}"
            )
        return tokens

    def _check_unchanged(self) -> None:
        changed = self._changed_params()
        if changed:
            raise NotFittedError(
                f"{', '.join(changed)} of this {type(self).__name__} changed since fit; call fit "
                "again"
            )

    def _mark(self, made: Any, X: ArrayLike) -> None:
        """Hand on where tokens come from, and by what they were masked."""
        origin = origin_of(X)
        if origin is not None:
            before = origin.get("masked by", [])
            assert isinstance(before, list)
            set_origin(made, {**origin, "masked by": [*before, self._origin_text()]})

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = True
        return tags


def masked_tokens(tokens: PatchTokens, masked: NDArray[np.bool_]) -> np.ndarray:
    """A copy of tokens with more of them masked, in the form in which scorers take them.

    Parameters
    ----------
    tokens : PatchTokens
        Of images with a grid.
    masked : ndarray of shape (n_tokens,), bool
        True for the rows that become NaN.

    Returns
    -------
    ndarray
        As of :func:`tokens_in_form`.
    """
    values = tokens.values.copy()
    values[masked] = np.nan
    return tokens_in_form(tokens, values)


def tokens_in_form(tokens: PatchTokens, values: FloatArray) -> np.ndarray:
    """Rows of tokens in the form in which scorers take them.

    Parameters
    ----------
    tokens : PatchTokens
        Of images with a grid.
    values : ndarray of shape (n_tokens, dim)
        What to return in place of ``tokens.values``.

    Returns
    -------
    ndarray
        Of shape (n_images, grid_h, grid_w, dim) or, of several views, (n_images, n_views, grid_h,
        grid_w, dim), without a copy; a 1-D object array of the images where grids differ.
    """
    views = (tokens.n_views,) if tokens.n_views > 1 else ()
    if len(set(tokens.grids)) == 1:
        return values.reshape(tokens.n_images, *views, *tokens.grids[0], tokens.dim)
    out = np.empty(tokens.n_images, dtype=object)
    for i, grid in enumerate(tokens.grids):
        # A copy each, so that none keeps the tokens of all images alive.
        out[i] = values[tokens.rows(i)].reshape(*views, *grid, tokens.dim).copy()
    return out
