"""The fast form of a plain transformer: the numbers of the module, by whatever way."""

import pytest
from _adapters import assert_close, assert_same, deviation, deviation_of_bfloat16, random_images
from _transformers import VARIANTS, transformer
from sklearn.pipeline import make_pipeline

from skanomaly import DinoV2Patches, PatchKNNScorer, TimmPatches
from skanomaly._networks import dinov2, kernels
from skanomaly._networks.fast_vit import FastVit, Ways
from skanomaly._networks.kernels import ATTENTIONS, LinearMap
from skanomaly._networks.timm_vit import embed_patches, plain_vit
from skanomaly.core.choosing import choose as measured

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
vision_transformer = pytest.importorskip("timm.models.vision_transformer")

OTHERS = {
    "normalised queries": {"qk_norm": True},
    "normalised attention": {"scale_attn_norm": True},
    "normalised mlp": {"scale_mlp_norm": True},
    "gated mlp": {"mlp_layer": timm.layers.SwiGLU},
    "parallel": {"block_fn": vision_transformer.ParallelScalingBlock},
    "normalised after": {"block_fn": vision_transformer.ResPostBlock, "init_values": 0.5},
    "dropped patches": {"patch_drop_rate": 0.5},
}


def packs(dtype):
    """Whether this torch and this processor pack weights in that precision."""
    try:
        LinearMap(torch.ones(16, 8, dtype=dtype), None, True)(torch.ones(4, 8, dtype=dtype))
    except (RuntimeError, AttributeError):
        return False
    return True


def ways_of(dtype):
    """All ways, and the one that is measured to be fastest."""
    maps = (False, True) if packs(dtype) else (False,)
    return [Ways(), *(Ways(name, packed) for name in ATTENTIONS for packed in maps)]


def run_fast(module, x, dtype, ways=None, layers=(0, 2)):
    fast = FastVit(plain_vit(module), dtype, ways or Ways())
    return fast(*embed_patches(module, x), list(layers), module.norm)


def tokens_of(maps):
    return [m.permute(0, 2, 3, 1) for m in maps]


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_the_fast_form_is_the_module(monkeypatch, options):
    """In float32 the same numbers, in reduced precision up to rounding, by each of the ways."""
    module = transformer(**options)
    assert plain_vit(module) is not None
    sides = (40, 56) if module.dynamic_img_size else (48, 48)
    x = torch.randn(2, 3, *sides)
    low = deviation_of_bfloat16(3)  # float16 has three bits more
    limits = {torch.bfloat16: low, torch.float16: low / 2**6}
    with torch.inference_mode():
        expected = tokens_of(
            module.forward_intermediates(x, indices=[0, 2], norm=True, intermediates_only=True)
        )
        for ways in ways_of(torch.float32):
            for one, other in zip(
                tokens_of(run_fast(module, x, torch.float32, ways)), expected, strict=True
            ):
                assert_close(one, other)
        for dtype, limit in limits.items():
            for ways in ways_of(dtype):
                maps = tokens_of(run_fast(module, x, dtype, ways))
                for one, other in zip(maps, expected, strict=True):
                    assert one.dtype == torch.float32
                    assert 0 < deviation(one, other) < limit


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_whatever_part_of_the_scores_is_made_at_a_time(monkeypatch, attention):
    module, x = transformer(), torch.randn(2, 3, 48, 48)
    with torch.inference_mode():
        expected = run_fast(module, x, torch.float32, Ways(attention, False))
        monkeypatch.setattr(kernels, "_SCORES", 100)
        maps = run_fast(module, x, torch.float32, Ways(attention, False))
        for one, other in zip(maps, expected, strict=True):
            assert_close(one, other)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_each_way_gives_the_same_bits_with_any_number_of_threads(dtype):
    dtype = getattr(torch, dtype)
    module, x = transformer(dynamic_img_size=True), torch.randn(1, 3, 72, 40)
    before = torch.get_num_threads()
    try:
        with torch.inference_mode():
            for attention in ATTENTIONS:
                ways = Ways(attention, packs(dtype))
                torch.set_num_threads(1)
                expected = run_fast(module, x, dtype, ways)
                for n_threads in (1, 2):
                    torch.set_num_threads(n_threads)
                    for one, other in zip(run_fast(module, x, dtype, ways), expected, strict=True):
                        assert torch.equal(one, other)
    finally:
        torch.set_num_threads(before)


