"""The door to anomalib: what is used of it is there, and building a model changes nothing else."""

import importlib
import threading

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("anomalib")
open_clip = pytest.importorskip("open_clip")
timm = pytest.importorskip("timm")

from skanomaly.anomalib._families import FAMILIES  # noqa: E402
from skanomaly.anomalib._modules import thresholds  # noqa: E402
from skanomaly.anomalib._offline import HARD_CODED, build_untrained  # noqa: E402
from skanomaly.anomalib._opening import (  # noqa: E402
    NAMES,
    POST_PROCESSOR,
    WINCLIP,
    attribute,
    image_models,
    member,
)

pytestmark = pytest.mark.usefixtures("no_network")
EXTRACTOR = "anomalib.models.components.feature_extractors.timm"


# ------------------------------------------------------------------------------- what is used of it
@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in NAMES.items() for name in names]
)
def test_anomalib_has_every_name_that_is_used(module, name, monkeypatch):
    assert attribute(module, name) is getattr(importlib.import_module(module), name)
    monkeypatch.delattr(f"{module}.{name}")
    with pytest.raises(
        ImportError, match=rf"needs {module}\.{name}, which anomalib .* as anomalib"
    ):
        attribute(module, name)


def test_modules_that_moved_are_named():
    with pytest.raises(ImportError, match=r"needs anomalib.moved.name, which .*No module named"):
        attribute("anomalib.moved", "name")


def test_post_processor_has_every_setting_that_is_used(monkeypatch):
    from anomalib.post_processing import PostProcessor

    for name in POST_PROCESSOR:
        member(PostProcessor(), name)
    monkeypatch.delattr(PostProcessor, "image_threshold")
    with pytest.raises(ImportError, match=r"post_processor\.PostProcessor\.image_threshold, which"):
        thresholds(PostProcessor())


def test_winclip_has_everything_that_is_used():
    from anomalib.models.image.winclip.torch_model import WinClipModel

    with torch.device("meta"):
        model = build_untrained(FAMILIES["winclip"], WinClipModel, {})
    for name in WINCLIP:
        member(model, name)


def test_hard_coded_names_are_in_the_table_of_names():
    assert set(HARD_CODED) <= set(FAMILIES)
    for module, name in {pair for pairs in HARD_CODED.values() for pair in pairs}:
        assert name in NAMES[module]


# ------------------------------------------------------------------------------------- no downloads
@pytest.mark.parametrize(
    ("name", "device"),
    # The constructors of two need numbers, which tensors on "meta" do not have.
    [("anomalyvfm", "meta"), ("csflow", "meta"), ("dsr", "cpu"), ("uflow", "cpu")]
    + [("uninet", "meta")],
)
def test_families_too_large_to_train_here_are_built_without_a_network(name, device):
    family = FAMILIES[name]
    settings = {"evaluator": False, "visualizer": False, "unknown": 1}
    settings |= {"backbone": "resnet18"} if name == "uflow" else {}
    with torch.device(device):
        module = build_untrained(family, image_models()[family.class_name], settings)
    assert type(module).__name__ == family.class_name
    assert len(module.state_dict()) > 50
    assert type(module.model).__module__.startswith("anomalib.")


def test_the_large_backbone_of_uflow_is_built_without_a_network():
    from anomalib.models.image.uflow.feature_extraction import CaitFeatureExtractor

    with torch.device("meta"):
        module = build_untrained(FAMILIES["uflow"], CaitFeatureExtractor, {})
    assert len(module.state_dict()) > 50


@pytest.mark.parametrize("backbone", ["hf-hub:a/b", "hf_hub:a/b", "local-dir:a"])
def test_networks_from_elsewhere_are_refused(backbone):
    with pytest.raises(ValueError, match=f"its network '{backbone}' would have to be downloaded"):
        build_untrained(FAMILIES["padim"], image_models()["Padim"], {"backbone": backbone})


# ------------------------------------------------------------------------- the rest of the process
def shared_names():
    """What other threads and libraries see, of torch, torchvision, timm and open_clip."""
    import timm.models.vision_transformer as vit
    import torchvision
    from torchvision.models._api import WeightsEnum

    return {
        "load_state_dict": torch.nn.Module.load_state_dict,
        "get_state_dict": WeightsEnum.get_state_dict,
        "get_model_weights": torchvision.models.get_model_weights,
        "create_model": timm.create_model,
        "positions": vit.resample_abs_pos_embed,
        "create_clip": open_clip.create_model_and_transforms,
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_no_library_is_changed_while_a_model_is_built(name):
    seen, before = [], shared_names()
    names = {pair: getattr(importlib.import_module(pair[0]), pair[1]) for pair in every_name()}

    class Model:
        def __init__(self, **settings):
            seen.append(shared_names())
            raise RuntimeError("not built")

    with pytest.raises(RuntimeError, match="not built"):
        build_untrained(FAMILIES[name], Model, {})
    assert seen == [before]
    for (module, attribute_name), value in names.items():
        assert getattr(importlib.import_module(module), attribute_name) is value


def every_name():
    return [(module, name) for module, names in NAMES.items() for name in names]


def test_other_threads_get_the_weights_they_ask_for(monkeypatch):
    extractor = importlib.import_module(EXTRACTOR)
    asked = []
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained=False: asked.append((name, pretrained))
    )

    class Model:
        def __init__(self):
            extractor.timm.create_model("here", pretrained=True)
            thread = threading.Thread(target=lambda: extractor.timm.create_model("there", True))
            thread.start()
            thread.join()

    build_untrained(FAMILIES["stfpm"], Model, {})
    assert asked == [("here", False), ("there", True)]
    assert extractor.timm is timm


def test_position_embeddings_of_timm_stay_as_they_are():
    import timm.models.vision_transformer as vit
    from anomalib.models.components import TimmFeatureExtractor

    before = vit.resample_abs_pos_embed
    with torch.device("meta"):
        build_untrained(
            FAMILIES["patchcore"],
            TimmFeatureExtractor,
            {"backbone": "vit_tiny_patch16_224", "layers": ["blocks.2"]},
        )
    assert vit.resample_abs_pos_embed is before
