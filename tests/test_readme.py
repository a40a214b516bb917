"""What the README shows does what it says."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skanomaly import list_models
from skanomaly.datasets import make_surfaces

ROOT = Path(__file__).resolve().parents[1]


def test_example(tmp_path, monkeypatch):
    made = make_surfaces(
        14, 4, surface="fabric", defects="missing_piece", image_size=128, random_state=0
    )
    for i, image in enumerate(made.images):
        folder = tmp_path / "parts" / ("good" if i < 10 else "new")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:02d}.png")
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 9  # eight, and an empty one
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    verdicts = names["detector"].predict(names["new"])
    assert set(verdicts) <= {-1, 1} and (verdicts[4:] == -1).all()
    maps = names["anomaly_maps"](names["detector"], names["new"])
    assert maps.shape == (8, 128, 128) and np.isfinite(maps).all()


def test_combinations_that_the_readme_names():
    for name in re.findall(r'create_model\("([^"]+)"\)', (ROOT / "README.md").read_text()):
        assert name in list_models()


def test_picture_is_where_its_script_puts_it(monkeypatch):
    pytest.importorskip("matplotlib")
    picture = ROOT / "docs" / "images" / "verdicts.png"
    assert f"docs/images/{picture.name}" in (ROOT / "README.md").read_text()
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import _front

    assert picture == _front.PICTURE and picture.is_file()


def test_continuous_integration_runs_the_readme():
    readme, script = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    assert '-e ".[all,test,docs]"' in readme and '-e ".[all,test,docs]"' in script
    assert "python -m pytest -n auto\n" in readme and 'python" -m pytest -n auto' in script
