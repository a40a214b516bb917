"""What a union of scorers and one of detectors have in common: named members, scales, weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from skanomaly._calibrated import MappedEstimator
from skanomaly._sklearn import _BaseComposition
from skanomaly._typing import FloatArray
from skanomaly.core.unions import Combination, join_scores, union_weights

_Union = TypeVar("_Union", bound="UnionEstimator")


class UnionEstimator(MappedEstimator, _BaseComposition):
    """Base of the unions.

    A subclass has the parameters `combination`, and of the name `_kind` + ``"s"`` and `_kind` +
    ``"_weights"`` its members, which are pairs of a name and an estimator, and their weights.
    """

    _kind: ClassVar[str]  # what a member is called

    combination: Combination
    location_: FloatArray
    scale_: FloatArray

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters, those of the members as ``name__parameter``.

        Parameters
        ----------
        deep : bool, default=True
            Include the members and their parameters.

        Returns
        -------
        dict of str to object
            Values by name.
        """
        return self._get_params(f"{self._kind}s", deep=deep)

    def set_params(self: _Union, **params: Any) -> _Union:
        """Set parameters, those of a member as ``name__parameter``, or a member by its name.

        Parameters
        ----------
        **params : dict
            Names and values.

        Returns
        -------
        self : object
            The union.
        """
        return self._set_params(f"{self._kind}s", **params)

    def _named_members(self) -> list[tuple[str, Any]]:
        """The members that were given; an error where they are not named each by its own."""
        name, members = f"{self._kind}s", getattr(self, f"{self._kind}s")
        if not members:
            raise ValueError(f"{name} is empty; give at least one (name, {self._kind})")
        for i, pair in enumerate(members):
            if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
                raise TypeError(f"{name}[{i}] must be a tuple (name, {self._kind}), got {pair!r}")
        self._validate_names([name for name, _ in members])
        return members

    def _weights(self) -> FloatArray:
        """The weight of each member; an error where they were given as none."""
        weights = getattr(self, f"{self._kind}_weights")
        n_members = len(getattr(self, f"{self._kind}s"))
        return union_weights(weights, n_members, self.combination, self._kind)

    def _joined(self, scores: Sequence[FloatArray]) -> FloatArray:
        """Scores of each member, higher where more anomalous, as one."""
        return join_scores(scores, self.location_, self.scale_, self.combination, self._weights())
