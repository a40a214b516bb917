"""What a union of detectors tells: explanations, reports, evaluations, model files, names."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.pipeline import make_pipeline
from typer.testing import CliRunner

from skanomaly import (
    AnomalibDetector,
    FilterBankPatches,
    ImageUnion,
    PatchGaussianScorer,
    PatchKNNScorer,
    create_model,
    evaluate_split,
    explain,
    load_model,
    model_manifest,
    save_model,
    write_report,
)
from skanomaly._recipes import fingerprint_of
from skanomaly.cli import app
from skanomaly.datasets import make_surfaces, read_dataset
from skanomaly.datasets._surfaces import write_surfaces

N_GOOD = 14


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set of generated discs."""
    root = tmp_path_factory.mktemp("data") / "disc"
    write_surfaces(root, "disc", N_GOOD, 64, 0)
    return root


@pytest.fixture(scope="module")
def split(data):
    return read_dataset(data)


@pytest.fixture(scope="module")
def bad(split):
    """An image with a defect that is easily seen."""
    return split.test.images[split.test.defect_types.index("missing_piece")]


def knn(size, **options):
    return make_pipeline(FilterBankPatches(image_size=size, **options), PatchKNNScorer())


@pytest.fixture(scope="module")
def pair():
    gaussian = make_pipeline(FilterBankPatches(image_size=64), PatchGaussianScorer("shared"))
    return [("gaussian", gaussian), ("knn", knn(32, augmentation="rotate90"))]


def test_an_explanation_is_that_of_the_member_that_adds_most(pair, split, bad):
    good = split.train.images
    for weights in ([1, 0.001], [0.001, 1]):
        union = ImageUnion(pair, detector_weights=weights).fit(good)
        found = explain(union, bad)
        grid = union.score_maps([bad], size="model")[0]
        assert found.kind == "members" and found.grid == grid.shape == (8, 8)
        assert found.score == pytest.approx(grid[found.row, found.column])
        assert found.region is not None
        shares = {one.name: one.contribution for one in found.members}
        assert sum(shares.values()) == pytest.approx(found.score, rel=1e-5)
        first = found.members[0].name
        assert shares[first] == max(shares.values())
        member = union.detectors_[first]
        if first == "gaussian":
            assert found.components and not found.neighbors
            assert not found.components[0].name.startswith("component ")  # the embedder's names
            tokens = member[:-1].transform([bad])
            inner = member[-1].explain_patch(tokens, found.row, found.column)
            contributions = [one.contribution for one in found.components]
            assert contributions == [one.contribution for one in inner.components]
        else:
            assert found.neighbors and not found.components
            row, column = found.row // 2, found.column // 2  # of its own grid of 4 x 4
            grid = member[-1].score_patches(member[:-1].transform([bad]))[0]
            assert found.neighbors[0].distance == pytest.approx(grid[row, column], abs=1e-6)
            assert found.neighbors[0].path == str(good[found.neighbors[0].image_number])
            assert found.neighbors[0].box is not None  # turned back from its view
        assert f"from the members of the union: {first} +" in str(found)
        json.dumps(found.to_dict())


def test_numbers_in_explanations_are_those_of_fit(split, bad):
    """Also where images were left out, and in unions of unions."""
    images = [*split.test.images, *split.train.images]
    y = [*split.test.y, *split.train.y]
    inner = ImageUnion([("a", knn(64)), ("b", knn(32))])
    union = ImageUnion([("one", inner)], combination="max").fit(images, y)
    found = explain(union, bad)
    assert [one.name for one in found.members] == ["one"]
    for near in found.neighbors:
        assert y[near.image_number] == 1
        assert near.path == str(images[near.image_number])


class Darkness:
    def predict(self, image):
        dark = 1 - np.asarray(Image.open(image)).mean(axis=2) / 255
        return {"pred_score": dark.mean(), "anomaly_map": dark}


def test_a_member_that_explains_nothing(split):
    dark = AnomalibDetector(inferencer=Darkness())
    union = ImageUnion([("dark", dark), ("knn", knn(64))], detector_weights=[1, 0])
    found = explain(union.fit(split.train.images), split.test.images[0])
    assert found.members[0].name == "dark" and not found.neighbors
    assert "says" not in str(found)


def test_evaluation_report_and_file(pair, split, tmp_path):
    result = evaluate_split(ImageUnion(pair), split)
    assert result.metrics["image_auroc"] > 0.7
    assert {"pixel_auroc", "aupro_0.3"} <= set(result.metrics)
    path = tmp_path / "report.html"
    write_report(result, path)
    text = path.read_text(encoding="utf-8")
    assert "ImageUnion (gaussian: FilterBankPatches → PatchGaussianScorer; knn: " in text
    assert "from the members of the union" in text
    assert "knn__patchknnscorer__n_neighbors" in text and "detectors" not in result.parameters
    union = result.estimator
    save_model(union, tmp_path / "union.skan")
    loaded = load_model(tmp_path / "union.skan")
    np.testing.assert_array_equal(loaded.score_samples(split.test.images), result.scores)
    assert explain(loaded, split.test.images[0]) == explain(union, split.test.images[0])
    manifest = model_manifest(tmp_path / "union.skan")
    assert len(manifest["embedders"]) == 2
    assert manifest["training_images"]["count"] == len(split.train.images)
    assert manifest["calibration"]["n_images"] == len(split.train.images)
    save_model(union, tmp_path / "no_paths.skan", image_paths=False)
    assert str(split.train.images[0]).encode() not in (tmp_path / "no_paths.skan").read_bytes()


