"""An estimator is shown, and its names are listed, without weights, files or a connection."""

import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skanomaly import (
    AnomalibDetector,
    DinoV2Patches,
    FilterBankPatches,
    OpenClipPatches,
    PatchGaussianScorer,
    PatchKNNScorer,
    PromptScorer,
    ScoreUnion,
    TimmPatches,
)

ESTIMATORS = [
    DinoV2Patches(),
    TimmPatches("no_such_model", weights="nowhere.safetensors"),
    OpenClipPatches(weights="nowhere.pt"),
    FilterBankPatches(),
    AnomalibDetector("nowhere.ckpt", trust=True),
    PatchGaussianScorer(),
    PatchKNNScorer(),
    PromptScorer(weights="nowhere.pt"),
    ScoreUnion([("knn", PatchKNNScorer()), ("prompt", PromptScorer())]),
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


def test_diagrams_link_to_the_docs():
    link = PatchKNNScorer()._get_doc_link()
    assert link.startswith("https://") and link.endswith(
        "/api/skanomaly.scorers.PatchKNNScorer.html"
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
