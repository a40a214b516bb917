"""What the README shows does what it says."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skanomaly.datasets import make_surfaces

ROOT = Path(__file__).resolve().parents[1]


def test_examples(tmp_path, monkeypatch, tiny_clip):
    pytest.importorskip("timm")
    made = make_surfaces(
        14, 4, surface="fabric", defects="missing_piece", image_size=128, random_state=0
    )
    for i, image in enumerate(made.images):
        folder = tmp_path / "parts" / ("good" if i < 10 else "new")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:02d}.png")
    code, named = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    # Random weights need no download; what the example says of shapes and values holds for them.
    small = code.replace("DinoV2Patches()", "DinoV2Patches(weights='random', image_size=98)")
    assert small != code
    names = {}
    exec(small, names)
    assert set(names["pipe"].predict(names["new"])) <= {-1, 1}
    maps = names["anomaly_maps"](names["pipe"], names["new"])
    assert maps.shape == (8, 128, 128) and np.isfinite(maps).all()
    options = f'class_name="bottle", model_name="{tiny_clip}", weights="random"'
    small = named.replace('class_name="bottle"', options)
    assert small != named
    exec(small, names)


def test_continuous_integration_runs_the_readme():
    readme, script = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    assert '-e ".[all,test,docs]"' in readme and '-e ".[all,test,docs]"' in script
    assert "python -m pytest -n auto\n" in readme and 'python" -m pytest -n auto' in script
