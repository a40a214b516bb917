"""The code in the documentation runs, on generated images and small random models."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skanomaly._reports import write_surfaces
from skanomaly.datasets import make_surfaces

DOCS = Path(__file__).resolve().parents[1] / "docs"


def blocks(name):
    return re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL)


def small(code, tiny):
    """The code with a model of random weights wherever it would download one."""
    options = f'model_name="{tiny}", pretrained=None, device="cpu"'
    named = r'create_model\((?="vision_(?:openclip|winclip)(?!.*embedder))'
    code = re.sub(named, f"create_model({options}, name=", code)
    code = code.replace("OpenClipPatches(", f"OpenClipPatches({options}, ")
    return code.replace('PromptScorer("bottle"', f'PromptScorer("bottle", {options}')


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the documentation takes for granted: `good`, `new`, `images` and `y`."""
    made = make_surfaces(14, 4, surface="fabric", image_size=64, random_state=0)
    folder = tmp_path_factory.mktemp("parts")
    paths = []
    for i, image in enumerate(made.images):
        paths.append(folder / f"{i:02d}.png")
        Image.fromarray(image).save(paths[-1])
    return {"good": paths[:10], "new": paths[10:], "images": paths[10:], "y": made.y[10:]}


@pytest.fixture(scope="module")
def mvtec(tmp_path_factory):
    """A folder that holds the data set `mvtec`, of two categories."""
    root = tmp_path_factory.mktemp("data")
    for category, surface in (("bottle", "disc"), ("metal_nut", "fabric")):
        write_surfaces(root / "mvtec" / category, surface, 5, 64, 0)
    return root


@pytest.mark.parametrize("number", range(len(blocks("clip.md"))))
def test_clip(number, names, mvtec, tiny_clip, monkeypatch, capsys):
    code = small(blocks("clip.md")[number], tiny_clip)
    monkeypatch.chdir(mvtec)
    scope = dict(names)
    exec(code, scope)
    model = next((scope[n] for n in ("model", "both", "pipe", "search") if n in scope), None)
    model = scope["winclip"] if model is None else model
    scores = model.score_samples(names["new"])
    assert np.isfinite(scores).all() and len(set(scores)) > 4
    if "mvtec" in code:
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
            "bottle",
            "metal_nut",
        ]
    if "glass_bottles" in scope:
        assert not np.array_equal(scope["bottles"], scope["glass_bottles"])


def test_no_example_would_download(tiny_clip):
    """Each block was made small, but for the one that brings its own embedder."""
    for code in blocks("clip.md"):
        made = small(code, tiny_clip)
        assert made.count(tiny_clip) >= 1 or "embedder=" in code


def test_commands_exist():
    from typer.testing import CliRunner

    from skanomaly.cli import app

    for page in ("clip.md", "weights.md"):
        shell = "".join(re.findall(r"```sh\n(.*?)```", (DOCS / page).read_text(), re.DOTALL))
        lines = [line.partition("#")[0] for line in shell.splitlines()]
        assert lines
        for line in lines:
            words = re.findall(r'"[^"]*"|\S+', line)
            assert words[0] == "skanomaly"
            command = words[1:3] if words[1] == "weights" else words[1:2]
            text = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
            assert text.exit_code == 0
            for option in (word for word in words if word.startswith("--")):
                assert option in text.output
