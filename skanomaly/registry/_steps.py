"""The steps of a model: made from the table, replaced by what a person gives, and set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

from skanomaly.registry._auto import AUTO, scorer_for
from skanomaly.registry._backbones import backbone
from skanomaly.registry._plugins import import_installed_plugins
from skanomaly.registry._table import SCORERS, similar

_ROOMS = ("embedders", "preprocessing", "scorers", "detectors", "anomalib")  # of our estimators


class UnknownParameterError(ValueError):
    """A parameter that no step of a model has.

    Attributes
    ----------
    parameter : str
        Its name.
    """

    def __init__(self, message: str, parameter: str) -> None:
        super().__init__(message)
        self.parameter = parameter


class UnknownStepError(UnknownParameterError):
    """A parameter of a step that a model does not have."""


def make_steps(steps: Iterable[tuple]) -> list[tuple[str, Any]]:
    """Pairs of a name and an estimator, from the steps of an entry of the table."""
    made: list[tuple[str, Any]] = []
    for step, make, params in steps:
        if make == AUTO:
            made.append(as_scorer_step(AUTO, made[0][1]))
            continue
        if "scorers" in params:
            params = {**params, "scorers": make_steps(params["scorers"])}
        estimator = (_our_class(make) if isinstance(make, str) else make)(**params)
        made.append((step, as_transformer(estimator) if step == "emb" else estimator))
    return made


def _our_class(name):
    """One of our estimators; what defines it is imported only now."""
    rooms = (import_module(f"skanomaly.{room}") for room in _ROOMS)
    return getattr(next(room for room in rooms if name in room.__all__), name)


def as_transformer(embedder: Any) -> Any:
    """The transformer that a person means by an embedder; see `create_model` for what it may be.

    It is a clone: parameters are set on it, and the person may use theirs elsewhere.
    """
    from sklearn.base import clone

    if isinstance(embedder, str):
        return as_transformer(backbone(embedder))
    if isinstance(embedder, type):
        raise TypeError(f"embedder must be an instance, got the class {embedder.__name__}")
    if hasattr(embedder, "transform"):
        if not hasattr(embedder, "get_params"):
            raise TypeError(
                f"embedder has a transform, but {type(embedder).__name__} is no scikit-learn "
                "estimator: derive it from TransformerMixin and BaseEstimator"
            )
        return clone(embedder)
    if hasattr(embedder, "embed") or callable(embedder):
        return _our_class("FunctionPatches")(embedder)
    raise TypeError(
        "embedder must be a name, a transformer, an object with embed(path), or a function of an "
        f"image, got {embedder!r}"
    )


def as_scorer_step(scorer: Any, embedder: Any) -> tuple[str, Any]:
    """Name and estimator of the step that a scorer, or the name of one, makes.

    ``"auto"`` is the one that goes with the embedder.
    """
    from sklearn.base import clone

    from skanomaly._pipelines import check_patch_scorer, split_pipeline

    if not isinstance(scorer, str):
        check_patch_scorer(split_pipeline(scorer).scorer)
        return "scorer", clone(scorer)
    if scorer == AUTO:
        scorer = scorer_for(embedder)
    if scorer not in SCORERS:
        import_installed_plugins()
    if scorer not in SCORERS:
        raise ValueError(
            f"there is no scorer named {scorer!r}{similar(scorer, SCORERS)} Known: "
            f"{sorted([AUTO, *SCORERS])}"
        )
    made = SCORERS[scorer]()
    check_patch_scorer(split_pipeline(made).scorer, f"the scorer {scorer!r}")
    return scorer, clone(made)


def holders(steps: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The estimators whose parameters can be set, by what these begin with.

    Parameters
    ----------
    steps : iterable of (str, estimator)
        Of a model.

    Returns
    -------
    dict of str to estimator
        ``"step__"`` of each, and of a union of detectors ``"member__step__"`` too.
    """
    found = {}
    for step, estimator in steps:
        prefix = f"{step}__" if step else ""
        found[prefix] = estimator
        for name, member in getattr(estimator, "detectors", ()):
            inside = holders(getattr(member, "steps", [("", member)]))
            found |= {f"{prefix}{name}__{key}": held for key, held in inside.items()}
    return found


