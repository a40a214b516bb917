"""Models by name: what there is, and how to make one."""

from dataclasses import dataclass, field
from types import MappingProxyType

import skanomaly
from skanomaly._optional import require_optional
from skanomaly.registry._backbones import backbone
from skanomaly.registry._models import FILTER_BANK_SCORER, MODELS, similar

# The module by which an extra is recognised.
_MODULES = {
    "torch": "timm",
    "clip": "open_clip",
    "anomalib": "anomalib",
    "onnx": "onnxruntime",
    "openvino": "openvino",
}
_INSTEAD = ("text_features_normal", "text_features_anomaly", "inferencer")


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model.

    Attributes
    ----------
    name : str
        For :func:`create_model`.
    summary : str
        What it is, in a line.
    tags : tuple of str
        For :func:`list_models`.
    extras : tuple of str
        Extras of this package that it needs: ``pip install "skanomaly[EXTRA]"``.
    paper : str
        Where it was published; empty if nowhere.
    licence : str
        Of the weights it takes by default.
    notes : str
        What differs from the paper, and what to know.
    image_size : int or None
        Side in pixels to which images are brought by default; None where a checkpoint decides.
    parameters : mapping of str to object
        Parameters of each step, as ``step__parameter``, with the values that
        :func:`create_model` gives them.

    Examples
    --------
    >>> from skanomaly import model_info
    >>> model_info("vision_anomalydino").image_size
    448
    """

    name: str
    summary: str
    tags: tuple
    extras: tuple
    paper: str
    licence: str
    notes: str
    image_size: int | None
    parameters: MappingProxyType = field(repr=False)


def list_models(tags=None):
    """Names of the models.

    Nothing is imported for it: models whose extra is not installed are listed too.

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
    known = sorted({tag for entry in MODELS.values() for tag in entry.tags})
    for tag in wanted:
        if tag not in known:
            raise ValueError(f"no model has the tag {tag!r}{similar(tag, known)} Known: {known}")
    return sorted(name for name, entry in MODELS.items() if set(wanted) <= set(entry.tags))


