"""Models that were fitted to parts of the images, on other machines or days, as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from sklearn.base import clone

from skanomaly._grouped_fit import fit_with_groups
from skanomaly._images import check_images
from skanomaly._images.training import join_training_images
from skanomaly._origins import differences
from skanomaly._parameters import NO_MATTER, check_integer, copy_of_estimator, equal_params
from skanomaly._pipelines import split_pipeline
from skanomaly._typing import Groups, Images, Labels
from skanomaly.detectors import ImageUnion
from skanomaly.growth._parts import check_changes, images_steps, leaf_of, remember
from skanomaly.growth._update import join_again

_Estimator = TypeVar("_Estimator")

_APART = NO_MATTER | {"batch_size", "detectors"}  # members of a union are compared by themselves


def merge_models(models: Sequence[_Estimator]) -> _Estimator:
    """One model of the images of several, which were fitted elsewhere.

    Parameters
    ----------
    models : sequence of Pipeline, scorer or detector
        At least one; of the same steps, parameters, weights and sizes, each as for
        :func:`skanomaly.update_model`. They are left as they are.

    Returns
    -------
    estimator
        A copy of the first one whose model and threshold are those of a fit to the images of all
        models, one after the other, as far as :doc:`/growing` says. Of coresets it is the greedy
        coreset of these: `coverage_radius_` of its scorer is a bound of the distance of any
        training patch of theirs to its bank.

    Raises
    ------
    TypeError, ValueError
        When models differ in more than their images, or one cannot be merged; the message names the
        difference and the number of the model.
    NotFittedError
        When one is not fitted.

    Warns
    -----
    UserWarning
        Where images of different models are copies of each other.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchKNNScorer, fit_shard, merge_models
    >>> from skanomaly.datasets import make_surfaces
    >>> good = make_surfaces(24, image_size=64, random_state=0).images
    >>> pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer())
    >>> parts = [fit_shard(pipe, good, shard, 3) for shard in range(3)]  # each on its machine
    >>> merged = merge_models(parts)
    >>> bool(abs(merged[-1].offset_ - pipe.fit(good)[-1].offset_) < 1e-6)
    True
    """
    models = list(models)
    if not models:
        raise ValueError("there are no models to merge: give at least one")
    for number, model in enumerate(models):
        try:
            check_changes(model)
        except (TypeError, ValueError) as exc:
            raise type(exc)(f"model {number}: {exc}") from exc
    for number, model in enumerate(models[1:], 1):
        _check_steps(models[0], model, number)
    made: _Estimator = _merged(models)
    return made


def fit_shard(
    estimator: _Estimator,
    images: Images,
    shard: int,
    n_shards: int,
    y: Labels = None,
    groups: Groups = None,
) -> _Estimator:
    """Fit a model to one of several parts of the images, for :func:`skanomaly.merge_models`.

    Parameters
    ----------
    estimator : Pipeline or detector
        It is left as it is: a clone is fitted.
    images : list, tuple or array of images
        All images, in the same order for each shard.
    shard : int
        Number of the part, from 0. The parts are runs of the images, as long as each other or
        longer by one, so that merged in their order they have the order of `images`.
    n_shards : int
        How many parts there are; at most as many as images.
    y : array-like of shape (n_images,), optional
        +1 for normal, -1 for anomalous images, of all images.
    groups : sequence of hashable, optional
        A label for each of all images. Images of one label may be in several parts.

    Returns
    -------
    estimator
        A fitted clone.

    Raises
    ------
    ValueError
        When `shard` or `n_shards` is out of range, or `y` or `groups` are not one for each image.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchKNNScorer, fit_shard
    >>> from skanomaly.datasets import make_surfaces
    >>> good = make_surfaces(24, image_size=64, random_state=0).images
    >>> pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer())
    >>> len(fit_shard(pipe, good, 2, 3)[-1].train_scores_)
    8
    """
    n_shards = check_integer(n_shards, "n_shards", 1)
    shard = check_integer(shard, "shard", 0)
    items = check_images(images)
    if n_shards > len(items):
        raise ValueError(f"n_shards={n_shards} is more than there are images, {len(items)}")
    if shard >= n_shards:
        raise ValueError(f"shard={shard} must be below n_shards={n_shards}: they count from 0")
    rows = slice(shard * len(items) // n_shards, (shard + 1) * len(items) // n_shards)
    parts: dict[str, Any] = {"y": y, "groups": groups}
    for name, labels in parts.items():
        if labels is not None:
            labels = list(labels)
            if len(labels) != len(items):
                raise ValueError(
                    f"{name} has {len(labels)} labels for {len(items)} images: give one for each "
                    "of all images"
                )
            parts[name] = labels[rows]
    return fit_with_groups(clone(estimator), items[rows], parts["y"], parts["groups"])


def _merged(models: Sequence[Any]) -> Any:
    scorers = [split_pipeline(model).scorer for model in models]
    leaves = [leaf_of(model) for model in models]
    remembered = [[step._train_images for step in images_steps(model)] for model in models]
    if isinstance(scorers[0], ImageUnion):
        made = copy_of_estimator(models[0])
        members = {
            name: _merged([scorer.detectors_[name] for scorer in scorers])
            for name in scorers[0].detectors_
        }
        join_again(split_pipeline(made).scorer, members)
    else:
        merged = scorers[0]._merged_with(scorers[1:])
        made = copy_of_estimator(models[0], {id(scorers[0]): merged})
    if all(
        [len(known) for known in of_model] == [leaf._n_given] * len(remembered[0])
        for of_model, leaf in zip(remembered, leaves, strict=True)
    ):
        # Each model has as many steps that remember images, and one after the other is joined.
        joined = iter([join_training_images(of_step) for of_step in zip(*remembered, strict=True)])
        remember(made, leaves[0]._n_given, lambda known: next(joined))
    else:
        remember(made, -1, lambda known: known)
    return made


def _check_steps(first: Any, other: Any, number: int) -> None:
    """Raise where two models differ in a step before the scorer, or in the members of a union."""
    which = f"model {number} cannot be merged with model 0:"
    one, two = split_pipeline(first), split_pipeline(other)
    names = [
        [type(step).__name__ for step in (*split.transformers, split.scorer)]
        for split in (one, two)
    ]
    if names[0] != names[1]:
        raise TypeError(f"{which} its steps are {', '.join(names[1])}, not {', '.join(names[0])}")
    for old, new in zip(one.transformers, two.transformers, strict=True):
        _check_step(old, new, which)
    if isinstance(one.scorer, ImageUnion):
        _check_step(one.scorer, two.scorer, which)
        members = [list(split.scorer.detectors_) for split in (one, two)]
        if members[0] != members[1]:
            raise ValueError(f"{which} its detectors are {members[1]}, not {members[0]}")
        for name in members[0]:
            _check_steps(one.scorer.detectors_[name], two.scorer.detectors_[name], number)


def _check_step(old: Any, new: Any, which: str) -> None:
    before, now = (getattr(step, "_origin_at_fit", None) for step in (old, new))
    kind, skipped = type(new).__name__, _APART
    if before is not None and now is not None:
        if found := differences(before, now):
            raise ValueError(f"{which} its {kind} is another: {', '.join(found.values())}")
        skipped = _APART | {"weights"}  # the same ones, wherever they lie
    params = new.get_params(deep=False)
    for name, value in old.get_params(deep=False).items():
        if name not in skipped and not equal_params(value, params.get(name)):
            raise ValueError(f"{which} {name} of its {kind} is {params.get(name)!r}, not {value!r}")