def forced(monkeypatch, name):
    """Let that way win, whatever the time; what it does not answer is measured as ever.

    The first of any ways would not do: a processor without bfloat16 cannot pack weights in it.
    """

    def choose(question, ways):
        return name if name in ways else measured(question, ways)

    monkeypatch.setattr(kernels, "choose", choose)


def test_ways_round_differently_and_little_and_training_images_stay_known(monkeypatch):
    """As where a model is fitted by one process or machine and used by another."""
    images = random_images(*[(160, 160)] * 12)
    options = {"image_size": 160, "weights": "random", "device": "cpu", "dtype": "bfloat16"}
    embedder = TimmPatches("test_vit", **options)
    full = TimmPatches("test_vit", **{**options, "dtype": "float32"}).transform(images)
    pipe = make_pipeline(embedder, PatchKNNScorer(contamination=0.3))
    forced(monkeypatch, "by head")
    fingerprint = embedder._fingerprint()
    tokens = embedder.transform(images)
    held_out = pipe.fit(images[:8])[-1].train_scores_
    scores = pipe.decision_function(images[8:])
    for name in ("fused", "batched"):
        forced(monkeypatch, name)
        others = embedder.transform(images)
        assert deviation(others, tokens) <= 2 * deviation(tokens, full)
        assert embedder._fingerprint() == fingerprint
        # To the bit: they are recognised, and not scored by their tokens.
        assert_same(pipe.score_samples(images[:8]), held_out)
        assert_close(pipe.decision_function(images[8:]), scores, 1e-2)


def test_how_it_was_computed_is_shown(monkeypatch, capsys):
    images = random_images((32, 32))
    options = {"image_size": 32, "weights": "random", "device": "cpu", "verbose": True}
    forced(monkeypatch, "batched")
    TimmPatches("test_vit", dtype="bfloat16", **options).transform(images)
    assert "attention batched" in capsys.readouterr().err
    TimmPatches("test_vit", dtype="float32", **options).transform(images)
    assert "attention" not in capsys.readouterr().err


def test_the_positions_of_a_size_are_interpolated_once(monkeypatch):
    calls = []
    original = dinov2.interpolate_position_embedding

    def counting(embedding, grid):
        calls.append(tuple(grid))
        return original(embedding, grid)

    monkeypatch.setattr(dinov2, "interpolate_position_embedding", counting)
    images = random_images((56, 56), (56, 56), (56, 84))
    options = {"weights": "random", "device": "cpu", "layers": 0, "resize": "shortest_edge"}
    full = DinoV2Patches(image_size=56, dtype="float32", **options).transform(images)
    calls.clear()
    embedder = DinoV2Patches(image_size=56, dtype="bfloat16", **options)
    tokens = embedder.transform(images)
    for one, other in zip(tokens, full, strict=True):
        assert deviation(one, other) < deviation_of_bfloat16(1)
    assert sorted(set(calls)) == sorted(calls) == [(4, 4), (4, 6)]
    again = embedder.transform(images)
    assert len(calls) == 2
    for one, other in zip(again, tokens, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS)
def test_other_transformers_have_no_fast_form(options):
    assert plain_vit(transformer(**options)) is None


@pytest.mark.parametrize("name", ["resnet18", "test_vit4", "vit_small_patch16_dinov3"])
def test_other_networks_have_no_fast_form(name):
    with torch.device("meta"):
        assert plain_vit(timm.create_model(name)) is None


def test_other_devices_take_torchs_attention():
    """The shapes of the path that a GPU takes."""
    module = transformer().to("meta")
    maps = run_fast(module, torch.empty(2, 3, 48, 48, device="meta"), torch.bfloat16)
    assert [tuple(m.shape) for m in maps] == [(2, 64, 6, 6)] * 2
