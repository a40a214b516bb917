"""RegionOfInterest: what is outside is neither learned nor scored."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skanomaly import (
    FilterBankPatches,
    PatchGaussianScorer,
    PatchKNNScorer,
    PCAForeground,
    RegionOfInterest,
    anomaly_maps,
    anomaly_regions,
    explain,
    load_model,
    model_manifest,
    save_model,
)
from skanomaly._origins import origin_of, set_origin
from skanomaly._token_stream import TokenStream
from skanomaly.datasets import make_surfaces

LEFT = [(0, 0), (0.5, 0), (0.5, 1), (0, 1)]


def tokens(n=6, grid=(4, 6), seed=0):
    return np.random.default_rng(seed).normal(size=(n, *grid, 3)).astype(np.float32)


def is_masked(X):
    return np.isnan(X).all(axis=-1)


def saved(mask, path):
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    return path


def test_every_form_of_a_region(tmp_path):
    mask = np.zeros((30, 50), dtype=bool)
    mask[:, :25] = True
    pixels = [(0, 0), (40, 0), (40, 33), (0, 33)]
    in_json = {
        "one": LEFT,
        "several": [LEFT, [(0, 0), (0.25, 0), (0.25, 1)]],
        "object": {"polygons": [LEFT]},
        "pixels": {"polygons": [pixels], "size": [80, 33]},
    }
    regions = [
        (mask, None),
        (saved(mask, tmp_path / "mask.png"), None),
        (str(tmp_path / "mask.png"), None),
        (LEFT, None),
        (np.array(LEFT), None),
        ([LEFT, LEFT], None),
        (pixels, (80, 33)),
    ]
    for name, value in in_json.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(value))
        regions.append((path, None))
    X = tokens()
    for region, size in regions:
        roi = RegionOfInterest(region, size=size)
        found = roi.fit_transform(X)
        assert found.shape == X.shape and found.dtype == X.dtype and found.flags.c_contiguous
        assert is_masked(found)[:, :, 3:].all() and not is_masked(found)[:, :, :3].any()
        np.testing.assert_array_equal(found[:, :, :3], X[:, :, :3])
        np.testing.assert_array_equal(roi.transform(X), found)
        assert roi.area_ == pytest.approx(0.5)


def test_how_much_of_a_patch_has_to_be_inside():
    X = tokens(1, (1, 5))
    polygon = [(0, 0), (0.5, 0), (0.5, 1), (0, 1)]  # half of the third
    for share, expected in ((0.5, 3), (0.51, 2), (0.01, 3), (1.0, 2)):
        found = RegionOfInterest(polygon, min_overlap=share).fit_transform(X)
        assert (~is_masked(found)).sum() == expected


def test_one_and_many_grids_and_streams():
    roi = RegionOfInterest(LEFT).fit(tokens())
    X = tokens(5, seed=1)
    found = roi.transform(X)
    alone = np.concatenate([roi.transform(X[i : i + 1]) for i in range(5)])
    np.testing.assert_array_equal(alone, found)
    streamed = roi.transform(TokenStream(lambda numbers: (X[i] for i in numbers), range(5)))
    assert isinstance(streamed, TokenStream)
    np.testing.assert_array_equal(np.asarray(streamed), found)
    mixed = np.empty(2, dtype=object)
    mixed[:] = [X[0], tokens(1, (8, 3))[0]]
    made = roi.transform(mixed)
    np.testing.assert_array_equal(made[0], found[0])
    assert is_masked(made[1]).sum(axis=0).tolist() == [0, 0, 8]
    masked = X.copy()
    masked[:, 0, 0] = np.nan
    assert is_masked(roi.transform(masked))[:, 0, 0].all()


@pytest.mark.parametrize(
    "scorer", [PatchKNNScorer(metric="euclidean"), PatchGaussianScorer()], ids=repr
)
def test_outside_nothing_counts(scorer):
    good, new = tokens(20, (8, 8)), tokens(4, (8, 8), seed=1)
    pipe = make_pipeline(RegionOfInterest(LEFT), scorer)
    fitted = clone(pipe).fit(good)
    np.testing.assert_array_equal(clone(pipe).fit_predict(good), fitted.predict(good))
    np.testing.assert_array_equal(fitted.score_samples(good), fitted[-1].train_scores_)
    expected = fitted.score_samples(new)
    other_good, other = good.copy(), new.copy()
    other_good[:, :, 4:] = 7
    other[:, :, 4:] = 1e6
    np.testing.assert_array_equal(clone(pipe).fit(other_good).score_samples(other), expected)
    patches = fitted[-1].score_patches(fitted[:-1].transform(new))
    assert (patches[:, :, 4:] == 0).all() and (patches[:, :, :4] > 0).all()


def test_the_file_is_read_once_and_kept(tmp_path):
    mask = np.zeros((8, 8), dtype=bool)
    mask[:4] = True
    path = saved(mask, tmp_path / "mask.png")
    roi = RegionOfInterest(str(path)).fit(tokens())
    expected = roi.transform(tokens())
    saved(~mask, path)
    np.testing.assert_array_equal(roi.transform(tokens()), expected)
    again = clone(roi).fit_transform(tokens())
    np.testing.assert_array_equal(is_masked(again), ~is_masked(expected))
    path.unlink()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(roi)).transform(tokens()), expected)


@pytest.mark.parametrize(
    ("region", "size", "message"),
    [
        (np.zeros((4, 4), dtype=bool), None, "region is empty"),
        (np.ones((4, 4), dtype=bool), (4, 4), "is for polygons"),
        (np.ones((4, 4), dtype=np.uint8), None, "array of uint8: a mask must be of bool"),
        (LEFT[:2], None, "polygon 0 must be a list of at least three"),
        ([LEFT, [(0, 0), (1, 1), (0.5, 0.5, 0.5)]], None, "region must be the path of a mask"),
        ([(0, 0), (30, 0), (30, 30)], None, "give size="),
        ([(0, 0), (30, 0), (30, 30)], (20, 30), "outside of an image of the size"),
        ([(0, 0), (30, 0), (30, 30)], (20,), r"must be \(width, height\)"),
        ([(0, 0), (1, 0), (0.5, 0)], None, "lie on one line"),
        ([(0, 0), (1, 0), (0.5, float("nan"))], None, "outside of the image"),
        ([], None, "region must be the path of a mask"),
        ([(0, 0), (0.1, 0), (0.1, 0.1)], None, "covers at most"),
        ("nothing.png", None, "path not found"),
        ("nothing.json", None, "No such file"),
    ],
)
def test_bad_regions(region, size, message):
    with pytest.raises((ValueError, OSError), match=message):
        RegionOfInterest(region, size=size).fit(tokens())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ('{"polygon": []}', "must have the keys 'polygons'"),
        ('{"polygons": [[[0, 0], [1, 0], [1, 1]]], "name": 3}', "must have the keys"),
        ('{"polygons": [[[0, 0], [9, 0], [9, 9]]], "size": "9 x 9"}', "must be .width, height"),
        ("7", "must be the path of a mask"),
        ('[["a", "b"]]', "must be the path of a mask"),
    ],
)
def test_bad_files(text, message, tmp_path):
    path = tmp_path / "region.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        RegionOfInterest(path).fit(tokens())
    assert "region.json" in str(caught.value)


def test_bad_use():
    X = tokens()
    with pytest.raises(NotFittedError):
        RegionOfInterest(LEFT).transform(X)
    roi = RegionOfInterest(LEFT).fit(X)
    with pytest.raises(ValueError, match="expecting 3 features"):
        roi.transform(np.ones((1, 4, 6, 2)))
    with pytest.raises(NotFittedError, match="min_overlap of this RegionOfInterest changed"):
        clone(roi).fit(X).set_params(min_overlap=0.1).transform(X)
    for step in (FilterBankPatches(image_size=64, augmentation="rotate90"), PCAForeground(0.0)):
        made = make_surfaces(4, image_size=64, random_state=0).images
        first = [] if isinstance(step, FilterBankPatches) else [FilterBankPatches(image_size=64)]
        pipe = make_pipeline(*first, step, RegionOfInterest(LEFT), PatchGaussianScorer())
        with pytest.raises(
            ValueError, match="tokens do not tell whether views are turned.*augmentation=None"
        ):
            pipe.fit(made)


def test_before_a_foreground():
    good = tokens(12, (12, 12))
    good[:, 3:9, 1:5] += 40
    pipe = make_pipeline(RegionOfInterest(LEFT), PCAForeground(), PatchKNNScorer()).fit(good)
    masked = is_masked(pipe[:-1].transform(good))
    assert masked[:, :, 6:].all() and not masked[:, 3:9, 1:5].any()
    np.testing.assert_array_equal(pipe.score_samples(good), pipe[-1].train_scores_)
    assert len(pipe[-1].bank_) == 12 * 72


def test_scorers_know_the_region():
    X = tokens()
    set_origin(X, {"embedder": "of the test"})
    left, right = (RegionOfInterest(one).fit(X) for one in (LEFT, [(1, 0), (1, 1), (0.4, 0.5)]))
    scorer = PatchKNNScorer().fit(left.transform(X))
    assert origin_of(left.transform(X))["masked by"][0].startswith("RegionOfInterest(")
    scorer.predict(left.transform(X))
    with pytest.raises(NotFittedError, match="masked by"):
        scorer.predict(right.transform(X))


def test_searches_and_model_files(tmp_path):
    mask = np.zeros((12, 12), dtype=bool)
    mask[3:, :8] = True
    made = make_surfaces(12, 1, surface="fabric", image_size=64, random_state=0).images
    for region in (str(saved(mask, tmp_path / "mask.png")), mask, LEFT):
        pipe = make_pipeline(
            FilterBankPatches(image_size=64), RegionOfInterest(region), PatchGaussianScorer()
        ).fit(made[:12])
        (tmp_path / "model.skan").unlink(missing_ok=True)
        save_model(pipe, tmp_path / "model.skan")
        loaded = load_model(tmp_path / "model.skan")
        np.testing.assert_array_equal(loaded.score_samples(made), pipe.score_samples(made))
        (about,) = model_manifest(tmp_path / "model.skan")["regions"]
        assert about["area"] == pytest.approx(0.5, abs=0.01) and len(about["sha256"]) == 64
    search = GridSearchCV(
        pipe,
        {"regionofinterest__min_overlap": [0.1, 1.0]},
        scoring=lambda one, X, y=None: one.score_samples(X).mean(),
        cv=2,
    ).fit(made[:12])
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_maps_regions_explanations_and_reports(tmp_path):
    made = make_surfaces(10, surface="fabric", image_size=128, random_state=0).images
    bad = made[9].copy()
    bad[40:60, 20:40] = (255, 0, 0)
    bad[40:60, 100:120] = (255, 0, 0)  # beyond the region
    paths = [tmp_path / f"{i}.png" for i in range(11)]
    for path, image in zip(paths, [*made, bad], strict=True):
        Image.fromarray(image).save(path)
    pipe = make_pipeline(
        FilterBankPatches(image_size=128),
        RegionOfInterest(LEFT),
        PatchKNNScorer(metric="euclidean"),
    ).fit(paths[:9])
    (heat_map,) = anomaly_maps(pipe, [paths[-1]])
    assert heat_map[:, 88:].max() == 0, "beyond half a patch and the smoothing"
    assert heat_map[40:60, 20:40].min() > 0
    (regions,) = anomaly_regions(pipe, [paths[-1]])
    assert len(regions) == 1 and regions[0].box[0] < 40
    found = explain(pipe, paths[-1])
    assert found.column < 8 and all(near.column < 8 for near in found.neighbors)


def test_an_explanation_is_of_a_patch_that_is_looked_at():
    """Also where all patches score 0, of which the first is masked."""
    made = make_surfaces(6, surface="fabric", image_size=64, random_state=0).images
    made = [made[0], made[0], *made[1:]]
    right = [(0.5, 0), (1, 0), (1, 1), (0.5, 1)]
    pipe = make_pipeline(FilterBankPatches(image_size=64), RegionOfInterest(right))
    pipe = make_pipeline(*pipe, PatchKNNScorer(metric="euclidean"))
    with pytest.warns(UserWarning, match="are copies"):
        pipe.fit(made)
    found = explain(pipe, made[0])
    assert found.score == 0 and found.column >= 4
