"""What a fitted embedder remembers: all that its tokens depended on."""

from __future__ import annotations

import os
from collections.abc import Mapping

from sklearn.exceptions import NotFittedError

from skanomaly._origins import Origin, differences
from skanomaly._parameters import NO_MATTER, Estimator, check_value_range
from skanomaly._typing import ValueRange

# Batches are of images here, and each image is computed by itself; views are of `fit` alone.
_NO_MATTER = NO_MATTER | {"augmentation", "batch_size"}


class FittedEmbedder(Estimator):
    """Base of the embedders, as far as they notice that they are no longer what they were in `fit`.

    :class:`skanomaly.base.BasePatchEmbedder` is the class to derive from.
    """

    value_range: ValueRange | None = None  # of those that have no such parameter

    def _fingerprint(self) -> Mapping[str, object]:
        """Plain values by name: all that the tokens of an image depend on."""
        raise NotImplementedError

    def _reading(self) -> dict[str, object]:
        """Plain values by name: what tokens depend on by the way in which images are read."""
        value_range = check_value_range(self.value_range)
        return {} if value_range is None else {"value_range": list(value_range)}

    def _remember_fit(self) -> None:
        """Keep what tokens depend on now; what `"auto"` means is asked anew."""
        self.__dict__.pop("_origin_at_fit", None)
        self.__dict__.pop("_params_at_fit", None)
        self._origin_at_fit = self._origin()
        self._remember_params()

    def _origin(self) -> Origin:
        """What tokens depend on; NotFittedError where that is not what it was in `fit`.

        It loads the model, before there are threads that would wait for each other.
        """
        origin = {"embedder": type(self).__name__, **self._reading(), **self._fingerprint()}
        found = differences(self.__dict__.get("_origin_at_fit", origin), origin)
        if found:
            raise NotFittedError(self._what_changed(found))
        return origin

    def _what_changed(self, found: Mapping[str, str]) -> str:
        """Words for how tokens would differ from those at `fit`."""
        owner = type(self).__name__
        plain = {param: param.rpartition("__")[2] for param in self._changed_params()}
        changed = [param for param, name in plain.items() if name not in _NO_MATTER]
        if params := [param for param in changed if plain[param] in found] or changed:
            return f"{', '.join(params)} of this {owner} changed since fit; call fit again"
        if "weights" in found and hasattr(self, "weights"):
            return (
                f"the weights {os.fspath(self.weights)!r} of this {owner} are other ones than at "
                "fit: put the old ones back, or call fit again"
            )
        return (
            f"{owner} would give other tokens than at fit ({', '.join(found.values())}); call fit "
            "again"
        )
