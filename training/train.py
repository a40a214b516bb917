"""Train the tiny network from nothing, on both teachers at once.

    python -m training.train --data FOLDER --out FOLDER [--steps 14000] [--seed 0]
        [--pictures 12288] [--device cpu]

DATA is what `training.make_data` made. The first seven tenths of the steps see 32 parts of 112
pixels each, the rest 12 whole pictures of 224. OUT gets `config.json`, `log.jsonl` (a line each 500
steps: loss, and the share of the targets' variance that is explained on a held-out shard, by bands
of components) and `checkpoint.pt`. The command goes on from the checkpoint where it was stopped;
one thread of one kind of processor gives the same weights each time, stopped or not.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from training.make_data import load_whitenings, shard_folder
from training.network import TinyNetwork, as_input

LEARNING_RATE = 2e-3
WARM_UP = 200  # steps
FIRST_STAGE = 0.7  # of the steps
PART, WHOLE = 14, 28  # places of 8 pixels along a side
BATCH = {PART: 32, WHOLE: 12}
SHARES = {"mobilenet": 1.0, "vit": 0.5}  # of the teachers in the loss
CLIP = 6.0  # deviations: targets beyond are rare, and would rule a batch
BANDS = ((0, 8), (8, 32), (32, 64), (64, 128))
_STRIDES = {"mobilenet": 2, "vit": 1}  # of a teacher's tokens, in places of 8 pixels


class Shards:
    """Pictures and targets of consecutive shards, read where they are needed.

    Parameters
    ----------
    data : path
    numbers : sequence of int
    """

    def __init__(self, data, numbers):
        self._arrays = {
            name: [np.load(shard_folder(data, n) / f"{name}.npy", mmap_mode="r") for n in numbers]
            for name in ("pictures", "vit", "mobilenet")
        }
        self.shard = len(self._arrays["pictures"][0])
        self.n = self.shard * len(numbers)

    def parts(self, indices, corners, side):
        """Square parts of pictures, and the targets in them.

        Parameters
        ----------
        indices : sequence of int
        corners : sequence of (row, column)
            In places of 8 pixels, even.
        side : int
            Of the parts, in places.

        Returns
        -------
        dict of ndarray
            `pictures`, (n, 8 * side, 8 * side, 3) uint8; `vit`, (n, side, side, 128) float16;
            `mobilenet`, (n, side / 2, side / 2, 128) float16.
        """
        found = {name: [] for name in self._arrays}
        for index, (row, column) in zip(indices, corners, strict=True):
            for name, arrays in self._arrays.items():
                scale = 8 if name == "pictures" else 1 / _STRIDES[name]
                i, j, n = (int(v * scale) for v in (row, column, side))
                array = arrays[index // self.shard]
                found[name].append(array[index % self.shard, i : i + n, j : j + n])
        return {name: np.stack(values) for name, values in found.items()}


def component_weights(eigenvalues, n_components):
    """What a component counts: the fourth root of its variance, 1 on average."""
    weights = eigenvalues[:n_components] ** 0.25
    return torch.from_numpy((weights / weights.mean()).astype(np.float32))[:, None, None]


def loss_of(tokens, targets, weights, border):
    """Smooth L1 of tokens and clipped targets, (n, components, height, width).

    With `border` the outermost places count too. In parts of pictures they do not: the teachers
    saw what lies beyond, the network does not.
    """
    error = F.smooth_l1_loss(tokens.float(), targets.clamp(-CLIP, CLIP), beta=2.0, reduction="none")
    error = error * weights
    return (error if border else error[..., 1:-1, 1:-1]).mean()


def learning_rate(step, n_steps):
    """Linear warm-up, then a cosine down to a fiftieth."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / n_steps))
    return LEARNING_RATE * min(1, (step + 1) / WARM_UP) * (0.98 * cosine + 0.02)


def explained(network, shards, device):
    """The share of the targets' variance that is explained, of each teacher by bands."""
    network.eval()
    sums = {}
    with torch.inference_mode():
        for first in range(0, shards.n, 16):
            indices = range(first, min(first + 16, shards.n))
            batch = shards.parts(indices, [(0, 0)] * len(indices), WHOLE)
            tokens = network(as_input(batch["pictures"]).to(device))
            for name, y in tokens.items():
                t = torch.from_numpy(batch[name]).to(device).double().clamp(-CLIP, CLIP)
                error = y.permute(0, 2, 3, 1).double() - t
                kept = [v.sum((0, 1, 2)) for v in (error**2, t, t**2, torch.ones_like(t))]
                sums[name] = [a + b for a, b in zip(sums.get(name, [0] * 4), kept, strict=True)]
    network.train()
    found = {}
    for name, (error, total, squares, count) in sums.items():
        shares = 1 - error / (squares - total**2 / count)
        bands = [shares[low:high].mean().item() for low, high in BANDS if low < len(shares)]
        found[name] = {"mean": shares.mean().item(), "bands": bands}
    return found


