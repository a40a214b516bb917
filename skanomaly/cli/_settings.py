"""The model of a command line: parameters as they are typed, and what is made of them."""

from __future__ import annotations

import ast
import os
import sys
from contextlib import suppress
from pathlib import Path
from types import FunctionType
from typing import Any

import skanomaly
from skanomaly._cache import token_cache
from skanomaly._transductive import check_scores_new_images
from skanomaly.cli._options import import_plugins
from skanomaly.cli._typed import WrongUsage
from skanomaly.registry._steps import UnknownParameterError, UnknownStepError
from skanomaly.registry._table import SCORERS

_MOST_NAMED = 6
_LITERALS = (int, float, str, tuple, list, type(None))


def parse_settings(texts: list[str] | None) -> dict[str, Any]:
    """Parameters and values of ``--set name=value``.

    Parameters
    ----------
    texts : list of str or None
        Each ``"name=value"``, or ``"step__name=value"``.

    Returns
    -------
    dict of str to object
        Values are numbers, True, False, None, tuples and lists where the text is one in Python
        (``5,8`` is a tuple), else text; quotes make anything text.

    Raises
    ------
    ValueError
        For text without a name and a sign ``=``, and for a name that is given twice.

    Examples
    --------
    >>> from skanomaly.cli._settings import parse_settings
    >>> parse_settings(["layers=5,8", "knn__topk=0.01", "class_name=metal nut"])
    {'layers': (5, 8), 'knn__topk': 0.01, 'class_name': 'metal nut'}
    """
    settings: dict[str, Any] = {}
    for text in texts or ():
        name, sign, value = text.partition("=")
        name = name.strip()
        if not (name and sign):
            raise WrongUsage(f"--set takes name=value, got {text!r}")
        if name in settings:
            raise WrongUsage(f"--set {name} is given twice")
        settings[name] = _parse_value(value)
    return settings


def make_model(
    name: str,
    *,
    scorer: str | None = None,
    weights: str | None = None,
    contamination: float | None = None,
    settings: list[str] | None = None,
) -> Any:
    """The model that a person asks for, with a progress bar where they look on.

    Parameters
    ----------
    name : str
        As for :func:`skanomaly.create_model`.
    scorer, weights, contamination : object or None
        Values of the options; None leaves it to the model. `weights` is also the checkpoint of a
        model that takes one.
    settings : list of str or None
        Values of ``--set``.

    Returns
    -------
    estimator
        Not fitted.

    Raises
    ------
    ValueError
        For what the model does not take; the message has the option as the person typed it.
    TypeError
        For a model that scores no new images.
    """
    params = parse_settings(settings)
    typed = {key: f"--set {key}" for key in params}
    takes_checkpoint = (
        name in skanomaly.list_models()
        and "checkpoint_path" in skanomaly.model_info(name).parameters
    )
    if takes_checkpoint and weights is None and "checkpoint_path" not in params:
        raise ValueError(f"{name} needs --weights FILE, a checkpoint or an exported model")
    options = {
        "checkpoint_path" if takes_checkpoint else "weights": ("--weights", weights),
        "contamination": ("--contamination", contamination),
    }
    for key, (option, value) in options.items():
        if value is None:
            continue
        if key in params:
            raise WrongUsage(f"{option} and --set {key} say the same: leave one out")
        params[key], typed[key] = value, option
    try:
        model = skanomaly.create_model(name, scorer=scorer, **params)
    except UnknownParameterError as exc:
        raise ValueError(f"{typed[exc.parameter]}: {_unknown(name, exc)}") from exc
    check_scores_new_images(model)
    if sys.stderr.isatty() and not any(key.rpartition("__")[2] == "verbose" for key in params):
        _show_progress(model)
    return model


def with_region(model: Any, name: str, region: Path) -> Any:
    """A model that looks at a region only.

    Parameters
    ----------
    model : estimator
        Not fitted, as from :func:`make_model`.
    name : str
        Of the model, for messages.
    region : Path
        A mask, or a JSON file of polygons; see :class:`skanomaly.RegionOfInterest`.

    Returns
    -------
    Pipeline or ImageUnion
        With the step ``"roi"`` behind the embedder; of a union, of each member's.

    Raises
    ------
    ValueError
        When the file holds no region, or the model has no patch tokens between images and scores.
    """
    from sklearn.pipeline import Pipeline

    from skanomaly._pipelines import split_pipeline
    from skanomaly.preprocessing._regions import read_region

    if hasattr(model, "detectors"):  # a union
        members = [(called, with_region(one, called, region)) for called, one in model.detectors]
        return model.set_params(detectors=members)
    split = split_pipeline(model)
    if not isinstance(model, Pipeline) or not hasattr(split.scorer, "score_patches"):
        raise ValueError(f"--roi: {name} scores images as a whole, and no patches of them")
    if getattr(split.image_transformers[-1], "augmentation", None) is not None:
        raise ValueError(
            f"--roi: {name} learns from other views of the images too, and views may be turned, "
            "while a region is not; add --set augmentation=None"
        )
    read_region(region)  # before any image is read
    steps = list(model.steps)
    steps.insert(1, ("roi", skanomaly.RegionOfInterest(str(region))))
    return Pipeline(steps)


