"""The page on scorers, embedders and readers of one's own: its code does all that ours do."""

import importlib.util
import json
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator as sklearn_check_estimator

from skanomaly import (
    FilterBankPatches,
    anomaly_maps,
    create_model,
    evaluate_split,
    explain,
    export_model,
    fit_stream,
    forget_images,
    merge_models,
    model_manifest,
    update_model,
)
from skanomaly.base import Component, PatchExplanation
from skanomaly.datasets import find_problems, make_surfaces, read_dataset
from skanomaly.datasets._surfaces import write_surfaces
from skanomaly.estimator_checks import EMBEDDER_CHECKS, SCORER_CHECKS
from skanomaly.persistence import ModelTrustWarning

PAGE = Path(__file__).resolve().parents[1] / "docs" / "development" / "extending.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
SCORER, EXPLAINED, CHECKS, NAMED, KEPT, EMBEDDER, READER = BLOCKS


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """Imports a block of the page from a file of its own, outside the package."""
    folder = tmp_path_factory.mktemp("theirs")
    made = []

    def load(name, code):
        if name not in sys.modules:
            path = folder / f"{name}.py"
            path.write_text(code, encoding="utf-8")
            spec = importlib.util.spec_from_file_location(name, path)
            sys.modules[name] = importlib.util.module_from_spec(spec)  # as pickle needs it
            spec.loader.exec_module(sys.modules[name])
            made.append(name)
        return sys.modules[name]

    yield load
    for name in made:
        del sys.modules[name]


@pytest.fixture
def scorer(theirs):
    return theirs("their_scorer", SCORER).PCAResidualScorer()


@pytest.fixture
def embedder(theirs):
    return theirs("their_embedder", EMBEDDER).CellColours(64)


@pytest.fixture(scope="module")
def surfaces():
    return make_surfaces(16, 8, surface="fabric", image_size=64, random_state=0)


def test_the_example_is_short():
    assert len(SCORER.splitlines()) <= 50 and len(EMBEDDER.splitlines()) <= 50
    assert "skanomaly._" not in "".join(BLOCKS)


