"""The package as a whole: what importing it costs, what it exports, what it documents."""

import inspect
import subprocess
import sys

import pytest

import skanomaly

EXTRAS = ("torch", "torchvision", "timm", "open_clip", "anomalib", "faiss", "matplotlib", "pandas")


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
        "import sys\n"
        f"EXTRAS = {EXTRAS!r}\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in EXTRAS:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
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
