import random
import threading
import warnings
import zipfile

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("anomalib")
tiny = pytest.importorskip("_anomalib_tiny")

from skanomaly import TimmPatches  # noqa: E402
from skanomaly.anomalib._checkpoints import (  # noqa: E402
    find_family,
    load_checkpoint,
    load_exported_module,
)
from skanomaly.anomalib._families import FAMILIES, UNSUPPORTED  # noqa: E402
from skanomaly.anomalib._modules import map_of_image, thresholds, visible_share  # noqa: E402
from skanomaly.anomalib._opening import image_models, setting_names  # noqa: E402

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module")
def padim(anomalib_checkpoints):
    return anomalib_checkpoints.get("padim")


@pytest.fixture
def content(padim):
    return torch.load(padim.path, weights_only=True)


@pytest.fixture
def saved(tmp_path):
    """Write the content of a checkpoint; returns the path."""

    def save(content, name="changed.ckpt"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


def load(path, **options):
    """Load a checkpoint whose pre-processor may crop."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the pre-processor in .* crops", UserWarning)
        return load_checkpoint(path, device="cpu", **options)


def assert_equal_scores(found, expected, tolerance=1e-5):
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


# ------------------------------------------------------------------------------- anomalib's numbers
# A transformer, a network with a setting against downloads, and one without; the other families
# are trained where slow tests run.
QUICK = ("anomaly_dino", "padim", "stfpm")


@pytest.mark.parametrize(
    "family",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(tiny.RECIPES)
    ],
)
def test_scores_and_maps_are_those_of_the_trained_model(anomalib_checkpoints, family):
    trained = anomalib_checkpoints.get(family)
    backend = load(trained.path)
    assert backend.family == family
    assert backend.unclipped
    maps, scores = backend.predict(trained.images)
    assert scores.dtype == np.float64
    assert_equal_scores(scores, trained.scores)
    normalized = backend.predict(trained.images, normalized=True)[1]
    # The post-processor divides by the range of the validation scores, and their errors with it.
    post = trained.model.post_processor
    spread = float(post.image_max) - float(post.image_min)
    assert spread > 0
    tolerance = 1e-5 * max(1.0, np.abs(trained.scores).max()) / spread
    np.testing.assert_allclose(normalized, trained.normalized, rtol=0, atol=tolerance)
    assert (maps is None) == (trained.maps is None)
    if maps is not None:
        assert all(heat.dtype == np.float32 for heat in maps)
        height, width = trained.maps.shape[1:]
        top, left = (maps[0].shape[0] - height) // 2, (maps[0].shape[1] - width) // 2
        inner = np.stack([heat[top : top + height, left : left + width] for heat in maps])
        assert_equal_scores(inner, trained.maps, tiny.rounding(trained))
    # An image scores the same in any batch.
    assert_equal_scores(backend.predict(trained.images[::-1])[1][::-1], scores)
    assert_equal_scores(backend.predict(trained.images[2:3])[1], scores[2:3])
    assert backend.threshold == pytest.approx(float(post.image_threshold))
    assert backend.normalized_threshold == 0.5


@pytest.mark.parametrize("family", ["stfpm", "anomaly_dino"])
def test_raw_scores_keep_the_order_that_normalised_ones_lose(anomalib_checkpoints, family):
    trained = anomalib_checkpoints.get(family)
    backend = load(trained.path)
    raw = backend.predict(trained.images)[1]
    normalized = backend.predict(trained.images, normalized=True)[1]
    assert np.isin(normalized, [0, 1]).sum() >= 2
    assert len(np.unique(normalized)) < len(raw)
    assert len(np.unique(raw)) == len(raw)


# ------------------------------------------------------------------------------------------- images
def test_bytes_floats_and_sizes(padim):
    backend = load(padim.path)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((96, 96), (50, 130))]
    maps, scores = backend.predict(images)
    floats = [(image / np.float32(255)).astype(np.float32) for image in images]
    for image in floats:
        image.flags.writeable = False
    assert_equal_scores(backend.predict(floats)[1], scores)
    assert_equal_scores([backend.predict([image])[1][0] for image in images], scores)
    assert [heat.shape for heat in maps] == [(64, 64)] * 2


def test_grad_mode_and_grads_stay_as_they_were(padim):
    backend = load(padim.path)
    backend.predict(padim.images[:1])
    assert torch.is_grad_enabled()
    assert not any(p.requires_grad for p in backend.module.parameters())
    assert not backend.module.training


@pytest.mark.slow
def test_threads_share_a_model(anomalib_checkpoints):
    trained = anomalib_checkpoints.get("winclip")  # which hooks into itself while it runs
    backend = load(trained.path)
    found = [None] * 6

    def predict(i):
        found[i] = backend.predict([trained.images[i]])[1][0]

    threads = [threading.Thread(target=predict, args=[i]) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_equal_scores(found, trained.scores[:6])


def test_without_pre_processor_images_keep_their_sizes(anomalib_checkpoints, saved):
    trained = anomalib_checkpoints.get("stfpm")
    content = torch.load(trained.path, weights_only=True)
    del content["anomalib_pre_processor_config"]
    content["anomalib_components_enabled"]["pre_processor"] = False
    backend = load(saved(content))
    images = [*tiny.textures(1, side=64), *tiny.textures(1, side=96), *tiny.textures(1, side=64)]
    maps, scores = backend.predict(images)
    assert [heat.shape for heat in maps] == [(64, 64), (96, 96), (64, 64)]
    x = [torch.from_numpy(image).permute(2, 0, 1)[None] / 255 for image in images]
    with torch.no_grad():
        expected = [float(trained.model.model(one).pred_score) for one in x]
    assert_equal_scores(scores, expected)


@pytest.mark.slow
def test_crops_are_announced_and_maps_cover_the_image(anomalib_checkpoints):
    trained = anomalib_checkpoints.get("dinomaly")  # 84 pixels, of which it sees the middle 70
    with pytest.warns(UserWarning, match="middle 83% of the height and 83% of the width"):
        backend = load_checkpoint(trained.path, device="cpu")
    heat = backend.predict(trained.images[:1])[0][0]
    assert heat.shape == (84, 84)
    assert np.all(heat[:7] == heat.min())
    np.testing.assert_allclose(heat[7:77, 7:77], trained.maps[0], atol=1e-4)


def test_visible_part_of_an_image():
    v2 = pytest.importorskip("torchvision.transforms.v2")
    from anomalib.data.transforms import SquarePad

    assert visible_share(None, (10, 20)) == (1, 1)
    assert visible_share(v2.Resize((7, 9)), (10, 20)) == (1, 1)
    assert visible_share(v2.Compose([v2.Resize((8, 8)), v2.CenterCrop(6)]), (10, 20)) == (
        0.75,
        0.75,
    )
    # The shorter side to 8: 8 x 16, of which 8 x 8 are seen, then enlarged.
    steps = v2.Compose([v2.Compose([v2.Resize(8), v2.CenterCrop((8, 8))]), v2.Resize((32, 32))])
    assert visible_share(steps, (10, 20)) == (1, 0.5)
    assert visible_share(v2.Compose([SquarePad(), v2.Resize((8, 8))]), (10, 20)) == (2, 1)
    heat = np.arange(64, dtype=np.float32).reshape(8, 8)
    assert np.array_equal(map_of_image(heat, (2, 1)), heat[2:6])
    padded = map_of_image(heat, (1, 0.5))
    assert padded.shape == (8, 16)
    assert np.array_equal(padded[:, 4:12], heat)
    assert np.all(padded[:, :4] == 0) and np.all(padded[:, 12:] == 0)


# --------------------------------------------------------------------------------------- thresholds
def test_no_validation_no_threshold(content, saved):
    for name in ("_image_threshold", "_pixel_threshold"):
        content["state_dict"][f"post_processor.{name}"].fill_(float("nan"))
    backend = load(saved(content))
    assert backend.threshold is None
    assert backend.normalized_threshold is None


def test_sensitivity_moves_both_thresholds(content, saved, padim):
    content["anomalib_post_processor_config"]["image_sensitivity"] = 0.7
    backend = load(saved(content))
    assert backend.normalized_threshold == pytest.approx(0.3)
    raw = backend.predict(padim.images)[1]
    normalized = backend.predict(padim.images, normalized=True)[1]
    assert 0 < (raw > backend.threshold).sum() < 8
    np.testing.assert_array_equal(
        raw > backend.threshold, normalized > backend.normalized_threshold
    )


def test_thresholds_without_normalisation(padim):
    from anomalib.post_processing import PostProcessor

    post = PostProcessor(enable_normalization=False)
    post._image_threshold.fill_(3.0)
    assert thresholds(post) == (3, 3)
    assert thresholds(PostProcessor()) == (None, None)
    assert thresholds(None) == (None, None)


def test_model_without_post_processor(content, saved, padim):
    content["anomalib_components_enabled"]["post_processor"] = False
    content["state_dict"] = {
        name: value
        for name, value in content["state_dict"].items()
        if not name.startswith("post_processor")
    }
    backend = load(saved(content))
    assert_equal_scores(backend.predict(padim.images)[1], padim.scores)
    assert backend.threshold is None
    with pytest.raises(ValueError, match="no post-processor, so that normalized=True"):
        backend.predict(padim.images, normalized=True)


# ----------------------------------------------------------------------------------------- families
def test_every_image_model_has_settings_of_its_own():
    models = image_models()
    known = {family.class_name for family in FAMILIES.values()}
    assert known | set(UNSUPPORTED) == set(models)
    assert not known & set(UNSUPPORTED)
    for family in FAMILIES.values():
        settings = dict.fromkeys(setting_names(models[family.class_name]))
        assert find_family("file", settings) is family
        assert find_family("file", settings, family.name) is family
    for name in UNSUPPORTED:
        with pytest.raises(ValueError, match=f"{name}, which cannot be used.*{UNSUPPORTED[name]}"):
            find_family("file", dict.fromkeys(setting_names(models[name])))


def test_resampling_of_every_family_is_that_of_its_default_pre_processor():
    for family in FAMILIES.values():
        model = image_models()[family.class_name]
        transform = model.configure_pre_processor().transform
        resize = next(t for t in transform.transforms if type(t).__name__ == "Resize")
        name = getattr(resize.interpolation, "value", resize.interpolation)
        assert name == family.interpolation, family.name


def test_settings_that_came_later_may_be_missing(content, saved, padim):
    assert set(content["hyper_parameters"]) == {"backbone", "layers", "pre_trained", "n_features"}
    settings = dict.fromkeys(setting_names(image_models()["Dinomaly"]))
    del settings["precision"], settings["use_context_recentering"]  # as in anomalib 2.3
    assert find_family("file", settings).name == "dinomaly"
    del content["hyper_parameters"]["n_features"]
    with pytest.raises(ValueError, match="pass family=, one of: .*padim"):
        load(saved(content))


def test_family_must_agree(padim):
    assert load(padim.path, family="padim").family == "padim"
    with pytest.raises(ValueError, match="is a checkpoint of 'padim', not of 'stfpm'"):
        load(padim.path, family="stfpm")
    with pytest.raises(ValueError, match="family='pdim' is unknown; known: anomaly_dino"):
        load(padim.path, family="pdim")


@pytest.mark.slow
def test_draem_needs_no_textures(anomalib_checkpoints):
    trained = anomalib_checkpoints.get("draem")
    settings = torch.load(trained.path, weights_only=True)["hyper_parameters"]
    tiny.shutil.rmtree(settings["dtd_dir"], ignore_errors=True)
    assert_equal_scores(load(trained.path).predict(trained.images)[1], trained.scores)


@pytest.mark.slow
def test_winclip_with_reference_images(anomalib_checkpoints, tmp_path):
    from anomalib import models
    from lightning.pytorch import Trainer

    images = anomalib_checkpoints.get("winclip").images
    with tiny.third_party(), tiny.random_weights():
        model = models.WinClip(class_name="surface", k_shot=2, scales=(2,))
        x = torch.from_numpy(np.stack(images[:2])).permute(0, 3, 1, 2) / 255
        model.model.setup("surface", model.pre_processor.transform(x))
        expected = tiny.own_output(model, images)[0]
        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        trainer.strategy.connect(model)
        trainer.save_checkpoint(tmp_path / "few.ckpt", weights_only=True)
    few = load(tmp_path / "few.ckpt")
    trained = anomalib_checkpoints.get("winclip")
    zero = load(trained.path)  # of other scales
    assert_equal_scores(few.predict(images)[1], expected)
    assert_equal_scores(zero.predict(images)[1], trained.scores)
    assert_equal_scores(few.predict(images)[1], expected)
    content = torch.load(tmp_path / "few.ckpt", weights_only=True)
    content["state_dict"]["model._text_embeddings"] = torch.empty(0)
    torch.save(content, tmp_path / "early.ckpt")
    with pytest.raises(ValueError, match="before WinCLIP knew the name"):
        load(tmp_path / "early.ckpt")


# ------------------------------------------------------------------------------------------ weights
def test_missing_weights_are_named(content, saved):
    names = [name for name in content["state_dict"] if "layer1.1.conv2" in name]
    for name in names:
        del content["state_dict"][name]
    with pytest.raises(
        ValueError, match=f"lacks weights, which would have been random: {names[0]}"
    ):
        load(saved(content))


def test_surplus_weights_are_named(content, saved):
    content["state_dict"]["model.extra"] = torch.ones(1)
    with pytest.raises(ValueError, match="no place for: model.extra"):
        load(saved(content))


def test_weights_of_another_shape(content, saved):
    content["state_dict"]["model.feature_extractor.feature_extractor.conv1.weight"] = torch.ones(3)
    with pytest.raises(ValueError, match="do not fit its settings: .*conv1.weight"):
        load(saved(content))


def test_settings_that_do_not_build(content, saved):
    content["hyper_parameters"]["backbone"] = "no_such_network"
    with pytest.raises(ValueError, match="PaDiM could not be built.*no_such_network"):
        load(saved(content))
    content["hyper_parameters"]["backbone"] = "hf-hub:somebody/something"
    with pytest.raises(ValueError, match="would have to be downloaded"):
        load(saved(content))


@pytest.mark.slow
def test_memory_bank_without_training(anomalib_checkpoints, saved):
    trained = anomalib_checkpoints.get("patchcore")
    # Its settings hold an enum.
    content = torch.load(trained.path, weights_only=False)
    content["state_dict"]["model.memory_bank"] = torch.empty(0)
    with pytest.raises(ValueError, match="changed.ckpt cannot score images: Memory bank is empty"):
        load(saved(content)).predict(trained.images)


def test_evaluator_state_is_not_needed(content, saved, padim):
    content["state_dict"]["evaluator.metric"] = torch.ones(1)
    assert_equal_scores(load(saved(content)).predict(padim.images)[1], padim.scores)


# ----------------------------------------------------------------------------------- trust and harm
class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_payloads_do_not_run(content, saved, tmp_path):
    harm = tmp_path / "harm"
    content["hyper_parameters"]["n_features"] = Payload(harm)
    with pytest.raises(ValueError, match=r"holds more than data \(.*open\).*trust=True"):
        load(saved(content))
    assert not harm.exists()
    with pytest.raises(ValueError, match="runs any code.*trust=True.*ckpt"):
        load_exported_module(saved({"model": Payload(harm)}, "model.pt"))
    assert not harm.exists()


def test_older_checkpoints_need_trust(content, saved, padim):
    from anomalib.metrics import Evaluator
    from anomalib.pre_processing import PreProcessor

    # anomalib 2.3 to 2.5 pickled the components of the model with its settings.
    pre_processor = padim.model.pre_processor
    assert isinstance(pre_processor, PreProcessor)
    for name in list(content):
        if name.startswith("anomalib_"):
            del content[name]
    content["hyper_parameters"] |= {
        "pre_processor": pre_processor,
        "post_processor": True,
        "evaluator": Evaluator(),
        "visualizer": True,
    }
    path = saved(content)
    with pytest.raises(ValueError, match="anomalib 2.3 to 2.5"):
        load(path)
    assert_equal_scores(load(path, trust=True).predict(padim.images)[1], padim.scores)
    assert_equal_scores(load(padim.path, trust=True).predict(padim.images)[1], padim.scores)


def test_safe_types_are_not_registered_for_the_process(padim):
    before = set(torch.serialization.get_safe_globals())
    load(padim.path)
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("trust", [False, True])
def test_damaged_and_foreign_files(padim, content, saved, tmp_path, trust):
    whole_file = padim.path.read_bytes()
    middle = len(whole_file) // 2
    flipped = bytes(255 - byte for byte in whole_file[middle : middle + 4096])
    files = {
        "empty": b"",
        "text": b"no checkpoint",
        "cut": whole_file[:middle],
        "flipped": whole_file[:middle] + flipped + whole_file[middle + 4096 :],
    }
    for name, data in files.items():
        path = tmp_path / f"{name}.ckpt"
        path.write_bytes(data)
        with pytest.raises(ValueError, match=f"{name}.ckpt.*damaged"):
            load(path, trust=trust)
    with zipfile.ZipFile(tmp_path / "other.ckpt", "w") as archive:
        archive.writestr("a.txt", "b")
    with pytest.raises(ValueError, match="other.ckpt could not be read"):
        load(tmp_path / "other.ckpt", trust=trust)
    with pytest.raises(ValueError, match="lacks the settings"):
        load(saved({"weight": torch.ones(1)}), trust=trust)
    content["hyper_parameters"][1] = 2
    with pytest.raises(ValueError, match="lacks the settings"):
        load(saved(content), trust=trust)
    content["hyper_parameters"] = {"classes": 10}
    with pytest.raises(ValueError, match=r"settings of no image model of anomalib 2.* \(classes\)"):
        load(saved(content), trust=trust)
    with pytest.raises(FileNotFoundError, match="nothing.ckpt"):
        load(tmp_path / "nothing.ckpt")


def test_bad_device(padim):
    with pytest.raises(ValueError, match="device='cuda:99'"):
        load_checkpoint(padim.path, device="cuda:99")


# ------------------------------------------------------------------------ the rest of the process
def test_random_numbers_are_not_used_up(padim):
    def draws():
        return torch.rand(1).item(), np.random.random(), random.random()

    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    expected = draws()
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
    load(padim.path)
    assert draws() == expected


def test_anomalib_does_not_change_another_transformer(anomalib_checkpoints):
    import timm.models.vision_transformer as vit

    trained = anomalib_checkpoints.get("anomaly_dino")
    images = tiny.textures(1, side=70)
    # It interpolates its position embedding by timm's rule in every forward pass.
    embedder = TimmPatches(
        model_name="vit_tiny_patch16_224",
        weights="random",
        image_size=64,
        resize="shortest_edge",
        device="cpu",
        dtype="float32",
    )
    before = embedder.fit_transform(images)
    resample = vit.resample_abs_pos_embed
    for _ in range(2):
        backend = load(trained.path)
        assert vit.resample_abs_pos_embed is resample
        assert_equal_scores(backend.predict(trained.images)[1], trained.scores)
    np.testing.assert_array_equal(embedder.transform(images), before)
