"""Making a model by its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from skanomaly._optional import require_optional
from skanomaly.registry._auto import AUTO
from skanomaly.registry._backbones import backbone
from skanomaly.registry._steps import (
    as_scorer_step,
    as_transformer,
    fill_between,
    make_steps,
    set_params,
)
from skanomaly.registry._table import EMBEDDERS, models

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from skanomaly.anomalib import AnomalibDetector
    from skanomaly.detectors import ImageUnion

# The module by which an extra is recognised.
_MODULES = {
    "torch": "timm",
    "clip": "open_clip",
    "anomalib": "anomalib",
    "onnx": "onnxruntime",
    "openvino": "openvino",
}
# Parameters whose value stands in for what an extra would compute.
_REPLACES_AN_EXTRA = ("text_features_normal", "text_features_anomaly", "inferencer")


def create_model(
    name: str,
    *,
    embedder: Any = None,
    scorer: Any = None,
    **params: Any,
) -> Pipeline | AnomalibDetector | ImageUnion:
    """Make a model by its name.

    Parameters
    ----------
    name : str
        From :func:`~skanomaly.list_models`. Or a backbone: a name of
        :class:`~skanomaly.DinoV2Patches`, ``"filterbank"``, ``"tiny"``, ``"MODEL/TAG"`` of
        open_clip, or a name of timm; it gets the scorer ``"auto"``. Or several of these, ``"A+B"``:
        a :class:`~skanomaly.ImageUnion` of them, whose members have these names, with ``_`` for
        what no identifier of Python has.
    embedder : str, transformer, object with ``embed``, callable or None, default=None
        In place of the model's own embedder: the name of a backbone or of
        :func:`~skanomaly.registry.register_embedder`, or an object. Its ``embed(path)`` returns
        the patch tokens of an image: (grid_h, grid_w, dim), or (patches, dim) of a square grid;
        or what :class:`~skanomaly.FunctionPatches` takes.
    scorer : str, estimator or None, default=None
        In place of the model's own scorer: one with `score_patches`, or a name of
        :func:`~skanomaly.registry.list_scorers`, or ``"auto"``, the scorer that goes with the
        embedder: ``"local"`` with the filter bank and the network of this package, else ``"knn"``.
        Of a union only a name, for all its members.
        ``"local"`` is :class:`~skanomaly.LocalKNNScorer`, ``"knn"``
        :class:`~skanomaly.PatchKNNScorer` and ``"gaussian"``
        :class:`~skanomaly.PatchGaussianScorer` with their own defaults, which are 128 components
        for the latter, here with ``random_state=0``. The name of the scorer that the model has
        already leaves it as it is.
    **params
        Parameters of the steps, as ``step__parameter`` or by their plain name. What several steps
        have by that name, such as `model_name` of an embedder and a scorer of texts, is set in all
        of them, but for one that is named with its step too.

        A step between embedder and scorer, such as `foreground` of ``"vision_anomalydino"``, is
        there where it is asked for: by one of its parameters, such as ``foreground__threshold=10``,
        or by a transformer of tokens, ``foreground=PCAForeground()``.

    Returns
    -------
    Pipeline, AnomalibDetector or ImageUnion
        Not fitted. The Pipeline has the step ``"emb"`` and one named after the scorer; a step that
        is left out is ``"passthrough"``.

    Raises
    ------
    ValueError
        For an unknown name or parameter; the message names similar ones. Where two members of a
        union are the same model.
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
    >>> create_model("vision_tiny", contamination=0.05)
    Pipeline(steps=[('emb', TinyPatches()),
                    ('local', LocalKNNScorer(contamination=0.05))])

    Two models, joined:

    >>> create_model("filterbank+vit_tiny_patch16_224", image_size=448)  # doctest: +SKIP
    ImageUnion(detectors=[('filterbank', Pipeline(...)), ('vit_tiny_patch16_224', Pipeline(...))])

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

    entry = models().get(name)
    if entry is None and isinstance(name, str) and "+" in name:
        if embedder is not None or not isinstance(scorer, str | None):
            raise ValueError(
                f"{name} is a union, each of whose members has its own embedder and scorer: it "
                "takes no objects for them, only the name of a scorer for all. Make a "
                "skanomaly.ImageUnion of what you have in mind"
            )
        steps: list[tuple[str, Any]] = [("", _union_of(name.split("+"), scorer))]
        set_params(name, steps, params)
        _check_members_differ(name, steps[0][1])
        return steps[0][1]
    if entry is None:
        steps = [("emb", as_transformer(backbone(name))), ("", None)]
        scorer = AUTO if scorer is None else scorer
    else:
        if len(entry.steps) == 1 and not (embedder is None and scorer is None):
            raise ValueError(f"{name} is one detector: it takes neither embedder nor scorer")
        if embedder is None:
            _require_extras(name, entry, params)
        if name in EMBEDDERS and scorer is None and embedder is not None:
            scorer = AUTO
        steps = make_steps(entry.steps)
    if embedder is not None:
        steps[0] = ("emb", as_transformer(embedder))
    if scorer is not None and scorer != steps[-1][0]:
        steps[-1] = as_scorer_step(scorer, steps[0][1])
    params = fill_between(steps, params)
    set_params(name, [step for step in steps if step[1] != "passthrough"], params)
    return steps[0][1] if len(steps) == 1 else Pipeline(steps)


