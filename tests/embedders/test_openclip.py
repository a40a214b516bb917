"""Tests of OpenClipPatches: tokens, projections and windows of every family of open_clip."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from _adapters import assert_close, assert_same, count_embedded, random_image, random_images
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skanomaly import OpenClipPatches, PatchKNNScorer, PromptScorer
from skanomaly._images import resize_image

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")
models = pytest.importorskip("_openclip_models")

functional = torch.nn.functional
X = random_images((64, 64), (64, 64), seed=5)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """Function of a family: its model, and an embedder with the same weights."""
    folder = tmp_path_factory.mktemp("open_clip")
    names, known = models.register(folder), {}

    def get(family, **parameters):
        if family not in known:
            clip = models.create(family)
            known[family] = clip, models.save(clip, folder / f"{family}.safetensors")
        clip, path = known[family]
        return clip, OpenClipPatches(names[family], weights=path, device="cpu", **parameters)

    return get


def raw_tokens(clip, images, layer=-1, mean=open_clip.OPENAI_DATASET_MEAN):
    """Tokens of a layer by open_clip, not normalised: (B, grid_h, grid_w, dim)."""
    with torch.no_grad():
        output = clip.visual.forward_intermediates(
            models.pixels(images, mean), indices=[layer], intermediates_only=True
        )
    return output["image_intermediates"][0].permute(0, 2, 3, 1)


def pooled_alone(visual, token):
    """What the tower itself makes of one token, as if it were the only one: (n, dim) to joint."""
    kind, trunk = type(visual).__name__, getattr(visual, "trunk", None)
    if kind == "VisionTransformer":
        prefix = 1 if visual.pool_type == "avg" and visual.attn_pool is None else 0
        tokens = token[:, None].expand(-1, 1 + prefix, -1)
        return visual._pool(tokens)[0] @ visual.proj
    if kind == "ModifiedResNet":
        pool = copy.deepcopy(visual.attnpool)
        pool.positional_embedding.data = torch.zeros(2, token.shape[-1])
        return pool(token[:, :, None, None])
    if hasattr(trunk, "blocks"):
        prefix = trunk.num_prefix_tokens if trunk.global_pool == "avg" else 0
        tokens = trunk.norm(token)[:, None].expand(-1, 1 + prefix, -1)
        return visual.head(trunk.forward_head(tokens))
    return visual.head(trunk.forward_head(trunk.norm_pre(token[:, :, None, None])))


# Tokens


@pytest.mark.parametrize("family", models.TRANSFORMERS)
@pytest.mark.parametrize("layer", [0, -1])
def test_a_block_passes_through_the_final_normalisation(zoo, family, layer):
    clip, embedder = zoo(family, layers=layer)
    with torch.no_grad():
        (expected,) = clip.visual.forward_intermediates(
            models.pixels(X),
            indices=[layer],
            intermediates_only=True,
            normalize_intermediates=family != "coca",  # whose normalisation does not fit
            output_fmt="NLC",
        )["image_intermediates"]
    assert_close(embedder.transform(X), expected.reshape(2, 4, 4, -1))


def test_several_blocks(zoo):
    clip, embedder = zoo("vit", layers=(2, 0))
    tokens = [clip.visual.ln_post(raw_tokens(clip, X, layer)).numpy() for layer in (0, 2)]
    unit = [t / np.linalg.norm(t, axis=-1, keepdims=True) for t in tokens]
    assert_close(embedder.transform(X), np.concatenate(unit, axis=-1))
    assert_close(embedder.set_params(fusion="mean").transform(X), (unit[0] + unit[1]) / 2)


@pytest.mark.parametrize("family", ["convnext", "mobileclip_s", "resnet"])
def test_stages_are_fused_as_in_patchcore(zoo, family):
    clip, embedder = zoo(family)
    stages = (2, 3) if family == "resnet" else (1, 2)  # at 1/8 and 1/16
    maps = [raw_tokens(clip, X, stage).permute(0, 3, 1, 2) for stage in stages]
    maps = [functional.avg_pool2d(m, 3, stride=1, padding=1) for m in maps]
    maps = [functional.interpolate(m, size=(8, 8), mode="bilinear") for m in maps]
    assert_close(embedder.transform(X), torch.cat(maps, 1).permute(0, 2, 3, 1), 1e-4)


# Projection


@pytest.mark.parametrize("family", [f for f in models.FAMILIES if f != "mobileclip_s"])
def test_each_patch_is_projected_as_the_tower_projects_it_alone(zoo, family):
    clip, embedder = zoo(family, project=True)
    tokens = raw_tokens(clip, X)
    with torch.no_grad():
        alone = pooled_alone(clip.visual, tokens.flatten(0, 2)).reshape(*tokens.shape[:3], -1)
    assert_close(embedder.transform(X), alone)


@pytest.mark.parametrize("family", ["vit", "mobileclip_b", "eva02"])
def test_the_projected_class_token_is_the_image_embedding(zoo, family):
    from skanomaly._networks.openclip_joint import project

    clip, _ = zoo(family)
    with torch.no_grad():
        x = models.pixels(X)
        output = clip.visual.forward_intermediates(x, indices=[-1], output_extra_tokens=True)
        token = output["image_intermediates_prefix"][0][:, :1, None]
        assert_close(project(clip.visual, token)[:, 0, 0], clip.encode_image(x, normalize=False))


def test_the_embedding_of_the_image_is_the_last_part(tiny_clip):
    options = {"weights": "random", "device": "cpu", "layers": (0, 1)}
    found = OpenClipPatches(tiny_clip, class_token=True, **options).transform(X)
    expected = OpenClipPatches(tiny_clip, weights="random", project=True, windows=(2,)).transform(X)
    assert_close(found[..., 128:], expected[..., -32:])
    patches = OpenClipPatches(tiny_clip, **options).transform(X)
    assert_close(found[..., :128], patches / np.linalg.norm(patches, axis=-1, keepdims=True))
    with pytest.raises(ValueError, match="windows have the embedding of the image"):
        OpenClipPatches(
            tiny_clip, class_token=True, weights="random", project=True, windows=(2,)
        ).transform(X)


@pytest.mark.parametrize("family", ["vit_avg", "mobileclip_s"])
def test_projections_average_to_the_image_embedding_where_the_tower_averages(zoo, family):
    clip, embedder = zoo(family, project=True)
    with torch.no_grad():
        expected = clip.encode_image(models.pixels(X), normalize=False)
    assert_close(embedder.transform(X).mean(axis=(1, 2)), expected)


def test_several_projected_layers(zoo):
    clip, embedder = zoo("vit", project=True, layers=(0, 2))
    joint = [pooled_alone(clip.visual, raw_tokens(clip, X, i).flatten(0, 2)) for i in (0, 2)]
    unit = [functional.normalize(j, dim=-1).reshape(2, 4, 4, -1) for j in joint]
    assert_close(embedder.transform(X), torch.cat(unit, dim=-1))


@pytest.mark.parametrize(
    "family, name",
    [("cascade", "VisionTransformer"), ("pooled_map", "ConvNeXt"), ("mixer", "MlpMixer")],
)
def test_a_family_that_cannot_be_projected_is_named(zoo, family, name):
    _, embedder = zoo(family)
    embedder.transform(X)
    with pytest.raises(ValueError, match=rf"does not serve .*skanomaly-{family} \({name}\)"):
        embedder.set_params(project=True).transform(X)


# Sizes


@pytest.mark.parametrize("family", models.TRANSFORMERS)
def test_other_sizes_are_those_of_open_clip(zoo, family):
    clip, embedder = zoo(family, image_size=96)
    images = random_images((96, 96))
    larger = open_clip.create_model(embedder.model_name, force_image_size=96).eval()
    state = clip.state_dict()
    embedding = {k for k in state if k.endswith(("visual.positional_embedding", "pos_embed"))}
    larger.load_state_dict({k: v for k, v in state.items() if k not in embedding}, strict=False)
    with torch.no_grad():
        for name in embedding:
            old = state[name][0] if state[name].ndim == 3 else state[name]
            prefix, grid = old[: len(old) - 16], old[len(old) - 16 :]
            grid = grid.T.reshape(1, -1, 4, 4)
            new = functional.interpolate(grid, size=(6, 6), mode="bicubic", antialias=True)
            target = larger.get_parameter(name)
            target.copy_(torch.cat([prefix, new[0].flatten(1).T]).view_as(target))
    tokens = raw_tokens(larger, images)
    assert tokens.shape[1:3] == (6, 6)
    with torch.no_grad():
        expected = pooled_alone(larger.visual, tokens.flatten(0, 2)).reshape(1, 6, 6, -1)
    assert_close(embedder.set_params(project=True).transform(images), expected)


@pytest.mark.parametrize("family", ["vit", "siglip"])
@pytest.mark.parametrize("height, width", [(64, 128), (128, 96)])
def test_position_embeddings_of_sizes_that_are_not_square(zoo, family, height, width):
    _, embedder = zoo(family)
    model = embedder._model()

    def embedding(tower):
        return tower.positional_embedding if family == "vit" else tower.trunk.pos_embed[0]

    old, new = embedding(model.module), embedding(model.sized(height, width))
    prefix, grid = old[:-16], old[-16:].T.reshape(1, -1, 4, 4)
    size = (height // 16, width // 16)
    expected = functional.interpolate(grid, size=size, mode="bicubic", antialias=True)
    assert_close(new.detach(), torch.cat([prefix, expected[0].flatten(1).T]).detach())


def test_the_rule_for_positions_is_timms_own_whatever_replaces_it(zoo, monkeypatch):
    """anomalib replaces it in the whole process; SigLIP is a transformer of timm."""
    vit = pytest.importorskip("timm.models.vision_transformer")
    _, embedder = zoo("siglip")
    images, original = random_images((80, 80)), vit.resample_abs_pos_embed

    def replacement(*args, **kwargs):
        return original(*args, **{**kwargs, "antialias": False})

    sizes = (48, 32)
    expected = [embedder.set_params(image_size=size).transform(images) for size in sizes]
    embedder._model()._sized.clear()
    monkeypatch.setattr(vit, "resample_abs_pos_embed", replacement)
    for size, tokens in zip(sizes, expected, strict=True):
        assert_same(embedder.set_params(image_size=size).transform(images), tokens)


def test_interpolation_is_open_clips_own(zoo):
    """The file is loaded by open_clip itself into a model of another size."""
    _, embedder = zoo("vit", image_size=96)
    images = random_images((96, 96))
    larger = open_clip.create_model(
        embedder.model_name, pretrained=str(embedder.weights), force_image_size=96
    )
    larger.eval().requires_grad_(False)
    expected = larger.visual.ln_post(raw_tokens(larger, images)).numpy()
    assert_close(embedder.transform(images), expected)


@pytest.mark.parametrize("family", models.FAMILIES)
@pytest.mark.parametrize("project", [False, True])
def test_grids(zoo, family, project):
    cell = 16 if family in models.TRANSFORMERS else 32
    step = cell if project or cell == 16 else 8
    _, embedder = zoo(family, project=project)
    images = random_images((60, 130), (130, 60), (64, 64))
    assert embedder.transform(images).shape[:3] == (3, 64 // step, 64 // step)
    grids = [t.shape[:2] for t in embedder.set_params(resize="shortest_edge").transform(images)]
    long = round(64 * 130 / 60 / cell) * cell // step
    assert grids == [(64 // step, long), (long, 64 // step), (64 // step, 64 // step)]
    with pytest.raises(ValueError, match=f"not a multiple of the patch of {cell} pixels"):
        embedder.set_params(image_size=65).transform(images)


def test_a_tower_of_one_size_says_so(zoo):
    for change in ({"image_size": 32}, {"resize": "shortest_edge"}):
        with pytest.raises(ValueError, match=r"MlpMixer takes images of \(64, 64\) pixels only"):
            zoo("mixer", **change)[1].transform(random_images((60, 130)))


@pytest.mark.parametrize("family", models.FAMILIES)
def test_a_defect_at_the_border_changes_its_own_token_most(zoo, family):
    _, embedder = zoo(family, project=True, image_size=128)
    image = np.full((128, 128, 3), 90, dtype=np.uint8)
    side = 128 // embedder.transform([image]).shape[1]
    painted = image.copy()
    painted[-side:, -side:] = random_image(side, side)
    change = np.linalg.norm(np.subtract(*embedder.transform([image, painted])), axis=-1)
    assert np.unravel_index(change.argmax(), change.shape) == tuple(np.subtract(change.shape, 1))


@pytest.mark.parametrize("family", models.FAMILIES)
def test_an_image_is_embedded_alone_as_in_a_batch(zoo, family):
    _, embedder = zoo(family, project=True, batch_size=2)
    images = random_images(*[(64, 64)] * 3)
    tokens = embedder.transform(images)
    for image, expected in zip(images, tokens, strict=True):
        assert_close(embedder.transform([image])[0], expected, 1e-4)


# Value attention


def value_attention_in_loops(visual, x, n_blocks):
    """v-v attention in the last blocks, token by token and head by head, in float64."""
    visual = copy.deepcopy(visual).double()
    width, heads = visual.conv1.out_channels, visual.transformer.resblocks[0].attn.num_heads
    dim = width // heads
    with torch.no_grad():
        path = [visual._embeds(x.double())[0]]
        for block in visual.transformer.resblocks:
            path.append(block(path[-1][None])[0])
        dense = path[-1 - n_blocks].clone()
        for block, inputs in zip(
            visual.transformer.resblocks[-n_blocks:], path[-1 - n_blocks : -1], strict=True
        ):
            normed = block.ln_1(inputs)
            weight, bias = block.attn.in_proj_weight[-width:], block.attn.in_proj_bias[-width:]
            values = normed @ weight.T + bias
            for i in range(len(values)):
                mixed = torch.zeros(width, dtype=torch.float64)
                for head in range(heads):
                    part = slice(head * dim, (head + 1) * dim)
                    likeness = [values[i, part] @ v[part] / dim**0.5 for v in values]
                    attention = torch.stack(likeness).softmax(0)
                    for a, v in zip(attention, values, strict=True):
                        mixed[part] += a * v[part]
                added = block.attn.out_proj(mixed)
                dense[i] += block.ls_1(added)
        return dense[1:].float()


@pytest.mark.parametrize("family", ["vit", "vit_avg"])
@pytest.mark.parametrize("value_attention, n_blocks", [(True, 1), (1, 1), (2, 2), (3, 3)])
def test_value_attention(zoo, family, value_attention, n_blocks):
    clip, embedder = zoo(family, value_attention=value_attention)
    raw = value_attention_in_loops(clip.visual, models.pixels(X[:1]), n_blocks)
    tokens = embedder.transform(X[:1])
    with torch.no_grad():
        assert_close(tokens, clip.visual.ln_post(raw).reshape(1, 4, 4, -1))
        joint = pooled_alone(clip.visual, raw).reshape(1, 4, 4, -1)
    assert_close(embedder.set_params(project=True).transform(X[:1]), joint)
    plain = embedder.set_params(value_attention=False, project=False).transform(X[:1])
    assert np.abs(plain - tokens).max() > 0.1


def test_value_attention_of_coca(zoo):
    clip, embedder = zoo("coca", value_attention=True, project=True)
    raw = value_attention_in_loops(clip.visual, models.pixels(X[:1]), 1)
    assert_close(embedder.transform(X[:1]), pooled_alone(clip.visual, raw).reshape(1, 4, 4, -1))


@pytest.mark.parametrize("family", ["siglip", "eva02", "convnext", "resnet"])
def test_value_attention_needs_a_transformer_of_open_clip(zoo, family):
    with pytest.raises(ValueError, match=f"value_attention needs .*skanomaly-{family} "):
        zoo(family, value_attention=True)[1].transform(X)


# Windows


def test_windows_are_those_of_a_transformer_that_sees_nothing_else(zoo):
    clip, embedder = zoo("vit", project=True, windows=(2, 3), resize="shortest_edge")
    image = random_image(64, 96)
    visual = clip.visual
    tokens = embedder.transform([image])[0].reshape(4, 6, 4, -1)
    sized = open_clip.create_model(embedder.model_name, force_image_size=(64, 96)).visual.eval()
    grid = visual.positional_embedding[1:].T.reshape(1, -1, 4, 4)
    grid = functional.interpolate(grid, size=(4, 6), mode="bicubic", antialias=True)
    state = {
        **visual.state_dict(),
        "positional_embedding": torch.cat([visual.positional_embedding[:1], grid[0].flatten(1).T]),
    }
    sized.load_state_dict(state)
    with torch.no_grad():
        embedded = sized._embeds(models.pixels([image]))[0]
        for row in range(4):
            for column in range(6):
                for part, side in ((1, 2), (2, 3)):
                    top, left = min(row, 4 - side), min(column, 6 - side)
                    inside = [
                        1 + r * 6 + c
                        for r in range(top, top + side)
                        for c in range(left, left + side)
                    ]
                    seen = visual.transformer(embedded[None, [0, *inside]])
                    window = visual.ln_post(seen[0, 0]) @ visual.proj
                    assert_close(tokens[row, column, part], functional.normalize(window, dim=0))
        whole = functional.normalize(sized(models.pixels([image]))[0], dim=0)
    patches = embedder.set_params(windows=None).transform([image])[0]
    norm = np.linalg.norm(patches, axis=-1, keepdims=True)
    assert_close(tokens[:, :, 0], patches / norm)
    assert_close(tokens[:, :, 3], np.broadcast_to(whole, (4, 6, len(whole))))


@pytest.mark.parametrize("family", ["vit", "vit_avg", "clipa"])
def test_parts_of_a_windowed_token(zoo, family):
    clip, embedder = zoo(family, project=True, windows=[4, 1])
    parts = embedder.transform(X).reshape(2, 4, 4, 4, models.DIM)
    np.testing.assert_allclose(np.linalg.norm(parts, axis=-1), 1, atol=1e-5)
    with torch.no_grad():
        image = clip.encode_image(models.pixels(X), normalize=True).numpy()
    everywhere = np.broadcast_to(image[:, None, None], (2, 4, 4, models.DIM))
    assert_close(parts[..., 3, :], everywhere)
    assert_close(parts[..., 1, :], everywhere)  # a window of all patches is the image
    assert np.abs(parts[..., 2, :] - everywhere).max() > 1e-2


def test_value_attention_concerns_the_patch_alone(zoo):
    _, embedder = zoo("vit", project=True, windows=(2, 3))
    parts = embedder.transform(X)
    changed = embedder.set_params(value_attention=True).transform(X)
    assert_close(changed[..., models.DIM :], parts[..., models.DIM :])
    patches = embedder.set_params(windows=None).transform(X)
    norm = np.linalg.norm(patches, axis=-1, keepdims=True)
    assert_close(changed[..., : models.DIM], patches / norm)


def test_windows_in_several_passes(zoo, monkeypatch):
    from skanomaly._networks import openclip_joint

    _, embedder = zoo("vit", project=True, windows=(2, 3))
    expected = embedder.transform(X)
    for budget in (1, 50, 333):
        monkeypatch.setattr(openclip_joint, "_WINDOW_TOKENS", budget)
        assert_close(embedder.transform(X), expected)


@pytest.mark.slow
def test_windows_are_those_of_anomalib(zoo, monkeypatch):
    winclip = pytest.importorskip("anomalib.models.image.winclip.torch_model")
    clip, embedder = zoo("vit", project=True, windows=(2, 3), batch_size=2)
    monkeypatch.setattr(winclip, "BACKBONE", embedder.model_name)
    monkeypatch.setattr(winclip, "PRETRAINED", str(embedder.weights))
    peer = winclip.WinClipModel().eval()
    embed = peer._get_window_embeddings

    def embed_windows(*args):
        # It hands windows over with the sequence first, which open_clip by now takes for the
        # batch: every token would attend to the same token of other windows.
        monkeypatch.setattr(peer.clip.visual.transformer, "batch_first", False)
        return embed(*args)

    monkeypatch.setattr(peer, "_get_window_embeddings", embed_windows)
    with torch.no_grad():
        image, windows, _ = peer.encode_image(models.pixels(X))
    parts = embedder.transform(X).reshape(2, 4, 4, 4, models.DIM)
    assert_close(parts[:, 0, 0, 3], functional.normalize(image, dim=-1))
    for part, (side, expected) in enumerate(zip((2, 3), windows, strict=True), 1):
        places = 5 - side
        expected = functional.normalize(expected, dim=-1).reshape(2, places, places, -1)
        assert_close(parts[:, :places, :places, part], expected)


@pytest.mark.parametrize(
    "family, parameters, message",
    [
        ("vit", {"project": False}, "windows needs project=True"),
        ("vit", {"windows": ()}, r"must be different sides in patches, such as \(2, 3\)"),
        ("vit", {"windows": (2, 0)}, "must be different sides in patches"),
        ("vit", {"windows": (2.0,)}, "must be different sides in patches"),
        ("vit", {"windows": (True, 2)}, "must be different sides in patches"),
        ("vit", {"windows": None, "layers": [True]}, r"layers=\[True\]: skanomaly-vit has layers"),
        ("vit", {"windows": (2, 2)}, "must be different sides in patches"),
        ("vit", {"windows": (2, 5)}, "a window of 5x5 patches does not fit into a grid of 4x4"),
        ("vit", {"layers": (0, 1)}, "windows with several layers needs fusion='mean'"),
        ("coca", {}, r"windows needs a plain vision .*skanomaly-coca \(VisionTransformer\)"),
        ("siglip", {}, r"windows needs a plain vision .*skanomaly-siglip \(VisionTransformer\)"),
        ("resnet", {}, r"windows needs a plain vision .*skanomaly-resnet \(ModifiedResNet\)"),
        ("vit", {"layers": 3}, "layers=3: skanomaly-vit has layers 0 to 2"),
        ("vit", {"layers": []}, "has layers 0 to 2"),
        ("vit", {"layers": 0, "value_attention": True}, "value_attention needs the last block"),
        ("vit", {"value_attention": 4}, "value_attention=4: skanomaly-vit has 3 blocks"),
        ("convnext", {"windows": None, "layers": 1}, "project=True needs the last stage"),
    ],
)
def test_options_that_do_not_fit(zoo, family, parameters, message):
    embedder = zoo(family, **{"project": True, "windows": (2, 3), **parameters})[1]
    with pytest.raises(ValueError, match=message):
        embedder.transform(X)


# As an estimator


def test_preprocessing_is_that_of_open_clip(zoo):
    """But for its crop: the whole image is squashed, by the model's interpolation."""
    clip, embedder = zoo("vit")
    image = random_image(50, 90)
    resized = resize_image(image, (64, 64), "bicubic")
    expected = clip.visual.ln_post(raw_tokens(clip, [resized])).numpy()
    assert_close(embedder.transform([image]), expected)


