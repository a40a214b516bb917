"""fit_stream against fit: the same models and thresholds where it says so, else their bounds."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import pairwise_distances
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skanomaly import (
    FilterBankPatches,
    FunctionPatches,
    LocalKNNScorer,
    PatchGaussianScorer,
    PatchKNNScorer,
    PatchSubspaceScorer,
    PCAForeground,
    RegionOfInterest,
    fit_stream,
    load_model,
    save_model,
)
from skanomaly.scorers import _streamed_banks, _token_source, _training_images

GRID, DIM = (4, 5), 6


class Stub:
    """An embedder of what stands in for images: their tokens are drawn by their first pixel."""

    def __init__(self, masked=0.0, sizes=(0,)):
        self.masked, self.sizes = masked, sizes

    def __call__(self, image):
        number = int(image[0, 0].astype(int) @ [1, 256, 65536])
        rng = np.random.default_rng(number)
        grid = GRID[0] + self.sizes[number % len(self.sizes)], GRID[1]
        tokens = rng.standard_normal((*grid, DIM)) * np.arange(1, DIM + 1)
        tokens += np.indices(grid).sum(axis=0)[..., None] + rng.standard_normal(DIM) + 3
        tokens[rng.uniform(size=grid) < self.masked] = np.nan
        return tokens.astype(np.float32)


def images_of(numbers):
    out = np.zeros((len(numbers), 2, 2, 3), dtype=np.uint8)
    for image, number in zip(out, numbers, strict=True):
        image[:] = [number % 256, number // 256 % 256, number // 65536]
    return list(out)


def pipe_of(scorer, **stub):
    return make_pipeline(FunctionPatches(Stub(**stub), n_jobs=1), scorer)


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch):
    """Blocks of a few images, so that there are several."""
    monkeypatch.setattr(_token_source, "_BLOCK_BYTES", 7 * 20 * DIM * 4)


NEW = images_of(range(5000, 5012))


def check_same(found, expected, rtol=0.0, new=NEW, train=None):
    """Two fitted Pipelines say the same of new images, and of those of fit."""
    one, two = found[-1], expected[-1]
    np.testing.assert_allclose(one.train_scores_, two.train_scores_, rtol=rtol)
    np.testing.assert_allclose(one.offset_, two.offset_, rtol=rtol)
    np.testing.assert_allclose(one.patch_limits_, two.patch_limits_, rtol=rtol)
    assert one.calibration_ == two.calibration_
    assert one.n_features_in_ == two.n_features_in_
    assert len(one.held_out_patches_) == len(two.held_out_patches_)
    for a, b in zip(one.held_out_patches_, two.held_out_patches_, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol)
    for images in (new, train or new):
        np.testing.assert_allclose(
            found.score_samples(images), expected.score_samples(images), rtol=rtol
        )
        np.testing.assert_array_equal(found.predict(images), expected.predict(images))


SCORERS = {
    "subspace": PatchSubspaceScorer(0.9),
    "positions": PatchGaussianScorer(n_components=None),
    "some components": PatchGaussianScorer(n_components=4, random_state=3),
    "neighbourhood": PatchGaussianScorer(n_components=None, neighborhood=3, shrinkage=0.2),
    "shared": PatchGaussianScorer("shared", n_components=None),
    "bank": PatchKNNScorer(),
    "bank of three": PatchKNNScorer(3, metric="euclidean"),
    "positions in the bank": PatchKNNScorer(position_weight=0.1),
    "parts": PatchKNNScorer(parts=2),
    "coreset": PatchKNNScorer(coreset=0.2),
    "coreset of parts": PatchKNNScorer(coreset=0.2, parts=2),
    "patchcore": PatchKNNScorer(coreset=0.2, metric="euclidean", aggregation="max", reweighting=3),
}
# Moments are summed up in another order, and in float64.
TOLERANCES = {
    name: 1e-6 * isinstance(scorer, (PatchGaussianScorer, PatchSubspaceScorer))
    for name, scorer in SCORERS.items()
}


@pytest.mark.parametrize("masked", [0.0, 0.2])
@pytest.mark.parametrize("name", SCORERS)
def test_as_from_fit(name, masked):
    images = images_of(range(40))
    expected = pipe_of(SCORERS[name], masked=masked).fit(images)
    found = pipe_of(SCORERS[name], masked=masked)
    assert fit_stream(found, images) is found
    check_same(found, expected, TOLERANCES[name], train=images)


@pytest.mark.parametrize("name", ["subspace", "positions", "bank", "coreset", "patchcore"])
def test_groups_and_labels(name):
    rng = np.random.default_rng(0)
    images, groups = images_of(range(40)), rng.integers(0, 12, 40)
    y = np.where(rng.uniform(size=40) < 0.2, -1, 1)
    expected = pipe_of(SCORERS[name])
    step = expected.steps[-1][0]
    expected.fit(images, y, **{f"{step}__groups": groups})
    found = fit_stream(pipe_of(SCORERS[name]), images, y, groups)
    check_same(found, expected, TOLERANCES[name], train=images)
    np.testing.assert_array_equal(
        found[-1].p_values(found[0].transform(NEW)),
        expected[-1].p_values(expected[0].transform(NEW)),
    )


@pytest.mark.parametrize("name", ["subspace", "shared", "bank", "coreset", "parts"])
def test_images_of_several_sizes(name):
    images = images_of(range(40))
    expected = pipe_of(SCORERS[name], sizes=(0, 3, 1)).fit(images)
    found = fit_stream(pipe_of(SCORERS[name], sizes=(0, 3, 1)), images)
    check_same(found, expected, TOLERANCES[name], train=images)


def test_a_bank_is_calibrated_on_as_many_images_as_in_fit(monkeypatch):
    monkeypatch.setattr(_training_images, "MAX_CALIBRATION_PATCHES", 300)
    images = images_of(range(40))
    expected = pipe_of(PatchKNNScorer()).fit(images)
    assert len(expected[-1].train_scores_) == 14
    check_same(fit_stream(pipe_of(PatchKNNScorer()), images), expected, train=images)


def test_views():
    images = [np.random.default_rng(i).integers(0, 255, (32, 32, 3), np.uint8) for i in range(12)]
    for scorer in (PatchKNNScorer(), PatchSubspaceScorer(), PatchKNNScorer(coreset=0.2)):
        embedder = FilterBankPatches(image_size=32, augmentation="rotate90")
        expected = make_pipeline(embedder, scorer).fit(images)
        found = fit_stream(make_pipeline(embedder, scorer), images)
        tolerance = 1e-6 * isinstance(scorer, PatchSubspaceScorer)
        check_same(found, expected, tolerance, new=images[:3], train=images)


@pytest.mark.parametrize(
    "mask",
    [PCAForeground(no_foreground="keep"), RegionOfInterest([[0.2, 0.2], [0.9, 0.2], [0.5, 1]])],
)
def test_steps_that_mask(mask):
    images = [np.random.default_rng(i).integers(0, 255, (64, 64, 3), np.uint8) for i in range(10)]
    steps = FilterBankPatches(image_size=64), mask, PatchKNNScorer()
    expected = make_pipeline(*steps).fit(images)
    before = [expected.score_samples(images), expected.score_samples(images[:2] * 2)]
    found = fit_stream(make_pipeline(*steps), images)
    np.testing.assert_array_equal(found.score_samples(images), before[0])
    np.testing.assert_array_equal(found.score_samples(images[:2] * 2), before[1])


# Coresets of more patches than are kept.


@pytest.fixture
def few_candidates(monkeypatch):
    monkeypatch.setattr(_streamed_banks, "_LEAST_BYTES", 0)


def tokens_of(pipe, images):
    return np.concatenate([grid.reshape(-1, DIM) for grid in pipe[0].transform(images)])


def radius_of(pipe, images):
    tokens = tokens_of(pipe, images)
    return pairwise_distances(tokens, pipe[-1].bank_.astype(np.float64)).min(axis=1).max()


@pytest.mark.parametrize("sizes", [(0,), (0, 3, 1)])
def test_a_coreset_covers_as_that_of_fit(few_candidates, sizes):
    images = images_of(range(300))
    scorer = PatchKNNScorer(coreset=0.02, metric="euclidean")
    expected = pipe_of(scorer, sizes=sizes).fit(images)
    found = fit_stream(pipe_of(scorer, sizes=sizes), images)
    assert len(found[-1].bank_) == len(expected[-1].bank_)
    assert radius_of(found, images) <= 1.2 * expected[-1].coverage_radius_
    assert radius_of(found, images) <= found[-1].coverage_radius_
    np.testing.assert_allclose(found[-1].offset_, expected[-1].offset_, rtol=0.1)


def test_a_coreset_is_calibrated_on_images_that_it_has_not_seen(monkeypatch):
    """As from a fit to the others, of a coreset of as many patches."""
    monkeypatch.setattr(_streamed_banks, "MAX_CALIBRATION_PATCHES", 1200)
    images = images_of(range(300))
    found = fit_stream(pipe_of(PatchKNNScorer(coreset=0.02, metric="euclidean")), images)[-1]
    held, others = images[::5], [image for i, image in enumerate(images) if i % 5]
    apart = pipe_of(PatchKNNScorer(coreset=len(found.bank_), metric="euclidean")).fit(others)
    np.testing.assert_array_equal(found.train_scores_, apart.score_samples(held))


def test_groups_of_a_coreset_are_held_out_as_a_whole(monkeypatch):
    """In two folds here, of a fifth of the images each."""
    monkeypatch.setattr(_streamed_banks, "MAX_CALIBRATION_PATCHES", 2400)
    images, groups = images_of(range(300)), np.arange(300) % 60
    pipe = pipe_of(PatchKNNScorer(coreset=0.02, metric="euclidean"))
    found = fit_stream(pipe, images, groups=groups)[-1]
    size = len(found.bank_)
    held = np.flatnonzero(groups % 3 == 0)
    assert len(found.train_scores_) == len(held) == 100
    first = held[groups[held] < 30]
    apart = pipe_of(PatchKNNScorer(coreset=size, metric="euclidean"))
    apart.fit([images[i] for i in range(300) if i not in set(first)])
    np.testing.assert_array_equal(
        found.train_scores_[np.isin(held, first)],
        apart.score_samples([images[i] for i in first]),
    )


@pytest.mark.parametrize("odd", [0, 7])
def test_an_odd_image_is_not_in_the_coreset_that_it_is_held_out_from(
    few_candidates, monkeypatch, odd
):
    monkeypatch.setattr(_streamed_banks, "MAX_CALIBRATION_PATCHES", 1200)
    images = images_of(range(300))

    def embed(image):
        tokens = Stub()(image)
        return tokens + 100 * (image[0, 0, 0] == odd and image[0, 0, 1] == 0)

    scorer = PatchKNNScorer(coreset=0.02, metric="euclidean", contamination=0.01)
    pipe = fit_stream(make_pipeline(FunctionPatches(embed, n_jobs=1), scorer), images)
    scores = pipe[-1].train_scores_
    if odd == 0:  # it is calibrated on
        assert scores[0] < -100 and scores[1:].min() > -20
    else:
        assert scores.min() > -20
        assert pipe[-1].bank_.max() > 90


def test_training_images_get_their_held_out_scores(few_candidates):
    images = images_of(range(100))
    for scorer in SCORERS.values():
        found = fit_stream(pipe_of(scorer), images)
        held = sorted(found[-1]._held_out_scores)
        np.testing.assert_array_equal(
            found.score_samples([images[i] for i in held]), found[-1].train_scores_
        )


@pytest.mark.parametrize("name", ["subspace", "positions", "bank", "coreset"])
def test_the_same_images_give_the_same_model(name, few_candidates):
    images = [np.random.default_rng(i).integers(0, 255, (32, 32, 3), np.uint8) for i in range(30)]
    scores = []
    for batch_size in (1, 4, 30):
        embedder = FilterBankPatches(image_size=32, batch_size=batch_size)
        scorer = SCORERS[name].__class__(**SCORERS[name].get_params())
        pipe = fit_stream(make_pipeline(embedder, scorer), images)
        scores.append([pipe[-1].train_scores_, pipe.score_samples(images[:2] + [images[0] // 2])])
    for other in scores[1:]:
        np.testing.assert_array_equal(np.concatenate(other), np.concatenate(scores[0]))


def test_the_embedder_is_asked_for_calibration_images_twice_and_the_cache_saves_it(tmp_path):
    calls = []

    def embed(image):
        calls.append(int(image[0, 0, 0]))
        return Stub()(image)

    images = images_of(range(20))
    pipe = make_pipeline(FunctionPatches(embed, n_jobs=1), PatchSubspaceScorer())
    fit_stream(pipe, images)
    assert sorted(calls[1:]) == sorted([*range(20), *range(20)])  # the first image once more
    calls.clear()
    cached = FunctionPatches(embed, n_jobs=1, cache_dir=tmp_path, func_version="1")
    fit_stream(make_pipeline(cached, PatchSubspaceScorer()), images)
    assert sorted(calls) == list(range(20))


def test_a_streamed_model_is_saved_and_loaded(tmp_path):
    images = [np.random.default_rng(i).integers(0, 255, (32, 32, 3), np.uint8) for i in range(12)]
    for scorer in (PatchKNNScorer(coreset=0.2), PatchGaussianScorer(), PatchSubspaceScorer()):
        pipe = fit_stream(make_pipeline(FilterBankPatches(image_size=32), scorer), images)
        save_model(pipe, tmp_path / f"{type(scorer).__name__}.skan")
        loaded = load_model(tmp_path / f"{type(scorer).__name__}.skan")
        np.testing.assert_array_equal(loaded.score_samples(images), pipe.score_samples(images))


def test_copies_are_told_and_images_known_by_path_and_digest():
    images = [np.random.default_rng(i).integers(0, 255, (64, 64, 3), np.uint8) for i in range(12)]
    images[7] = images[3]
    pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer())
    with pytest.warns(UserWarning, match="training images 3 and 7 are copies"):
        fit_stream(pipe, images)
    assert len(pipe[0]._train_images) == 12


# What is refused.


def test_a_generator_is_refused():
    images = images_of(range(5))
    with pytest.raises(TypeError, match="images is a generator, which gives its images once"):
        fit_stream(pipe_of(PatchKNNScorer()), (image for image in images))


def test_another_iterable_is_gone_through_again():
    class Images:
        def __iter__(self):
            return iter(images_of(range(12)))

    expected = pipe_of(PatchKNNScorer()).fit(images_of(range(12)))
    check_same(fit_stream(pipe_of(PatchKNNScorer()), Images()), expected)


@pytest.mark.parametrize(
    ("steps", "error", "message"),
    [
        (
            [FilterBankPatches(), LocalKNNScorer()],
            TypeError,
            "LocalKNNScorer cannot be fitted to a",
        ),
        ([PatchKNNScorer()], TypeError, "takes patch tokens, not images"),
        (
            [FunctionTransformer(), FilterBankPatches(), PatchKNNScorer()],
            TypeError,
            "FunctionTransformer cannot be fitted to a stream",
        ),
        (
            [FilterBankPatches(), PatchKNNScorer(algorithm="faiss:Flat")],
            ValueError,
            "algorithm='faiss:Flat' has to see all patches at once",
        ),
        (
            [FilterBankPatches(), PatchKNNScorer(coreset=0.1, coreset_method="random")],
            ValueError,
            "coreset_method='random' has to see all patches",
        ),
        (
            [FilterBankPatches(), PatchGaussianScorer(reduction="pca")],
            ValueError,
            "take reduction='random'",
        ),
    ],
)
def test_what_cannot_be_streamed_is_refused_before_the_work(steps, error, message):
    with pytest.raises(error, match=message):
        fit_stream(make_pipeline(*steps), ["no such image.png"])


def test_a_search_is_refused():
    search = GridSearchCV(pipe_of(PatchKNNScorer()), {"patchknnscorer__n_neighbors": [1, 2]})
    with pytest.raises(TypeError, match="GridSearchCV fits many models"):
        fit_stream(search, images_of(range(5)))


@pytest.mark.parametrize("groups", [None, [1, 1, 1]])
def test_one_image_or_group_is_refused(groups):
    images = images_of(range(1 if groups is None else 3))
    with pytest.raises(ValueError, match="needs at least 2 normal images to be fitted to a stream"):
        fit_stream(pipe_of(PatchKNNScorer()), images, groups=groups)


def test_a_bank_that_does_not_fit_is_refused_before_the_work(monkeypatch):
    monkeypatch.setattr(_streamed_banks, "available_memory", lambda: 10_000)
    with pytest.raises(ValueError, match="all patches of 40 images takes about 0.0 GB.*coreset"):
        fit_stream(pipe_of(PatchKNNScorer()), images_of(range(40)))


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    images = [*images_of(range(9)), str(tmp_path / "broken.png")]
    with pytest.raises(ValueError, match=r"image 9 \('.*broken.png'\)"):
        fit_stream(pipe_of(PatchKNNScorer()), images)


def test_tokens_that_cannot_be_used_are_named_by_the_image():
    class Broken(Stub):
        def __call__(self, image):
            tokens = super().__call__(image)
            if image[0, 0, 0] == 23:
                tokens[0, 1, 2] = np.inf
            return tokens

    pipe = Pipeline([("emb", FunctionPatches(Broken(), n_jobs=1)), ("knn", PatchKNNScorer())])
    y = np.ones(30)
    y[:5] = -1
    with pytest.raises(ValueError, match="image 23"):
        fit_stream(pipe, images_of(range(30)), y)


def test_a_fit_that_fails_leaves_no_model():
    pipe = pipe_of(PatchKNNScorer()).fit(images_of(range(5)))
    with pytest.raises(ValueError):
        fit_stream(pipe, [*images_of(range(5)), "no such image.png"])
    assert not hasattr(pipe[-1], "offset_")


def test_nothing_else_is_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scorer in SCORERS.values():
            fit_stream(pipe_of(scorer), images_of(range(20)))
