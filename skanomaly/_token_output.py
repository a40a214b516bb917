"""What transformers that return patch tokens say to scikit-learn of their output."""

from __future__ import annotations

from typing import Any, TypeVar

from sklearn.base import TransformerMixin

_Made = TypeVar("_Made", bound="TokenOutput")


# No output is wrapped: tokens are arrays of more dimensions than a DataFrame has.
class TokenOutput(TransformerMixin, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """Base of what returns patch tokens, as far as scikit-learn's containers are concerned."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**{**kwargs, "auto_wrap_output_keys": None})

    def set_output(self: _Made, *, transform: str | None = None) -> _Made:
        """Accept what tokens are, arrays, and refuse what they cannot be.

        Parameters
        ----------
        transform : {"default", None}, default=None
            ``"default"`` and None change nothing. scikit-learn's other containers have two
            dimensions, and tokens have four: ``set_output`` of a pipeline that holds such a step
            refuses them too. Where they are set for all of scikit-learn, by
            ``sklearn.set_config(transform_output="pandas")``, tokens stay arrays.

        Returns
        -------
        self : object
            The estimator.

        Raises
        ------
        ValueError
            For ``"pandas"``, ``"polars"`` and whatever else.
        """
        if transform not in (None, "default"):
            raise ValueError(
                f"{type(self).__name__} gives arrays of shape (n_images, grid_h, grid_w, dim), for "
                f"which transform={transform!r} has no place; leave it at 'default'"
            )
        return self
