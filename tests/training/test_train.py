"""Training of a toy network on toy shards: what a step sees, and that stopping changes nothing."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from training import train  # noqa: E402
from training.make_data import save_whitenings  # noqa: E402
from training.network import as_input  # noqa: E402
from training.targets import Whitening  # noqa: E402

N_COMPONENTS = 16
TOY = {
    "stem": ((3, 8), (3, 8), (3, 16)),
    "inner": 8,
    "dilations": (1, 2),
    "n_components": N_COMPONENTS,
}


@pytest.fixture(autouse=True)
def deterministic():
    """As the command sets torch, and back."""
    before = torch.get_num_threads(), torch.utils.deterministic.fill_uninitialized_memory
    train.be_deterministic()
    yield
    torch.set_num_threads(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three shards of four pictures; a target is a fixed linear map of its place's mean colour."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((3, N_COMPONENTS))
    for number in range(3):
        shard = folder / f"shard_{number:05d}"
        shard.mkdir()
        colours = rng.integers(0, 256, (4, 28, 28, 3), np.uint8)
        fine = (colours / 128 - 1) @ mix
        coarse = fine.reshape(4, 14, 2, 14, 2, N_COMPONENTS).mean((2, 4))
        np.save(shard / "pictures.npy", colours.repeat(8, 1).repeat(8, 2))
        np.save(shard / "vit.npy", fine.astype(np.float16))
        np.save(shard / "mobilenet.npy", coarse.astype(np.float16))
    values = np.linspace(3, 0.1, 20)
    whitening = Whitening(np.zeros((1, 20)), np.zeros((20, N_COMPONENTS)), values)
    save_whitenings(folder / "whitening.npz", {"vit": whitening, "mobilenet": whitening})
    (folder / "data.json").write_text(json.dumps({"seed": 0, "shard": 4}))
    return folder


def trainer(data, out, n_steps=6, **changed):
    options = {"n_pictures": 12, "seed": 0, "log_every": 3, "settings": TOY, **changed}
    return train.Trainer(data, out, n_steps, **options)


def weights_of(run):
    return run.network.state_dict()


def test_a_run_that_was_stopped_ends_as_one_that_was_not(data, tmp_path):
    whole = trainer(data, tmp_path / "whole")
    whole.run()
    trainer(data, tmp_path / "parts").run(until=3)
    rest = trainer(data, tmp_path / "parts")
    assert rest.step == 3
    rest.run()
    other = trainer(data, tmp_path / "other", seed=1)
    other.run()
    for name, value in weights_of(whole).items():
        assert torch.equal(value, weights_of(rest)[name]), name
    assert not torch.equal(weights_of(whole)["head.weight"], weights_of(other)["head.weight"])
    logs = [(tmp_path / run / "log.jsonl").read_text().splitlines() for run in ("whole", "parts")]
    for one, two in zip(*(map(json.loads, lines) for lines in logs), strict=True):
        assert {**one, "ms_per_step": 0} == {**two, "ms_per_step": 0}
    assert not list(tmp_path.glob("*/*.part"))


def test_training_explains_the_targets(data, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "WARM_UP", 10)
    run = trainer(data, tmp_path, n_steps=120, log_every=40)
    before = train.explained(run.network, run.held_out, "cpu")
    run.run()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [40, 80, 120]
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    for teacher in ("vit", "mobilenet"):
        assert lines[-1]["explained"][teacher]["mean"] > before[teacher]["mean"] + 0.2


def test_another_run_is_not_gone_on_with(data, tmp_path):
    trainer(data, tmp_path)
    with pytest.raises(ValueError, match="holds a run of"):
        trainer(data, tmp_path, seed=1)


def test_missing_shards_are_counted(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="lacks 2 of 5 shards"):
        trainer(data, tmp_path, n_pictures=20)


def test_parts_and_their_targets_are_of_one_place(tmp_path):
    """Pictures, and targets of both strides, that hold their own row and column."""
    for number in range(2):
        (tmp_path / f"shard_{number:05d}").mkdir()
        for name, side in (("pictures", 224), ("vit", 28), ("mobilenet", 14)):
            rows, columns = np.mgrid[:side, :side]
            own = np.stack([rows, columns, np.zeros_like(rows)], -1)
            values = np.stack([own + [0, 0, 2 * number + i] for i in range(2)])
            np.save(tmp_path / f"shard_{number:05d}" / f"{name}.npy", values)
    shards = train.Shards(tmp_path, [0, 1])
    assert shards.n == 4
    found = shards.parts([3, 0], [(4, 10), (14, 0)], 14)
    for i, (index, row, column) in enumerate([(3, 4, 10), (0, 14, 0)]):
        assert found["pictures"][i][0, 0].tolist() == [8 * row, 8 * column, index]
        assert found["vit"][i][0, 0].tolist() == [row, column, index]
        assert found["mobilenet"][i][0, 0].tolist() == [row // 2, column // 2, index]
    assert [found[k].shape for k in ("pictures", "vit", "mobilenet")] == [
        (2, 112, 112, 3),
        (2, 14, 14, 3),
        (2, 7, 7, 3),
    ]


@pytest.mark.parametrize("border", [True, False])
def test_the_loss_in_plain_loops(border):
    rng = np.random.default_rng(0)
    tokens, targets = rng.normal(0, 4, (2, 2, 3, 4, 5))
    weights = np.array([0.5, 1, 1.5])
    total = []
    for n, c, i, j in np.ndindex(*tokens.shape):
        if border or (0 < i < 3 and 0 < j < 4):
            error = abs(tokens[n, c, i, j] - min(max(targets[n, c, i, j], -6), 6))
            total.append(weights[c] * (error**2 / 4 if error < 2 else error - 1))
    found = train.loss_of(
        torch.from_numpy(tokens),
        torch.from_numpy(targets),
        torch.from_numpy(weights)[:, None, None],
        border,
    )
    assert found.item() == pytest.approx(np.mean(total), rel=1e-5)


def test_components_count_by_the_fourth_root_of_their_variance():
    found = train.component_weights(np.array([16.0, 1.0, 0.5]), 2)
    assert found.flatten().tolist() == pytest.approx([4 / 3, 2 / 3])


def test_the_learning_rate_rises_and_falls():
    rates = [train.learning_rate(step, 2000) for step in range(2000)]
    assert np.argmax(rates) == train.WARM_UP - 1
    assert rates[0] == pytest.approx(train.LEARNING_RATE / train.WARM_UP)
    assert rates[-1] == pytest.approx(train.LEARNING_RATE / 50, rel=0.01)


def test_what_is_explained_is_the_share_of_variance(data, tmp_path):
    run = trainer(data, tmp_path)
    found = train.explained(run.network, run.held_out, "cpu")["mobilenet"]
    pictures = np.load(data / "shard_00002" / "pictures.npy")
    expected = np.load(data / "shard_00002" / "mobilenet.npy").astype(float)
    with torch.inference_mode():
        tokens = run.network.eval()(as_input(pictures))["mobilenet"].permute(0, 2, 3, 1).numpy()
    share = 1 - ((tokens - expected) ** 2).mean((0, 1, 2)) / expected.var((0, 1, 2))
    assert found["mean"] == pytest.approx(share.mean(), abs=1e-4)
    assert found["bands"] == pytest.approx([share[:8].mean(), share[8:].mean()], abs=1e-4)
