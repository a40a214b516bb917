"""What the teachers say, against their own libraries and plain linear algebra in float64."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")

from training.targets import (  # noqa: E402
    MobileNetTeacher,
    VitTeacher,
    Whitening,
)


@pytest.fixture(scope="module")
def tokens():
    """Correlated tokens of 40 pictures at 6 positions, each with a mean of its own."""
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((40, 6, 9)) @ rng.standard_normal((9, 9))
    return (mixed + rng.standard_normal((6, 9))).astype(np.float32)


def test_whitening_by_position(tokens):
    whitening = Whitening.fit(tokens, 5)
    found = whitening(tokens)
    assert found.dtype == np.float32 and found.shape == (40, 6, 5)
    centred = (tokens.astype(float) - tokens.astype(float).mean(0)).reshape(-1, 9)
    _, singular, right = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(whitening.eigenvalues, singular**2 / len(centred), rtol=1e-5)
    expected = centred @ right[:5].T / singular[:5] * len(centred) ** 0.5
    signs = np.sign((expected * found.reshape(-1, 5)).sum(0))
    np.testing.assert_allclose(found.reshape(-1, 5), expected * signs, atol=1e-4)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-5)


def test_whitening_of_dimensions_of_any_scale(tokens):
    scaled = tokens * np.logspace(-3, 3, 9).astype(np.float32)
    found = Whitening.fit(scaled, 5, by_position=False)(scaled).reshape(-1, 5)
    np.testing.assert_allclose(found.T @ found / len(found), np.eye(5), atol=1e-3)
    plain = Whitening.fit(tokens, 5, by_position=False)(tokens).reshape(-1, 5)
    np.testing.assert_allclose(found, plain, atol=1e-2)


def test_a_constant_dimension_is_no_division_by_zero(tokens):
    with_constant = tokens.copy()
    with_constant[..., 3] = 2
    assert np.isfinite(Whitening.fit(with_constant, 5, by_position=False)(with_constant)).all()


@pytest.mark.parametrize("teacher", [VitTeacher, MobileNetTeacher])
def test_missing_weights_are_named(teacher, tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights of a teacher at .*safetensors"):
        teacher(tmp_path)


def test_vit_tokens_are_those_of_timm(shared):
    """bfloat16 against float32."""
    large = np.random.default_rng(0).integers(0, 256, (1, 448, 448, 3), np.uint8)
    found = VitTeacher(shared / "weights")(large)[0].reshape(784, 2, 192)
    file = shared / "weights" / "vit_tiny_patch16_224.safetensors"
    vit = timm.create_model(
        "vit_tiny_patch16_224",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(file)},
        img_size=448,
    ).eval()
    x = torch.from_numpy(large).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        blocks = vit.forward_intermediates(
            x, indices=[3, 5], norm=False, output_fmt="NLC", intermediates_only=True
        )
    for i, expected in enumerate(blocks):
        cosine = torch.cosine_similarity(torch.from_numpy(found[:, i]), expected[0], dim=-1)
        assert cosine.min() > 0.995 and cosine.median() > 0.9995
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 192**0.5, rtol=1e-4)


def test_mobilenet_tokens_are_those_of_torchvision(shared):
    from safetensors.torch import load_file
    from torchvision.models import mobilenet_v2
    from torchvision.models.feature_extraction import create_feature_extractor
    from torchvision.transforms.functional import normalize

    small = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    network = mobilenet_v2().eval()
    weights = load_file(shared / "weights" / "mobilenet_v2_features.safetensors")
    network.load_state_dict(weights, strict=False)
    nodes = {"features.10.add": "a", "features.13.add": "b"}
    x = torch.from_numpy(small).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        maps = create_feature_extractor(network, nodes)(
            normalize(x, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        )
    expected = torch.cat([maps["a"], maps["b"]], 1).permute(0, 2, 3, 1).reshape(2, 196, 160)
    np.testing.assert_allclose(MobileNetTeacher(shared / "weights")(small), expected, atol=1e-3)
