"""The share of fresh normal images that is flagged is close to `contamination`."""

from functools import cache

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.base import clone
from sklearn.svm import OneClassSVM

from skanomaly import (
    FilterBankPatches,
    LocalKNNScorer,
    PatchGaussianScorer,
    PatchKNNScorer,
    PatchSubspaceScorer,
    PatchwiseScorer,
    RetrievalKNNScorer,
)
from skanomaly._tokens import check_tokens
from skanomaly.datasets import make_surfaces, read_mvtec

CONTAMINATION = 0.1
SCORERS = [
    PatchKNNScorer(contamination=CONTAMINATION),
    PatchKNNScorer(metric="euclidean", coreset=0.2, contamination=CONTAMINATION),
    PatchGaussianScorer(neighborhood=3, topk=0.005, contamination=CONTAMINATION),
    LocalKNNScorer(contamination=CONTAMINATION),
    PatchGaussianScorer("shared", contamination=CONTAMINATION),
    PatchSubspaceScorer(contamination=CONTAMINATION),
    RetrievalKNNScorer(5, radius=1, contamination=CONTAMINATION),
    PatchKNNScorer(
        metric="euclidean",
        coreset=0.2,
        aggregation="max",
        reweighting=9,
        contamination=CONTAMINATION,
    ),
    PatchwiseScorer(
        OneClassSVM(nu=0.1), n_patches=500, contamination=CONTAMINATION, random_state=0
    ),
]
# With one Gaussian for everything an image weighs too little in its own score to show.
MEMORISES = [*SCORERS[:4], SCORERS[6]]


def _in_sample_scores(scorer, tokens):
    """What the model gives its own training images when nothing is left out."""
    tokens = check_tokens(tokens)
    new = np.full(tokens.n_images, -1)  # nothing is known, so that nothing is left out
    return -scorer._aggregate(tokens, scorer._score_model(scorer._model, tokens, new))


def _flagged(scorer, tokens, n_train, seeds):
    """Numbers of fresh images flagged by held-out and by in-sample thresholds."""
    held_out = in_sample = 0
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(tokens))
        train, fresh = tokens[order[:n_train]], tokens[order[n_train:]]
        fitted = clone(scorer).fit(train)
        scores = fitted.score_samples(fresh)
        held_out += np.count_nonzero(scores < fitted.offset_)
        naive = np.quantile(_in_sample_scores(fitted, train), CONTAMINATION)
        in_sample += np.count_nonzero(scores < naive)
    return held_out, in_sample


def _interval(n):
    """Counts that a binomial of `n` trials leaves in one of a thousand cases."""
    return binom.interval(0.999, n, CONTAMINATION)


@cache
def _surface_tokens(surface, n, seed):
    images = make_surfaces(n, surface=surface, image_size=64, random_state=seed).images
    return FilterBankPatches(image_size=64).transform(images)


# The quickest scorer of each kind on one surface; all of them everywhere take a minute.
QUICK = {(0, "fabric"), (3, "disc"), (4, "disc"), (6, "disc"), (7, "fabric"), (8, "disc")}
CASES = [
    pytest.param(
        scorer,
        surface,
        marks=() if (number, surface) in QUICK else pytest.mark.slow,
        id=f"{surface}-{scorer!r}",
    )
    for number, scorer in enumerate(SCORERS)
    for surface in ("disc", "fabric", "wood")
]


