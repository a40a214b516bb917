"""Reading a model file."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning

from skanomaly._parameters import FROM_A_FILE
from skanomaly._typing import PathLike
from skanomaly._warn import warn_user
from skanomaly.persistence._audit import audit
from skanomaly.persistence._container import Container
from skanomaly.persistence._manifest import versions
from skanomaly.persistence._portable import check_value, without_rights
from skanomaly.persistence._tree import objects_of, put_back, values_of
from skanomaly.persistence._trusted import untrusted_error
from skanomaly.persistence._weights import restore_weights

# Those by which a model may score otherwise.
_COMPARED = ("skanomaly", "scikit-learn")


class ModelVersionWarning(UserWarning):
    """A model was saved by another version of skanomaly or scikit-learn than loads it.

    Examples
    --------
    To refuse such models:

    >>> import tempfile
    >>> import warnings
    >>> from skanomaly import PatchKNNScorer, load_model, save_model
    >>> from skanomaly.persistence import ModelVersionWarning
    >>> with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
    ...     warnings.simplefilter("error", ModelVersionWarning)
    ...     save_model(PatchKNNScorer(n_neighbors=3), f"{folder}/parts.skan")
    ...     load_model(f"{folder}/parts.skan")
    PatchKNNScorer(n_neighbors=3)
    """


def load_model(
    path: PathLike, *, trusted: Iterable[str] = (), weights_dir: PathLike | None = None
) -> Any:
    """Read an estimator from a file of :func:`~skanomaly.save_model`; no code from the file is run.

    Parameters
    ----------
    path : str or os.PathLike
        The file; ``~`` is expanded. Not a link to it.
    trusted : iterable of str, default=()
        Names of types and functions that the file may hold besides those of scikit-learn and
        skanomaly, such as ``"mine.MyScorer"``. They are imported, and used: name none that you do
        not know.
    weights_dir : str, os.PathLike or None, default=None
        Folder for weights that the file brings (`include_weights` of
        :func:`~skanomaly.save_model`), where they are left for the next time. None: the user's
        folder of caches.

    Returns
    -------
    estimator
        As it was saved. Its larger arrays are mapped from the file: they take memory as they are
        used, and the file must stay as it is while the estimator lives.

    Raises
    ------
    FileNotFoundError
        When there is no such file, or a file of weights that it refers to is missing.
    ValueError
        When it is no model file, a link, damaged, or of a newer format, or when weights that it
        refers to are others than at `fit`.
    TypeError
        When it holds types that are not trusted; the message names them.

    Warns
    -----
    ModelVersionWarning
        Where other versions of skanomaly or scikit-learn saved it; both are named.

    Notes
    -----
    What runs code or names folders to write to is not taken from a file: `trust` of a detector is
    False, and `cache_dir` None.

    Examples
    --------
    >>> import tempfile
    >>> from skanomaly import create_model, load_model, save_model
    >>> from skanomaly.datasets import make_surfaces
    >>> images = make_surfaces(6, image_size=64, random_state=0).images
    >>> model = create_model("filterbank", image_size=64).fit(images)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(model, f"{folder}/disc.skan")
    ...     loaded = load_model(f"{folder}/disc.skan")
    ...     bool((loaded.predict(images) == model.predict(images)).all())
    True
    """
    names = trusted if isinstance(trusted, str) else list(trusted)
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"trusted must be a list of names, got {trusted!r}")
    with Container(path) as file:
        # All of scikit-learn, which a file that is refused before need not wait for.
        from skanomaly.persistence._skops import skops_io

        try:
            data, arrays = file.tree(), file.arrays()
            known, unknown = audit(data, names)
        except Exception as exc:  # whatever is met in a made-up file
            raise file.refused(exc) from exc
        if unknown:
            raise untrusted_error(file.path, unknown)
        try:
            with warnings.catch_warnings():  # one warning for all of the file, below
                warnings.simplefilter("ignore", InconsistentVersionWarning)
                token = FROM_A_FILE.set(True)
                try:
                    estimator = put_back(skops_io.loads(data, trusted=known), arrays)
                finally:
                    FROM_A_FILE.reset(token)
            if not isinstance(estimator, BaseEstimator):
                raise ValueError(f"it holds a {type(estimator).__name__}, no estimator")
            for value in objects_of(estimator):
                vars(value).update(without_rights(value, vars(value)))
            for value in values_of(estimator):
                check_value(value)
        except ImportError as exc:
            raise ImportError(
                f"{file.path} needs a module that is not here: {exc}. Install it or put its folder "
                "on PYTHONPATH; on the command line, name its file with --plugin FILE"
            ) from exc
        except Exception as exc:
            raise file.refused(exc) from exc
        try:
            restore_weights(estimator, file, weights_dir)
        except (LookupError, TypeError, AttributeError) as exc:
            raise file.refused(exc) from exc
        _warn_of_versions(file)
    return estimator


def model_manifest(path: PathLike) -> dict[str, Any]:
    """What a model file says of its model; nothing of the model is made.

    Parameters
    ----------
    path : str or os.PathLike
        A file of :func:`~skanomaly.save_model`; ``~`` is expanded.

    Returns
    -------
    dict
        Plain values, as the file has them in JSON.

    Raises
    ------
    FileNotFoundError, ValueError
        As from :func:`~skanomaly.load_model`.

    Examples
    --------
    >>> import tempfile
    >>> from skanomaly import create_model, model_manifest, save_model
    >>> from skanomaly.datasets import make_surfaces
    >>> images = make_surfaces(6, image_size=64, random_state=0).images
    >>> model = create_model("filterbank", image_size=64).fit(images)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(model, f"{folder}/disc.skan")
    ...     manifest = model_manifest(f"{folder}/disc.skan")
    >>> manifest["calibration"]["threshold"] == model[-1].offset_
    True
    """
    with Container(path) as file:
        return file.manifest


def _warn_of_versions(file: Container) -> None:
    saved, here = file.manifest.get("versions", {}), versions()
    if any(saved.get(name) != here[name] for name in _COMPARED):
        by, now = (
            " and ".join(f"{name} {of.get(name)}" for name in _COMPARED) for of in (saved, here)
        )
        warn_user(
            f"{file.path} was saved by {by}, and is loaded by {now}: its scores may not be those "
            "that it was calibrated on. Fit it again, or install those versions",
            ModelVersionWarning,
        )
