"""Exported models in a process that has NumPy and ONNX Runtime alone, on real photographs."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from skanomaly import (
    FilterBankPatches,
    LocalKNNScorer,
    PatchGaussianScorer,
    PatchKNNScorer,
    PatchSubspaceScorer,
    TimmPatches,
    TinyPatches,
    anomaly_maps,
    create_model,
    export_model,
)
from skanomaly._images import load_image
from skanomaly._pipelines import split_pipeline
from skanomaly.inspection import p_values_of

pytestmark = pytest.mark.slow
N_TRAIN, N_VERIFIED, N_NEW = 12, 4, 20

# What runs there: it imports nothing else, and an import of what it must not have is an error.
PROGRAM = """
import sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(name + " must not be needed")

sys.meta_path.insert(0, Nothing())
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
names = ["score", "decision", "anomaly_map", "p_value"]
found = [session.run(names, {{"image": image[None]}}) for image in np.load(sys.argv[2])]
columns = {{n: np.concatenate(v) for n, v in zip(names, zip(*found))}}
np.savez(sys.argv[3], **columns)
loaded = {{name.partition(".")[0] for name in sys.modules}}
assert not loaded & set({blocked}), loaded
"""
BLOCKED = ("torch", "torchvision", "timm", "skanomaly", "sklearn", "scipy", "PIL", "onnx")


def vit(shared):
    weights = shared / "weights" / "vit_tiny_patch16_224.safetensors"
    return TimmPatches("vit_tiny_patch16_224", weights=weights, device="cpu", dtype="float32")


KINDS = {
    "filter bank, near a place": lambda shared: make_pipeline(
        FilterBankPatches(), LocalKNNScorer()
    ),
    "tiny network, near a place": lambda shared: make_pipeline(TinyPatches(), LocalKNNScorer()),
    "transformer, coreset": lambda shared: make_pipeline(vit(shared), PatchKNNScorer(coreset=0.1)),
    "transformer, whole bank": lambda shared: make_pipeline(
        vit(shared), PatchKNNScorer(metric="euclidean")
    ),
    "filter bank, gaussian": lambda shared: make_pipeline(
        FilterBankPatches(), PatchGaussianScorer()
    ),
    "transformer, subspace": lambda shared: make_pipeline(vit(shared), PatchSubspaceScorer()),
    "default of the command line": lambda shared: create_model("filterbank+tiny"),
}


def photographs(shared, category):
    """Good ones to train on, and others, some with defects, as arrays."""
    root = shared / "data" / category
    good = sorted((root / "train" / "good").iterdir())[:N_TRAIN]
    others = sorted((root / "test").rglob("*.*"))
    new = [others[i] for i in np.linspace(0, len(others) - 1, N_NEW).astype(int)]
    return good, np.stack([load_image(path) for path in new])


@pytest.mark.parametrize("category", ["cookies", "toothbrush"])
@pytest.mark.parametrize("kind", KINDS)
def test_alone(kind, category, shared, tmp_path):
    for module in ("onnx", *(("timm",) if "transformer" in kind else ())):
        pytest.importorskip(module)
    good, new = photographs(shared, category)
    pipe = KINDS[kind](shared).fit(good)
    path = tmp_path / "parts.onnx"
    export_model(pipe, path, images=good[:N_VERIFIED])
    np.save(tmp_path / "new.npy", new)
    program = PROGRAM.format(blocked=BLOCKED)
    command = [sys.executable, "-c", program, path, tmp_path / "new.npy", tmp_path / "found.npz"]
    subprocess.run(command, check=True, cwd=tmp_path, timeout=300)
    found = np.load(tmp_path / "found.npz")
    maps, scores = anomaly_maps(pipe, list(new), return_scores=True)
    np.testing.assert_allclose(found["score"], scores, rtol=1e-4)
    scorer = split_pipeline(pipe).scorer
    np.testing.assert_array_equal(found["decision"], np.where(scores < scorer.offset_, -1, 1))
    assert np.abs(found["anomaly_map"] - maps).max() <= 1e-3 * np.ptp(maps)
    np.testing.assert_allclose(found["p_value"], p_values_of(scorer, scores))
