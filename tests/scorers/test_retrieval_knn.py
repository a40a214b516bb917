"""Patches of the most similar images alone, against RAD in plain float64 loops."""

import numpy as np
import pytest

from skanomaly import PatchKNNScorer, RetrievalKNNScorer, TimmPatches
from skanomaly._faults import is_of_an_image

DIM = 24


def unit(values):
    values = np.asarray(values, dtype=float)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def rad(image, bank, n_retrieved, radius, parts, class_token=False, k=1):
    """Patch scores of one image, and the images that it was compared to."""
    compared = parts[:-1] if class_token else parts

    def descriptor(one):
        if class_token:
            return unit(one[0, 0, parts[-1]])
        joined = np.concatenate([unit(one[..., part]) for part in compared], axis=-1)
        return unit(joined.sum(axis=(0, 1)))

    likeness = [descriptor(image) @ descriptor(other) for other in bank]
    chosen = np.argsort(-np.array(likeness), kind="stable")[:n_retrieved]
    height, width = image.shape[:2]
    out = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            for part in compared:
                found = []
                for number in chosen:
                    for r in range(height):
                        for c in range(width):
                            if radius is None or max(abs(r - row), abs(c - column)) <= radius:
                                one, other = image[row, column, part], bank[number][r, c, part]
                                found.append(1 - unit(one) @ unit(other))
                out[row, column] += np.mean(np.sort(found)[:k]) / len(compared)
    return out, chosen


