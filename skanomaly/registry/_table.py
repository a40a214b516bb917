"""The table of names: the models, and the scorers and embedders that anybody may register."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, TypeAlias

from skanomaly.registry._auto import AUTO
from skanomaly.registry._models import MODELS, Entry

# A class, or a function without arguments: what it returns is an estimator that is not fitted.
Factory: TypeAlias = Callable[[], Any]

SCORERS: dict[str, Factory] = {}
EMBEDDERS: dict[str, Factory] = {}

# A scorer's name becomes that of its step, beside the embedder's, among the Pipeline's parameters;
# "auto" stands for the one that goes with the embedder.
_RESERVED = ("emb", "steps", "memory", "transform_input", "verbose", AUTO)


def register_scorer(name: str, factory: Factory, *, overwrite: bool = False) -> None:
    """Give a scorer a name, by which models are made with it.

    Afterwards ``create_model(model, scorer=name)`` and ``skanomaly evaluate --scorer name`` take
    it. The command line must be told where this is called: ``--plugin FILE``, or an entry point
    of the group ``"skanomaly.plugins"`` that names a module, which is imported when a name is not
    known.

    Parameters
    ----------
    name : str
        An identifier of Python without two underscores in a row. The Pipeline's step has this
        name too.
    factory : callable
        A class, or a function without arguments, that returns a new scorer: an estimator with
        `fit`, `score_samples`, `predict` and `score_patches`, such as one derived from
        ``skanomaly.base.BasePatchScorer``.
    overwrite : bool, default=False
        Whether a scorer of that name is replaced, as in a notebook whose cell runs again.

    Raises
    ------
    ValueError
        When the name is taken, or cannot be the name of a step.
    TypeError
        When `name` is no text, or `factory` cannot be called.

    See Also
    --------
    register_embedder : The same for embedders.
    list_scorers : The names that there are.

    Examples
    --------
    >>> from skanomaly import PatchKNNScorer, create_model
    >>> from skanomaly.registry import register_scorer
    >>> register_scorer("five_nearest", lambda: PatchKNNScorer(n_neighbors=5))
    >>> create_model("filterbank", scorer="five_nearest")
    Pipeline(steps=[('emb', FilterBankPatches()),
                    ('five_nearest', PatchKNNScorer(n_neighbors=5))])
    """
    if name in _RESERVED:
        raise ValueError(f"a scorer cannot be named {name!r}: that name means something else")
    _register(SCORERS, "scorer", name, factory, overwrite)


def register_embedder(name: str, factory: Factory, *, overwrite: bool = False) -> None:
    """Give an embedder a name, by which models are made with it.

    Afterwards ``create_model(name)``, ``create_model(model, embedder=name)`` and ``skanomaly
    evaluate --model name`` take it, with the scorer ``"auto"`` unless another is asked for, and
    :func:`~skanomaly.list_models` lists it. For the command line see :func:`register_scorer`.

    Parameters
    ----------
    name : str
        An identifier of Python without two underscores in a row. It goes before a name of timm.
    factory : callable
        A class, or a function without arguments, that returns a new transformer of images into
        patch tokens, such as one derived from ``skanomaly.base.BasePatchEmbedder``; or what else
        :func:`~skanomaly.create_model` takes as an embedder.
    overwrite : bool, default=False
        Whether an embedder of that name is replaced, as in a notebook whose cell runs again.

    Raises
    ------
    ValueError
        When the name is taken by an embedder or a model, or is none.
    TypeError
        When `name` is no text, or `factory` cannot be called.

    See Also
    --------
    register_scorer : The same for scorers.

    Examples
    --------
    >>> from skanomaly import FilterBankPatches, create_model
    >>> from skanomaly.registry import register_embedder
    >>> register_embedder("small_bank", lambda: FilterBankPatches(image_size=64))
    >>> create_model("small_bank")["emb"].image_size
    64
    """
    if name in MODELS:
        raise ValueError(f"the name {name!r} is taken by a model")
    _register(EMBEDDERS, "embedder", name, factory, overwrite)


def list_scorers() -> list[str]:
    """Names of the scorers that :func:`~skanomaly.create_model` takes.

    Returns
    -------
    list of str
        Sorted: ours, and those of :func:`register_scorer`.

    Examples
    --------
    >>> from skanomaly.registry import list_scorers
    >>> {"gaussian", "knn"} <= set(list_scorers())
    True
    """
    return sorted(SCORERS)


def models() -> dict[str, Entry]:
    """The models of this package and those of the registered embedders, by name.

    Our own embedders are in it as the models that are made of them.
    """
    registered = {name: f for name, f in EMBEDDERS.items() if f not in (_filter_bank, _tiny)}
    return {**{name: _entry(factory) for name, factory in registered.items()}, **MODELS}


def known_names() -> list[str]:
    """Names of models and of embedders, for messages."""
    return [*models(), *EMBEDDERS]


def summary(factory: Factory) -> str:
    """The first line of a factory's docstring."""
    return (getattr(factory, "__doc__", None) or "").strip().partition("\n")[0]