def test_clone_params_and_pickle(zoo):
    _, embedder = zoo("vit", layers=[0, 2], project=True)
    tokens = embedder.fit_transform(X)
    twin = clone(embedder)
    assert twin.get_params() == embedder.get_params()
    assert_close(twin.transform(X), tokens)
    small = pickle.dumps(embedder)
    assert len(small) < 5000
    assert_close(pickle.loads(small).transform(X), tokens)


def test_in_a_pipeline(zoo):
    _, embedder = zoo("vit", augmentation="rotate90")
    pipeline = make_pipeline(embedder, PatchKNNScorer()).fit(random_images(*[(40, 50)] * 5))
    assert pipeline.predict(X).shape == (2,)


def test_the_image_score_of_prompts_is_the_probability_of_clip(zoo):
    clip, embedder = zoo("vit", project=True, windows=(2, 3))
    scorer = PromptScorer(
        "cup",
        prompts={"normal": ["a good {}"], "anomaly": ["a broken {}"]},
        model_name=embedder.model_name,
        weights=embedder.weights,
        windows=(2, 3),
        mode="softmax",
        aggregation="class_token",
        device="cpu",
    )
    scores = make_pipeline(embedder, scorer).score_samples(X)
    texts = open_clip.get_tokenizer(embedder.model_name)(["a good cup", "a broken cup"])
    logits, _ = clip.get_logits(models.pixels(X), texts)
    np.testing.assert_allclose(-scores, logits.softmax(-1)[:, 1], rtol=1e-4)


