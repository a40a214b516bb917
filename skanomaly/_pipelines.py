"""Pipelines taken apart, and what a scorer must have so that maps can be made from it.

The protocol of a scorer of patch tokens, which :func:`check_patch_scorer` checks:

- ``fit(X, y=None)``, ``score_samples(X)``, ``decision_function(X)`` and ``predict(X)`` in
  scikit-learn's signs: higher is more normal, ``predict`` is -1 where ``decision_function`` is
  negative.
- ``score_patches(X, return_scores=False)``: the patch scores of each image, of shape (n_images,
  grid_h, grid_w) or a 1-D object array of (grid_h, grid_w), higher is more anomalous; with
  ``return_scores=True`` a pair ``(patch_scores, score_samples)`` from one computation.
- After `fit`, ``offset_``: a number such that an image is called anomalous where
  ``score_samples(X) < offset_`` (see :func:`offset_of`).
- Where it has a parameter ``contamination``, a number is the share of normal images that the
  threshold may flag; anything else, such as ``"auto"``, says that the threshold is no such share
  (see :func:`contamination_of`).
- Where it has them, ``p_values(X)``: conformal p-values of images; and after `fit`,
  ``patch_limits_``: a pair of patch scores, the highest that is usual in a normal image and one
  that few of them reach, between which heat maps go from clear to violet; and
  ``held_out_patches_``, grids of patch scores of good images that the model has not seen, NaN
  where masked, by which regions are calibrated.
- Where it has it, ``explain_patch(X, row, column, n_neighbors=3)``: why that patch of a single
  image has its score, a :class:`skanomaly.core.explanations.PatchExplanation`, for
  :func:`skanomaly.explain`. Scorers that derive from :class:`skanomaly.base.BasePatchScorer` have
  it where they implement ``_explain_row(tokens, row, n_neighbors)``: `tokens` are those of one
  image, and `row` is the number of the patch in them.

A scorer with an attribute ``_transductive = True`` scores the images of `fit` by each other alone:
it has ``fit_predict`` in place of `score_samples`, `decision_function` and `predict`.
A detector of images has ``score_maps(images, size="image" or "model", return_scores=False)`` in
place of `score_patches`, and takes images where a scorer takes tokens; the rest is the same. One
that holds others has the fitted ones in ``detectors_``, by name, and ``explain_members(images, row,
column)`` in place of `explain_patch`: what each adds at that place of a single image's map.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from numbers import Real
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from skanomaly._parameters import without_addresses
from skanomaly._token_stream import TokenStream

_METHODS = ("fit", "score_samples", "decision_function", "predict")


@dataclass(frozen=True)
class SplitPipeline:
    """The steps of a Pipeline, by what they take and return.

    Attributes
    ----------
    image_transformers : tuple of transformer
        From images to patch tokens: the embedder, last, and the steps before it.
    token_transformers : tuple of transformer
        From patch tokens to patch tokens: the steps between the embedder and the scorer.
    scorer : estimator
        The last step: a scorer of patch tokens, or a detector of images.
    """

    image_transformers: tuple[Any, ...]
    token_transformers: tuple[Any, ...]
    scorer: Any

    @property
    def transformers(self) -> tuple[Any, ...]:
        """All steps before the scorer."""
        return self.image_transformers + self.token_transformers

    @property
    def train_images(self) -> Any:
        """The :class:`TrainingImages` that a detector or the embedder remembers; None of none."""
        for step in (self.scorer, *reversed(self.image_transformers)):
            if (known := getattr(step, "_train_images", None)) is not None:
                return known
        return None

    @property
    def value_range(self) -> Any:
        """Black and white by which the embedder, or a detector, reads images; None without."""
        ranges = (getattr(s, "value_range", None) for s in (*self.image_transformers, self.scorer))
        return next(filter(None, ranges), None)

    def transform(self, images: Any) -> Any:
        """What the scorer takes: the images after all transformers."""
        for transformer in self.transformers:
            images = transformer.transform(images)
        return images

    def tokens_of(self, images: Any) -> Any:
        """As :meth:`transform`, but computed when it is asked for, where embedder and scorer can.

        The embedder can if it has a parameter `stream`, the scorer if it says so. Transformers of
        tokens are then given one image at a time, see :meth:`TokenStream.map`.
        """
        if not getattr(self.scorer, "_takes_streams", False):
            return self.transform(images)
        *before, embedder = self.image_transformers
        for transformer in before:
            images = transformer.transform(images)
        if isinstance(getattr(embedder, "stream", None), bool):
            embedder = copy(embedder)
            embedder.stream = True
        tokens = embedder.transform(images)
        for transformer in self.token_transformers:
            streams = isinstance(tokens, TokenStream)
            transform = transformer.transform
            tokens = tokens.map(transform) if streams else transform(tokens)
        return tokens


def split_pipeline(estimator: Any) -> SplitPipeline:
    """Take a Pipeline apart into transformers of images, transformers of tokens, and the scorer.

    Pipelines within Pipelines are opened, ``"passthrough"`` steps left out, and searches replaced,
    wherever they stand, by their `best_estimator_`, or where they are not fitted by their
    `estimator`. Nothing is copied or fitted.

    The embedder is the last step before the scorer whose tags have ``input_tags.string``, as those
    of every embedder of this package. Where no step says so, it is the first. All steps before a
    detector of images are of images.

    Parameters
    ----------
    estimator : estimator
        A Pipeline or a search of one, fitted or not; of anything else there are no transformers.

    Returns
    -------
    SplitPipeline

    Raises
    ------
    TypeError
        When a Pipeline has no step but ``"passthrough"``.
    ValueError
        When a search has ``refit=False``, so that it never has a fitted estimator.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchKNNScorer
    >>> from skanomaly._pipelines import split_pipeline
    >>> split_pipeline(make_pipeline(FilterBankPatches(), "passthrough", PatchKNNScorer()))
    SplitPipeline(image_transformers=(FilterBankPatches(),), token_transformers=(),
                  scorer=PatchKNNScorer())
    """
    steps = list(_steps(estimator))
    if not steps:
        raise TypeError("the Pipeline has no step that scores: each one is 'passthrough'")
    *transformers, scorer = steps
    if hasattr(scorer, "score_maps"):
        n_image_steps = len(transformers)
    else:
        embedders = [i for i, step in enumerate(transformers) if _takes_images(step)]
        n_image_steps = embedders[-1] + 1 if embedders else 1
    return SplitPipeline(
        tuple(transformers[:n_image_steps]), tuple(transformers[n_image_steps:]), scorer
    )


def split_detector(estimator: Any) -> SplitPipeline:
    """Take apart what scores images and has maps of them; an error where it does not.

    Parameters
    ----------
    estimator : estimator
        A Pipeline of an embedder and a scorer, a detector of images, or a search; fitted or not.

    Returns
    -------
    SplitPipeline

    Raises
    ------
    TypeError
        When the scorer lacks something of the protocol, or has no embedder before it.

    Examples
    --------
    >>> from skanomaly import PatchKNNScorer
    >>> from skanomaly._pipelines import split_detector
    >>> split_detector(PatchKNNScorer())
    Traceback (most recent call last):
    ...
    TypeError: PatchKNNScorer takes patch tokens, not images: put it in a Pipeline...
    """
    split = split_pipeline(estimator)
    scorer = split.scorer
    if hasattr(scorer, "score_maps"):
        _check_methods(scorer, "detector", "score_maps", ("size", "return_scores"))
        return split
    check_patch_scorer(scorer, "the last step")
    check_embedder(split)
    return split


def check_embedder(split: SplitPipeline) -> None:
    """TypeError where a scorer of tokens has no embedder before it, which it needs for images."""
    if not split.transformers and not hasattr(split.scorer, "score_maps"):
        raise TypeError(
            f"{type(split.scorer).__name__} takes patch tokens, not images: put it in a Pipeline, "
            "after an embedder"
        )


def check_patch_scorer(scorer: Any, name: str = "scorer") -> None:
    """Raise where a scorer of patch tokens lacks something that making maps from it needs.

    The protocol stands at the top of this module; `offset_` is read by :func:`offset_of`. A search
    or a Pipeline is no scorer: pass the `scorer` of :func:`split_pipeline`.

    Parameters
    ----------
    scorer : estimator
        Fitted or not.
    name : str, default="scorer"
        What the message calls it, such as the name of an argument.

    Raises
    ------
    TypeError
        The message names what is missing, and what to do.

    Examples
    --------
    >>> from sklearn.svm import OneClassSVM
    >>> from skanomaly import PatchKNNScorer
    >>> from skanomaly._pipelines import check_patch_scorer
    >>> check_patch_scorer(PatchKNNScorer())
    >>> check_patch_scorer(OneClassSVM())
    Traceback (most recent call last):
    ...
    TypeError: scorer must be a scorer of patch tokens, but OneClassSVM has no score_patches...
    """
    _check_methods(scorer, name, "score_patches", ("return_scores",))


def offset_of(scorer: Any) -> float:
    """The threshold of a fitted scorer or detector: images that score lower are anomalous."""
    known, own = hasattr(scorer, "offset_"), getattr(scorer, "_offset", None)
    if callable(own) and (known or not hasattr(scorer, "train_scores_")):
        return float(own())  # also of those that need no fit
    if not known:
        raise TypeError(
            f"{type(scorer).__name__} has no offset_ after fit: fit must set the threshold below "
            "which score_samples calls an image anomalous"
        )
    return float(scorer.offset_)


def contamination_of(scorer: Any) -> float | None:
    """The share of normal images that a scorer's threshold may flag; None where it is no share."""
    value = getattr(scorer, "contamination", None)
    calibration = getattr(scorer, "calibration_", None)
    if isinstance(calibration, dict):  # the threshold may have been moved to one that is no share
        value = calibration.get("contamination", value)
    return float(value) if isinstance(value, Real) else None


