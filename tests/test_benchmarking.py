"""Tables of runs: what they hold, and that they go on where they were interrupted."""

import dataclasses
import json
import shutil
import time

import numpy as np
import pytest
from joblib import parallel_config
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import OneClassSVM

import skanomaly.benchmarking as benchmarking
from skanomaly import FilterBankPatches, PatchKNNScorer, __version__, create_model
from skanomaly.benchmarking import benchmark, summarize
from skanomaly.datasets import DatasetSplit, make_surfaces, read_mvtec
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


def test_few_shots_keep_their_groups(splits, models, monkeypatch):
    groups = [f"part {i // 2}" for i in range(8)]
    train = dataclasses.replace(splits[0].train, groups=groups)
    grouped = dataclasses.replace(splits[0], train=train)
    seen = []

    def seeing(model, split):
        seen.append(split.train.groups)
        return evaluate_checked(model, split)

    monkeypatch.setattr(benchmarking, "evaluate_checked", seeing)
    benchmark({"knn": models["cosine"]}, [grouped], shots=(4,))
    assert [list(found) for found in seen] == [["part 0", "part 0", "part 1", "part 1"]]


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


def test_what_a_run_is_recognised_by(splits, models, counted, tmp_path):
    """The contents of images and masks, and our version: not places, and not names alone."""
    path = tmp_path / "runs.jsonl"
    model = {"cosine": models["cosine"]}
    root = shutil.copytree(splits[0].train.images[0].parents[2], tmp_path / "copy" / "fabric")
    split = read_mvtec(root)

    def n_runs(split=split):
        del counted[:]
        rows = benchmark(model, [split], shots=(2,), path=path)
        assert len(rows) == 1 and {"data_digest", "model_digest", "versions"} <= set(rows[0])
        return len(counted)

    assert n_runs() == 1 and n_runs() == 0
    assert n_runs(splits[0]) == 0  # the same contents in another place
    for kind, name in (("train/good", "0.png"), ("test/good", "8.png"), ("test/scratch", None)):
        folder = root / kind
        file = folder / name if name else next(folder.iterdir())
        with Image.open(file) as im:
            other = np.asarray(im.convert("RGB")) ^ 1
        Image.fromarray(other).save(file)
        assert n_runs() == 1 and n_runs() == 0
    # An image that no run of two shots trains on changes nothing; a mask does.
    file = root / "train" / "good" / "7.png"
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(file)
    assert n_runs() == 0
    masks = [None if y == 1 else tmp_path / "mask.png" for y in split.test.y]
    Image.fromarray(np.eye(32, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
    masked = DatasetSplit(split.name, split.train, dataclasses.replace(split.test, masks=masks))
    assert n_runs(masked) == 1 and n_runs(masked) == 0
    Image.fromarray(np.eye(32, k=3, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
    assert n_runs(masked) == 1 and n_runs() == 0
    # A row of another version of ours stays, and is not used.
    rows = path.read_text().replace(f'"skanomaly": "{__version__}"', '"skanomaly": "0.0.1"')
    path.write_text(rows)
    assert n_runs() == 1 and path.read_text().startswith(rows)


def test_replaced_weights_are_another_model(splits, counted, tmp_path, tiny_onnx):
    pytest.importorskip("onnxruntime")
    weights = tmp_path / "model.onnx"
    shutil.copy(tiny_onnx, weights)
    options = {"checkpoint_path": str(weights), "device": "cpu"}
    model = {"mine": create_model("vision_anomalib_checkpoint", **options)}
    for n_runs in (1, 0):
        del counted[:]
        benchmark(model, splits[:1], path=tmp_path / "runs.jsonl")
        assert len(counted) == n_runs
    onnx = pytest.importorskip("onnx")
    network = onnx.load(weights)
    network.graph.node[0].op_type = "ReduceMin"
    onnx.save(network, weights)
    benchmark(model, splits[:1], path=tmp_path / "runs.jsonl")
    assert len(counted) == 1


def test_a_file_of_others_stays(splits, models, counted, tmp_path):
    path = tmp_path / "recipe.json"
    for text in ('{"oven": 180}', '{"oven": 180}\n'):
        path.write_text(text)
        with pytest.raises(FileExistsError, match="skanomaly did not write"):
            benchmark(models, splits[:1], path=path)
        assert path.read_text() == text and not counted
    with pytest.raises(FileExistsError, match="an input of this run"):
        benchmark(models, splits[:1], path=splits[0].train.images[0], overwrite=True)
    rows = benchmark(models, splits[:1], path=path, overwrite=True)
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows


def test_each_run_is_in_the_file_as_soon_as_it_is_had(splits, models, monkeypatch, tmp_path):
    path = tmp_path / "runs.jsonl"
    seen = []

    def stop_at_the_third(model, split):
        seen.append(path.read_text().count("\n") if path.exists() else 0)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return evaluate_checked(model, split)

    monkeypatch.setattr(benchmarking, "evaluate_checked", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        benchmark(models, splits, path=path)
    assert seen == [0, 1, 2] and path.read_text().count("\n") == 2


def test_a_slow_run_holds_back_no_other(splits, models, monkeypatch, tmp_path):
    path = tmp_path / "runs.jsonl"

    def slow_first(model, split):
        deadline = time.monotonic() + 60
        while model is models["cosine"] and not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return evaluate_checked(model, split)

    monkeypatch.setattr(benchmarking, "evaluate_checked", slow_first)
    with parallel_config(backend="threading"):
        rows = benchmark(models, splits[:1], n_jobs=2, path=path)
    assert [row["model"] for row in rows] == ["cosine", "euclidean"]
    written = [json.loads(line)["model"] for line in path.read_text().splitlines()]
    assert written == ["euclidean", "cosine"]


def test_what_is_no_data_set(splits, models, counted):
    for wrong in (splits[0].train, "data"):
        with pytest.raises(TypeError, match="datasets must be a list of DatasetSplit"):
            benchmark(models, [wrong])
    with pytest.raises(TypeError, match="datasets must be a list of DatasetSplit"):
        benchmark(models, "data")
    gaussian = {"gaussian": create_model("filterbank", scorer="gaussian", image_size=32)}
    with pytest.raises(ValueError, match="needs at least 3 normal images to train on, not 2"):
        benchmark(gaussian, splits, shots=(4, 2))
    broken = dataclasses.replace(splits[0].test, images=["no.png", *splits[0].test.images[1:]])
    broken = DatasetSplit(splits[0].name, splits[0].train, broken)
    with pytest.raises((OSError, ValueError), match="no.png"):
        benchmark(models, [splits[1], broken])
    assert not counted
