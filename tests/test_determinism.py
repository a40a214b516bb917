"""One image has one score, to the bit, however it is computed, as docs/determinism.md says."""

import functools
import warnings

import numpy as np
import pytest
from _fault_models import picture
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits

from skanomaly import (
    FilterBankPatches,
    LocalKNNScorer,
    PatchGaussianScorer,
    PatchKNNScorer,
    PatchSubspaceScorer,
    TimmPatches,
    TinyPatches,
    anomaly_maps,
    iter_scores,
)

GOOD = [picture(seed, 32, 40) for seed in range(9)]
NEW = [picture(50, 32, 40), picture(51, 40, 32), picture(52, 33, 33), picture(53, 32, 40)]
# Tokens of torch in float32: how sums are split depends on the number of threads.
THREADS_TOLERANCE = 1e-5

EMBEDDERS = {
    "filter bank": lambda **params: FilterBankPatches(image_size=32, **params),
    "tiny network": lambda **params: TinyPatches(image_size=32, **params),
    "ViT": lambda **params: TimmPatches(
        "test_vit", weights="random", image_size=32, device="cpu", dtype="float32", **params
    ),
}
SCORERS = {
    "knn": PatchKNNScorer(coreset=0.5, random_state=0),
    "local": LocalKNNScorer(few=3),
    "gaussian": PatchGaussianScorer(n_components=16, random_state=0),
    "subspace": PatchSubspaceScorer(explained_variance=0.9),
}
both = pytest.mark.parametrize("embedder", EMBEDDERS)
each_scorer = pytest.mark.parametrize("scorer", SCORERS)


@pytest.fixture(autouse=True)
def libraries(request):
    embedder = (
        request.node.callspec.params.get("embedder") if hasattr(request.node, "callspec") else 0
    )
    if embedder == "ViT":
        pytest.importorskip("torch")
        pytest.importorskip("timm")


@functools.cache
def fitted(embedder, scorer):
    return make_pipeline(EMBEDDERS[embedder](), clone(SCORERS[scorer])).fit(GOOD)


@functools.cache
def tokens_of(embedder):
    return EMBEDDERS[embedder]().transform(NEW)


def with_threads(n, function):
    """What a function returns where BLAS, OpenMP and torch have so many threads."""
    import sys

    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 1
    try:
        if torch:
            torch.set_num_threads(n)
        with threadpool_limits(n):
            return function()
    finally:
        if torch:
            torch.set_num_threads(before)


@both
@pytest.mark.parametrize(
    "params", [{"batch_size": 1}, {"batch_size": 3}, {"stream": True}], ids=repr
)
def test_tokens_do_not_depend_on_batches(embedder, params):
    found = np.asarray(EMBEDDERS[embedder](**params).transform(NEW))
    np.testing.assert_array_equal(found, tokens_of(embedder))


@both
def test_tokens_do_not_depend_on_the_order_nor_on_what_is_beside(embedder):
    order = [3, 0, 1, 2]
    found = EMBEDDERS[embedder]().transform([NEW[i] for i in order])
    for place, number in enumerate(order):
        np.testing.assert_array_equal(found[place], tokens_of(embedder)[number])
        alone = EMBEDDERS[embedder]().transform([NEW[number]])
        np.testing.assert_array_equal(alone[0], tokens_of(embedder)[number])


@both
def test_tokens_do_not_depend_on_the_cache(embedder, tmp_path):
    for _ in ("written", "read"):
        found = EMBEDDERS[embedder](cache_dir=tmp_path).transform(NEW)
        np.testing.assert_array_equal(found, tokens_of(embedder))


@both
def test_threads(embedder):
    """To the bit without torch; with it, to a tolerance."""
    one, two = (with_threads(n, lambda: EMBEDDERS[embedder]().transform(NEW)) for n in (1, 2))
    if embedder == "ViT":
        np.testing.assert_allclose(one, two, rtol=0, atol=THREADS_TOLERANCE * np.abs(one).max())
    else:
        np.testing.assert_array_equal(one, two)


@both
@each_scorer
def test_scores_do_not_depend_on_batches_nor_order(embedder, scorer):
    pipe = fitted(embedder, scorer)
    expected = pipe.score_samples(NEW)
    assert pipe.score_samples(NEW[::-1])[::-1].tolist() == expected.tolist()
    assert [pipe.score_samples([image])[0] for image in NEW] == expected.tolist()
    for batch_size in (1, 4):
        judged = iter_scores(pipe, NEW, batch_size=batch_size)
        assert [decision.score for decision in judged] == expected.tolist()
    maps, alone = anomaly_maps(pipe, NEW), [anomaly_maps(pipe, [image])[0] for image in NEW]
    for found, one in zip(maps, alone, strict=True):
        np.testing.assert_array_equal(found, one)


@both
@each_scorer
def test_a_fit_is_repeated_to_the_bit(embedder, scorer):
    first = fitted(embedder, scorer)
    again = make_pipeline(EMBEDDERS[embedder](batch_size=3), clone(SCORERS[scorer])).fit(GOOD)
    assert again[-1].train_scores_.tolist() == first[-1].train_scores_.tolist()
    assert again[-1].offset_ == first[-1].offset_
    assert again.score_samples(NEW).tolist() == first.score_samples(NEW).tolist()


@each_scorer
def test_scores_do_not_depend_on_threads(scorer):
    """Products of BLAS are split by threads: to a tolerance, with the same decisions."""
    tokens, new = (EMBEDDERS["filter bank"]().transform(images) for images in (GOOD, NEW))

    def work():
        model = clone(SCORERS[scorer]).fit(tokens)
        return model.score_samples(new), model.predict(new)

    (one, decided), (two, again) = (with_threads(n, work) for n in (1, 2))
    np.testing.assert_allclose(one, two, rtol=1e-6)
    assert decided.tolist() == again.tolist()


@each_scorer
def test_new_images_do_not_depend_on_threads(scorer):
    """A model that is fitted gives the same scores to the bit."""
    pipe = fitted("filter bank", scorer)
    one, two = (with_threads(n, lambda: pipe.score_samples(NEW)) for n in (1, 2))
    assert one.tolist() == two.tolist()


def test_the_order_of_training_images_changes_no_score_but_by_rounding():
    """What is drawn at random is drawn by place: without it."""
    plain = PatchKNNScorer()
    tokens, new = (EMBEDDERS["filter bank"]().transform(images) for images in (GOOD, NEW))
    forward = clone(plain).fit(tokens)
    backward = clone(plain).fit(tokens[::-1])
    assert forward.train_scores_.tolist() == backward.train_scores_[::-1].tolist()
    assert forward.score_samples(new).tolist() == backward.score_samples(new).tolist()


@pytest.mark.slow
def test_searches_do_not_depend_on_n_jobs():
    from sklearn.model_selection import GridSearchCV

    from skanomaly.model_selection import OneClassSplit

    images, y = [*GOOD, *NEW[:3]], [1] * 9 + [-1] * 3
    found = []
    for n_jobs in (1, 2):
        search = GridSearchCV(
            make_pipeline(EMBEDDERS["filter bank"](), PatchGaussianScorer(random_state=0)),
            {"patchgaussianscorer__topk": [1, 4]},
            cv=OneClassSplit(3),
            scoring="roc_auc",
            n_jobs=n_jobs,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            search.fit(images, y)
        found.append(
            [search.cv_results_["mean_test_score"].tolist(), search.score_samples(NEW).tolist()]
        )
    assert found[0] == found[1]
