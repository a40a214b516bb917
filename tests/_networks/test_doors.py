"""What we use of the inside of timm, open_clip and OpenVINO is where we last saw it."""

import importlib

import pytest

# Per library: a private name, or one that no documentation promises, and where it is used.
USED = {
    "timm": [
        ("timm.models.vision_transformer", "VisionTransformer._pos_embed", "positions, timm_vit"),
        ("timm.models.vision_transformer", "VisionTransformer.forward_intermediates", "timm"),
        ("timm.models.vision_transformer", "Block", "timm_vit"),
        ("timm.models.vision_transformer", "LayerScale", "timm_vit"),
        ("timm.models.deit", "VisionTransformerDistilled._pos_embed", "positions"),
        ("timm.layers", "resample_abs_pos_embed", "positions"),
        ("timm.layers", "PatchEmbed.dynamic_feat_size", "timm_vit"),
        ("timm.layers", "Attention", "timm_vit"),
        ("timm.layers", "Mlp", "timm_vit"),
        ("timm.layers", "DropPath", "timm_vit"),
        ("timm.models", "load_state_dict_from_hf", "timm"),
        ("timm", "model_entrypoint", "timm"),
    ],
    "open_clip": [
        ("open_clip.transformer", "VisionTransformer._embeds", "openclip_towers"),
        ("open_clip.transformer", "VisionTransformer._pool", "openclip_joint"),
        ("open_clip.transformer", "VisionTransformer.forward_intermediates", "openclip_towers"),
        ("open_clip.transformer", "ResidualAttentionBlock", "openclip_towers"),
        ("open_clip.modified_resnet", "ModifiedResNet", "openclip_towers"),
        ("open_clip.timm_model", "TimmModel.set_input_size", "openclip_towers"),
        ("open_clip.model", "resize_pos_embed", "openclip_towers"),
        ("open_clip.factory", "convert_state_dict", "openclip_weights"),
        ("open_clip.factory", "convert_to_custom_text_state_dict", "openclip_weights"),
        ("open_clip", "is_pretrained_cfg", "openclip_weights"),
        ("open_clip", "download_pretrained", "openclip_weights"),
    ],
    "openvino": [
        ("openvino.frontend", "FrontEndManager.load_by_framework", "openvino"),
        ("openvino.frontend", "InputModel.set_partial_shape", "openvino"),
        ("openvino.frontend.pytorch.ts_decoder", "TorchScriptPythonDecoder", "openvino"),
    ],
}


@pytest.mark.parametrize(
    "library, module, name, user",
    [(library, *entry) for library, entries in USED.items() for entry in entries],
)
def test_what_is_used_of_its_inside_is_there(library, module, name, user):
    version = pytest.importorskip(library).__version__
    message = (
        f"{library} {version} has no {module}.{name} any more, which skanomaly/_networks ({user}) "
        "uses: look for what took its place"
    )
    try:
        found = importlib.import_module(module)
    except ImportError as exc:
        raise AssertionError(message) from exc
    for part in name.split("."):
        found = getattr(found, part, None)
        assert found is not None, message


VARIANTS = {
    "class token": {},
    "no class token": {"class_token": False, "global_pool": "avg"},
    "registers": {"reg_tokens": 4},
    "registers without position": {"reg_tokens": 4, "no_embed_class": True},
    "no position": {"pos_embed": "none"},
    "distilled": {},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_positions_are_added_as_by_timm(variant):
    """Our own lines stand in for the private method that they are bound to."""
    torch = pytest.importorskip("torch")
    vit = pytest.importorskip("timm.models.vision_transformer")
    deit = pytest.importorskip("timm.models.deit")
    layers = pytest.importorskip("timm.layers")
    from skanomaly._networks.positions import bind_positions

    kind = deit.VisionTransformerDistilled if variant == "distilled" else vit.VisionTransformer
    torch.manual_seed(0)
    size = {"img_size": 48, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    module = kind(**size, dynamic_img_size=True, **VARIANTS[variant]).eval()
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    images = [torch.randn(2, 3, *sides) for sides in ((48, 48), (40, 64))]
    calls = []

    def resample(*args, **options):
        calls.append(args)
        return layers.resample_abs_pos_embed(*args, **options)

    with torch.no_grad():
        expected = [module.forward_features(x) for x in images]
        bind_positions(module, resample)
        for x, tokens in zip(images, expected, strict=True):
            assert torch.equal(module.forward_features(x), tokens), (
                "VisionTransformer._pos_embed of timm does something else than _networks/positions"
            )
    # So timm still calls what is bound.
    assert len(calls) == (0 if variant == "no position" else 2)
