"""AnomalyDINO: ours is the published algorithm, and its settings are the published ones."""

import math

import numpy as np
import pytest
from _views import rotated
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.decomposition import PCA

from skanomaly import (
    FilterBankPatches,
    PCAForeground,
    TimmPatches,
    anomaly_maps,
    create_model,
    explain,
    load_model,
    save_model,
)
from skanomaly.datasets import make_surfaces
from skanomaly.registry import anomalydino_settings

ANGLES = range(0, 360, 45)
SIDE = 192
PATCH = 16


def images_of(shared, name, kind, n, factor):
    folder = shared / "data" / name / kind
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg"))[:n]
    images = [Image.open(path).convert("RGB") for path in paths]
    return [np.asarray(image.resize([s // factor for s in image.size])) for image in images]


def tokens_of(network, image):
    """(grid_h, grid_w, dim) of the last block, float64; the whole image, its aspect kept."""
    import torch

    height, width = image.shape[:2]
    scale = SIDE / min(height, width)
    grid = [round(side * scale / PATCH) for side in (height, width)]
    resized = Image.fromarray(image).resize(
        (grid[1] * PATCH, grid[0] * PATCH), Image.Resampling.BICUBIC
    )
    pixels = (np.asarray(resized) / 255 - 0.5) / 0.5
    with torch.inference_mode():
        batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
        tokens = network.forward_features(batch)[0, 1:]
    return tokens.double().numpy().reshape(*grid, -1)


def dilated(mask):
    out = np.zeros_like(mask)
    for i, j in np.argwhere(mask):
        out[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2] = True
    return out


def foreground(tokens, threshold):
    """The published mask: threshold, sign by the centre, dilation, closing."""
    height, width, dim = tokens.shape
    first = PCA(1, svd_solver="full").fit_transform(tokens.reshape(-1, dim)).reshape(height, width)
    mask = first > threshold
    centre = mask[int(height * 0.2) : int(height * 0.8), int(width * 0.2) : int(width * 0.8)]
    if centre.sum() <= centre.size * 0.35:
        mask = -first > threshold
    return ~dilated(~dilated(dilated(mask)))


def distances(queries, bank, n_neighbors):
    """Mean cosine distance to the nearest, as half of the squared distance of unit vectors."""
    out = []
    for query in queries:
        query = query / np.sqrt((query**2).sum())
        squared = ((bank - query) ** 2).sum(axis=1)
        out.append(np.sort(squared)[:n_neighbors].mean() / 2)
    return np.array(out)


def upsampled(grid, size):
    """Bilinear with the centres of pixels aligned, then a Gaussian of 4 pixels."""
    out = np.empty(size)
    for i in range(size[0]):
        y = min(max((i + 0.5) * grid.shape[0] / size[0] - 0.5, 0), grid.shape[0] - 1)
        top, down = math.floor(y), y - math.floor(y)
        bottom = min(top + 1, grid.shape[0] - 1)
        for j in range(size[1]):
            x = min(max((j + 0.5) * grid.shape[1] / size[1] - 0.5, 0), grid.shape[1] - 1)
            left, along = math.floor(x), x - math.floor(x)
            right = min(left + 1, grid.shape[1] - 1)
            out[i, j] = (1 - down) * (
                (1 - along) * grid[top, left] + along * grid[top, right]
            ) + down * ((1 - along) * grid[bottom, left] + along * grid[bottom, right])
    return gaussian_filter(out, sigma=4)


@pytest.mark.parametrize("name, factor", [("cookies", 6), ("bottle", 4)])
def test_ours_is_the_published_algorithm(shared, tmp_path, name, factor):
    timm = pytest.importorskip("timm")
    weights = shared / "weights" / "vit_tiny_patch16_224.safetensors"
    overlay = {"file": str(weights)}
    network = timm.create_model(
        "vit_tiny_patch16_224",
        pretrained=True,
        pretrained_cfg_overlay=overlay,
        dynamic_img_size=True,
    ).eval()
    good = images_of(shared, name, "train/good", 2, factor)
    new = images_of(shared, name, "test", 3, factor)
    assert (good[0].shape[0] == good[0].shape[1]) == (name == "bottle")
    bank = np.concatenate(
        [
            tokens_of(network, np.floor(rotated(image, angle) + 0.5).astype(np.uint8))
            for image in good
            for angle in ANGLES
        ]
    ).reshape(-1, 192)
    bank /= np.sqrt((bank**2).sum(axis=1, keepdims=True))
    tokens = [tokens_of(network, image) for image in new]
    # The published threshold is for the tokens of DINOv2, which are smaller.
    spread = np.std(tokens[0].reshape(-1, 192), axis=0)
    threshold = float(np.sqrt((spread**2).sum()) / 2)
    n_top = int(0.01 * tokens[0][..., 0].size)

    embedder = TimmPatches(
        "vit_tiny_patch16_224",
        image_size=SIDE,
        layers=-1,
        resize="shortest_edge",
        augmentation="rotate45",
        weights=str(weights),
        dtype="float32",
        device="cpu",
        cache_dir=tmp_path,
    )
    for n_neighbors in (1, 3):
        for masks in (True, False):
            ours = create_model(
                "vision_anomalydino",
                embedder=embedder,
                foreground=PCAForeground(threshold) if masks else None,
                topk=n_top,
                n_neighbors=n_neighbors,
            )
            ours.fit(good)
            scores, maps = [], []
            for image, of_image in zip(new, tokens, strict=True):
                mask = np.ones(of_image.shape[:2], dtype=bool)
                if masks:
                    mask = foreground(of_image, threshold)
                    assert 0.1 < mask.mean() < 0.95
                grid = np.zeros(mask.shape)
                grid[mask] = distances(of_image[mask], bank, n_neighbors)
                scores.append(np.sort(grid.ravel())[::-1][:n_top].mean())
                maps.append(upsampled(grid, image.shape[:2]))
            np.testing.assert_allclose(-ours.score_samples(new), scores, atol=1e-5, rtol=0)
            np.testing.assert_allclose(anomaly_maps(ours, new), maps, atol=1e-5, rtol=0)


def test_ours_takes_the_top_of_the_foreground():
    """What differs: 1% of the patches that are scored, not as many as 1% of all."""
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(6, 30, 30, 4)) + 5
    tokens[:, 15:] += 100
    model = create_model("vision_anomalydino", embedder=FilterBankPatches(), foreground=None)
    masked = PCAForeground().fit(tokens).transform(tokens)
    scorer = model[-1].fit(tokens[:5])
    n_scored = int((~np.isnan(masked[5, :, :, 0])).sum())
    assert n_scored < 600
    grid = np.sort(scorer.score_patches(masked[5:]).ravel())[::-1]
    (score,) = scorer.score_samples(masked[5:])
    assert -score == pytest.approx(grid[: int(0.01 * n_scored)].mean(), rel=1e-6)


def test_the_model_is_the_published_one():
    pytest.importorskip("timm")
    model = create_model("vision_anomalydino")
    assert [name for name, _ in model.steps] == ["emb", "foreground", "knn"]
    assert (model[0].augmentation, model[0].resize, model[0].image_size) == (
        "rotate45",
        "shortest_edge",
        448,
    )
    assert model["foreground"] == "passthrough"  # it is for few products
    asked = create_model("vision_anomalydino", foreground__threshold=10)["foreground"]
    assert asked.threshold == 10 and not asked.mask_training
    assert (model[-1].metric, model[-1].n_neighbors, model[-1].topk) == ("cosine", 1, 0.01)


def test_the_step_between_is_there_where_it_is_asked_for():
    other = FilterBankPatches()
    assert create_model("vision_anomalydino", embedder=other)["foreground"] == "passthrough"
    asked = create_model("vision_anomalydino", embedder=other, foreground__threshold=3)
    assert asked["foreground"].threshold == 3
    own = PCAForeground(2.0)
    given = create_model("vision_anomalydino", embedder=other, foreground=own)
    assert given["foreground"] is not own and given["foreground"].threshold == 2
    for nothing in (None, "passthrough"):
        model = create_model("vision_anomalydino", embedder=other, foreground=nothing)
        assert model["foreground"] == "passthrough"


@pytest.mark.parametrize("wrong", ["mask", 3, PCAForeground, True], ids=str)
def test_what_cannot_stand_between(wrong):
    with pytest.raises(
        TypeError, match="foreground must be a transformer of patch tokens, or None"
    ):
        create_model("vision_anomalydino", embedder=FilterBankPatches(), foreground=wrong)


def test_settings_of_products():
    turned, plain = {"augmentation": "rotate45"}, {"augmentation": None}
    masked = {"foreground__threshold": 10.0}
    for category, agnostic, informed in [
        ("screw", turned | masked, turned | masked),
        ("hazelnut", turned | masked, turned | masked),
        ("pill", turned | masked, plain | masked),
        ("toothbrush", turned | masked, plain | masked),
        ("bottle", turned, plain),
        ("carpet", turned, plain),
    ]:
        assert anomalydino_settings("mvtec", category) == agnostic
        assert anomalydino_settings("mvtec", category, "informed") == informed
    assert anomalydino_settings("visa", "pcb4") == turned | masked
    assert anomalydino_settings("visa", "macaroni1", "informed") == plain | masked


def test_settings_make_models():
    pytest.importorskip("timm")
    model = create_model("vision_anomalydino", **anomalydino_settings("mvtec", "cable"))
    assert (model[0].augmentation, model["foreground"]) == ("rotate45", "passthrough")
    model = create_model("vision_anomalydino", **anomalydino_settings("visa", "candle", "informed"))
    assert model[0].augmentation is None and isinstance(model["foreground"], PCAForeground)


@pytest.mark.parametrize(
    "args, problem",
    [
        (("mvtec", "screws"), "mvtec has no product 'screws'; did you mean 'screw'"),
        (("vista", "candle"), "no data set 'vista'; did you mean 'visa'"),
        (("visa", "candle", "uninformed"), "no preprocess 'uninformed'; did you mean 'informed'"),
    ],
)
def test_unknown_settings(args, problem):
    with pytest.raises(ValueError, match=problem):
        anomalydino_settings(*args)


@pytest.mark.parametrize("mask", [None, PCAForeground(0.5, no_foreground="keep")], ids=repr)
def test_models_are_kept_and_explain_themselves(mask, tmp_path):
    images = make_surfaces(5, 1, surface="disc", image_size=64, random_state=0).images
    paths = []
    for i, image in enumerate(images):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    embedder = FilterBankPatches(image_size=64, augmentation=["rotate45", "brightness"])
    model = create_model("vision_anomalydino", embedder=embedder, foreground=mask)
    model.fit(paths[:5])
    np.testing.assert_allclose(model.score_samples(paths[:5]), model[-1].train_scores_, rtol=1e-6)
    save_model(model, tmp_path / "model.skan")
    loaded = load_model(tmp_path / "model.skan")
    np.testing.assert_array_equal(loaded.score_samples(paths), model.score_samples(paths))
    for path in paths:
        explanation = explain(loaded, path)
        for near in explanation.neighbors:
            assert near.problem is None and 0 <= near.view < 12
            left, top, width, height = near.box
            assert 0 <= left <= 64 - width and 0 <= top <= 64 - height
