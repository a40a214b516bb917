"""The example in C++ is compiled, and says of images what the pipeline says."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, PatchGaussianScorer, export_model, p_values
from skanomaly.datasets import make_surfaces

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "verdict.cpp"
HEADER = "onnxruntime_cxx_api.h"


def headers():
    """Folder of ONNX Runtime's headers, which its wheel does not hold."""
    named = os.environ.get("SKANOMALY_ONNXRUNTIME_INCLUDE")
    known = [named] if named else ["/usr/include/onnxruntime", "/usr/local/include/onnxruntime"]
    for folder in map(Path, known):
        if (folder / HEADER).is_file():
            return folder
    if named:
        pytest.fail(f"SKANOMALY_ONNXRUNTIME_INCLUDE={named} holds no {HEADER}")
    pytest.skip(
        f"{HEADER} is in none of {', '.join(known)}: install libonnxruntime-dev, or say where it "
        "is by SKANOMALY_ONNXRUNTIME_INCLUDE"
    )


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The compiled example, as a function from its arguments to its process."""
    onnxruntime = pytest.importorskip("onnxruntime")
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no compiler of C++ is installed")
    include = headers()
    libraries = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not libraries:
        pytest.skip("the wheel of onnxruntime holds no shared library of its own")
    folder = tmp_path_factory.mktemp("cpp")
    # By the name that it gives itself, under which programs look for it, and by that of the linker.
    for name in ("libonnxruntime.so.1", "libonnxruntime.so"):
        (folder / name).symlink_to(libraries[0])
    made = folder / "verdict"
    command = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", str(EXAMPLE)]
    command += ["-isystem", str(include), f"-L{folder}", "-lonnxruntime", f"-Wl,-rpath,{folder}"]
    subprocess.run([*command, "-o", str(made)], check=True)
    return lambda *args: subprocess.run([made, *args], capture_output=True, text=True)


@pytest.mark.slow
def test_the_example_says_what_the_pipeline_says(program, tmp_path):
    made = make_surfaces(12, 3, image_size=72, random_state=0)
    good, new = made.images[:9], made.images[9:]
    pipe = make_pipeline(FilterBankPatches(image_size=64), PatchGaussianScorer()).fit(good)
    model = tmp_path / "parts.onnx"
    export_model(pipe, model, images=good)
    expected = zip(pipe.score_samples(new), pipe.predict(new), p_values(pipe, new), strict=True)
    decisions = []
    for number, (image, (score, decision, p_value)) in enumerate(zip(new, expected, strict=True)):
        file = tmp_path / f"{number}.ppm"
        Image.fromarray(image).save(file)
        run = program(model, file)
        assert run.returncode == 0, run.stderr
        found = dict(line.split() for line in run.stdout.splitlines())
        assert found.keys() == {"score", "decision", "p_value"}
        np.testing.assert_allclose(float(found["score"]), score, rtol=1e-4)
        assert int(found["decision"]) == decision
        np.testing.assert_allclose(float(found["p_value"]), p_value)
        decisions.append(decision)
    assert set(decisions) == {1, -1}


@pytest.mark.slow
def test_what_is_no_image_is_told(program, tmp_path):
    cut = tmp_path / "cut.ppm"
    cut.write_bytes(b"P6\n# a comment\n2 2\n255\n" + bytes(11))
    run = program(tmp_path / "parts.onnx", cut)
    assert run.returncode == 1 and "ends before its last pixel" in run.stderr
    cut.write_bytes(b"P5\n2 2\n255\n" + bytes(4))
    assert "no PPM file" in program(tmp_path / "parts.onnx", cut).stderr
    assert program().returncode == 2