def test_the_fingerprint_knows_the_members(pair):
    one, same = ImageUnion(pair), ImageUnion(list(pair))
    assert fingerprint_of(one) == fingerprint_of(same)
    other = ImageUnion([pair[0], ("knn", knn(48))])
    assert fingerprint_of(one) != fingerprint_of(other)


def test_models_are_joined_by_their_names():
    pytest.importorskip("timm")
    made = create_model(
        "filterbank+vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        weights="w.safetensors",
        image_size=448,
        filterbank__image_size=128,
        vit_tiny_patch16_224_augreg_in21k_ft_in1k__knn__n_neighbors=3,
        contamination=0.05,
        detector_weights=(1, 2),
    )
    assert isinstance(made, ImageUnion)
    bank, vit = (member for _, member in made.detectors)
    assert [name for name, _ in made.detectors] == [
        "filterbank",
        "vit_tiny_patch16_224_augreg_in21k_ft_in1k",
    ]
    assert (bank["emb"].image_size, vit["emb"].image_size) == (128, 448)
    assert vit["emb"].weights == "w.safetensors" and vit["knn"].n_neighbors == 3
    assert (made.contamination, made.detector_weights) == (0.05, (1, 2))
    assert vit["knn"].contamination == 0.1  # not used


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("filterbank+filterbnk", {}, "no model .*'filterbnk'.*did you mean 'filterbank'"),
        ("filterbank+", {}, "lacks a name"),
        ("filterbank+filterbank", {}, "has 'filterbank' twice"),
        ("filterbank+vision_filterbank", {}, "filterbank and vision_filterbank are the same model"),
        ("filterbank+vision_padim", {"scorer": PatchKNNScorer()}, "takes no objects"),
        ("filterbank+vision_padim", {"imag_size": 3}, "did you mean 'image_size'"),
        ("filterbank+vision_padim", {"filterbank__weights": "x"}, "no parameter"),
        ("filterbank+vision_padim", {"topk": 5}, "aggregation='max'"),
        ("filterbank+vision_padim", {"contamination": 3}, "contamination"),
    ],
)
def test_names_that_cannot_be_joined(name, options, message):
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=message):
        create_model(name, **options)


def test_a_scorer_of_all_members():
    made = create_model("filterbank+tiny", scorer="knn", topk=0.05)
    assert [list(member.named_steps) for _, member in made.detectors] == [["emb", "knn"]] * 2
    assert {member["knn"].topk for _, member in made.detectors} == {0.05}


def test_two_names_of_one_model_may_be_set_apart():
    made = create_model("filterbank+vision_filterbank", vision_filterbank__image_size=128)
    assert [member["emb"].image_size for _, member in made.detectors] == [256, 128]


def test_weights_of_a_union_are_those_of_its_members(monkeypatch, tmp_path):
    pytest.importorskip("timm")
    asked = []
    monkeypatch.setattr(
        "skanomaly.cli._weights._fetch", lambda name: asked.append(name) or tmp_path / "file"
    )
    (tmp_path / "file").write_bytes(b"weights")
    type_in("weights", "fetch", "filterbank+vision_padim+resnet18.tv_in1k")
    assert asked == ["vision_padim", "resnet18.tv_in1k"]


def type_in(*words, code=0):
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.stdout


def test_the_working_day_of_a_union(data, bad, tmp_path):
    """Its second member is registered by a file, so that no extra is needed."""
    plugin = tmp_path / "union_members.py"
    plugin.write_text(
        "from skanomaly import FilterBankPatches, registry\n"
        "def small():\n    return FilterBankPatches(image_size=32)\n"
        "registry.register_embedder('small_bank', small, overwrite=True)\n"
    )
    options = ["--model", "filterbank+small_bank", "--plugin", plugin]
    options += ["--set", "filterbank__image_size=64", "--set", "small_bank__topk=0.02"]
    shown = type_in("models", "filterbank+small_bank", "--plugin", plugin)
    assert "small_bank__emb__image" in shown and "detector_weights" in shown
    model = tmp_path / "union.skan"
    type_in("fit", data / "train" / "good", "-o", model, *options, "--contamination", "0.2")
    params = load_model(model).get_params()
    topk = {key.partition("__")[0]: value for key, value in params.items() if "__topk" in key}
    assert topk["small_bank"] == 0.02 != topk["filterbank"]
    record = json.loads(type_in("score", model, bad, "--jsonl", "-").splitlines()[0])
    assert record["decision"] == "anomalous"
    told = type_in("explain", model, bad, "-o", tmp_path / "why.png")
    assert "from the members of the union" in told and (tmp_path / "why.png").is_file()
    type_in("report", model, "--data", data, "-o", tmp_path / "report.html")
    assert "ImageUnion" in (tmp_path / "report.html").read_text(encoding="utf-8")
    type_in("evaluate", data, *options, "--report", tmp_path / "evaluated.html")
    assert (tmp_path / "evaluated.html").is_file()
    assert "ImageUnion" in type_in("info", model)
    more = make_surfaces(12, surface="disc", image_size=64, random_state=5).images
    (tmp_path / "more").mkdir()
    for i, image in enumerate(more):
        Image.fromarray(image).save(tmp_path / "more" / f"{i}.png")
    type_in("calibrate", model, tmp_path / "more", "-o", tmp_path / "moved.skan")
    assert load_model(tmp_path / "moved.skan").calibration_["kind"] == "images"