def tokens(n, seed=0, grid=(4, 5)):
    """Images that differ as a whole, with a class token that is the same in all patches."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).normal(size=(DIM, DIM))
    made = rng.normal(size=(n, *grid, DIM)) @ mixing + 2 * rng.normal(size=(n, 1, 1, DIM))
    made[..., 16:] = made[:, :1, :1, 16:]
    return made.astype(np.float32)


@pytest.fixture
def train():
    return tokens(10)


@pytest.fixture
def new():
    return tokens(4, seed=1)


@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize(("radius", "k"), [(None, 1), (0, 1), (1, 3)])
def test_in_loops(class_token, radius, k, train, new):
    parts = [slice(0, 8), slice(8, 16), slice(16, 24)]
    options = {"radius": radius, "parts": 3, "class_token": class_token, "n_neighbors": k}
    scorer = RetrievalKNNScorer(3, **options, aggregation="max").fit(train)
    expected, chosen = rad(new[0], train, 3, radius, parts, class_token, k)
    np.testing.assert_allclose(scorer.score_patches(new[:1])[0], expected, rtol=1e-5, atol=1e-6)
    found = scorer.explain_patch(new[:1], 1, 2, n_neighbors=1).neighbors
    assert {one.image_number for one in found} <= set(chosen)
    if k == 1:
        mean = np.mean([one.distance for one in found])
        assert mean == pytest.approx(expected[1, 2], rel=1e-5)
    held_out, _ = rad(train[4], np.delete(train, 4, 0), 3, radius, parts, class_token, k)
    assert scorer.train_scores_[4] == pytest.approx(-held_out.max(), rel=1e-5)
    np.testing.assert_array_equal(scorer.score_samples(train), scorer.train_scores_)


def test_of_all_images_it_is_the_bank_of_all(train, new):
    for options in ({}, {"metric": "euclidean", "n_neighbors": 3}):
        one, other = RetrievalKNNScorer(99, **options), PatchKNNScorer(**options)
        one.fit(train), other.fit(train)
        np.testing.assert_array_equal(one.score_patches(new), other.score_patches(new))
        np.testing.assert_array_equal(one.train_scores_, other.train_scores_)
        np.testing.assert_array_equal(one.score_samples(new), other.score_samples(new))


def test_one_model_of_several_products(train):
    rng = np.random.default_rng(2)
    centres = np.repeat(5 * np.eye(DIM)[:2], 15, axis=0)[:, None, None]
    good = (centres + 0.2 * rng.normal(size=(30, 4, 5, DIM))).astype(np.float32)
    swapped = good[[0, 20]] + np.float32(0.01)
    swapped[0, 1, 1], swapped[1, 1, 1] = good[20, 0, 0], good[0, 0, 0]
    assert set(RetrievalKNNScorer(10).fit(good).predict(swapped)) == {-1}
    joint = PatchKNNScorer(topk=1).fit(good).score_patches(swapped)[:, 1, 1]
    apart = RetrievalKNNScorer(10).fit(good).score_patches(swapped)[:, 1, 1]
    assert (joint < 1e-6).all() and (apart > 0.5).all()


def test_masked_patches_views_and_mixed_grids(train, new):
    train[1, 0, 0] = new[0, 2, 2] = np.nan
    for radius in (None, 1):
        scorer = RetrievalKNNScorer(4, radius=radius).fit(train)
        patches, scores = scorer.score_patches(new, return_scores=True)
        assert patches[0, 2, 2] == 0 and np.isfinite(scores).all()
        views = np.stack([train, train[:, ::-1, ::-1]], axis=1)
        of_views = RetrievalKNNScorer(4, radius=radius).fit(views)
        assert of_views.explain_patch(train[3:4], 1, 1).neighbors[0].image_number != 3
    mixed = np.empty(6, dtype=object)
    mixed[:] = [*tokens(3), *tokens(3, seed=1, grid=(6, 3))]
    scorer = RetrievalKNNScorer(3).fit(mixed)
    np.testing.assert_array_equal(scorer.score_samples(mixed), scorer.train_scores_)
    with pytest.raises(ValueError, match="radius=1 compares places: it needs images of one grid"):
        RetrievalKNNScorer(3, radius=1).fit(mixed)
    scorer = RetrievalKNNScorer(3, radius=1).fit(train)
    mixed[2] = train[2]  # whose held-out score is known
    with pytest.raises(ValueError, match=r"image 3 has a grid of \(6, 3\)") as raised:
        scorer.predict(mixed)
    assert is_of_an_image(raised.value)


@pytest.mark.parametrize("class_token", [False, True])
def test_images_are_retrieved_by_their_first_view(class_token, train, new):
    options = {"parts": 3, "class_token": class_token}
    plain = RetrievalKNNScorer(2, **options).fit(train)
    other = tokens(10, seed=5)  # which a new image is never seen by
    background = np.full_like(train, np.nan)
    background[:, 0], first = train[:, 0], train.copy()
    first[:, 0] = np.nan
    masked_plain = RetrievalKNNScorer(2, **options).fit(first)
    for one, views in ((plain, [train, other]), (masked_plain, [first, background])):
        scorer = RetrievalKNNScorer(2, **options).fit(np.stack(views, axis=1))
        np.testing.assert_array_equal(scorer._model.descriptors, one._model.descriptors)
    views = np.stack([train, other], axis=1)
    with pytest.warns(UserWarning, match="single image"):  # of which one view is held out
        RetrievalKNNScorer(**options).fit(views[:1])


def test_a_class_token_is_the_same_in_all_patches(train, new):
    scorer = RetrievalKNNScorer(3, parts=3, class_token=True).fit(train)
    for images in (train, new):
        images[2, 1, 1, 16:] += 1
    message = "image 2 is not the same in all of its patches: .* count the class token in parts"
    with pytest.raises(ValueError, match=message) as raised:
        scorer.predict(new)
    assert is_of_an_image(raised.value)
    with pytest.raises(ValueError, match=message):
        RetrievalKNNScorer(3, parts=3, class_token=True).fit(train)


def test_few_images(train):
    with pytest.warns(UserWarning, match="single image"):
        one = RetrievalKNNScorer().fit(train[:1])
    np.testing.assert_array_equal(one.score_samples(train[:1]), one.train_scores_)
    with pytest.raises(ValueError, match="needs at least 2 normal images"):
        RetrievalKNNScorer(radius=1).fit(train[:1])
    with pytest.raises(ValueError, match="parts=1 says that there is one"):
        RetrievalKNNScorer(class_token=True).fit(train)


@pytest.mark.parametrize(("grid", "k"), [((14, 14), 1), ((7, 12), 3)])
def test_real_images(grid, k, shared):
    weights = shared / "weights" / "vit_tiny_patch16_224.safetensors"
    folders = [shared / "data" / name for name in ("cookies", "toothbrush")]
    pytest.importorskip("timm")
    paths = [path for one in folders for path in sorted((one / "train" / "good").iterdir())[:3]]
    paths.append(min((folders[0] / "test" / "defective").iterdir()))
    embedder = TimmPatches(
        "vit_tiny_patch16_224", layers=(3, 8), image_size=224, weights=weights, device="cpu"
    )
    made = embedder.fit_transform([str(path) for path in paths])[:, : grid[0], : grid[1]]
    made = np.ascontiguousarray(made)
    scorer = RetrievalKNNScorer(2, radius=1, parts=2, n_neighbors=k, aggregation="max")
    scorer.fit(made[:-1])
    parts = [slice(0, 192), slice(192, 384)]
    expected, chosen = rad(made[-1], made[:-1], 2, 1, parts, k=k)
    assert set(chosen) <= {0, 1, 2}
    found, scores = scorer.score_patches(made[-1:], return_scores=True)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-6)
    assert -scores[0] == pytest.approx(expected.max(), rel=1e-5)