# Those of scikit-learn fit with class labels of 0, 1 and 2, as in tests/test_common.py.
@pytest.mark.filterwarnings("ignore:y holds .*, which are no labels of normal:UserWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_checks(scorer):
    sklearn_check_estimator(scorer)


@pytest.mark.parametrize("check", SCORER_CHECKS, ids=lambda check: check.__name__)
def test_our_checks_of_the_scorer(check, scorer):
    check(scorer)


@pytest.mark.parametrize("check", EMBEDDER_CHECKS, ids=lambda check: check.__name__)
def test_our_checks_of_the_embedder(check, embedder):
    check(embedder)


def test_checks_of_the_page(scorer):
    scope = {"PCAResidualScorer": type(scorer)}
    exec(CHECKS, scope)
    (mark,) = scope["test_our_checks"].pytestmark
    assert mark.name == "parametrize" and len(mark.args[1]) == 2 * len(SCORER_CHECKS)


def test_what_the_filter_of_the_page_lets_through(scorer):
    """That of scikit-learn's checks alone, where warnings are errors."""
    scope = {"PCAResidualScorer": type(scorer)}
    exec(CHECKS, scope)
    (ignored,) = (
        mark.args[0]
        for mark in scope["test_checks_of_scikit_learn"].pytestmark
        if mark.name == "filterwarnings"
    )
    action, message = ignored.split(":")
    tokens = np.random.default_rng(0).normal(size=(20, 4, 4, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="y holds"):
            scorer.fit(tokens, [0, 1] * 10)
        warnings.filterwarnings(action, message)
        scorer.fit(tokens, [0, 1] * 10)


@pytest.mark.parametrize("variance", [0, 1.0, 1.5, "much", True])
def test_values_that_a_parameter_does_not_take(scorer, variance):
    tokens = np.random.default_rng(0).normal(size=(20, 4, 4, 6))
    with pytest.raises(ValueError, match="'variance' parameter .* must be a float in the range"):
        type(scorer)(variance).fit(tokens)


def test_explanation(theirs, scorer, embedder, surfaces):
    """The parts add up to the squared score, and components have the embedder's names."""
    scope = {"PCAResidualScorer": type(scorer), "np": np}
    exec(EXPLAINED, scope)
    pipe = make_pipeline(embedder, scope["ExplainedScorer"]()).fit(surfaces.images[:16])
    found = explain(pipe, surfaces.images[-1])
    parts = [part.contribution for part in found.components]
    assert found.kind == "components" and parts == sorted(parts, reverse=True)
    assert sum(parts) == pytest.approx(found.score**2, rel=1e-5)
    assert json.loads(json.dumps(found.to_dict()))["components"][0]["contribution"] == parts[0]

    class Careless(scope["ExplainedScorer"]):
        def _explain_row(self, tokens, row, n_neighbors):
            number, share = np.int64(0), np.float32(1.5)
            return PatchExplanation(
                "components", components=(Component(number, "0", share, share),)
            )

    careless = make_pipeline(embedder, Careless()).fit(surfaces.images[:16])
    plain = json.loads(json.dumps(explain(careless, surfaces.images[-1]).to_dict()))
    assert plain["components"][0]["number"] == 0 and plain["components"][0]["deviation"] == 1.5
    Careless._explain_row = lambda *args: None
    with pytest.raises(TypeError, match="Careless._explain_row has .*PatchExplanation, not None"):
        explain(careless, surfaces.images[-1])

    refused = make_pipeline(embedder, scorer).fit(surfaces.images[:16])
    with pytest.raises(TypeError, match="no explain_patch, .* by writing _explain_row"):
        explain(refused, surfaces.images[-1])


def test_kept(scorer, surfaces, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = make_pipeline(FilterBankPatches(image_size=64), scorer)
    scope = {"model": model, "good": surfaces.images[:16]}
    with pytest.warns(ModelTrustWarning, match="their_scorer.PCAResidualScorer"):
        exec(KEPT, scope)
    names = model_manifest("own.skan")["trusted"]
    assert names == ["their_scorer.PCAResidualScorer", "their_scorer.Subspace"]
    np.testing.assert_array_equal(
        scope["loaded"].score_samples(surfaces.images), model.score_samples(surfaces.images)
    )


def test_what_it_cannot_do(scorer, surfaces, tmp_path):
    model = make_pipeline(FilterBankPatches(image_size=64), scorer).fit(surfaces.images[:16])
    more = surfaces.images[16:18]
    for refused in (
        lambda: update_model(model, more),
        lambda: forget_images(model, surfaces.images[:1]),
        lambda: merge_models([model, model]),
        lambda: fit_stream(clone(model), surfaces.images[:16]),
    ):
        with pytest.raises(TypeError, match="PCAResidualScorer cannot"):
            refused()


def test_it_has_no_graph(scorer, surfaces, tmp_path):
    pytest.importorskip("onnx")
    model = make_pipeline(FilterBankPatches(image_size=64), scorer).fit(surfaces.images[:16])
    with pytest.raises(ValueError, match="PCAResidualScorer"):
        export_model(model, tmp_path / "own.onnx", images=surfaces.images[:4])


def test_the_score_is_the_distance_to_the_subspace(scorer):
    """Against scikit-learn's own PCA."""
    from sklearn.decomposition import PCA

    tokens = np.random.default_rng(0).normal(size=(22, 4, 5, 6)) * [9, 7, 5, 1, 1, 1]
    good, new = tokens[:20], tokens[20:]
    patches = scorer.fit(good).score_patches(new)
    pca = PCA(scorer.variance).fit(good.reshape(-1, 6))
    rest = new.reshape(-1, 6) - pca.inverse_transform(pca.transform(new.reshape(-1, 6)))
    assert pca.n_components_ == 3
    np.testing.assert_allclose(patches.ravel(), np.linalg.norm(rest, axis=1), rtol=1e-5)


def test_by_name(scorer, surfaces):
    scope = {"PCAResidualScorer": type(scorer)}
    exec(NAMED, scope)
    model = scope["model"]
    assert model[-1].variance == 0.95
    model.set_params(emb__image_size=64).fit(surfaces.images, surfaces.y)
    again = create_model("filterbank", scorer="pca_residual", variance=0.95, image_size=64)
    scores = again.fit(surfaces.images, surfaces.y).score_samples(surfaces.images)
    np.testing.assert_array_equal(scores, model.score_samples(surfaces.images))


def test_maps_evaluation_and_search(scorer, embedder, surfaces, tmp_path):
    pipe = make_pipeline(embedder, scorer).fit(surfaces.images[:16])
    maps, scores = anomaly_maps(pipe, surfaces.images, return_scores=True)
    assert maps.shape == (24, 64, 64) and np.isfinite(maps).all()
    np.testing.assert_allclose(scores, pipe.score_samples(surfaces.images), rtol=1e-12)

    write_surfaces(tmp_path / "fabric", "fabric", 6, 64, 0)
    result = evaluate_split(pipe, read_dataset(tmp_path / "fabric"))
    assert result.metrics["image_auroc"] >= 0.5 and len(result.metrics) >= 9

    grid = {"pcaresidualscorer__variance": [0.5, 0.9], "cellcolours__image_size": [32, 64]}
    cv = StratifiedKFold(2, shuffle=True, random_state=0)
    search = GridSearchCV(pipe, grid, scoring="roc_auc", cv=cv, error_score="raise")
    search.fit(surfaces.images, surfaces.y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.predict(surfaces.images).shape == (24,)


def test_reader(theirs, scorer, embedder, surfaces, tmp_path):
    made = make_surfaces(4, 0, surface="fabric", image_size=64, random_state=1)
    kinds = [*surfaces.defect_types, *made.defect_types]
    known = {}
    for number, (image, kind) in enumerate(
        zip([*surfaces.images, *made.images], kinds, strict=True)
    ):
        part, view = divmod(number, 2)
        path = tmp_path / f"p{part:04d}-{view}-{kind.replace('good', 'ok')}.png"
        Image.fromarray(image).save(path)
        known[path] = (f"p{part:04d}", kind)
    Image.fromarray(surfaces.images[0]).save(tmp_path / "other.png")
    split = theirs("their_reader", READER).read_verdicts(tmp_path)
    # 14 parts: the first seven are good ones, the others have all defects and the last four images.
    assert len(split.train) == 14 and len(split.test) == 14
    for images in (split.train, split.test):
        for i, path in enumerate(images.images):
            part, kind = known[path]
            assert images.groups[i] == part and images.defect_types[i] == kind
            assert images.y[i] == (1 if kind == "good" else -1)
    assert (split.train.y == 1).all() and not find_problems(split)
    result = evaluate_split(make_pipeline(embedder, scorer), split)
    assert set(result.recall_by_type) == set(kinds) - {"good"}
