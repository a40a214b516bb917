"""Tables of runs: what they hold, and that they go on where they were interrupted."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import OneClassSVM

import skanomaly.benchmarking as benchmarking
from skanomaly import FilterBankPatches, PatchKNNScorer
from skanomaly.benchmarking import benchmark, summarize
from skanomaly.datasets import make_surfaces, read_mvtec
from skanomaly.evaluation import evaluate_checked


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    out = []
    for surface in ("fabric", "wood"):
        root = tmp_path_factory.mktemp("data") / surface
        made = make_surfaces(12, 4, surface=surface, image_size=32, random_state=0)
        for i, (image, kind) in enumerate(zip(made.images, made.defect_types, strict=True)):
            folder = root / ("train" if i < 8 else "test") / kind
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{i}.png")
        out.append(read_mvtec(root))
    return out


@pytest.fixture
def models():
    knn = make_pipeline(FilterBankPatches(image_size=32), PatchKNNScorer())
    return {"cosine": knn, "euclidean": clone(knn).set_params(patchknnscorer__metric="euclidean")}


@pytest.fixture
def counted(monkeypatch):
    calls = []

    def counting(model, split):
        calls.append((split.name, len(split.train)))
        return evaluate_checked(model, split)

    monkeypatch.setattr(benchmarking, "evaluate_checked", counting)
    return calls


def test_every_combination(splits, models, counted):
    rows = benchmark(models, splits, shots=(None, 2, 3), seeds=2)
    assert len(rows) == len(counted) == 2 * 2 * (1 + 2 + 2)
    first = [r for r in rows if r["model"] == "cosine" and r["name"] == "wood"]
    assert [(r["shots"], r["seed"], r["n_train"]) for r in first] == [
        (None, 0, 8),
        (2, 0, 2),
        (2, 1, 2),
        (3, 0, 3),
        (3, 1, 3),
    ]
    # The second seed of two shots trains on the third and the fourth image.
    train = list(splits[1].train.images)[2:4]
    fitted = clone(models["cosine"]).fit(train)
    assert first[2]["threshold"] == fitted[-1].offset_
    table = summarize(rows)
    assert len(table) == 2 * 2 * 3
    line = next(t for t in table if (t["model"], t["name"], t["shots"]) == ("cosine", "wood", 2))
    values = [r["metrics"]["image_auroc"] for r in first[1:3]]
    assert line["n_seeds"] == 2
    assert line["mean"]["image_auroc"] == pytest.approx(np.mean(values))
    assert line["std"]["image_auroc"] == pytest.approx(abs(values[0] - values[1]) / np.sqrt(2))
    assert table[0]["std"]["image_auroc"] is None


def test_goes_on_after_a_kill(splits, models, counted, tmp_path):
    path = tmp_path / "runs.jsonl"
    expected = benchmark(models, splits[:1], shots=(2,), seeds=2, path=path)
    lines = path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == expected
    # Killed in the middle of the third line.
    path.write_text("\n".join(lines[:2]) + "\n" + lines[2][:40])
    del counted[:]
    again = benchmark(models, splits[:1], shots=(2,), seeds=2, path=path)
    assert len(counted) == 2
    assert [r["metrics"] for r in again] == [r["metrics"] for r in expected]
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 4
    # Other parameters under the same name are another run.
    del counted[:]
    models["cosine"].set_params(patchknnscorer__topk=0.2)
    benchmark(models, splits[:1], shots=(2,), seeds=2, path=path)
    assert len(counted) == 2


def test_processes(splits, models):
    serial = benchmark(models, splits, shots=(2,))
    parallel = benchmark(models, splits, shots=(2,), n_jobs=2)
    assert [r["metrics"] for r in parallel] == [r["metrics"] for r in serial]


def test_a_search_is_a_model(splits, models, tmp_path):
    search = GridSearchCV(
        models["cosine"], {"patchknnscorer__topk": [0.1, 0.2]}, scoring=_mean_score, cv=2
    )
    path = tmp_path / "runs.jsonl"
    rows = benchmark({"search": search}, splits[:1], path=path)
    assert rows[0]["parameters"]["estimator__patchknnscorer__metric"] == "'cosine'"
    assert "estimator" not in rows[0]["parameters"]
    assert "Pipeline(" not in "".join(rows[0]["parameters"].values())
    assert benchmark({"search": search}, splits[:1], path=path) == rows


def _mean_score(estimator, X, y=None):
    return float(np.mean(estimator.score_samples(X)))


def test_errors_are_raised_before_the_first_run(splits, models, counted):
    with pytest.raises(ValueError, match="names of the data sets must differ"):
        benchmark(models, [splits[0], splits[0]])
    for wrong, message in [
        ({"shots": (2, 9)}, "there are 8"),
        ({"shots": (2, 2)}, "numbers of shots must differ"),
        ({"shots": (2,), "seeds": 5}, "there are 8"),
        ({"shots": (2, True)}, "n_shots must be an integer"),
        ({"shots": (2,), "seeds": True}, "seeds must be an integer"),
    ]:
        with pytest.raises(ValueError, match=message):
            benchmark(models, splits, **wrong)
    with pytest.raises(TypeError, match="OneClassSVM has no score_patches"):
        benchmark({**models, "svm": make_pipeline(FilterBankPatches(), OneClassSVM())}, splits)
    assert not counted