def min_images_of(scorer: Any) -> int:
    """How many normal images a scorer, and those that it holds, need to be fitted."""
    held = scorer.get_params().values() if hasattr(scorer, "get_params") else ()
    return max(getattr(part, "_min_images", 1) for part in (scorer, *held))


def parameters_as_text(estimator: Any) -> dict[str, str]:
    """Parameters as text, without those that hold a step of a Pipeline or a searched estimator.

    Parameters
    ----------
    estimator : estimator
        A Pipeline, a detector or a search.

    Returns
    -------
    dict of str to str
        What `repr` gives, by name, but for addresses in memory, which differ from run to run; names
        are sorted.
    """
    params = estimator.get_params()
    inner = {f"{name}__": value for name, value in params.items() if hasattr(value, "get_params")}
    skipped = {"verbose"}
    for prefix, owner in {"": estimator, **inner}.items():
        if isinstance(owner, Pipeline):
            names = (*dict(owner.steps), "steps", "memory", "transform_input", "verbose")
            skipped |= {f"{prefix}{name}" for name in names}
        elif hasattr(owner, "refit"):  # a search
            skipped.add(f"{prefix}estimator")
        elif hasattr(owner, "detectors"):  # a union
            skipped |= {f"{prefix}{name}" for name in ("detectors", *dict(owner.detectors))}
    texts = ((name, repr(value)) for name, value in sorted(params.items()) if name not in skipped)
    return {name: without_addresses(text) for name, text in texts}


