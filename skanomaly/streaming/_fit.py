"""Models of any number of images, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from sklearn.base import clone
from sklearn.utils.validation import check_consistent_length

from skanomaly._images import check_images, iterate_images, warn_of_small_range
from skanomaly._pipelines import SplitPipeline, check_embedder, split_pipeline
from skanomaly._typing import Groups, ImageLike, Labels

_Estimator = TypeVar("_Estimator")


def fit_stream(
    estimator: _Estimator,
    images: Iterable[ImageLike],
    y: Labels = None,
    groups: Groups = None,
) -> _Estimator:
    """Fit a Pipeline to any number of images without ever holding the tokens of all.

    Parameters
    ----------
    estimator : Pipeline
        An embedder, steps that mask patches if there are any, and a :class:`PatchKNNScorer`,
        :class:`PatchGaussianScorer` or :class:`PatchSubspaceScorer`. It is fitted itself, as by
        its `fit`.
    images : iterable of images
        As for `fit`: a list, an array or a Series, or another iterable that can be gone through
        more than once. Give paths: images that are in memory stay there.
    y : array-like of shape (n_images,), optional
        As for `fit`: +1 for normal, -1 for anomalous images, which do not enter the model and are
        not embedded.
    groups : sequence of hashable, optional
        A label for each image, such as the number of the part that it shows: images of one are held
        out together.

    Returns
    -------
    estimator
        The fitted Pipeline.

    Raises
    ------
    TypeError
        When a step cannot be fitted so, which the message names, or `images` is a generator or
        another iterator, which gives its images once only.
    ValueError
        When the parameters of the scorer need all tokens at once, there are fewer than two images
        or groups, a bank of all patches would not fit into memory, or an image cannot be read
        (:class:`skanomaly.ImageReadError`).

    See Also
    --------
    iter_scores : Judge any number of images.

    Notes
    -----
    What is the same as from `fit`, and what is not:

    - Gaussians and subspaces: the same model and threshold, to 1e-6. Moments are summed up fold by
      fold; then all images are embedded once more, and each scored by the model of the other folds.
    - A bank of all patches: the same to the bit. It takes the memory of all tokens, once: where
      there is less, that is an error after the first image.
    - A coreset: chosen among candidates, four times as many as it has patches or as many as take
      256 MB, whichever are more. Up to so many patches it is that of `fit`; beyond, all patches lie
      within 1.2 times its covering radius as measured, and `coverage_radius_` is a bound by the
      triangle inequality, up to about four times as large. It depends on the order of the images.
      It is calibrated on images of about 2**17 patches, at even steps, by coresets of the others;
      other training images are scored again as new ones.

    Images that are calibrated on are embedded twice: `cache_dir` of the embedder saves the second
    time. The same images in the same order give the same model to the bit, whatever `batch_size`
    the embedder has, as far as their tokens are the same.

    Beyond the model, memory is taken for the candidates or moments, for 400 MB of tokens, and for
    64 bytes a patch by which training images are known again.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchSubspaceScorer, fit_stream
    >>> from skanomaly.datasets import make_surfaces
    >>> surfaces = make_surfaces(20, 1, image_size=64, random_state=0)
    >>> pipe = make_pipeline(FilterBankPatches(image_size=64), PatchSubspaceScorer())
    >>> fit_stream(pipe, surfaces.images[:20]).predict(surfaces.images[20:])
    array([-1])
    """
    split = check_streams(estimator)
    if isinstance(images, Iterator):
        raise TypeError(
            f"images is a {type(images).__name__}, which gives its images once, and those that the "
            "threshold rests on are needed twice: give a list of paths"
        )
    items = check_images(list(iterate_images(images)))
    if groups is not None:
        groups = list(groups)
        check_consistent_length(items, groups)
    (embedder,) = split.image_transformers
    spans: list[Any] = []
    stream = embedder._fit_stream(items, spans)
    for step in split.token_transformers:
        stream = step._fit_stream(stream)
    split.scorer._fit_stream(stream, y, groups)
    if split.value_range is None:
        warn_of_small_range(spans)
    return estimator


def check_streams(estimator: Any) -> SplitPipeline:
    """Raise where an estimator cannot be fitted by :func:`fit_stream`.

    Parameters
    ----------
    estimator : estimator

    Returns
    -------
    SplitPipeline
        Its steps.

    Raises
    ------
    TypeError
        The message names the step.
    ValueError
        When the parameters of the scorer need all tokens at once.
    """
    if hasattr(estimator, "refit"):
        raise TypeError(
            f"{type(estimator).__name__} fits many models: search on some of the images, and fit "
            "its best_estimator_ to all by fit_stream"
        )
    split = split_pipeline(estimator)
    steps = (*split.transformers, split.scorer)
    for step in steps:
        if not hasattr(step, "_fit_stream"):
            raise TypeError(
                f"{type(step).__name__} cannot be fitted to a stream of images: fit_stream takes "
                "an embedder of this package, steps that mask patches, and PatchKNNScorer, "
                "PatchGaussianScorer or PatchSubspaceScorer; fit the others by fit"
            )
    check_embedder(split)
    if len(split.image_transformers) > 1:
        raise TypeError(
            f"{type(split.image_transformers[0]).__name__} stands before the embedder: fit_stream "
            "takes Pipelines that begin with an embedder"
        )
    name, problem = type(split.scorer).__name__, split.scorer._problem_of_streams
    if problem is not None:
        raise ValueError(f"{name} cannot be fitted to a stream of images: {problem}")
    return split


def token_bytes(estimator: Any, images: Sequence[ImageLike]) -> int:
    """What the tokens of all images would take, as the first one tells.

    Parameters
    ----------
    estimator : Pipeline
        One that :func:`check_streams` lets pass. It is left as it is.
    images : sequence of images
        At least one.

    Returns
    -------
    int
        Bytes.
    """
    (embedder,) = split_pipeline(estimator).image_transformers
    return len(images) * clone(embedder)._fit_stream([images[0]], [])[0].nbytes
