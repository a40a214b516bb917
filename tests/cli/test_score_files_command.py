"""``skanomaly score-files``: shards into one folder of Parquet files."""

import json

import pytest
from PIL import Image
from sklearn.pipeline import make_pipeline
from typer.testing import CliRunner

from skanomaly import FilterBankPatches, PatchKNNScorer, save_model
from skanomaly.cli import app
from skanomaly.datasets import make_surfaces

pytest.importorskip("pyarrow")
import pyarrow.dataset  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, and eleven images of which one is damaged."""
    folder = tmp_path_factory.mktemp("day")
    (folder / "parts").mkdir()
    images = make_surfaces(10, 1, image_size=32, random_state=0).images
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / "parts" / f"{i:02}.png")
    pipe = make_pipeline(FilterBankPatches(image_size=32), PatchKNNScorer()).fit(images[:10])
    save_model(pipe, folder / "parts.skan")
    (folder / "parts" / "03.png").write_bytes(b"no image")
    return folder


def run(folder, out, *options):
    words = ["score-files", folder / "parts.skan", folder / "parts", "-o", out, *options]
    return CliRunner().invoke(app, list(map(str, words)))


def test_shards_make_one_folder(folder, tmp_path):
    for shard in range(3):
        done = run(folder, tmp_path / "out", "--shard", f"{shard}/3", "--json", tmp_path / "s.json")
        assert done.exit_code == 0, done.output
        assert f"images of shard {shard} of 3, 0 judged before; " in done.stdout
        counts = json.loads((tmp_path / "s.json").read_text())
        assert (counts["command"], counts["shard"], counts["kept"]) == ("score-files", shard, 0)
    rows = pyarrow.dataset.dataset(tmp_path / "out").to_table().sort_by("number").to_pylist()
    assert [row["number"] for row in rows] == list(range(11))
    assert [row["number"] for row in rows if row["error"]] == [3]
    assert rows[10]["decision"] == "anomalous"
    again = run(folder, tmp_path / "out", "--shard", "1/3", "--json", "-")
    counts = json.loads(again.stdout)
    assert counts["kept"] == counts["images"] > 0 and counts["normal"] == 0


def test_other_shards_are_refused(folder, tmp_path):
    assert run(folder, tmp_path, "--shard", "0/2").exit_code == 0
    refused = run(folder, tmp_path, "--shard", "0/3")
    assert refused.exit_code == 1 and "n_shards=2, not 3" in refused.stderr


@pytest.mark.parametrize("shard", ["2/2", "1", "a/b", "-1/2", "0/0", "1/2/3"])
def test_a_shard_that_is_none(shard, folder, tmp_path):
    refused = run(folder, tmp_path / "out", f"--shard={shard}")
    assert refused.exit_code == 2 and "--shard takes I/N" in refused.stderr
    assert not (tmp_path / "out").exists()