def _union_of(names: Sequence[str], scorer: str | None) -> ImageUnion:
    """A union of the models of these names, each with its own parameters, and with that scorer."""
    from skanomaly.detectors import ImageUnion

    members: dict[str, Any] = {}
    for name in names:
        called = re.sub(r"(?:\W|_)+", "_", name).strip("_")  # as scikit-learn can call a member
        if not called:
            raise ValueError(f"{'+'.join(names)!r} lacks a name: models are joined as A+B")
        if called in members:
            raise ValueError(
                f"{'+'.join(names)} has {name!r} twice: a union joins different models"
            )
        members[called] = create_model(name, scorer=scorer)
    return ImageUnion(list(members.items()))


def _check_members_differ(name: str, union: ImageUnion) -> None:
    """Raise where two names stand for one model, which would only count twice."""
    from skanomaly._recipes import value_as_text  # NumPy is not needed to list models

    recipes: dict[str, Any] = {}
    for called, member in union.detectors:
        recipe = {
            key: type(value) if hasattr(value, "get_params") else value_as_text(value)
            for key, value in {"": member, **member.get_params()}.items()
        }
        for other, known in recipes.items():
            if recipe == known:
                raise ValueError(
                    f"{name}: {other} and {called} are the same model, and a union joins different "
                    f"ones: leave one out, or set one of them apart, such as {called}__image_size"
                )
        recipes[called] = recipe


def embedder_of(name: str) -> Any:
    """The embedder that a model, or a backbone, has by default; None of a detector.

    Parameters
    ----------
    name : str
        As for :func:`~skanomaly.create_model`.

    Returns
    -------
    transformer or None
        Not fitted; it has loaded nothing yet.

    Raises
    ------
    ValueError
        For an unknown name.

    Examples
    --------
    >>> from skanomaly.registry import embedder_of
    >>> embedder_of("vision_filterbank")
    FilterBankPatches()
    """
    entry = models().get(name)
    if entry is None:
        return as_transformer(backbone(name))
    steps = make_steps(entry.steps)
    return steps[0][1] if len(steps) > 1 else None


def _require_extras(name, entry, params):
    """Say at once what is missing, where nothing was given that may make it needless."""
    if any(params.get(key) is not None for key in _REPLACES_AN_EXTRA):
        return
    extras = entry.extras
    if "anomalib" in extras and params.get("checkpoint_path") is not None:
        from skanomaly.anomalib._files import checkpoint_kind

        # An exported graph needs its runtime alone.
        kind = checkpoint_kind(params["checkpoint_path"])
        extras = (kind,) if kind in ("onnx", "openvino") else extras
    for extra in extras:
        require_optional(_MODULES[extra], extra, name)
