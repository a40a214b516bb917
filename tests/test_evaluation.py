"""evaluate_split on generated and on real images."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.metrics import average_precision_score, roc_auc_score

from skanomaly import evaluate_split
from skanomaly.cli import build_pipeline
from skanomaly.datasets import DatasetSplit, ImageSet, make_surfaces, read_mvtec


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    root = tmp_path_factory.mktemp("tile")
    made = make_surfaces(20, 5, surface="fabric", image_size=64, random_state=0)
    for i, (image, kind) in enumerate(zip(made.images, made.defect_types, strict=True)):
        folder = root / ("train" if i < 12 else "test") / kind
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    return read_mvtec(root)


def test_result(split):
    pipe = build_pipeline("filterbank", "knn", embedder={"image_size": 64})
    result = evaluate_split(pipe, split)
    with pytest.raises(NotFittedError):
        pipe.predict(list(split.test.images))
    fitted = result.estimator
    images = list(split.test.images)
    np.testing.assert_array_equal(result.scores, fitted.score_samples(images))
    np.testing.assert_array_equal(result.predictions, fitted.predict(images))
    assert (result.n_train, result.n_normal, result.n_anomalous) == (12, 8, 5)
    bad = split.test.y == -1
    assert result.image_auroc == roc_auc_score(bad, -result.scores)
    assert result.image_average_precision == average_precision_score(bad, -result.scores)
    assert result.recall == np.mean(result.predictions[bad] == -1)
    assert result.false_positive_rate == np.mean(result.predictions[~bad] == -1)
    assert result.threshold == fitted[-1].offset_ and result.contamination == 0.1
    assert result.fit_seconds > 0 and result.score_seconds > 0
    assert [grid.shape for grid in result.patch_scores] == [(8, 8)] * 13
    assert json.loads(json.dumps(result.to_dict()))["image_auroc"] == result.image_auroc
    assert "image_auroc=" in repr(result) and "array" not in repr(result)


@pytest.mark.parametrize(("label", "kind"), [(1, "anomalous"), (-1, "normal")])
def test_one_class_is_refused_before_the_work(split, label, kind):
    keep = np.flatnonzero(split.test.y == label)
    test = ImageSet(
        images=[split.test.images[i] for i in keep],
        y=split.test.y[keep],
        masks=[None] * len(keep),
        defect_types=[split.test.defect_types[i] for i in keep],
        name="part",
    )
    with pytest.raises(ValueError, match=f"whole: there is no {kind} test image"):
        evaluate_split(None, DatasetSplit("whole", split.train, test))


# What the embedded default and the small pretrained transformer have to reach.
@pytest.mark.parametrize(("name", "at_least"), [("cookies", 0.95), ("bottle", 0.99)])
def test_filter_bank_on_real_images(shared, name, at_least):
    result = evaluate_split(build_pipeline("filterbank"), read_mvtec(shared / "data" / name))
    assert result.image_auroc >= at_least


@pytest.mark.parametrize(
    ("scorer", "name", "at_least"),
    [
        ("knn", "cookies", 0.98),
        ("knn", "bottle", 1.0),
        ("gaussian", "cookies", 0.99),
        ("gaussian", "bottle", 0.99),
    ],
)
def test_vit_tiny_on_real_images(shared, name, at_least, scorer, tmp_path_factory):
    pytest.importorskip("timm")
    weights = str(shared / "weights" / "vit_tiny_patch16_224.safetensors")
    cache = tmp_path_factory.getbasetemp() / "vit-tiny-tokens"  # one embedding for both scorers
    pipe = build_pipeline(
        "vit_tiny_patch16_224",
        scorer,
        embedder={"weights": weights, "layers": 5},
        cache_dir=cache,
    )
    result = evaluate_split(pipe, read_mvtec(shared / "data" / name))
    assert result.image_auroc >= at_least
