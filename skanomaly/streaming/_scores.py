"""Images judged one after the other, however many there are."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import numpy as np
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from skanomaly._faults import is_of_an_image
from skanomaly._images import ImageReadError, iterate_images, load_image
from skanomaly._images.names import path_of
from skanomaly._origins import Origin, set_origin
from skanomaly._parameters import check_integer
from skanomaly._pipelines import SplitPipeline, check_embedder, offset_of, split_pipeline
from skanomaly._token_stream import stack_tokens
from skanomaly._typing import ImageLike
from skanomaly.decisions import Decision
from skanomaly.decisions._decide import decisions_of

_BLOCK_BYTES = 2**25  # of tokens that are scored at a time


@dataclass(frozen=True)
class Failure:
    """An image that could not be judged.

    Parameters
    ----------
    index : int
        Number of the image in the input.
    image : image
        As it was given. It does not count when failures are compared.
    error : str
        What is wrong with it.

    Examples
    --------
    >>> from skanomaly.streaming import Failure
    >>> Failure(3, "part.png", "Cannot read image 3 ('part.png'): path not found").to_dict()
    {'index': 3, 'image': 'part.png', 'error': "Cannot read image 3 ('part.png'): path not found"}
    """

    index: int
    image: ImageLike = field(compare=False, repr=False)
    error: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON.

        Returns
        -------
        dict of str to object
            `index`, `image` (its path, or None) and `error`.
        """
        return {"index": self.index, "image": path_of(self.image), "error": self.error}


def iter_scores(
    estimator: Any,
    images: Iterable[ImageLike],
    *,
    batch_size: int = 16,
    on_error: Literal["raise", "record"] = "raise",
) -> Generator[Decision | Failure, None, None]:
    """Judge images one after the other, however many there are.

    Parameters
    ----------
    estimator : Pipeline or detector
        As for :func:`skanomaly.decide`: a fitted Pipeline of an embedder and a scorer, a detector
        of images, or a search of either.
    images : iterable of images
        Paths, bytes, PIL images or arrays: a list, or whatever gives one after the other, such as a
        generator of the frames of a camera. It is asked for images by the thread that asks for
        decisions. Of what is no list, tuple or array, arrays and buffers of bytes are copied as
        they come, so that a camera may fill one buffer again and again.
    batch_size : int, default=16
        Images that are scored at a time. Of a generator at most two batches, and an image for each
        reading thread, are asked for ahead of the decisions that were had; with 1 each image is
        judged before the next one is asked for.
    on_error : {"raise", "record"}, default="raise"
        What happens at an image that cannot be read or scored: an error once those before it were
        had, or a :class:`Failure` in its place.

    Returns
    -------
    generator of Decision or Failure
        One of each image, in their order.

        `image` of what was copied is the copy.

    Raises
    ------
    TypeError
        When the estimator scores no images or has no threshold, or `images` is a single one.
    ValueError
        An image cannot be read (:class:`skanomaly.ImageReadError`) or scored: the message names its
        number in the whole input, and its path.

    Notes
    -----
    Scores are those of ``estimator.score_samples(images)``, whatever the batch size. Images are
    read and decoded by threads, ahead of the work on those before them; detectors of images, and
    Pipelines with a step before the embedder, read ahead within a batch only. Where the generator
    is closed before its end, so are the threads.

    What is no fault of an image is raised whatever `on_error` is: wrong parameters, a scorer of
    other features, a cache that cannot be used, a detector that is not fitted or has changed since,
    want of memory, a step that fails, and what the iterable itself raises, once the images before
    were judged. An image is at fault where it cannot be read, is too large, of a grid that the
    model has no Gaussians for, or all masked, and where its tokens or its score are not finite.
    Functions and inferencers are given one image each: by a ValueError they say that it is of no
    use to them. Steps of your own say so by an :class:`skanomaly.ImageReadError`.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchKNNScorer, iter_scores
    >>> from skanomaly.datasets import make_surfaces
    >>> surfaces = make_surfaces(9, 1, image_size=64, random_state=0)
    >>> pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer())
    >>> pipe = pipe.fit(surfaces.images[:9])
    >>> camera = (image for image in surfaces.images)
    >>> [decision.index for decision in iter_scores(pipe, camera) if decision.is_anomalous]
    [9]
    """
    batch_size = check_integer(batch_size, "batch_size", 1)
    if on_error not in ("raise", "record"):
        raise ValueError(f"on_error must be 'raise' or 'record', got {on_error!r}")
    split = split_fitted(estimator)
    items = iterate_images(images)
    if not isinstance(images, (list, tuple, np.ndarray)):  # which hold all images at once
        items = map(_copied, items)
    return _judge(split, _Pulled(enumerate(items)), batch_size, on_error == "record")


def iter_numbered(
    split: SplitPipeline, numbered: Iterable[tuple[int, ImageLike]], batch_size: int
) -> Generator[Decision | Failure, None, None]:
    """As :func:`iter_scores` that records failures, with numbers of a longer input, in order."""
    return _judge(split, _Pulled(iter(numbered)), batch_size, record=True)


def split_fitted(estimator: Any) -> SplitPipeline:
    """The steps of a fitted detector that has a threshold; an error of any other."""
    split = split_pipeline(estimator)
    check_embedder(split)
    check_is_fitted(estimator)
    offset_of(split.scorer)
    return split


def _copied(item: Any) -> Any:
    """An image that stays as it is whatever its memory is used for next."""
    if isinstance(item, np.ndarray):
        return item.copy()
    if isinstance(item, (bytearray, memoryview)):
        return bytes(item)
    # One of a file has memory of its own; one that was made of an array may share that.
    return item.copy() if type(item) is Image.Image else item


