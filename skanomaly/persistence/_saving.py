"""Writing a model file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator

from skanomaly._images.training import TrainingImages
from skanomaly._typing import PathLike
from skanomaly._warn import warn_user
from skanomaly.persistence._audit import audit
from skanomaly.persistence._container import write_container
from skanomaly.persistence._manifest import describe
from skanomaly.persistence._portable import check_value, without_rights
from skanomaly.persistence._tree import take_out, values_of
from skanomaly.persistence._weights import weights_of


class ModelTrustWarning(UserWarning):
    """A model was saved that can only be loaded by naming some of what it holds.

    Examples
    --------
    >>> import tempfile
    >>> import warnings
    >>> from colorsys import rgb_to_hsv
    >>> from skanomaly import FunctionPatches, save_model
    >>> with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as told:
    ...     warnings.simplefilter("always")
    ...     save_model(FunctionPatches(rgb_to_hsv), f"{folder}/hue.skan")
    >>> [warning.category.__name__ for warning in told]
    ['ModelTrustWarning']
    """


def save_model(
    estimator: Any, path: PathLike, *, include_weights: bool = False, image_paths: bool = True
) -> None:
    """Write an estimator to a file that :func:`~skanomaly.load_model` reads without running code.

    Parameters
    ----------
    estimator : estimator
        Any of this package, alone, in Pipelines, or in a search such as `GridSearchCV`; with
        scikit-learn's transformers. Fitted, as a rule.
    path : str or os.PathLike
        The file, by custom with the suffix ``.skan``; ``~`` is expanded. A model file that is there
        is replaced once the new one is whole; any other file, and a link, is an error.
    include_weights : bool, default=False
        Put the weights of pretrained networks, and checkpoints, into the file, so that a computer
        without network needs nothing else.
    image_paths : bool, default=True
        Keep where the training images lay. False: their digests alone.

    Raises
    ------
    FileExistsError
        When `path` is a file that is no model, or a link.
    TypeError
        When `estimator` is none, or holds what cannot be written, such as a lambda, or the grid of
        a search over what is not kept.
    OSError, ValueError
        When the file cannot be written, or with `include_weights` weights are not to be had.

    Warns
    -----
    ModelTrustWarning
        Where whoever loads the file has to name types or functions (`trusted` of
        :func:`~skanomaly.load_model`); the message names them.

    Notes
    -----
    Folders of caches (`cache_dir`, and `memory` of a Pipeline) and `trust` of a detector are not
    kept. All other parameters are, and can be read by whoever has the file, paths among them.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from skanomaly import PatchKNNScorer, load_model, save_model
    >>> tokens = np.random.default_rng(0).normal(size=(20, 8, 8, 16)) + 3
    >>> scorer = PatchKNNScorer().fit(tokens)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(scorer, f"{folder}/bottle.skan")
    ...     loaded = load_model(f"{folder}/bottle.skan")
    >>> bool((loaded.score_samples(tokens) == scorer.score_samples(tokens)).all())
    True
    """
    if not isinstance(estimator, BaseEstimator) or isinstance(estimator, type):
        raise TypeError(
            f"estimator must be an estimator of scikit-learn or skanomaly, got "
            f"{type(estimator).__name__}"
        )
    from skanomaly.persistence._skops import skops_io  # imports all of scikit-learn

    place = Path(path).expanduser()
    try:
        tree, arrays = take_out(estimator, _edit(image_paths))
        data = skops_io.dumps(tree)
        for value in values_of(tree):
            check_value(value)
        _, unknown = audit(data)
    except RecursionError as exc:
        raise TypeError(f"{type(estimator).__name__} cannot be saved: it holds itself") from exc
    except (TypeError, ValueError, AttributeError) as exc:
        raise TypeError(f"{type(estimator).__name__} cannot be saved: {exc}") from exc
    manifest = describe(estimator, image_paths=image_paths)
    manifest["arrays"] = {"count": len(arrays), "bytes": sum(array.nbytes for array in arrays)}
    manifest["weights"], files = weights_of(estimator, include=include_weights)
    manifest["trusted"] = unknown
    if unknown:
        warn_user(
            f"{place} holds {', '.join(unknown)}: what is neither of this package nor among the "
            "types of scikit-learn that it trusts has to be named by whoever loads the file, "
            f"load_model(path, trusted={unknown}), or on the command line by --plugin FILE or "
            "--trust NAME",
            ModelTrustWarning,
        )
    write_container(place, manifest, data, arrays, files)


def _edit(image_paths: bool) -> Callable[[Any, dict[str, Any]], dict[str, Any]]:
    def edit(value: Any, state: dict[str, Any]) -> dict[str, Any]:
        if isinstance(value, TrainingImages) and not image_paths:
            return {**state, "paths": (None,) * len(value)}
        return without_rights(value, state)

    return edit
