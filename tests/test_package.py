"""The package as a whole: what importing it costs, what it exports, what it documents."""

import ast
import importlib.metadata
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import skanomaly

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("torch", "torchvision", "timm", "open_clip", "anomalib", "faiss", "matplotlib", "pandas")
WITHOUT_EXTRAS = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""


def _modules_after(code):
    script = f"{code}\nimport sys\nprint(' '.join(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    return {name.split(".")[0] for name in run.stdout.split()}


def test_import_is_lazy():
    loaded = _modules_after("import skanomaly")
    assert "skanomaly" in loaded
    assert not loaded & {*EXTRAS, "numpy", "scipy", "sklearn", "PIL"}


def test_public_names_import_no_extra():
    loaded = _modules_after(
        "import skanomaly\nfor name in skanomaly.__all__: getattr(skanomaly, name)\n"
        "skanomaly.TimmPatches(); skanomaly.DinoV2Patches()\nimport skanomaly.cli"
    )
    # scikit-learn itself imports pandas where it is installed.
    assert not loaded & (set(EXTRAS) - {"pandas"})


def test_base_install_works_without_extras():
    code = (
        f"{WITHOUT_EXTRAS}"
        "from sklearn.pipeline import make_pipeline\n"
        "from skanomaly import FilterBankPatches, PatchGaussianScorer, PatchKNNScorer\n"
        "from skanomaly.datasets import make_surfaces\n"
        "images = make_surfaces(4, image_size=32, random_state=0).images\n"
        "for scorer in (PatchGaussianScorer(), PatchKNNScorer()):\n"
        "    make_pipeline(FilterBankPatches(image_size=32), scorer).fit(images).predict(images)\n"
        "from skanomaly import TimmPatches\n"
        "try:\n"
        "    TimmPatches().transform(images)\n"
        "except ImportError as exc:\n"
        "    assert 'pip install \"skanomaly[torch]\"' in str(exc), exc\n"
        "else:\n"
        "    raise AssertionError('no ImportError')\n"
    )
    assert "skanomaly" in _modules_after(code)


def test_the_default_model_needs_no_extra_and_no_network(tmp_path):
    """With an empty folder for a cache: what it needs is in the package."""
    code = f"""{WITHOUT_EXTRAS}
import os, socket
os.environ["HOME"] = os.environ["XDG_CACHE_HOME"] = {str(tmp_path)!r}
def refuse(*args, **kwargs):
    raise AssertionError("this machine has no network")
socket.socket.connect = socket.getaddrinfo = refuse
from skanomaly import anomaly_maps, create_model, load_model, save_model
from skanomaly.cli._options import DEFAULT_MODEL
from skanomaly.datasets import make_surfaces
images = make_surfaces(6, image_size=64, random_state=0).images
model = create_model(DEFAULT_MODEL, image_size=64).fit(images)
assert anomaly_maps(model, images).shape == (6, 64, 64)
save_model(model, {str(tmp_path / "parts.skan")!r})
kept = load_model({str(tmp_path / "parts.skan")!r})
assert (kept.score_samples(images) == model.score_samples(images)).all()
"""
    assert not _modules_after(code) & set(EXTRAS)


def test_dir_and_unknown_name():
    assert set(skanomaly.__all__) <= set(dir(skanomaly))
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = skanomaly.Nonsense


@pytest.mark.parametrize("name", sorted(set(skanomaly.__all__) - {"__version__"}))
def test_public_objects_are_documented(name):
    thing = getattr(skanomaly, name)
    assert inspect.getdoc(thing)
    if inspect.isclass(thing) and not issubclass(thing, Exception):
        sections = inspect.getdoc(thing)
        for parameter in inspect.signature(thing).parameters:
            assert f"\n{parameter} : " in sections, f"{name} does not document {parameter}"
        assert "\nExamples\n" in sections


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_is_the_same_everywhere():
    version = skanomaly.__version__
    assert f"\nversion: {version}\n" in read("CITATION.cff")
    assert f"\n## [{version}]" in read("CHANGELOG.md")


def test_declared_versions_of_python_are_tested():
    yaml = pytest.importorskip("yaml")
    jobs = yaml.safe_load(read(".github/workflows/tests.yml"))["jobs"]
    declared = re.findall(r"Python :: (3\.\d+)", read("pyproject.toml"))
    assert jobs["fast"]["strategy"]["matrix"]["python"] == declared
    assert f'requires-python = ">={declared[0]}"' in read("pyproject.toml")


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/**/*.yml")), ids=lambda path: path.name)
def test_workflows_and_templates_are_whole(path):
    """Each reads as YAML, and actions are pinned to a version."""
    content = pytest.importorskip("yaml").safe_load(path.read_text(encoding="utf-8"))
    for job in content.get("jobs", {}).values():
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert re.search(r"@(v\d+|release/v\d+)$", step.get("uses", "@v0"))


def test_what_is_imported_is_declared():
    """At the head of a module only dependencies of the base are imported, and each is declared."""
    dependencies = read("pyproject.toml").partition("\ndependencies = [")[2].partition("\n]")[0]
    declared = set(re.findall(r'"([\w-]+)', dependencies.lower()))
    distributions = {"sklearn": ["scikit-learn"]}  # Python 3.10 does not find out by itself
    distributions.update(importlib.metadata.packages_distributions())
    undeclared = set()
    for path in sorted((ROOT / "skanomaly").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module]
            for name in {module.split(".")[0] for module in modules}:
                homes = {home.lower() for home in distributions.get(name, [name])}
                if name not in {*sys.stdlib_module_names, "skanomaly"} and not homes & declared:
                    undeclared.add(f"{path.relative_to(ROOT)} imports {name}")
    assert not undeclared, "\n".join(sorted(undeclared))
