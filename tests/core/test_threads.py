"""Work side by side: in order, each item with its share of the threads."""

import os
import re
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from skanomaly import TimmPatches
from skanomaly._networks import timm
from skanomaly.core.threads import (
    blas_threads,
    limit_openmp,
    map_products,
    map_threads,
    reading_threads,
)

torch = pytest.importorskip("torch")


@pytest.fixture
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 4], indirect=True)
@pytest.mark.parametrize("n_images", [1, 2, 5])
def test_images_share_the_threads(threads, n_images, monkeypatch):
    together, seen = threading.Barrier(min(n_images, threads), timeout=60), []

    def forward(model, x, layers):
        if len(seen) < together.parties:
            mkl = re.search(r"mkl_get_max_threads\(\) : (\d+)", torch.__config__.parallel_info())
            count = torch.get_num_threads()
            # MKL is not in every build of torch.
            seen.append((count, int(mkl[1]) if mkl else count, torch.is_inference_mode_enabled()))
            together.wait()  # for as many as there are to be side by side
        return real(model, x, layers)

    real = timm.forward
    monkeypatch.setattr("skanomaly.embedders._timm.forward", forward)
    embedder = TimmPatches("resnet18", weights="random", image_size=64, device="cpu")
    embedder.transform(np.zeros((n_images, 64, 64, 3), dtype=np.uint8))
    share = threads // min(n_images, threads)
    assert set(seen) == {(share, share, True)}
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("threads", [4], indirect=True)
def test_other_threads_keep_theirs(threads):
    map_threads(lambda number: limit_openmp(), range(4), 4)
    seen = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [4] and torch.get_num_threads() == 4


@pytest.mark.parametrize("torch_module", [None, types.ModuleType("torch")])
def test_without_torch_or_while_it_is_imported(torch_module, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", torch_module)
    assert map_threads(abs, [-1, 2, -3], 2) == [1, 2, 3]


@pytest.mark.parametrize("mapping", [map_threads, map_products])
@pytest.mark.parametrize("n_threads", [1, 2, 9])
def test_results_are_in_order(mapping, n_threads):
    assert mapping(lambda number: number**2, range(7), n_threads) == [i**2 for i in range(7)]
    assert mapping(abs, [], n_threads) == []
    with pytest.raises(ZeroDivisionError):
        mapping(lambda number: 1 / number, range(3), n_threads)


def names(number):
    return threading.current_thread().name, blas_threads()


def test_products_run_side_by_side_with_one_thread_each():
    with threadpool_limits(3, user_api="blas"):
        assert blas_threads() == 3
        assert {(name[:9], limit) for name, limit in map_products(names, range(9), 2)} == {
            ("skanomaly", 1)
        }
        assert blas_threads() == 3
        with pytest.raises(ZeroDivisionError):
            map_products(lambda number: 1 / number, range(3), 2)
        assert blas_threads() == 3


def test_one_thread_of_products_even_for_one_item():
    with threadpool_limits(3, user_api="blas"):
        for n_threads, n_items in ((1, 3), (2, 1), (2, 3)):
            limits = {
                always: {
                    limit for _, limit in map_products(names, range(n_items), n_threads, always)
                }
                for always in (False, True)
            }
            assert limits == {False: {1 if n_threads == 2 and n_items > 1 else 3}, True: {1}}
            assert blas_threads() == 3


def test_products_run_in_their_thread_where_the_limit_is_not_theirs():
    here = threading.current_thread().name
    inside, go_on = threading.Event(), threading.Event()

    def wait(number):
        inside.set()
        assert go_on.wait(60)

    try:
        with threadpool_limits(3, user_api="blas"), ThreadPoolExecutor(1, "other") as pool:
            # Of some versions of threadpoolctl, another thread may not set it.
            found = pool.submit(map_products, names, range(9), 2).result()
            assert {(name[:5], limit) for name, limit in found} in ({("other", 3)}, {("skano", 1)})
        with ThreadPoolExecutor(1) as pool:
            longer = pool.submit(map_products, wait, range(2), 2)
            assert inside.wait(60)
            assert {name for name, _ in map_products(names, range(9), 2)} == {here}
            go_on.set()
            longer.result()
    finally:
        go_on.set()
    nested = map_products(lambda number: map_products(names, range(2), 2), range(2), 2)
    assert all(inner[0] == inner[1] and inner[0][1] == 1 for inner in nested)


@pytest.mark.parametrize("cores, threads", [(1, 1), (3, 3), (8, 8), (96, 8)])
def test_as_many_threads_read_as_the_process_may_use_cores(cores, threads, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2 * cores)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    assert reading_threads() == threads


@pytest.mark.parametrize("cores, threads", [(None, 1), (1, 1), (3, 3), (96, 8)])
def test_where_the_system_does_not_say_which_cores_they_are_all_counted(
    cores, threads, monkeypatch
):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert reading_threads() == threads


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tokens_do_not_depend_on_threads_or_batches(dtype):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    options = {"weights": "random", "image_size": 64, "device": "cpu", "dtype": dtype}
    tokens, before = [], torch.get_num_threads()
    try:
        for n_threads, batch_size in [(1, 1), (1, 5), (2, 5), (3, 2), (4, 5)]:
            torch.set_num_threads(n_threads)
            embedder = TimmPatches("vit_tiny_patch16_224", batch_size=batch_size, **options)
            tokens.append(embedder.transform(images))
    finally:
        torch.set_num_threads(before)
    for other in tokens[1:]:
        # float32 products may be split among threads, which may change how a sum is rounded.
        atol = 1e-5 if dtype == "float32" else 0
        np.testing.assert_allclose(other, tokens[0], rtol=0, atol=atol)


def test_images_are_read_with_one_thread_of_torch(monkeypatch):
    seen, resize = [], TimmPatches._resize

    def spied(self, image, size):
        seen.append((threading.current_thread().name, torch.get_num_threads()))
        return resize(self, image, size)

    monkeypatch.setattr(TimmPatches, "_resize", spied)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        embedder = TimmPatches("resnet18", weights="random", image_size=64)
        embedder.transform(np.zeros((3, 80, 80, 3), dtype=np.uint8))
    finally:
        torch.set_num_threads(before)
    assert len(seen) == 3
    assert all(name.startswith("skanomaly-read") and count == 1 for name, count in seen)