def fill_between(steps: list[tuple[str, Any]], params: Mapping[str, Any]) -> dict[str, Any]:
    """Put what a person asks for between embedder and scorer; return the other parameters."""
    from sklearn.base import clone

    rest = dict(params)
    for i, (step, _) in enumerate(steps[1:-1], start=1):
        if step in rest:
            given = rest.pop(step)
            if given is None or (isinstance(given, str) and given == "passthrough"):
                given = "passthrough"
            elif isinstance(given, type) or not (
                hasattr(given, "transform") and hasattr(given, "get_params")
            ):
                raise TypeError(
                    f"{step} must be a transformer of patch tokens, or None to leave it out, got "
                    f"{given!r}"
                )
            steps[i] = (step, given if isinstance(given, str) else clone(given))
        elif not any(key.startswith(f"{step}__") for key in rest):
            steps[i] = (step, "passthrough")
    return rest


def set_params(name: str, steps: list[tuple[str, Any]], params: Mapping[str, Any]) -> None:
    """Set each parameter where it belongs, in the step it names or in all that have it; check."""
    found = holders(steps)
    # What a union of detectors has itself is not set in them, such as the share of its threshold.
    union = found[""] if hasattr(found.get(""), "detectors") else None
    of_union = set() if union is None else set(union.get_params(deep=False))
    places = {}  # names that may be asked for -> (estimator, its own name of it)
    for prefix, estimator in found.items():
        for key in estimator.get_params():
            places[f"{prefix}{key}"] = [(estimator, key)]
    for prefix, estimator in found.items():
        own = estimator.get_params()
        for plain in {key.rpartition("__")[2] for key in own}:
            # Of an estimator that holds others, their parameters, unless it has one of that name.
            keys = [plain] if plain in own else [k for k in own if k.endswith(f"__{plain}")]
            names = [plain] if prefix and plain not in of_union else []
            if prefix and union is not None:  # of one member, without the step
                names += [f"{prefix.partition('__')[0]}__{plain}"]
            for called in names:
                places.setdefault(called, [])
                places[called] += [(estimator, key) for key in keys]
    for key, value in sorted(params.items(), key=lambda item: item[0].count("__")):
        if key not in places:
            alike = [place for place in places if ("__" in place) == ("__" in key)]
            step, kept = key.rpartition("__")[0], {place.rpartition("__")[0] for place in places}
            if step not in kept:
                known = sorted(kept - {""})
                raise UnknownStepError(
                    f"{name} has no parameter {key!r}, because it has no step {step!r}; its "
                    f"step{' is' if len(known) == 1 else 's are'} {', '.join(known)}"
                    f"{similar(key, alike).rstrip('.')}",
                    key,
                )
            raise UnknownParameterError(
                f"{name} has no parameter {key!r}{similar(key, alike)}", key
            )
        for estimator, own in places[key]:
            estimator.set_params(**{own: value})
    _check_topk(name, places, params)
    for _, estimator in steps:
        for part in (estimator, *estimator.get_params().values()):
            # What an estimator would say of its parameters in fit, after the images were read.
            if hasattr(type(part), "_parameter_constraints"):
                part._validate_params()


def _check_topk(name, places, params):
    """Refuse a number of patches for an image score that is not made from so many."""
    for key in params:
        if key.endswith("topk"):
            for estimator, own in places[key]:
                known = estimator.get_params()
                aggregation = known.get(f"{own.removesuffix('topk')}aggregation", "topk_mean")
                if aggregation != "topk_mean":
                    raise ValueError(
                        f"{name} has aggregation={aggregation!r}, for which {key} does not count; "
                        "pass aggregation='topk_mean' too, or leave it out"
                    )
