"""Other processors: the same numbers but for rounding, as docs/determinism.md says.

Each is a process that may use no more instructions than a processor of that kind has.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

HERE = Path(__file__).resolve().parent
# Of the largest component. A sum of n products of float32 is off by n/2 ulp at the worst, by about
# sqrt(n) ulp for sums of mixed signs: sqrt(800) * 6e-8 is 1.7e-6 for one product of the networks
# here, and a few of them follow each other. The filter bank has fourth roots of variances, which
# are differences of squares: an error of 6e-8 of the squares, which are up to 1, where the variance
# of a flat place is 1e-4, the noise of these images, is 6e-8 / (4 * 1e-4**0.75) = 1.5e-5 of a root.
TOKENS = {"filter bank": 1e-4, "tiny network": 1e-5, "ViT": 1e-5}
# Of the largest score. Scores are squares and quotients of differences of tokens.
SCORES = 1e-4

try:
    from numpy._core import _multiarray_umath as umath
except ImportError:  # NumPy 1
    from numpy.core import _multiarray_umath as umath

DISPATCHED = [name for name in umath.__cpu_dispatch__ if umath.__cpu_features__.get(name)]
X86 = any(name.startswith(("SSE", "AVX", "X86")) for name in umath.__cpu_baseline__)
PROCESSORS = {
    "of 2008": {
        "NPY_DISABLE_CPU_FEATURES": " ".join(DISPATCHED),
        "OPENBLAS_CORETYPE": "Nehalem",
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_CBWR": "COMPATIBLE",
    },
    "with AVX2": {
        "OPENBLAS_CORETYPE": "Haswell",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_CBWR": "AVX2",
    },
}

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import test_processors
test_processors.work(*sys.argv[1:])
"""


def models(folder):
    """Pipelines by name, not fitted."""
    import importlib.util

    from sklearn.pipeline import make_pipeline

    from skanomaly import (
        FilterBankPatches,
        LocalKNNScorer,
        PatchGaussianScorer,
        PatchKNNScorer,
        TimmPatches,
        TinyPatches,
    )

    made = {
        "filter bank": make_pipeline(FilterBankPatches(image_size=64), LocalKNNScorer(few=3)),
        "tiny network": make_pipeline(TinyPatches(image_size=64), PatchKNNScorer()),
    }
    if importlib.util.find_spec("torch") and importlib.util.find_spec("timm"):
        weights = Path(folder) / "vit.safetensors"
        if not weights.exists():  # other processors draw random weights with other last bits
            import timm
            import torch
            from safetensors.torch import save_file

            torch.manual_seed(0)
            save_file(timm.create_model("test_vit").state_dict(), weights)
        vit = TimmPatches("test_vit", weights=weights, image_size=64, device="cpu", dtype="float32")
        made["ViT"] = make_pipeline(vit, PatchGaussianScorer(n_components=16, random_state=0))
    return made


NAMES = tuple(TOKENS)


def work(folder, out, first):
    """Score new images by a model of a file, which is written first, and by one fitted here."""
    from _fault_models import picture

    from skanomaly import anomaly_maps, load_model, save_model

    good = [picture(seed, 64, 64) for seed in range(9)]
    new = [picture(50 + seed, 64, 64) for seed in range(8)]
    for image in new[4:]:
        image[20:40, 24:44] = image[40:60, 4:24][::-1] // 2
    found = {"numpy": [name for name in DISPATCHED if umath.__cpu_features__[name]]}
    for name, pipe in models(folder).items():
        fitted, path = pipe.fit(good), Path(folder) / f"{name}.skan"
        if first == "first":
            save_model(fitted, path)
        for kind, model in (("kept", load_model(path)), ("anew", fitted)):
            maps, scores = anomaly_maps(model, new, return_scores=True)
            found[f"{name}, {kind}, tokens"] = model[0].transform(new)
            found[f"{name}, {kind}, scores"] = scores
            found[f"{name}, {kind}, maps"] = maps
            found[f"{name}, {kind}, calls"] = model.predict(new)
            found[f"{name}, {kind}, threshold"] = model[-1].offset_
    # Looked at last, when everything is loaded.
    found["blas"] = [info.get("architecture") or "" for info in threadpool_info()]
    torch = sys.modules.get("torch")
    found["torch"] = torch.backends.cpu.get_cpu_capability() if torch else ""
    np.savez(out, **found)


def run(folder, name, variables, first=False):
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT.format(tests=str(HERE))]
    out = folder / f"{name}.npz"
    done = subprocess.run(
        [*command, str(folder), str(out), "first" if first else ""],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    with np.load(out) as kept:
        return {name: kept[name] for name in kept.files}


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The folder of the models, and what this processor makes of them."""
    if not X86:
        pytest.skip("the variables are of x86")
    folder = tmp_path_factory.mktemp("processors")
    return folder, run(folder, "here", {}, first=True)


@pytest.fixture(scope="module")
def others(here):
    """What other processors make of them, each run when it is first asked for."""
    known = {}

    def other(name):
        if name not in known:
            known[name] = run(here[0], name, PROCESSORS[name])
        return known[name]

    return other


def test_the_instructions_are_those_of_another_processor(here, others):
    """Else nothing would be compared."""
    old, modern = others("of 2008"), others("with AVX2")
    assert old["numpy"].size == 0 and here[1]["numpy"].size == len(DISPATCHED) > 0
    blas = set(here[1]["blas"].tolist()) - {""}
    if blas & {"Haswell", "Zen", "SkylakeX", "Cooperlake", "Sapphirerapids"}:
        assert "Nehalem" in old["blas"] and "Haswell" in modern["blas"]
    if here[1]["torch"] != "":
        assert old["torch"] == "DEFAULT" and modern["torch"] == "AVX2"


def differences(found, expected, name):
    """The largest, as parts of the largest value: of tokens, scores and maps."""
    return {
        what: np.abs(found[f"{name}, {what}"] - expected[f"{name}, {what}"]).max()
        / np.abs(expected[f"{name}, {what}"]).max()
        for what in ("tokens", "scores", "maps")
    }


@pytest.mark.parametrize("kind", ["kept", "anew"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("processor", PROCESSORS)
def test_another_processor_says_the_same(here, others, processor, name, kind):
    """By the model of a file that was written here, and by one that it fitted itself."""
    expected, found = here[1], others(processor)
    if f"{name}, {kind}, tokens" not in expected:
        pytest.skip("needs torch and timm")
    off = differences(found, expected, f"{name}, {kind}")
    assert off["tokens"] <= TOKENS[name], off
    assert off["scores"] <= SCORES and off["maps"] <= SCORES, off
    prefix = f"{name}, {kind}, "
    scores, threshold = expected[f"{prefix}scores"], expected[f"{prefix}threshold"]
    margin = 2 * SCORES * np.abs(scores).max()  # of the score and of the threshold
    if kind == "kept":
        assert found[f"{prefix}threshold"] == threshold
    else:
        assert abs(found[f"{prefix}threshold"] - threshold) <= margin / 2
    clear = np.abs(scores - threshold) > margin
    assert clear[4:].all()  # the defects
    assert (found[f"{prefix}calls"] == expected[f"{prefix}calls"])[clear].all()


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as kept:
        first = run(Path(kept), "here", {}, first=True)
        print({key: first[key].tolist() for key in ("numpy", "blas", "torch")})
        for label, variables in PROCESSORS.items():
            seen = run(Path(kept), label, variables)
            for key in [f"{name}, {kind}" for name in NAMES for kind in ("kept", "anew")]:
                off = differences(seen, first, key)
                print(label, key, {what: f"{value:.1e}" for what, value in off.items()})
