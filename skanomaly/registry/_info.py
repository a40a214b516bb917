"""What there is: the names of the models, and what is known of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from skanomaly.registry._steps import make_steps
from skanomaly.registry._table import models, similar


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model.

    Parameters
    ----------
    name : str
        For :func:`~skanomaly.create_model`.
    summary : str
        What it is, in a line.
    tags : tuple of str
        For :func:`~skanomaly.list_models`.
    extras : tuple of str
        Extras of this package that it needs: ``pip install "skanomaly[EXTRA]"``.
    paper : str
        Where it was published; empty if nowhere.
    licence : str
        Of the weights it takes by default.
    notes : str
        What differs from the paper, and what to know.
    image_size : int or None
        Side in pixels to which images are brought by default; None where a checkpoint or a
        registered embedder decides.
    parameters : mapping of str to object
        Parameters of each step, as ``step__parameter``, with the values that
        :func:`~skanomaly.create_model` gives them.

    Examples
    --------
    >>> from skanomaly import model_info
    >>> model_info("vision_anomalydino").image_size
    448
    """

    name: str
    summary: str
    tags: tuple[str, ...]
    extras: tuple[str, ...]
    paper: str
    licence: str
    notes: str
    image_size: int | None
    parameters: Mapping[str, Any] = field(repr=False)


def list_models(tags: str | Iterable[str] | None = None) -> list[str]:
    """Names of the models.

    Nothing is imported for it: models whose extra is not installed are listed too, and the
    embedders that were registered until now (by the tag ``"registered"``).

    Parameters
    ----------
    tags : str, iterable of str or None, default=None
        Only models that have all of them, such as ``("zero-shot", "openclip")``.

    Returns
    -------
    list of str
        Sorted.

    Raises
    ------
    ValueError
        For a tag that no model has.

    Examples
    --------
    >>> from skanomaly import list_models
    >>> list_models("zero-shot")
    ['vision_openclip_promptscore', 'vision_winclip']
    """
    wanted = [] if tags is None else [tags] if isinstance(tags, str) else list(tags)
    entries = models()
    known = sorted({"registered", *(tag for entry in entries.values() for tag in entry.tags)})
    for tag in wanted:
        if tag not in known:
            raise ValueError(f"no model has the tag {tag!r}{similar(tag, known)} Known: {known}")
    return sorted(name for name, entry in entries.items() if set(wanted) <= set(entry.tags))


def model_info(name: str) -> ModelInfo:
    """What is known of a model.

    Parameters
    ----------
    name : str
        From :func:`~skanomaly.list_models`.

    Returns
    -------
    ModelInfo
        Its source, its needs and its parameters; nothing is downloaded for it.

    Raises
    ------
    ValueError
        For an unknown name.

    Examples
    --------
    >>> from skanomaly import model_info
    >>> model_info("vision_padim").extras
    ('torch',)
    >>> model_info("vision_padim").parameters["gaussian__n_components"]
    100
    """
    entries = models()
    if name not in entries:
        raise ValueError(
            f"there is no model named {name!r}{similar(name, entries)} See list_models()"
        )
    entry = entries[name]
    parameters = {
        f"{step}__{key}" if step else key: value
        for step, estimator in make_steps(entry.steps)
        for key, value in estimator.get_params().items()
        if key != "scorers" and not hasattr(value, "get_params")
    }
    return ModelInfo(
        name=name,
        summary=entry.summary,
        tags=entry.tags,
        extras=entry.extras,
        paper=entry.paper,
        licence=entry.licence,
        notes=entry.notes,
        image_size=entry.image_size,
        parameters=MappingProxyType(parameters),
    )