def _steps(estimator: Any) -> Iterator[Any]:
    """The steps in order, with searches, nested Pipelines and "passthrough" resolved."""
    if hasattr(estimator, "best_estimator_"):
        yield from _steps(estimator.best_estimator_)
    elif hasattr(estimator, "estimator") and hasattr(estimator, "refit"):  # a search, not fitted
        if not estimator.refit:
            raise ValueError(
                f"{type(estimator).__name__} with refit=False never has a fitted estimator; set "
                "refit=True, or the name of a metric"
            )
        yield from _steps(estimator.estimator)
    elif isinstance(estimator, Pipeline):
        for _, step in estimator.steps:
            yield from _steps(step)
    elif estimator is not None and not isinstance(estimator, str):
        yield estimator


def _takes_images(step: Any) -> bool:
    return isinstance(step, BaseEstimator) and step.__sklearn_tags__().input_tags.string


def _check_methods(scorer: Any, name: str, maps: str, keywords: tuple[str, ...]) -> None:
    kind = "scorer of patch tokens" if maps == "score_patches" else "detector of images"
    if isinstance(scorer, type):
        raise TypeError(f"{name} must be an instance, got the class {scorer.__name__}")
    methods = ("fit", "fit_predict") if getattr(scorer, "_transductive", False) else _METHODS
    advice = f"give a {kind} with {', '.join(methods)} and {maps}(X, {'=, '.join(keywords)}=)"
    missing = [m for m in (*methods, maps) if not callable(getattr(scorer, m, None))]
    a_kind = f"{name} must be a {kind}, but"
    if missing:
        raise TypeError(f"{a_kind} {type(scorer).__name__} has no {', '.join(missing)}: {advice}")
    lacking = [word for word in keywords if not _takes_keyword(getattr(scorer, maps), word)]
    if lacking:
        raise TypeError(
            f"{a_kind} {maps} of {type(scorer).__name__} takes no {', '.join(lacking)}: {advice}"
        )


def _takes_keyword(method: Any, keyword: str) -> bool:
    try:
        parameters = inspect.signature(method).parameters
    except (TypeError, ValueError):  # of a method that was written in C
        return True
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return True
    found = parameters.get(keyword)
    return found is not None and found.kind is not found.POSITIONAL_ONLY