def test_the_cache_knows_what_tokens_depend_on(zoo, tmp_path, monkeypatch):
    calls = count_embedded(monkeypatch, OpenClipPatches)
    _, embedder = zoo("vit", project=True, cache_dir=tmp_path)
    seen = []
    for change in ({}, {"value_attention": 1}, {"value_attention": 2}, {"windows": (2,)},
                   {"windows": (3,)}, {"windows": (3, 2)}, {"project": False}, {"layers": 0},
                   {"image_size": 96}):  # fmt: skip
        twin = clone(embedder).set_params(**change)
        first = twin.transform(X)
        assert sum(calls) == 2, change
        assert_same(twin.transform(X), first)
        assert sum(calls) == 2, change
        assert not any(s.shape == first.shape and np.array_equal(s, first) for s in seen)
        seen.append(first)
        del calls[:]


@pytest.mark.parametrize("family", models.FAMILIES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_is_close(zoo, family, dtype):
    windows = (2,) if family == "vit" else None
    _, embedder = zoo(family, project=True, windows=windows, image_size=96, dtype="float32")
    full = embedder.transform(X)
    low = embedder.set_params(dtype=dtype).transform(X)
    assert low.dtype == np.float32
    assert 0 < np.linalg.norm(low - full) / np.linalg.norm(full) < 0.05


def test_importing_the_package_imports_no_open_clip():
    code = (
        "import sys, skanomaly\n"
        "repr(skanomaly.OpenClipPatches('no such model').set_params(layers=1))\n"
        "assert not {'open_clip', 'torch', 'timm'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