class Trainer:
    """One run: network, optimiser, data, and where they are kept.

    Parameters
    ----------
    data, out : path
    n_steps, n_pictures, seed : int
    device : str
    log_every : int
        Steps between lines of the log, each with a checkpoint.
    settings : dict, optional
        Of the network, where they are others than its defaults.
    """

    def __init__(
        self, data, out, n_steps, n_pictures, seed, device="cpu", log_every=500, settings=None
    ):
        self.out, self.n_steps, self.seed = Path(out), n_steps, seed
        self.device, self.log_every = device, log_every
        made_of = json.loads((Path(data) / "data.json").read_text())
        numbers = list(range(n_pictures // made_of["shard"]))
        missing = [n for n in numbers if not shard_folder(data, n).exists()]
        if missing or len(numbers) < 2:
            raise FileNotFoundError(
                f"{data} lacks {len(missing)} of {len(numbers)} shards; at least 2 are needed: "
                "run training.make_data"
            )
        # The last shard is held out.
        self.shards, self.held_out = Shards(data, numbers[:-1]), Shards(data, numbers[-1:])
        torch.manual_seed(seed)
        self.network = TinyNetwork(**(settings or {})).to(device, memory_format=torch.channels_last)
        self.weights = {
            name: component_weights(
                whitening.eigenvalues, self.network.settings["n_components"]
            ).to(device)
            for name, whitening in load_whitenings(Path(data) / "whitening.npz").items()
        }
        parameters = list(self.network.parameters())
        self.optimiser = torch.optim.AdamW(
            [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.02},
                {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
            betas=(0.9, 0.98),
            fused=True,
        )
        self.config = {
            "data": made_of,
            "pictures": n_pictures,
            "steps": n_steps,
            "seed": seed,
            "network": json.loads(json.dumps(self.network.settings)),
        }
        self.step, self.losses = 0, []
        self._resume()

    def _resume(self):
        self.out.mkdir(parents=True, exist_ok=True)
        file = self.out / "config.json"
        if not file.exists():
            file.write_text(json.dumps(self.config, indent=1))
        elif (there := json.loads(file.read_text())) != self.config:
            raise ValueError(f"{self.out} holds a run of {there}, not of {self.config}")
        if (self.out / "checkpoint.pt").exists():
            content = torch.load(self.out / "checkpoint.pt", weights_only=True)
            self.network.load_state_dict(content["network"])
            self.optimiser.load_state_dict(content["optimiser"])
            self.step = content["step"]

    def _batch(self):
        """Parts of random pictures: which ones, only the seed and the step decide."""
        rng = np.random.default_rng([self.seed, self.step])
        side = PART if self.step < FIRST_STAGE * self.n_steps else WHOLE
        indices = rng.integers(0, self.shards.n, BATCH[side])
        corners = 2 * rng.integers(0, (WHOLE - side) // 2 + 1, (BATCH[side], 2))
        return side, self.shards.parts(indices, corners, side)

    def _learn(self):
        """One step; its loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.n_steps)
        side, batch = self._batch()
        kind = torch.device(self.device).type
        with torch.autocast(kind, torch.bfloat16):
            tokens = self.network(as_input(batch["pictures"]).to(self.device))
        loss = 0
        for name, y in tokens.items():
            target = torch.from_numpy(batch[name]).to(self.device).permute(0, 3, 1, 2).float()
            loss = loss + SHARES[name] * loss_of(y, target, self.weights[name], side == WHOLE)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        return loss.item()

    def _keep(self, seconds):
        """A line of the log and the checkpoint that goes with it."""
        line = {
            "step": self.step,
            "loss": float(np.mean(self.losses)),
            "explained": explained(self.network, self.held_out, self.device),
            "ms_per_step": round(1e3 * seconds / len(self.losses), 1),
        }
        self.losses = []
        part = self.out / "checkpoint.part"
        torch.save(
            {
                "network": self.network.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "step": self.step,
                "config": self.config,
            },
            part,
        )
        os.replace(part, self.out / "checkpoint.pt")
        with open(self.out / "log.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)

    def run(self, until=None):
        """Train to the last step, or stop at step `until`."""
        begin = time.monotonic()
        while self.step < (until or self.n_steps):
            self.losses.append(self._learn())
            if self.step % self.log_every == 0 or self.step == self.n_steps:
                self._keep(time.monotonic() - begin)
                begin = time.monotonic()


def be_deterministic():
    """One thread, and only operations that give the same result each time."""
    torch.set_num_threads(1)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # It would fill each new tensor too, to show reads of memory that nothing was written to: a
    # tenth of the time of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=14000)
    parser.add_argument("--pictures", type=int, default=12288)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    be_deterministic()
    Trainer(
        options.data, options.out, options.steps, options.pictures, options.seed, options.device
    ).run()


if __name__ == "__main__":
    main()
