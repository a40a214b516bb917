"""Models that forget some of their training images."""

from __future__ import annotations

from typing import Any, TypeVar

from skanomaly._images import check_images
from skanomaly._images.names import path_of
from skanomaly._parameters import copy_of_estimator
from skanomaly._pipelines import split_pipeline
from skanomaly._typing import Images, IntArray
from skanomaly.detectors import ImageUnion
from skanomaly.growth._parts import check_changes, leaf_of, remember
from skanomaly.growth._update import join_again
from skanomaly.scorers._growth_checks import UnknownImageError

_Estimator = TypeVar("_Estimator")
_NAMED = 20


def forget_images(estimator: _Estimator, images: Images) -> _Estimator:
    """A fitted model without some of the images that it was trained on.

    Parameters
    ----------
    estimator : Pipeline, scorer or detector
        As for :func:`skanomaly.update_model`. It is left as it is.
    images : images
        Training images, as they were given to `fit`: they are recognised by their patch tokens, and
        all copies of them are forgotten. Patch tokens for a scorer by itself.

    Returns
    -------
    estimator
        A copy whose model and threshold are those of a fit without these images, as far as
        :doc:`/growing` says.

    Raises
    ------
    TypeError
        When the scorer cannot forget images; the message names those that can.
    ValueError
        When an image is none that the model was fitted to, which the message names, too few images
        would be left, or the threshold was set by other images or a number.
    NotFittedError
        When `estimator` is not fitted, or parameters or weights are not those of its `fit`.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchKNNScorer, forget_images
    >>> from skanomaly.datasets import make_surfaces
    >>> good = make_surfaces(24, image_size=64, random_state=0).images
    >>> pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer()).fit(good)
    >>> len(forget_images(pipe, good[:4])[-1].train_scores_)
    20
    """
    check_changes(estimator)
    if split_pipeline(estimator).transformers or _is_union(estimator):
        items: Any = check_images(images)
    else:
        items = images
    try:
        gone = _recognised(estimator, items)
    except UnknownImageError as exc:
        paths = [path_of(items[i]) for i in exc.images[:_NAMED]]
        names = [
            f"image {i}" + ("" if path is None else f" ({path})")
            for i, path in zip(exc.images, paths, strict=False)
        ]
        more = len(exc.images) - len(names)
        raise ValueError(
            f"the model was not fitted to {', '.join(names)}"
            + (f" and {more} more" if more else "")
            + ", and cannot forget what it does not know"
        ) from exc
    return _without(estimator, gone)


def _is_union(estimator: Any) -> bool:
    return isinstance(split_pipeline(estimator).scorer, ImageUnion)


def _recognised(estimator: Any, images: Any) -> IntArray:
    """Numbers of the known images that those are."""
    split = split_pipeline(estimator)
    if isinstance(split.scorer, ImageUnion):
        return _recognised(next(iter(split.scorer.detectors_.values())), images)
    return leaf_of(estimator)._recognised(split.transform(images))


def _without(estimator: Any, gone: IntArray) -> Any:
    made, leaf = copy_of_estimator(estimator), leaf_of(estimator)
    scorer = split_pipeline(made).scorer
    if isinstance(scorer, ImageUnion):
        members = {name: _without(member, gone) for name, member in scorer.detectors_.items()}
        join_again(scorer, members)
    else:
        scorer._forget_numbers(gone)
    numbers = set(leaf._train_numbers[gone].tolist())
    remember(made, leaf._n_given, lambda known: known.without(numbers))
    return made
