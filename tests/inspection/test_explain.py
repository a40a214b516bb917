"""Explanations: what they point at is what a plain search over all training patches finds."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skanomaly import (
    AnomalibDetector,
    FilterBankPatches,
    FunctionPatches,
    PatchGaussianScorer,
    PatchKNNScorer,
    PromptScorer,
    ScoreUnion,
    explain,
)
from skanomaly.base import BasePatchScorer
from skanomaly.core.filter_bank import filter_bank_features
from skanomaly.core.views import place_before, rotate_image, views_of
from skanomaly.datasets import make_surfaces
from skanomaly.inspection import anomaly_regions, patch_box

SIDE = 64


def patches(tokens):
    """(image, view, row, column) and vector of every patch that is not masked."""
    for image, of_image in enumerate(tokens):
        views = of_image if np.ndim(of_image) == 4 else np.asarray(of_image)[None]
        for view, grid in enumerate(views):
            for row, column in np.ndindex(grid.shape[:2]):
                if not np.isnan(grid[row, column]).any():
                    yield (image, view, row, column), grid[row, column].astype(np.float64)


def distance(left, right, metric):
    if metric == "euclidean":
        return np.linalg.norm(left - right)
    return 1 - left @ right / np.linalg.norm(left) / np.linalg.norm(right)


def nearest(tokens, query, metric, n, left_out=()):
    """Places and distances of the nearest patches, by comparing all in float64."""
    found = [
        (distance(query.astype(np.float64), vector, metric), place)
        for place, vector in patches(tokens)
        if place[0] not in left_out
    ]
    return sorted(found)[:n]


def places(explanation):
    return [(n.image_number, n.view, n.row, n.column) for n in explanation.neighbors]


def check(scorer, train, new, where, left_out=(), n=3):
    row, column = where
    found = scorer.explain_patch(new, row, column, n_neighbors=n)
    assert found.kind == "neighbors"
    expected = nearest(train, new[0][row, column], scorer.metric, n, left_out)
    assert places(found) == [place for _, place in expected]
    np.testing.assert_allclose(
        [near.distance for near in found.neighbors], [d for d, _ in expected], atol=1e-5
    )
    return found


def tokens_of(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_nearest_patch(metric):
    train, new = tokens_of(9, 4, 5, 6), tokens_of(1, 4, 5, 6, seed=1)
    scorer = PatchKNNScorer(metric=metric).fit(train)
    for where in np.ndindex(4, 5):
        found = check(scorer, train, new, where)
        assert found.neighbors[0].distance == pytest.approx(
            scorer.score_patches(new)[0][where], rel=1e-5
        )
        assert found.neighbors[0].grid == (4, 5)


def test_large_banks_that_are_sorted():
    train, new = tokens_of(30, 16, 16, 8), tokens_of(1, 16, 16, 8, seed=1)
    scorer = PatchKNNScorer(metric="euclidean", algorithm="certified").fit(train)
    check(scorer, train, new, (3, 7))


def test_numbers_are_those_of_the_images_given_to_fit():
    train, new = tokens_of(9, 3, 3, 6), tokens_of(1, 3, 3, 6, seed=1)
    y = np.array([1, -1, 1, 1, -1, -1, 1, 1, 1])
    scorer = PatchKNNScorer(metric="euclidean").fit(train, y)
    check(scorer, train, new, (1, 2), left_out=np.flatnonzero(y == -1))


def test_training_images_are_compared_to_other_groups():
    train, groups = tokens_of(9, 3, 3, 6), [0, 0, 1, 1, 2, 2, 3, 3, 3]
    scorer = PatchKNNScorer(metric="euclidean").fit(train, groups=groups)
    found = check(scorer, train, train[3:4], (1, 1), left_out=(2, 3))
    assert "training image" in found.note
    assert found.neighbors[0].distance == pytest.approx(
        scorer.score_patches(train[3:4])[0, 1, 1], rel=1e-5
    )


def test_a_single_training_image_has_nothing_to_be_compared_to():
    train = tokens_of(1, 4, 4, 6)
    with pytest.warns(UserWarning, match="single image"):
        scorer = PatchKNNScorer(metric="euclidean").fit(train)
    found = scorer.explain_patch(train, 0, 0)
    assert found.neighbors == () and found.note
    check(scorer, train, tokens_of(1, 4, 4, 6, seed=1), (1, 1))


@pytest.mark.parametrize("method", ["k_center", "projected_k_center", "random"])
def test_coresets_know_where_their_patches_are_from(method):
    train, new = tokens_of(12, 4, 4, 6), tokens_of(1, 4, 4, 6, seed=1)
    train[2, 1] = np.nan
    scorer = PatchKNNScorer(
        metric="euclidean", coreset=25, coreset_method=method, random_state=0
    ).fit(train)
    assert len(scorer.bank_) == 25
    found = scorer.explain_patch(new, 2, 1, n_neighbors=25)
    vectors = np.stack([train[n.image_number, n.row, n.column] for n in found.neighbors])
    order = np.argsort(np.linalg.norm(scorer.bank_ - new[0, 2, 1], axis=1))
    np.testing.assert_array_equal(vectors, scorer.bank_[order])
    known = scorer.explain_patch(train[5:6], 1, 1, n_neighbors=25)
    assert 5 not in [n.image_number for n in known.neighbors]


def test_masked_patches_and_views():
    train, new = tokens_of(9, 4, 3, 3, 6), tokens_of(1, 3, 3, 6, seed=1)
    train[:, :, 0] = np.nan
    train[4, 2] = np.nan
    scorer = PatchKNNScorer(metric="euclidean").fit(train)
    check(scorer, train, new, (1, 1), n=7)
    new[0, 2, 2] = np.nan
    with pytest.raises(ValueError, match="masked"):
        scorer.explain_patch(new, 2, 2)


def test_mixed_grids():
    train = np.empty(8, dtype=object)
    for i in range(8):
        train[i] = tokens_of(2 + i % 3, 3, 6, seed=i)
    scorer = PatchKNNScorer(metric="euclidean").fit(train)
    found = check(scorer, train, tokens_of(1, 5, 2, 6, seed=99), (4, 1))
    assert all(n.grid == train[n.image_number].shape[:2] for n in found.neighbors)


def test_what_is_no_patch():
    scorer = PatchKNNScorer().fit(tokens_of(5, 3, 3, 6))
    new = tokens_of(1, 3, 3, 6, seed=1)
    with pytest.raises(ValueError, match="no patch"):
        scorer.explain_patch(new, 3, 0)
    with pytest.raises(ValueError, match="one image"):
        scorer.explain_patch(tokens_of(2, 3, 3, 6), 0, 0)
    with pytest.raises(ValueError, match="one image"):
        scorer.explain_patch(tokens_of(1, 9, 6), 0, 0)
    with pytest.raises(ValueError, match="n_neighbors"):
        scorer.explain_patch(new, 0, 0, n_neighbors=0)


@pytest.fixture(scope="module")
def made():
    return make_surfaces(
        14, 2, surface="fabric", defects="missing_piece", image_size=SIDE, random_state=0
    ).images


@pytest.fixture
def paths(made, tmp_path):
    out = []
    for i, image in enumerate(made):
        out.append(tmp_path / f"part {i:02d}.png")
        Image.fromarray(image).save(out[-1])
    return out


def test_images_and_pixels(paths, made):
    pipe = make_pipeline(FilterBankPatches(image_size=SIDE), PatchKNNScorer(metric="euclidean"))
    pipe.fit(paths[:14], y=[1] * 5 + [-1] + [1] * 8)
    found = explain(pipe, paths[14])
    grid = pipe[-1].score_patches(pipe[0].transform(paths[14:15]))[0]
    (regions,) = anomaly_regions(pipe, paths[14:15])
    assert found.region == regions[0]
    assert found.grid == grid.shape == (8, 8) and found.size == (SIDE, SIDE)
    assert found.box == (found.column * 8, found.row * 8, 8, 8)
    assert found.score == pytest.approx(float(grid[found.row, found.column]))
    touched = {  # patches that pixels of the region lie in
        (int(r + found.region.box[1]) // 8, int(c + found.region.box[0]) // 8)
        for r, c in zip(*np.nonzero(found.region.mask), strict=True)
    }
    assert grid[found.row, found.column] == max(grid[place] for place in touched)
    train = pipe[0].transform(paths[:14])
    query = pipe[0].transform(paths[14:15])[0, found.row, found.column]
    expected = nearest(train, query, "euclidean", 3, left_out=(5,))
    assert places(found) == [place for _, place in expected]
    for near in found.neighbors:
        assert near.path == str(paths[near.image_number]) and near.problem is None
        assert near.box == (near.column * 8, near.row * 8, 8, 8) == near.box_in((SIDE, SIDE))
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    text = str(found)
    assert f"patch ({found.row}, {found.column})" in text and found.neighbors[0].path in text
    # Of an array there is no path.
    pipe.fit(made[:14])
    (near, *_) = explain(pipe, made[14]).neighbors
    assert near.path is None and near.box is None
    assert f"image {near.image_number} of fit" in str(explain(pipe, made[14]))


@pytest.mark.parametrize("augmentation", ["rotate90", "dihedral"])
def test_patches_of_views_are_turned_back(augmentation, made):
    embedder = FilterBankPatches(image_size=SIDE, augmentation=augmentation)
    pipe = make_pipeline(embedder, PatchKNNScorer(metric="euclidean")).fit(made[:10])
    for image, view, row, column in [(3, 1, 2, 5), (4, 3, 0, 1), (7, 2, 6, 6)]:
        turned = np.rot90(made[image], view)
        tokens = pipe[0].transform([np.ascontiguousarray(turned)])
        if augmentation == "dihedral":
            mirrored = np.ascontiguousarray(np.rot90(made[image][:, ::-1], view))
            tokens, turned = pipe[0].transform([mirrored]), mirrored
        found = pipe[-1].explain_patch(tokens, row, column, n_neighbors=1).neighbors[0]
        assert (found.image_number, found.row, found.column) == (image, row, column)
        assert found.distance < 1e-2
        # The pixels of the place that explain gives are those of the patch, turned.
        seen = views_of(augmentation)[found.view]
        before = place_before(seen, found.row, found.column, found.grid)
        x, y, width, height = patch_box(*before, found.grid, (SIDE, SIDE))
        patch = turned[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        original = made[image][y : y + height, x : x + width]
        back = original[:, ::-1] if augmentation == "dihedral" else original
        assert np.array_equal(np.rot90(back, view), patch)
        found = explain(pipe, np.ascontiguousarray(turned))
        (x, y, width, height), near = found.box, found.neighbors[0]
        patch = turned[y : y + height, x : x + width]
        x, y, width, height = near.box_in((SIDE, SIDE))
        original = made[near.image_number][y : y + height, x : x + width]
        back = original[:, ::-1] if augmentation == "dihedral" else original
        assert near.image_number == image and near.view % 4 == view
        assert np.array_equal(np.rot90(back, view), patch)


@pytest.mark.parametrize("resize", ["squash", "shortest_edge"])
def test_patches_of_views_by_an_angle_are_turned_back(resize, made, tmp_path):
    files = []
    for i, image in enumerate(made[:6]):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(image).resize((96, 64)).save(files[-1])
    embedder = FilterBankPatches(image_size=SIDE, resize=resize, augmentation=["rotate45", 10])
    pipe = make_pipeline(embedder, PatchKNNScorer(metric="euclidean")).fit(files)
    for image, view, angle in [(2, 1, 45), (4, 4, 180), (5, 8, 10)]:
        original = np.asarray(Image.open(files[image]))
        found = explain(pipe, rotate_image(original, angle))
        near = found.neighbors[0]
        assert (near.image_number, near.view) == (image, view)
        # The middle of the place, turned, is where the box of its training image is.
        height, width = original.shape[:2]
        y, x = (
            (found.row + 0.5) * height / found.grid[0],
            (found.column + 0.5) * width / found.grid[1],
        )
        before = place_before(
            views_of([45, 90, 135, 180, 225, 270, 315, 10])[view],
            found.row,
            found.column,
            found.grid,
            (height, width),
        )
        assert (near.row, near.column) == before
        assert near.box == patch_box(*before, found.grid, (height, width))
        if angle == 180:
            left, top, *_ = near.box
            assert abs(height - y - top) <= height / found.grid[0]
            assert abs(width - x - left) <= width / found.grid[1]
    # What was changed after fit says nothing of the views that there are.
    pipe[0].set_params(augmentation=None)
    assert explain(pipe, rotate_image(original, 10)).neighbors[0].view == 8


def test_files_that_are_gone_or_have_changed(paths):
    pipe = make_pipeline(FilterBankPatches(image_size=SIDE), PatchKNNScorer(metric="euclidean"))
    pipe.fit(paths[:14])
    first = explain(pipe, paths[14]).neighbors[0]
    os.replace(paths[15], first.path)
    changed = explain(pipe, paths[14]).neighbors[0]
    assert changed.problem == "the file has changed since fit" and changed.box is None
    os.unlink(first.path)
    missing = explain(pipe, paths[14])
    assert missing.neighbors[0].problem == "the file is missing"
    assert "the file is missing" in str(missing)
    assert (missing.neighbors[0].row, missing.neighbors[0].column) == (first.row, first.column)


def test_no_file_is_shown_that_is_not_known(paths, tmp_path):
    """A model that somebody made up may name any file as that of a training image."""
    pipe = make_pipeline(FilterBankPatches(image_size=SIDE), PatchKNNScorer(metric="euclidean"))
    known = pipe.fit(paths[:14])[0]._train_images
    n = len(known)
    pipe[0]._train_images = replace(known, digests=(None,) * n)
    (near,) = explain(pipe, paths[14], n_neighbors=1).neighbors
    assert near.problem == "what was in the file at fit is not known" and near.box is None
    others = ["/dev/zero", str(tmp_path)]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        others.append(str(tmp_path / "pipe"))
    for path in filter(os.path.exists, others):
        pipe[0]._train_images = replace(known, paths=(path,) * n)
        (near,) = explain(pipe, paths[14], n_neighbors=1).neighbors
        assert near.problem.startswith("it is no file") and near.box is None


def test_images_that_are_normal(made):
    pipe = make_pipeline(FilterBankPatches(image_size=SIDE), PatchKNNScorer(metric="euclidean"))
    pipe.fit(made[:14])
    for image in made[:14]:
        found = explain(pipe, image)
        grid = pipe[-1].score_patches(pipe[0].transform([image]))[0]
        if not anomaly_regions(pipe, [image])[0]:
            assert found.region is None and "in no region" in str(found)
            assert grid[found.row, found.column] == grid.max()
            return
    raise AssertionError("each training image has a region")


@pytest.mark.parametrize("covariance", ["position", "shared"])
@pytest.mark.parametrize(
    "options",
    [{}, {"n_components": 20, "random_state": 0}, {"n_components": 12, "reduction": "pca"}],
)
def test_components_sum_to_the_squared_score(covariance, options, made):
    scorer = PatchGaussianScorer(covariance, **options)
    pipe = make_pipeline(FilterBankPatches(image_size=SIDE), scorer).fit(made[:14])
    found = explain(pipe, made[14])
    assert found.kind == "components"
    contributions = [entry.contribution for entry in found.components]
    assert sum(contributions) == pytest.approx(found.score**2, rel=1e-4)
    assert contributions == sorted(contributions, reverse=True)
    names = pipe[0].get_feature_names_out().tolist()
    if options.get("reduction") == "pca":
        assert sorted(e.number for e in found.components) == list(range(12))
        assert all(e.name == f"principal component {e.number}" for e in found.components)
    else:
        assert all(e.name == names[e.number] for e in found.components)
        assert len(found.components) == options.get("n_components", 102)
        assert found.components[0].name in str(found)


def test_deviations_are_in_standard_deviations():
    rng = np.random.default_rng(0)
    train = (rng.normal(size=(400, 2, 2, 3)) * [1, 5, 0.2] + [0, 10, 3]).astype(np.float32)
    scorer = PatchGaussianScorer("shared", regularization=1e-6).fit(train)
    new = np.zeros((1, 2, 2, 3), dtype=np.float32) + np.array([0, 10, 3], dtype=np.float32)
    new[0, 1, 0] = [0, 10 + 20, 3 - 0.4]
    found = {e.number: e for e in scorer.explain_patch(new, 1, 0).components}
    assert found[1].deviation == pytest.approx(4, rel=0.1)
    assert found[2].deviation == pytest.approx(-2, rel=0.1)
    assert found[0].deviation == pytest.approx(0, abs=0.1)
    assert found[1].contribution == pytest.approx(16, rel=0.2)
    assert "training image" in scorer.explain_patch(train[:1], 0, 0).note


def test_components_after_other_transformers_keep_their_numbers(made):
    halved = FunctionTransformer(lambda tokens: tokens[..., ::2])
    pipe = make_pipeline(FilterBankPatches(image_size=SIDE), halved, PatchGaussianScorer())
    entries = explain(pipe.fit(made[:14]), made[14]).components
    assert {e.name for e in entries} == {f"component {i}" for i in range(51)}


def test_texts():
    normal, anomaly = [[1.0, 0, 0], [0.8, 0.6, 0]], [[0.0, 0, 1], [0, 0.6, 0.8]]
    scorer = PromptScorer(text_features_normal=normal, text_features_anomaly=anomaly)
    new = np.zeros((1, 2, 2, 3)) + [1.0, 0, 0]
    new[0, 0, 1] = [0, 1.2, 1.6]
    found = scorer.explain_patch(new, 0, 1)
    assert found.kind == "prompts"
    assert [(p.text, p.kind) for p in found.prompts] == [
        ("text_features_anomaly[1]", "anomaly"),
        ("text_features_anomaly[0]", "anomaly"),
        ("text_features_normal[1]", "normal"),
        ("text_features_normal[0]", "normal"),
    ]
    np.testing.assert_allclose([p.cosine for p in found.prompts], [1, 0.8, 0.36, 0])


def test_windows_are_compared_by_the_most_anomalous_one():
    normal, anomaly = [1.0, 0], [0, 1.0]
    scorer = PromptScorer(text_features_normal=normal, text_features_anomaly=anomaly, windows=(2,))
    grid, patch, image = (3, 3), [1.0, 0], [0.9, 0.1]
    new = np.zeros((1, *grid, 6))
    new[..., :2], new[..., 4:] = patch, image
    new[..., 2:4] = [0.8, 0.2]
    new[0, :1, :1, 2:4] = [0.1, 0.9]  # the window at the upper left corner
    found = scorer.explain_patch(new, 1, 1)
    assert "2 x 2 patches from (0, 0)" in found.note
    assert found.prompts[0].kind == "anomaly"
    assert found.prompts[0].cosine == pytest.approx(0.9 / np.hypot(0.1, 0.9))
    assert scorer.explain_patch(new, 2, 2).prompts[0].kind == "normal"


@pytest.mark.parametrize("combination", ["mean", "max"])
def test_members_of_a_union(combination, made):
    union = ScoreUnion(
        [("knn", PatchKNNScorer(metric="euclidean")), ("gaussian", PatchGaussianScorer())],
        combination=combination,
    )
    pipe = make_pipeline(FilterBankPatches(image_size=SIDE), union)
    pipe.fit(made[:14], y=[-1] + [1] * 13)
    found = explain(pipe, made[14])
    assert found.kind == "members"
    assert sum(m.contribution for m in found.members) == pytest.approx(found.score, rel=1e-5)
    first = found.members[0]
    assert first.contribution == max(m.contribution for m in found.members)
    assert bool(found.neighbors) == (first.name == "knn")
    assert bool(found.components) == (first.name == "gaussian")
    tokens = pipe[0].transform(made[14:15])
    for member in found.members:
        own = union.scorers_ if hasattr(union, "scorers_") else pipe[-1].scorers_
        score = own[member.name].score_patches(tokens)[0, found.row, found.column]
        assert member.score == pytest.approx(float(score), rel=1e-5)
    assert "from the members of the union" in str(found)


def test_of_a_maximum_the_highest_member_speaks_below_the_usual_too():
    rng = np.random.default_rng(0)
    good, new = (rng.normal(size=(n, 4, 4, 8)) + 3 for n in (20, 3))
    members = [("knn", PatchKNNScorer()), ("gaussian", PatchGaussianScorer())]
    union = ScoreUnion(members, combination="max").fit(good)
    scores = union.score_patches(new)
    assert (scores < 0).any()
    for image, row, column in np.ndindex(scores.shape):
        found = union.explain_patch(new[image : image + 1], row, column)
        scaled = [member.scaled for member in found.members]
        assert scaled == sorted(scaled, reverse=True)
        first, second = (member.contribution for member in found.members)
        assert first == pytest.approx(scores[image, row, column], abs=1e-6)
        assert second == 0 and not np.signbit(second)
        assert bool(found.neighbors) == (found.members[0].name == "knn")


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_the_box_of_a_patch_holds_the_pixels_that_belong_to_it(n, height, width):
    for row in range(n):
        _, top, _, rows = patch_box(row, 0, (n, 1), (height, width))
        own = [pixel for pixel in range(height) if pixel * n // height == row]
        assert list(range(top, top + rows)) == own or (not own and rows == 1)
        assert 0 <= top and top + rows <= height


def test_neighbors_within_a_union_are_numbered_as_in_fit():
    train, new = tokens_of(9, 3, 3, 6), tokens_of(1, 3, 3, 6, seed=1)
    y = np.array([-1, 1, 1, 1, -1, 1, 1, 1, 1])
    union = ScoreUnion([("knn", PatchKNNScorer(metric="euclidean"))]).fit(train, y)
    found = union.explain_patch(new, 1, 2)
    expected = nearest(train, new[0, 1, 2], "euclidean", 3, left_out=(0, 4))
    assert places(found) == [place for _, place in expected]


class Length(BasePatchScorer):
    def __init__(self, *, topk=0.01, aggregation="topk_mean", contamination=0.1):
        self.topk = topk
        self.aggregation = aggregation
        self.contamination = contamination

    def _fit_tokens(self, tokens):
        return self._score_tokens(tokens.select_view(0))[1]

    def _score_tokens(self, tokens):
        scores = np.linalg.norm(tokens.values, axis=1).astype(np.float64)
        return scores, -self._aggregate(tokens, scores)


def test_scorers_that_do_not_explain(made):
    pipe = make_pipeline(FilterBankPatches(image_size=SIDE), Length()).fit(made[:14])
    assert not hasattr(pipe[-1], "explain_patch")
    with pytest.raises(TypeError, match="Length does not explain.*anomaly_regions"):
        explain(pipe, made[14])
    assert anomaly_regions(pipe, made[14:])

    class Darkness:
        def predict(self, image):
            return {"pred_score": 0.0, "anomaly_map": image[..., 0]}

    with pytest.raises(TypeError, match="AnomalibDetector does not explain"):
        explain(AnomalibDetector(inferencer=Darkness()), made[14])
    union = ScoreUnion([("length", Length())])
    found = explain(
        make_pipeline(FilterBankPatches(image_size=SIDE), union).fit(made[:14]), made[0]
    )
    assert found.kind == "members" and not found.neighbors


def test_streams_and_functions(made):
    pipe = make_pipeline(
        FilterBankPatches(image_size=SIDE, stream=True), PatchKNNScorer(metric="euclidean")
    ).fit(made[:14])
    usual = make_pipeline(
        FilterBankPatches(image_size=SIDE), PatchKNNScorer(metric="euclidean")
    ).fit(made[:14])
    assert explain(pipe, made[14]) == explain(usual, made[14])
    own = make_pipeline(FunctionPatches(filter_bank_features), PatchGaussianScorer("shared"))
    assert explain(own.fit(made[:14]), made[14]).components[0].name.startswith("component ")