def model_info(name):
    """What is known of a model.

    Parameters
    ----------
    name : str
        From :func:`list_models`.

    Returns
    -------
    ModelInfo

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
    entry = _entry(name)
    parameters = {
        f"{step}__{key}" if step else key: value
        for step, estimator in _make(entry.steps)
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


def create_model(name, *, embedder=None, scorer=None, **params):
    """Make a model by its name.

    Parameters
    ----------
    name : str
        From :func:`list_models`. Or a backbone: ``"filterbank"``, a name of
        :class:`~skanomaly.DinoV2Patches`, ``"MODEL/TAG"`` of open_clip, or a name of timm; it gets
        the scorer ``"knn"`` (the filter bank ``"gaussian"``).
    embedder : transformer, object with ``embed``, callable or None, default=None
        In place of the model's own embedder. An object's ``embed(path)`` returns the patch tokens
        of an image: (grid_h, grid_w, dim), or (patches, dim) of a square grid; or what
        :class:`~skanomaly.FunctionPatches` takes.
    scorer : {"knn", "gaussian"}, estimator or None, default=None
        In place of the model's own scorer: one with `score_patches`, or by name
        :class:`~skanomaly.PatchKNNScorer` or :class:`~skanomaly.PatchGaussianScorer`.
    **params
        Parameters of the steps, as ``step__parameter`` or by their plain name. What several steps
        have by that name, such as `model_name` of an embedder and a scorer of texts, is set in all
        of them, but for one that is named with its step too.

    Returns
    -------
    Pipeline or AnomalibDetector
        Not fitted. The Pipeline has the step ``"emb"`` and one named after the scorer.

    Raises
    ------
    ValueError
        For an unknown name or parameter; the message names similar ones.
    TypeError
        When `embedder` or `scorer` is nothing that can serve.
    ImportError
        When an extra is not installed; the message names it. Not raised where `embedder`, text
        features or an `inferencer` are given, which may make it needless.
    FileNotFoundError
        When `checkpoint_path` is no file.

    Examples
    --------
    >>> from skanomaly import create_model
    >>> create_model("vision_filterbank", contamination=0.05)
    Pipeline(steps=[('emb', FilterBankPatches()),
                    ('gaussian', PatchGaussianScorer(contamination=0.05, ...))])

    An embedder of one's own:

    >>> import numpy as np
    >>> class Brightness:
    ...     def embed(self, image):
    ...         return image.reshape(4, 8, 4, 8, 3).mean(axis=(1, 3))
    >>> images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    >>> pipe = create_model("vision_openclip_patchknn", embedder=Brightness(), contamination=0.5)
    >>> pipe.fit(images).score_samples(images).shape
    (6,)
    """
    from sklearn.pipeline import Pipeline

    steps = _model_steps(name, embedder, scorer, params)
    _set_params(name, steps, params)
    if len(steps) == 1:
        return steps[0][1]
    return Pipeline(steps)


def embedder_of(name):
    """The embedder that a model, or a backbone, has by default; None of a detector.

    Parameters
    ----------
    name : str
        As for :func:`create_model`.

    Returns
    -------
    transformer or None

    Raises
    ------
    ValueError
        For an unknown name.
    """
    steps = _make(MODELS[name].steps) if name in MODELS else _backbone_steps(name)
    return steps[0][1] if len(steps) > 1 else None


def _model_steps(name, embedder, scorer, params):
    """Pairs of a name and an estimator."""
    if name in MODELS:
        entry = MODELS[name]
        if len(entry.steps) == 1 and not (embedder is None and scorer is None):
            raise ValueError(f"{name} is one detector: it takes neither embedder nor scorer")
        if embedder is None:
            _require_extras(name, entry, params)
        steps = _make(entry.steps)
    else:
        steps = _backbone_steps(name)
    if embedder is not None:
        steps[0] = ("emb", _as_transformer(embedder))
    if scorer is not None:
        steps[-1] = _as_scorer(scorer, steps[0][1])
    return steps


def _make(steps):
    made = []
    for step, cls, params in steps:
        if "scorers" in params:
            params = {**params, "scorers": _make(params["scorers"])}
        made.append((step, getattr(skanomaly, cls)(**params)))
    return made


def _backbone_steps(name):
    if not isinstance(name, str) or name.startswith("vision_"):
        _entry(name)  # raises
    step = backbone(name)
    return [("emb", step), _as_scorer("gaussian" if name == "filterbank" else "knn", step)]


def _entry(name):
    if name not in MODELS:
        raise ValueError(
            f"there is no model named {name!r}{similar(name, list_models())} See list_models()"
        )
    return MODELS[name]


def _require_extras(name, entry, params):
    """Say at once what is missing, where nothing was given that may make it needless."""
    if any(params.get(key) is not None for key in _INSTEAD):
        return
    extras = entry.extras
    if "anomalib" in extras and params.get("checkpoint_path") is not None:
        from skanomaly.anomalib._files import checkpoint_kind

        # An exported graph needs its runtime alone.
        kind = checkpoint_kind(params["checkpoint_path"])
        extras = (kind,) if kind in ("onnx", "openvino") else extras
    for extra in extras:
        require_optional(_MODULES[extra], extra, name)


def _as_transformer(embedder):
    if isinstance(embedder, type):
        raise TypeError(f"embedder must be an instance, got the class {embedder.__name__}")
    if hasattr(embedder, "transform"):
        if not hasattr(embedder, "get_params"):
            raise TypeError(
                f"embedder has a transform, but {type(embedder).__name__} is no scikit-learn "
                "estimator: derive it from TransformerMixin and BaseEstimator"
            )
        return embedder
    if hasattr(embedder, "embed") or callable(embedder):
        return skanomaly.FunctionPatches(embedder)
    raise TypeError(
        "embedder must be a transformer, an object with embed(path), or a function of an image, "
        f"got {embedder!r}"
    )


def _as_scorer(scorer, embedder):
    """Name and estimator of the last step."""
    if scorer == "knn":
        return "knn", skanomaly.PatchKNNScorer()
    if scorer == "gaussian":
        filter_bank = isinstance(embedder, skanomaly.FilterBankPatches)
        components = {} if filter_bank else {"n_components": 128}
        return scorer, skanomaly.PatchGaussianScorer(**{**FILTER_BANK_SCORER, **components})
    if not hasattr(scorer, "score_patches") or isinstance(scorer, type):
        raise TypeError(
            f"scorer must be 'knn', 'gaussian' or an estimator with score_patches, got {scorer!r}"
        )
    return "scorer", scorer


def _set_params(name, steps, params):
    """Set each parameter where it belongs: in the step it names, or in all that have it."""
    prefixes = {f"{step}__" if step else "": estimator for step, estimator in steps}
    places = {}  # names that may be asked for -> (estimator, its own name of it)
    for prefix, estimator in prefixes.items():
        for key in estimator.get_params():
            places[f"{prefix}{key}"] = [(estimator, key)]
    for prefix, estimator in prefixes.items():
        own = estimator.get_params()
        for plain in {key.rpartition("__")[2] for key in own}:
            # Of an estimator that holds others, their parameters, unless it has one of that name.
            keys = [plain] if plain in own else [k for k in own if k.endswith(f"__{plain}")]
            if prefix:
                places.setdefault(plain, [])
                places[plain] += [(estimator, key) for key in keys]
    for key, value in sorted(params.items(), key=lambda item: item[0].count("__")):
        if key not in places:
            alike = [place for place in places if ("__" in place) == ("__" in key)]
            raise ValueError(f"{name} has no parameter {key!r}{similar(key, alike)}")
        for estimator, own in places[key]:
            estimator.set_params(**{own: value})
    for key in params:
        if key.endswith("topk"):
            for estimator, own in places[key]:
                aggregation = estimator.get_params()[f"{own.removesuffix('topk')}aggregation"]
                if aggregation != "topk_mean":
                    raise ValueError(
                        f"{name} has aggregation={aggregation!r}, for which {key} does not count; "
                        "pass aggregation='topk_mean' too, or leave it out"
                    )