@pytest.mark.parametrize("scorer, surface", CASES)
def test_surfaces(scorer, surface):
    # Independent images for every seed. The threshold rests on n_train random scores, which adds
    # as much variance as as many fresh images: the bound is that of half the images.
    n_seeds, n = 6, 40
    held_out = in_sample = 0
    for seed in range(n_seeds):
        counts = _flagged(scorer, _surface_tokens(surface, 2 * n, seed), n, [seed])
        held_out, in_sample = held_out + counts[0], in_sample + counts[1]
    low, high = _interval(n_seeds * n // 2)
    assert low <= held_out / 2 <= high
    if scorer in MEMORISES:
        assert in_sample / 2 > high


@pytest.fixture(scope="module", params=["cookies", "bottle"])
def real_normals(request, shared):
    split = read_mvtec(shared / "data" / request.param)
    normal = [p for p, y in zip(split.test.images, split.test.y, strict=True) if y == 1]
    # An 8 x 8 grid: the order of images is what is tested, not the detail in them.
    return FilterBankPatches(image_size=64).transform([*split.train.images, *normal])


@pytest.mark.slow
@pytest.mark.parametrize("scorer", SCORERS, ids=repr)
def test_real_images(scorer, real_normals):
    # Splits share their images, so that the bound is that of the distinct images, halved as above.
    n, n_seeds = len(real_normals), 6
    n_train = min(n * 2 // 3, 60)
    fresh = n_seeds * (n - n_train)
    held_out, in_sample = _flagged(scorer, real_normals, n_train, range(n_seeds))
    low, high = np.array(_interval(n // 2)) / (n // 2)
    assert low <= held_out / fresh <= high
    if scorer in MEMORISES[:2]:
        assert in_sample / fresh > high


def _photographs(images, n, rng):
    """Of each part so many, that differ in exposure and in the noise of the camera."""
    pixels = np.repeat(images, n, axis=0) * rng.normal(1, 0.005, (n * len(images), 1, 1, 1))
    return np.clip(pixels + rng.normal(0, 1, pixels.shape), 0, 255).astype(np.uint8)


@pytest.mark.filterwarnings("ignore:training images .* copies")
@pytest.mark.parametrize(
    "number", [0, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 2, 3))]
)
def test_bursts(number):
    """Four photographs of each part, in any order: only groups keep the nominal rate."""
    n_seeds, n_parts, n_fresh = 3, 24, 40
    alone = grouped = unusual = 0
    for seed in range(n_seeds):
        rng = np.random.default_rng(seed)
        made = make_surfaces(n_parts + n_fresh, surface="fabric", image_size=64, random_state=seed)
        order = rng.permutation(4 * n_parts)
        train = _photographs(made.images[:n_parts], 4, rng)[order]
        fresh = _photographs(made.images[n_parts:], 1, rng)
        train, fresh = map(FilterBankPatches(image_size=64).transform, (train, fresh))
        fitted = clone(SCORERS[number]).fit(train)
        alone += np.count_nonzero(fitted.predict(fresh) == -1)
        fitted = clone(SCORERS[number]).fit(train, groups=order // 4)
        grouped += np.count_nonzero(fitted.predict(fresh) == -1)
        unusual += np.count_nonzero(fitted.p_values(fresh) <= CONTAMINATION)
    low, high = _interval(n_seeds * n_fresh // 2)
    assert low <= grouped / 2 <= high
    assert unusual / 2 <= high
    if SCORERS[number] in MEMORISES:
        assert alone / 2 > high


def test_every_image_twice():
    """All pairs are named; without the copies, or with groups, the nominal rate is kept."""
    tokens = _surface_tokens("disc", 80, 0)
    train, fresh = tokens[:40], tokens[40:]
    twice = np.concatenate([train, train])
    with pytest.warns(UserWarning, match="training images 0 and 40, .* and 35 more pairs are cop"):
        fitted = PatchKNNScorer(contamination=CONTAMINATION).fit(twice)
    assert (fitted.predict(fresh) == -1).all()
    once = PatchKNNScorer(contamination=CONTAMINATION).fit(train)
    grouped = PatchKNNScorer(contamination=CONTAMINATION).fit(twice, groups=[*range(40)] * 2)
    low, high = _interval(20)
    for scorer in (once, grouped):
        assert low <= np.count_nonzero(scorer.predict(fresh) == -1) / 2 <= high
    np.testing.assert_allclose(grouped.p_values(fresh), once.p_values(fresh))
