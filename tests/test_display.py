"""An estimator is shown, and its names are listed, without weights, files or a connection."""

import ast
from pathlib import Path

import pytest
from _pages import api_pages
from _public import public_objects
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import make_pipeline

import skanomaly
from skanomaly import (
    AnomalibDetector,
    DinoV2Patches,
    FilterBankPatches,
    ImageUnion,
    OpenClipPatches,
    PatchGaussianScorer,
    PatchKNNScorer,
    PromptScorer,
    ScoreUnion,
    TimmPatches,
    TinyPatches,
)

PUBLIC = public_objects()
ESTIMATORS = [
    DinoV2Patches(),
    TimmPatches("no_such_model", weights="nowhere.safetensors"),
    OpenClipPatches(weights="nowhere.pt"),
    FilterBankPatches(),
    TinyPatches(weights="nowhere.safetensors"),
    AnomalibDetector("nowhere.ckpt", trust=True),
    PatchGaussianScorer(),
    PatchKNNScorer(),
    PromptScorer(weights="nowhere.pt"),
    ScoreUnion([("knn", PatchKNNScorer()), ("prompt", PromptScorer())]),
    ImageUnion([("one", make_pipeline(TimmPatches(weights="nowhere.pt"), PatchKNNScorer()))]),
]


@pytest.fixture(autouse=True)
def nothing_to_load(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("something was opened to show an estimator")

    monkeypatch.setattr("socket.socket.connect", fail)
    monkeypatch.setattr("skanomaly._networks.loading.load_once", fail)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_showing_loads_nothing(estimator):
    name = type(estimator).__name__
    for shown in (estimator, make_pipeline(clone(estimator)), make_pipeline(None, estimator)):
        assert name in shown._repr_html_() and name in repr(shown)
        assert "get_params" in dir(shown)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_each_step_of_a_diagram_links_to_its_page(estimator):
    link = estimator._get_doc_link()
    assert link == page_of(type(estimator))
    assert link in make_pipeline(None, clone(estimator))._repr_html_()


def page_of(cls):
    """Where the page of a public class is, by the list of the pages that are made."""
    (name,) = (name for name in api_pages() if PUBLIC.get(name) is cls)
    return f"https://skanomaly.readthedocs.io/en/stable/api/generated/{name}.html"


def test_every_estimator_links_to_its_page():
    """Those of `skanomaly.base` are no estimators yet."""
    found = {
        cls
        for name, cls in PUBLIC.items()
        if isinstance(cls, type) and issubclass(cls, BaseEstimator) and ".base." not in name
    }
    assert found >= {type(estimator) for estimator in ESTIMATORS}
    for cls in found:
        assert cls._get_doc_link(cls.__new__(cls)) == page_of(cls)


def test_diagrams_link_to_the_docs():
    link = PatchKNNScorer()._get_doc_link()
    assert link.startswith("https://") and link.endswith(
        "/api/generated/skanomaly.PatchKNNScorer.html"
    )
    assert link in PatchKNNScorer()._repr_html_()

    class Own(PatchKNNScorer):
        """Of another package, whose docs are not ours."""

    assert Own()._get_doc_link() == ""


def test_what_a_model_is_like_is_known_once_it_was_loaded():
    detector = AnomalibDetector("nowhere.ckpt")
    for name in ("raw_scores_", "family_"):
        assert not hasattr(detector, name)
        with pytest.raises(AttributeError, match="known once the model was loaded"):
            getattr(detector, name)


def test_progress_bars_suit_notebooks_and_nothing_else_is_printed():
    """Bars are tqdm.auto's, the widgets of a notebook; only commands print."""
    package, users = Path(skanomaly.__file__).parent, []
    for path in package.rglob("*.py"):
        room = path.relative_to(package).parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "tqdm":
                assert node.module == "tqdm.auto", path
                users.append(room)
            assert not (isinstance(node, ast.Import) and node.names[0].name == "tqdm"), path
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            assert not (is_call and node.func.id == "print") or room == "cli", path
    assert {"embedders", "anomalib"} <= set(users)
