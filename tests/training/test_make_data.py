"""Shards on disk, and the whole way from photographs to a file of weights."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("timm")

from PIL import Image  # noqa: E402

from training import train  # noqa: E402
from training.export import export  # noqa: E402
from training.make_data import (  # noqa: E402
    Labeller,
    fit_whitenings,
    load_whitenings,
    make_data,
    save_whitenings,
    shard_folder,
    write_shard,
)
from training.train import Trainer, be_deterministic  # noqa: E402


class ToyLabeller(Labeller):
    """Teachers that say the mean colours of squares, and more that follows from them."""

    def __init__(self, photographs, seed):
        from training.pictures import PictureMaker

        self.make = PictureMaker(photographs, seed)

    def vit(self, large):
        return self._tokens(large, 28)

    def mobilenet(self, small):
        return self._tokens(small, 14)

    @staticmethod
    def _tokens(pictures, side):
        n, size = pictures.shape[:2]
        step = size // side
        means = pictures.reshape(n, side, step, side, step, 3).mean((2, 4)).reshape(n, -1, 3)
        means = means.astype(np.float32) / 255
        return np.concatenate([means, means**2, np.sin(40 * means)], -1)


@pytest.fixture(scope="module")
def labeller():
    rng = np.random.default_rng(0)
    return ToyLabeller([rng.integers(0, 256, (80, 90, 3), np.uint8) for _ in range(3)], 0)


def test_shards_hold_pictures_and_whitened_tokens(labeller, tmp_path):
    whitenings = fit_whitenings(labeller, 12)
    save_whitenings(tmp_path / "whitening.npz", whitenings)
    read = load_whitenings(tmp_path / "whitening.npz")
    for number in (1, 0):
        write_shard(tmp_path, number, 10, labeller, read)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "shard_00000",
        "shard_00001",
        "whitening.npz",
    ]
    place = shard_folder(tmp_path, 1)
    pictures = np.load(place / "pictures.npy")
    assert pictures.shape == (10, 224, 224, 3) and pictures.dtype == np.uint8
    large, small = labeller.make(13)
    np.testing.assert_array_equal(pictures[3], small)
    for name, side, tokens in (
        ("vit", 28, labeller.vit(large[None])),
        ("mobilenet", 14, labeller.mobilenet(small[None])),
    ):
        found = np.load(place / f"{name}.npy")
        assert found.shape == (10, side, side, 9) and found.dtype == np.float16
        expected = whitenings[name](tokens).reshape(side, side, 9)
        np.testing.assert_allclose(found[3], expected, atol=0.02)


def test_pictures_made_otherwise_are_not_mixed(tmp_path):
    (tmp_path / "photographs").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "photographs" / "a.jpg")
    out = tmp_path / "out"
    out.mkdir()
    (out / "data.json").write_text(json.dumps({"seed": 1}))
    with pytest.raises(ValueError, match="was made with .*'seed': 1.*, not with .*'seed': 0"):
        make_data(tmp_path / "photographs", tmp_path, out, 16, 0)


@pytest.mark.slow
def test_the_whole_way_twice_gives_the_same_file(monkeypatch, shared, tmp_path):
    """On real photographs and teachers; the second time with one worker, and stopped between."""
    # Processors without bfloat16 take a second for what others do in a tenth.
    monkeypatch.setattr(train, "BATCH", {train.PART: 8, train.WHOLE: 4})
    before = torch.get_num_threads(), torch.utils.deterministic.fill_uninitialized_memory
    be_deterministic()
    try:
        files, losses = [], []
        for workers in (2, 1):
            data, run = tmp_path / f"data{workers}", tmp_path / f"run{workers}"
            for n_pictures in (24,) if workers == 2 else (8, 24):
                make_data(
                    shared / "photographs",
                    shared / "weights",
                    data,
                    n_pictures,
                    seed=0,
                    workers=workers,
                    shard=8,
                    whiten=8,
                )
            Trainer(data, run, 24, 24, seed=0, log_every=6).run()
            export(run / "checkpoint.pt", run / "tiny.safetensors")
            files.append((run / "tiny.safetensors").read_bytes())
            lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
            losses.append([line["loss"] for line in lines])
    finally:
        torch.set_num_threads(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]
        torch.use_deterministic_algorithms(False)
    assert files[0] == files[1] and len(files[0]) < 1.5e6
    assert losses[0] == losses[1] and losses[0][2] < losses[0][0]
