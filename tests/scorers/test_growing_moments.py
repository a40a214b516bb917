"""Gaussians and subspaces that learn more images or become one: as fitted to all of them."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skanomaly import (
    FilterBankPatches,
    PatchGaussianScorer,
    PatchSubspaceScorer,
    load_model,
    merge_models,
    save_model,
    update_model,
)

SCORERS = {
    "subspace": PatchSubspaceScorer(0.9),
    "positions": PatchGaussianScorer(n_components=None),
    "some components": PatchGaussianScorer(n_components=4, random_state=3),
    "neighbourhood": PatchGaussianScorer(n_components=None, neighborhood=3, shrinkage=0.2),
    "shared": PatchGaussianScorer("shared", n_components=None),
}
TOLERANCE = 1e-6


def tokens_of(n, seed=0, masked=0.1):
    rng = np.random.default_rng(seed)
    tokens = rng.standard_normal((n, 4, 5, 6)) * np.arange(1, 7) + 3
    tokens += np.indices((4, 5)).sum(axis=0)[..., None]
    tokens[rng.uniform(size=tokens.shape[:3]) < masked] = np.nan
    return tokens.astype(np.float32)


OLD, MORE, NEW = tokens_of(30), tokens_of(14, 1), tokens_of(12, 2)


@pytest.mark.parametrize("name", SCORERS)
def test_more_images_give_the_model_of_a_fit_to_all(name):
    grown = clone(SCORERS[name]).fit(OLD)
    before = dict(zip(range(30), grown.train_scores_, strict=True))
    for part in (MORE[:1], MORE[1:9], MORE[9:]):
        grown.partial_fit(part)
    expected = clone(SCORERS[name]).fit(np.concatenate([OLD, MORE]))
    np.testing.assert_allclose(
        grown.score_patches(NEW), expected.score_patches(NEW), rtol=TOLERANCE
    )
    np.testing.assert_allclose(
        grown.score_samples(NEW), expected.score_samples(NEW), rtol=TOLERANCE
    )
    # Old images keep their held-out scores; new ones are held out from all others.
    assert len(grown.train_scores_) == 44
    np.testing.assert_array_equal(grown.train_scores_[:30], list(before.values()))
    np.testing.assert_array_equal(grown.score_samples(MORE), grown.train_scores_[30:])
    np.testing.assert_allclose(grown.train_scores_[30:], expected.train_scores_[30:], rtol=0.25)
    assert grown.calibration_ == expected.calibration_


@pytest.mark.parametrize("name", SCORERS)
def test_new_images_are_held_out_from_models_without_them(name):
    """Two new images: each by a fit to the old ones and the other one."""
    grown = clone(SCORERS[name]).fit(OLD).partial_fit(MORE[:2])
    for own, other in ((0, 1), (1, 0)):
        apart = clone(SCORERS[name]).fit(np.concatenate([OLD, MORE[other : other + 1]]))
        np.testing.assert_allclose(
            grown.train_scores_[30 + own], apart.score_samples(MORE[own : own + 1])[0], rtol=1e-6
        )


@pytest.mark.parametrize("name", SCORERS)
def test_old_held_out_scores_differ_little_from_those_of_a_refit(name):
    """The bound that is documented: by models of the old images alone, which know no less."""
    grown = clone(SCORERS[name]).fit(OLD).partial_fit(MORE)
    expected = clone(SCORERS[name]).fit(np.concatenate([OLD, MORE]))
    # More images know more: what is held out from fewer looks no less anomalous, on the whole.
    assert np.mean(grown.train_scores_) <= np.mean(expected.train_scores_) + 0.01 * abs(
        np.mean(expected.train_scores_)
    )
    assert abs(grown.offset_ / expected.offset_ - 1) <= 0.2


@pytest.mark.parametrize("name", SCORERS)
def test_merged_models_are_those_of_a_fit_to_all(name):
    parts = [clone(SCORERS[name]).fit(part) for part in (OLD, MORE, tokens_of(10, 5))]
    merged = merge_models(parts)
    expected = clone(SCORERS[name]).fit(np.concatenate([OLD, MORE, tokens_of(10, 5)]))
    np.testing.assert_allclose(
        merged.score_patches(NEW), expected.score_patches(NEW), rtol=TOLERANCE
    )
    np.testing.assert_array_equal(
        merged.train_scores_, np.concatenate([part.train_scores_ for part in parts])
    )


def test_images_are_not_forgotten_by_sums():
    scorer = clone(SCORERS["subspace"]).fit(OLD)
    before = scorer.score_samples(NEW)
    with pytest.raises(ValueError, match="PatchSubspaceScorer has sums .* fit again without it"):
        scorer.forget(OLD[:2])
    np.testing.assert_array_equal(scorer.score_samples(NEW), before)


def test_groups_that_are_known_are_refused():
    scorer = clone(SCORERS["positions"]).fit(OLD, groups=np.arange(30) // 2)
    with pytest.raises(ValueError, match="new images are of groups that the PatchGaussianScorer"):
        scorer.partial_fit(MORE[:4], groups=[14, 14, 15, 15])
    grown = scorer.partial_fit(MORE[:4], groups=[15, 15, 16, 16])
    assert grown.calibration_["n_groups"] == 17


def test_principal_components_do_not_grow():
    scorer = PatchGaussianScorer(n_components=4, reduction="pca").fit(OLD)
    assert not hasattr(scorer, "partial_fit")
    assert hasattr(PatchGaussianScorer(n_components=None, reduction="pca").fit(OLD), "partial_fit")


def test_another_grid_is_refused():
    scorer = clone(SCORERS["positions"]).fit(OLD)
    with pytest.raises(ValueError, match="the grid of image 0 is"):
        scorer.partial_fit(np.zeros((2, 5, 5, 6), dtype=np.float32))


def test_a_single_image_is_refused():
    scorer = clone(SCORERS["subspace"])
    with pytest.warns(UserWarning, match="calibrated on a single image"):
        scorer.fit(OLD[:1])
    with pytest.raises(ValueError, match="a single image or group"):
        scorer.partial_fit(MORE)


@pytest.mark.parametrize("name", ["subspace", "positions"])
def test_what_was_saved_grows_as_before(name, tmp_path):
    images = [np.random.default_rng(i).integers(0, 255, (32, 32, 3), np.uint8) for i in range(16)]
    pipe = make_pipeline(FilterBankPatches(image_size=32), clone(SCORERS[name])).fit(images[:8])
    save_model(pipe, tmp_path / "model.skan")
    loaded = update_model(load_model(tmp_path / "model.skan"), images[8:12])
    expected = update_model(pipe, images[8:12])
    np.testing.assert_array_equal(loaded.score_samples(images), expected.score_samples(images))
    both = merge_models([loaded, clone(pipe).fit(images[12:])])
    assert len(both[-1].train_scores_) == 16
