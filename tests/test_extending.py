"""The page on scorers, embedders and readers of one's own: its code does all that ours do."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator as sklearn_check_estimator

from skanomaly import anomaly_maps, create_model, evaluate_split
from skanomaly.datasets import find_problems, make_surfaces, read_dataset
from skanomaly.datasets._surfaces import write_surfaces
from skanomaly.estimator_checks import EMBEDDER_CHECKS, SCORER_CHECKS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "development" / "extending.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
SCORER, CHECKS, NAMED, EMBEDDER, READER = BLOCKS


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
    assert len(SCORER.splitlines()) <= 45 and len(EMBEDDER.splitlines()) <= 50
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
