"""The command ``skanomaly info``."""

import json
import subprocess
import sys

import pytest
from sklearn.pipeline import make_pipeline
from typer.testing import CliRunner

from skanomaly import FilterBankPatches, PatchKNNScorer, model_manifest, save_model
from skanomaly.cli import app
from skanomaly.datasets import make_surfaces


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    images = make_surfaces(6, 0, surface="fabric", image_size=64, random_state=0).images
    model = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer()).fit(images)
    path = tmp_path_factory.mktemp("model") / "a [red]part\x1b[31m.skan"
    save_model(model, path)
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["info", *map(str, arguments)], env={"COLUMNS": "200"})


def test_what_a_person_sees(path):
    result = run(path)
    assert result.exit_code == 0
    assert "a [red]part\\x1b[31m.skan" in result.stdout and "\x1b[31m" not in result.stdout
    manifest = model_manifest(path)
    for text in (
        manifest["created"],
        "skanomaly.scorers._patch_knn.PatchKNNScorer",
        f"{manifest['calibration']['threshold']:.6g}",
        "patchknnscorer__metric",
    ):
        assert text in result.stdout
    assert all("│ training images │ 6" in line for line in result.stdout.splitlines()
               if "training images" in line)  # fmt: skip


def test_all_of_it_as_json(path):
    result = run(path, "--json", "-")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found.items() >= model_manifest(path).items()
    assert found["command"] == "info" and found["file"] == str(path)


def test_what_cannot_be_shown_is_one_error(path, tmp_path):
    (tmp_path / "other.skan").write_bytes(path.read_bytes()[:-1])
    for place, words in (
        (tmp_path / "missing.skan", "is not an existing file"),
        (tmp_path, "is no file"),
        (tmp_path / "other.skan", "is damaged"),
    ):
        result = run(place)
        assert result.exit_code == 1 and result.stdout == ""
        assert result.stderr.startswith("error: ") and words in result.stderr
        assert result.stderr.count("\n") == 1


def test_no_extra_is_imported_and_no_estimator_made(path):
    code = (
        "import sys\nfrom skanomaly.cli import app\n"
        "try:\n    app(['info', sys.argv[1]])\nexcept SystemExit as exc:\n    assert not exc.code\n"
        "heavy = {'torch', 'timm', 'onnx', 'matplotlib', 'faiss', 'skanomaly.scorers'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_manifest_of_someone_else_is_shown_as_it_is(path, tmp_path):
    """Whoever makes a file up may leave out what is always there."""
    import hashlib
    import zipfile

    made_up = tmp_path / "made up.skan"
    with zipfile.ZipFile(made_up, "w") as archive:
        archive.comment = b"0" * 64
        manifest = {"format": "skanomaly model", "format_version": 1, "weights": None}
        archive.writestr("manifest.json", json.dumps(manifest, indent=2))
    data = made_up.read_bytes()[:-64]
    made_up.write_bytes(data + hashlib.sha256(data).hexdigest().encode())
    assert run(made_up).exit_code == 0
    assert run(made_up, "--json", "-").exit_code == 0
