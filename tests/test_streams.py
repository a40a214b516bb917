"""Images side by side: in order, each with its share of torch's threads."""

import threading

import numpy as np
import pytest

from skanomaly import TimmPatches
from skanomaly.embedders._streams import map_images, one_thread

torch = pytest.importorskip("torch")


@pytest.fixture
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3, 4], indirect=True)
@pytest.mark.parametrize("n_images", [1, 2, 3, 5])
def test_threads_are_shared_out(threads, n_images):
    together = threading.Barrier(min(n_images, threads), timeout=60)

    def call(number):
        if number < together.parties:
            together.wait()  # for as many as there are streams
        return number, torch.get_num_threads(), torch.is_inference_mode_enabled()

    share = threads // min(n_images, threads)
    assert map_images(call, range(n_images)) == [(i, share, True) for i in range(n_images)]
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("threads", [4], indirect=True)
def test_other_threads_keep_theirs(threads):
    map_images(lambda number: one_thread(), range(4))
    seen = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [4] and torch.get_num_threads() == 4


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_errors_arrive(threads):
    with pytest.raises(ZeroDivisionError):
        map_images(lambda number: 1 / number, range(3))


def test_no_images():
    assert map_images(abs, []) == []


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
        embedder = TimmPatches("resnet18", weights="random", image_size=64, n_jobs=2)
        embedder.transform(np.zeros((3, 80, 80, 3), dtype=np.uint8))
    finally:
        torch.set_num_threads(before)
    assert len(seen) == 3
    assert all(name.startswith("skanomaly-read") and count == 1 for name, count in seen)
