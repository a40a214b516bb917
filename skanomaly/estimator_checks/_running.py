"""Which checks there are for an estimator, and how they are run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from skanomaly._parameters import without_addresses
from skanomaly.estimator_checks._embedders import EMBEDDER_CHECKS
from skanomaly.estimator_checks._mutual_scorers import MUTUAL_SCORER_CHECKS
from skanomaly.estimator_checks._scorers import SCORER_CHECKS

if TYPE_CHECKING:
    import pytest


def checks_of(estimator: Any) -> list[Callable[[Any], None]]:
    """Checks that apply to an estimator.

    Parameters
    ----------
    estimator : estimator
        A scorer of patch tokens, or an embedder of images.

    Returns
    -------
    list of callable
        Each takes an estimator, and raises an AssertionError where it fails.

    Raises
    ------
    TypeError
        When it is neither.

    Examples
    --------
    >>> from skanomaly import FilterBankPatches
    >>> from skanomaly.estimator_checks import checks_of
    >>> checks_of(FilterBankPatches())[0].__name__
    'check_embedder_output'
    """
    if isinstance(estimator, type):
        raise TypeError(f"pass an instance, not the class {estimator.__name__}")
    if getattr(estimator, "_transductive", False):
        return list(MUTUAL_SCORER_CHECKS)
    if hasattr(estimator, "score_patches"):
        return list(SCORER_CHECKS)
    if hasattr(estimator, "transform"):
        return list(EMBEDDER_CHECKS)
    raise TypeError(
        f"{type(estimator).__name__} is neither a scorer, with score_patches, nor an embedder, "
        "with transform: there are no checks for it"
    )


def check_estimator(estimator: Any) -> None:
    """Run all checks that apply to an estimator.

    Parameters
    ----------
    estimator : estimator
        A scorer of patch tokens, or an embedder of images; it is cloned, not fitted.

    Raises
    ------
    AssertionError
        At the first check that fails.
    TypeError
        When it is neither a scorer nor an embedder.

    See Also
    --------
    parametrize_with_checks : One test a check, for pytest.
    sklearn.utils.estimator_checks.check_estimator : Scikit-learn's checks, for scorers too.

    Examples
    --------
    >>> from skanomaly import PatchKNNScorer
    >>> from skanomaly.estimator_checks import check_estimator
    >>> check_estimator(PatchKNNScorer())
    """
    for check in checks_of(estimator):
        check(estimator)


def parametrize_with_checks(estimators: Iterable[Any]) -> pytest.MarkDecorator:
    """Decorator of a test, for pytest: one case for each estimator and each check.

    Parameters
    ----------
    estimators : iterable of estimator
        Scorers of patch tokens and embedders of images.

    Returns
    -------
    pytest.MarkDecorator
        For a test with the arguments `estimator` and `check`.

    Examples
    --------
    >>> from skanomaly import PatchGaussianScorer, PatchKNNScorer
    >>> from skanomaly.estimator_checks import parametrize_with_checks
    >>> @parametrize_with_checks([PatchKNNScorer(), PatchGaussianScorer("shared")])
    ... def test_of_ours(estimator, check):
    ...     check(estimator)
    """
    import pytest

    cases = [
        pytest.param(estimator, check, id=f"{_name(estimator)}-{check.__name__}")
        for estimator in estimators
        for check in checks_of(estimator)
    ]
    return pytest.mark.parametrize("estimator, check", cases)


def _name(estimator):
    """How an estimator prints, without line breaks and without addresses of functions."""
    return "".join(without_addresses(repr(estimator)).split())