def load_kept(path: Path, plugins: list[str] | None, trust: list[str] | None) -> Any:
    """A model from its file, with the types and functions that its plug-ins define.

    Parameters
    ----------
    path : Path
        Of the model.
    plugins : list of str or None
        Values of ``--plugin``: whoever names a file of code to be run trusts what it defines.
    trust : list of str or None
        Values of ``--trust``.

    Returns
    -------
    estimator
    """
    names = [*(trust or ()), *_defined_by(import_plugins(plugins))]
    return skanomaly.load_model(path, trusted=names)


def options_to_load(path: Path, plugins: list[str] | None) -> list[str]:
    """The options by which a command loads the model that was just kept in a file.

    Parameters
    ----------
    path : Path
        Of the model.
    plugins : list of str or None
        Values of ``--plugin`` of the command that made it.

    Returns
    -------
    list of str
        ``--plugin`` and ``--trust``, each with its value behind it.
    """
    known = _defined_by(import_plugins(plugins))
    options = [word for source in plugins or () for word in ("--plugin", source)]
    for name in skanomaly.model_manifest(path)["trusted"]:
        if name not in known:
            options += ["--trust", name]
    return options


def check_caches(model: Any) -> None:
    """Raise before the work where a folder for tokens can never hold any.

    Parameters
    ----------
    model : estimator
        Not fitted.

    Raises
    ------
    ValueError
        As from the embedder. A folder with something in it may be one that can only be read.
    """
    for name, folder in model.get_params().items():
        if name.rpartition("__")[2] == "cache_dir":
            token_cache(folder, 1)


def _defined_by(modules):
    """Names of the types and functions that plug-ins define."""
    names = []
    for module in modules:
        for value in vars(module).values():
            of = getattr(value, "__module__", None)
            if isinstance(value, (type, FunctionType)) and f"{of}.".startswith(
                f"{module.__name__}."
            ):
                names.append(f"{of}.{value.__name__}")
    return names


def _unknown(model, error):
    """What to say of a parameter that a model does not have."""
    has_no_step = isinstance(error, UnknownStepError)
    takers, n_takers = _takers(error.parameter, with_step=has_no_step)
    if not takers:
        return error
    have = "has" if n_takers == 1 else "have"
    if has_no_step:
        return (
            f"{error}{' ' if str(error).endswith('?') else '; '}{takers} {have} {error.parameter}"
        )
    return f"{model} has no parameter {error.parameter!r}; {takers} {have} it"


def _takers(parameter, with_step):
    """The scorers and models that have a parameter, for a message, and how many they are.

    `with_step`: those alone that have it in a step of that name.
    """

    def asked(key):
        return key if with_step else key.rpartition("__")[2]

    found, n_found = [], 0
    for option, names, known in (
        (
            "--scorer",
            skanomaly.registry.list_scorers(),
            lambda name: [f"{name}__{key}" for key in SCORERS[name]().get_params()],
        ),
        ("--model", skanomaly.list_models(), lambda name: skanomaly.model_info(name).parameters),
    ):
        having = []
        for name in names:
            with suppress(Exception):  # what others registered may fail: not what was asked for
                if asked(parameter) in map(asked, known(name)):
                    having.append(name)
        n_found += len(having)
        if having:
            more = ", ..." if len(having) > _MOST_NAMED else ""
            found.append(f"{option} {', '.join(having[:_MOST_NAMED])}{more}")
    return " and ".join(found), n_found


def _parse_value(text):
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return _home(text)
    return value if isinstance(value, _LITERALS) else _home(text)


def _home(text):
    """Some shells leave a ``~`` behind ``=`` to the program."""
    return os.path.expanduser(text) if text.startswith("~/") else text


def _show_progress(model):
    """Switch on the progress bars of what reads images."""
    from skanomaly._pipelines import split_pipeline

    split = split_pipeline(model)
    for _, member in getattr(split.scorer, "detectors", ()):  # of a union
        _show_progress(member)
    for reader in split.image_transformers or (split.scorer,):
        if "verbose" in reader.get_params(deep=False):
            reader.set_params(verbose=True)