class _Pulled:
    """Images that were asked for, until they are judged.

    Attributes
    ----------
    waiting : dict of int to image
        By number, in order.
    """

    def __init__(self, numbered: Iterator[tuple[int, Any]]) -> None:
        self.waiting: dict[int, Any] = {}
        self._images = numbered
        self._error: Exception | None = None
        self._ended = False

    def __bool__(self) -> bool:
        """Whether an image waits, or else comes; raises what ended them, after the last one."""
        if self.waiting or self._pull():
            return True
        if self._error is not None:
            raise self._error
        return False

    def numbers(self) -> Iterator[int]:
        """Of the images that wait, and then of those that come."""
        yield from list(self.waiting)
        while self._pull():
            yield next(reversed(self.waiting))

    def _pull(self) -> bool:
        if not self._ended:
            try:
                number, item = next(self._images)
                self.waiting[number] = item
                return True
            except StopIteration:
                self._ended = True
            except Exception as exc:  # those before it are judged first
                self._ended, self._error = True, exc
        return False


def _judge(
    split: SplitPipeline, pulled: _Pulled, batch_size: int, record: bool
) -> Generator[Decision | Failure, None, None]:
    n_suspect = 0  # of the images that wait, one of which is at fault: each is judged by itself
    while pulled:
        size = 1 if n_suspect else batch_size
        with closing(_batches(split, pulled, size)) as batches:
            decisions, error = _next(batches)
            while decisions:
                yield from decisions
                decisions, error = _next(batches)
        n_suspect = max(0, n_suspect - 1)
        if error is not None and size > 1:
            n_suspect = len(pulled.waiting)
        elif error is not None:
            n_suspect, number = 0, next(iter(pulled.waiting))
            item = pulled.waiting.pop(number)
            if not _is_at_fault(item, error, split.value_range):
                raise error
            located = _located(error, number, item, split.value_range)
            if not record:
                raise located
            yield Failure(number, item, str(located))


def _next(batches):
    """Decisions of a batch, or an error that may be for one of its images; None at the end."""
    try:
        return next(batches, None), None
    except NotFittedError:
        raise
    except (ValueError, OSError) as exc:
        return None, exc
    except RuntimeError as exc:
        if exc.__cause__ is None:  # else what the inferencer of a user raised
            raise
        return None, exc


def _batches(split, pulled, size):
    """Decisions of the images that wait and that come, batch by batch; of one image for size 1."""
    numbers = islice(pulled.numbers(), 1 if size == 1 else None)
    waiting = pulled.waiting
    embedded = _tokens_of_each(split, waiting, numbers, size)
    if embedded is None:
        while part := list(islice(numbers, size)):
            decisions = decisions_of(split, [waiting[i] for i in part], numbers=part)
            for i in part:
                del waiting[i]
            yield decisions
        return
    tokens, origin = embedded
    with closing(tokens):
        for block in _blocks(tokens, size):
            if origin is not None:
                set_origin(block, origin)
            part = list(islice(waiting, len(block)))
            decisions = decisions_of(split, [waiting[i] for i in part], block, part)
            for i in part:
                del waiting[i]
            del block  # while the next one is embedded
            yield decisions


def _tokens_of_each(
    split: SplitPipeline, images: Mapping[int, Any], numbers: Iterable[int], at_once: int
) -> tuple[Any, Origin | None] | None:
    """Tokens of images that come one at a time, and what they depend on, where that is known.

    None where a step may want to see the images themselves, or several at once.
    """
    *before, embedder = split.image_transformers or (None,)
    if before or not getattr(embedder, "_takes_iterators", False):
        return None
    if split.token_transformers and not getattr(split.scorer, "_takes_streams", False):
        return None
    tokens, origin = embedder._embed_each(images, numbers, at_once)
    for transformer in split.token_transformers:
        tokens, origin = _transformed(transformer, tokens), None
    return tokens, origin


def _transformed(transformer, tokens):
    return (np.asarray(transformer.transform(of_image[None]))[0] for of_image in tokens)


def _blocks(tokens, size):
    """Tokens of so many images, or of fewer that have many."""
    waiting, n_bytes = [], 0
    for of_image in tokens:
        waiting.append(of_image)
        n_bytes += of_image.nbytes
        if len(waiting) == size or n_bytes >= _BLOCK_BYTES:
            yield stack_tokens(waiting)
            waiting, n_bytes = [], 0
    if waiting:
        yield stack_tokens(waiting)


def _is_at_fault(item, error, value_range):
    """Whether an image that was judged by itself is to blame."""
    if isinstance(error, ImageReadError) or is_of_an_image(error):
        return True
    try:  # whoever else reads it fails as he pleases
        load_image(item, value_range=value_range)
    except ImageReadError:
        return True
    return False


def _located(error, number, item, value_range):
    """An error of an image that was judged by itself, with its number and path."""
    text = str(error)
    if isinstance(error, ImageReadError):
        if f"image {number} " in text:
            return error
        try:
            load_image(item, number, value_range)
        except ImageReadError as exc:
            return exc
    path = path_of(item)
    where = f"image {number}" if path is None else f"image {number} ({path!r})"
    text = text.removeprefix("image 0" + where.removeprefix(f"image {number}") + ": ")
    if path is None or path not in text:
        text = re.sub(r"\bimage 0\b", f"image {number}", text)
    located = ValueError(f"{where}: {text}")
    located.__cause__ = error
    return located