def similar(name: object, known: Iterable[str]) -> str:
    """The end of a sentence on a name that is not known: the known ones it is close to."""
    close = get_close_matches(str(name).lower(), list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else "."


def _register(table, kind, name, factory, overwrite):
    if not isinstance(name, str):
        raise TypeError(f"a {kind} must be named by text, got {name!r}")
    if not name.isidentifier() or "__" in name:
        raise ValueError(
            f"a {kind} must be named by an identifier of Python without '__', got {name!r}"
        )
    if not callable(factory):
        raise TypeError(
            f"factory must be a class or a function that returns a new {kind}, got {factory!r}"
        )
    if name in table and not overwrite:
        raise ValueError(f"the name {name!r} is taken by another {kind}; see overwrite=")
    table[name] = factory


def _entry(factory):
    return Entry(
        summary=summary(factory),
        tags=("vision", "registered"),
        steps=(("emb", factory, {}), (AUTO, AUTO, {})),
        licence="that of your embedder",
        notes="Registered under this name by register_embedder.",
    )


# Functions, so that what they make is imported only when it is asked for.


def _knn():
    """Distance to the nearest normal patches, wherever they lie."""
    from skanomaly.scorers import PatchKNNScorer

    return PatchKNNScorer()


def _retrieval():
    """Distance to the nearest patches of the most similar normal images."""
    from skanomaly.scorers import RetrievalKNNScorer

    return RetrievalKNNScorer()


def _gaussian():
    """Distance to a Gaussian of the normal patches at each position."""
    from skanomaly.scorers import PatchGaussianScorer

    # Its components are drawn at random: seeded, so that a named model repeats its results.
    return PatchGaussianScorer(random_state=0)


def _subspace():
    """Squared distance from the principal subspace of normal patches."""
    from skanomaly.scorers import PatchSubspaceScorer

    return PatchSubspaceScorer()


def _patchwise():
    """Any outlier detector on patches, estimator=; by default a one-class SVM."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import OneClassSVM

    from skanomaly.scorers import PatchwiseScorer

    detector = make_pipeline(StandardScaler(), OneClassSVM(nu=0.1))
    # Its time grows with the square of the patches.
    return PatchwiseScorer(detector, n_patches=3000, random_state=0)


def _local():
    """Distance to the nearest normal patches near the same place, in the place's own metric."""
    from skanomaly.scorers import LocalKNNScorer

    return LocalKNNScorer()


def _mutual():
    """Distance to the patches of the other images of an unlabelled batch: fit_predict alone."""
    from skanomaly.scorers import MutualScorer

    return MutualScorer()


def _filter_bank():
    """Filter bank of edges, spots and colours."""
    from skanomaly.embedders import FilterBankPatches

    return FilterBankPatches()


def _tiny():
    """Small network of this package."""
    from skanomaly.embedders import TinyPatches

    return TinyPatches()


register_scorer("knn", _knn)
register_scorer("retrieval", _retrieval)
register_scorer("gaussian", _gaussian)
register_scorer("local", _local)
register_scorer("mutual", _mutual)
register_scorer("subspace", _subspace)
register_scorer("patchwise", _patchwise)
register_embedder("filterbank", _filter_bank)
register_embedder("tiny", _tiny)
