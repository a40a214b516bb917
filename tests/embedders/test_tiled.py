"""Tests of Tiled: its tokens are those of tiles that were embedded by hand."""

import io
import pickle
import sys

import numpy as np
import pytest
from _adapters import assert_close, assert_same, random_image, random_images
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skanomaly import (
    DinoV2Patches,
    FilterBankPatches,
    FunctionPatches,
    ImageReadError,
    OpenClipPatches,
    PatchGaussianScorer,
    PatchKNNScorer,
    Tiled,
    TimmPatches,
    anomaly_maps,
    anomaly_regions,
    create_model,
    explain,
    iter_scores,
    load_model,
    model_manifest,
    save_model,
)
from skanomaly._images import resize_image
from skanomaly.metrics import image_auroc, image_auroc_scorer
from skanomaly.model_selection import OneClassSplit

BANK = FilterBankPatches(image_size=64)
TILED = Tiled(FilterBankPatches(), tile=64)


def cells_of_8(image):
    """One token a cell of 8x8 pixels: colours and their spread, in [0, 1]."""
    scale = 255 if image.dtype == np.uint8 else 1
    height, width = (side // 8 for side in image.shape[:2])
    cells = image.reshape(height, 8, width, 8, 3) / scale
    return np.concatenate([cells.mean(axis=(1, 3)), cells.std(axis=(1, 3))], axis=-1)


def ramp(places, before, after, tile, overlap):
    """Share of the second of two tiles: 0 to 1 over the middle half of what they overlap."""
    middle = (before + tile + after) / 2
    return np.clip((places + 0.5 - middle) / (overlap / 2) + 0.5, 0, 1)


def by_hand(embed, image, tile, cell, overlap, fine=1):
    """Tokens of an image whose sides are multiples of the patch, token by token, in float64."""
    grid = [side // cell for side in image.shape[:2]]
    t, o = tile // cell, overlap // cell
    starts, least = [], []
    for n in grid:
        steps = int(np.ceil(max(0, n - t) / (t - o)))
        along = [k * (n - t) // steps for k in range(steps + 1)] if steps else [0]
        starts.append(along)
        least.append(
            fine * min((a + t - b for a, b in zip(along, along[1:], strict=False)), default=0)
        )
    padded = np.pad(
        image, [*((0, max(0, tile - s)) for s in image.shape[:2]), (0, 0)], mode="symmetric"
    )
    tokens = {}
    for y in starts[0]:
        for x in starts[1]:
            part = padded[y * cell : y * cell + tile, x * cell : x * cell + tile]
            tokens[y, x] = np.asarray(embed(part), dtype=np.float64)
    dim = tokens[0, 0].shape[2]
    out = np.zeros((grid[0] * fine, grid[1] * fine, dim))

    def weight(axis, number, place):
        along = [fine * s for s in starts[axis]]
        came = ramp(place, along[number - 1], along[number], t * fine, least[axis]) if number else 1
        goes = (
            ramp(place, along[number], along[number + 1], t * fine, least[axis])
            if number + 1 < len(along)
            else 0
        )
        return came - goes

    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            for i, y in enumerate(starts[0]):
                for j, x in enumerate(starts[1]):
                    r, c = row - y * fine, column - x * fine
                    if 0 <= r < t * fine and 0 <= c < t * fine:
                        share = weight(0, i, row) * weight(1, j, column)
                        out[row, column] += share * tokens[y, x][r, c]
    return out


SIZES = [(64, 64), (64, 200), (136, 96), (40, 120), (8, 8), (72, 8), (16, 400)]


@pytest.mark.parametrize("overlap", [0, 8, 16, 0.25, 40])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tokens_are_those_of_tiles_by_hand(size, overlap):
    image = random_image(*size)
    if overlap == 0:
        overlap = 8  # the loops take a ramp of some width; without overlap see below
    pixels = 16 if overlap == 0.25 else overlap
    tokens = Tiled(FilterBankPatches(), tile=64, overlap=overlap).transform([image])
    expected = by_hand(lambda part: BANK.transform([part])[0], image, 64, 8, pixels)
    assert tokens.dtype == np.float32 and tokens.flags.c_contiguous
    assert_close(tokens[0], expected)


def test_without_overlap_tiles_lie_side_by_side():
    image = random_image(128, 192)
    tokens = Tiled(FilterBankPatches(), tile=64, overlap=0).transform([image])[0]
    for y in range(2):
        for x in range(3):
            part = image[64 * y : 64 * y + 64, 64 * x : 64 * x + 64]
            at = tokens[8 * y : 8 * y + 8, 8 * x : 8 * x + 8]
            assert_same(np.ascontiguousarray(at), BANK.transform([part])[0])


def test_an_inner_token_is_that_of_its_tile_alone():
    image = random_image(160, 304)
    tokens = Tiled(FilterBankPatches(), tile=64, overlap=16).transform([image])[0]
    alone = BANK.transform([image[48:112, 48:112]])[0]  # the second tile of the second row
    assert_same(np.ascontiguousarray(tokens[8:12, 8:12]), np.ascontiguousarray(alone[2:6, 2:6]))


def test_an_image_of_one_tile_is_that_tile():
    image = random_image(64, 64)
    assert_same(TILED.transform([image]), BANK.transform([image]))


def test_a_moved_image_has_moved_tokens():
    """By a stride of the tiles, away from the borders, to the last bit."""
    image = random_image(64, 64 + 48 * 6)
    embedder = Tiled(FilterBankPatches(), tile=64, overlap=16)
    tokens = embedder.transform([image])[0]
    moved = embedder.transform([np.roll(image, 48, axis=1)])[0]
    assert_same(np.ascontiguousarray(moved[:, 14:-6]), np.ascontiguousarray(tokens[:, 8:-12]))


def test_the_filter_bank_is_seamless():
    """What overlaps covers what a filter sees: tokens are those of the uncut image."""
    image = resize_image(random_image(32, 64), (384, 768), "bicubic")
    tiled = Tiled(FilterBankPatches()).transform([image])
    whole = FilterBankPatches(image_size=384, resize="shortest_edge").transform([image])
    typical = np.abs(whole).mean()
    assert np.abs(tiled - whole).max() < 0.05 * typical


def seam_statistic(tokens, starts, tile):
    """Mean step between neighbours where tiles meet, by that of all others; along a row."""
    steps = np.linalg.norm(np.diff(tokens, axis=1), axis=-1).mean(axis=0)
    meets = np.zeros(len(steps), dtype=bool)
    for before, after in zip(starts, starts[1:], strict=False):
        middle = (before + tile + after) / 2
        meets |= np.abs(np.arange(len(steps)) + 1 - middle) <= 1
    return steps[meets].mean() / steps[~meets].mean()


def test_a_periodic_texture_has_no_seams():
    """Steps at the borders of tiles are as those between all other neighbours (statistic 1)."""
    rng = np.random.default_rng(0)
    texture = np.tile(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8), (11, 60, 1))
    tokens = Tiled(FilterBankPatches(), tile=128, overlap=32).transform([texture[:128, :704]])[0]
    assert 0.8 < seam_statistic(tokens, [0, 12, 24, 36, 48, 60, 72], 16) < 1.2


def test_a_network_has_no_seams(shared):
    pytest.importorskip("timm")
    weights = shared / "weights" / "vit_tiny_patch16_224.safetensors"
    inner = TimmPatches("vit_tiny_patch16_224", weights=weights, device="cpu", dtype="float32")
    paths = sorted((shared / "data" / "screw").rglob("*.png"))
    photograph = np.asarray(Image.open(paths[0]).convert("RGB").resize((704, 224)))
    tokens = Tiled(inner).transform([photograph])[0]
    assert tokens.shape == (14, 44, 192)
    assert 0.5 < seam_statistic(tokens, [0, 10, 20, 30], 14) < 1.3
    expected = by_hand(lambda part: clone(inner).transform([part])[0], photograph, 224, 16, 64)
    assert_close(tokens, expected)


def test_layers_of_several_strides_keep_their_grid():
    pytest.importorskip("timm")
    make = {"weights": "random", "device": "cpu"}
    inner = TimmPatches("test_resnet", image_size=64, **make)
    cell = 64 // 2
    image = random_image(96, 160)
    tokens = Tiled(inner, overlap=cell).transform([image])[0]
    fine = inner.transform([image[:64, :64]])[0].shape[0] * cell // 64
    expected = by_hand(lambda part: inner.transform([part])[0], image, 64, cell, cell, fine)
    assert fine > 1
    assert_close(tokens, expected)


@pytest.mark.parametrize("name", ["dinov2", "openclip"])
def test_networks_of_other_libraries(name, tiny_clip):
    pytest.importorskip("timm")
    if name == "dinov2":
        inner, cell = DinoV2Patches(layers=0, image_size=56, weights="random", device="cpu"), 14
    else:
        inner, cell = OpenClipPatches(tiny_clip, weights="random", device="cpu"), 8
    tile = 56 if name == "dinov2" else 32
    image = random_image(4 * cell, 9 * cell)
    tokens = Tiled(inner, overlap=cell).transform([image])[0]
    alone = clone(inner)
    assert_close(tokens, by_hand(lambda part: alone.transform([part])[0], image, tile, cell, cell))


@pytest.mark.parametrize("tile", [32, 64])
def test_a_function_is_given_tiles(tile):
    image = random_image(72, 136)
    tokens = Tiled(FunctionPatches(cells_of_8), tile=tile).transform([image])[0]
    assert_close(tokens, cells_of_8(image), 1e-6)  # it sees one cell at a time


def test_sides_are_brought_to_multiples_of_the_patch_by_resizing():
    image = random_image(101, 203)
    resized = resize_image(image, (104, 200), "bicubic")
    assert_same(TILED.transform([image]), TILED.transform([resized]))
    halved = resize_image(image, (48, 104), "bicubic")
    assert_same(
        Tiled(FilterBankPatches(), tile=64, scale=0.5).transform([image]),
        TILED.transform([halved]),
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (7, 13)], ids=str)
def test_small_and_thin_images(size):
    tokens = TILED.transform([random_image(*size)])
    assert tokens.shape[1:3] == tuple(max(1, round(side / 8)) for side in size)
    assert np.isfinite(tokens).all()


def test_images_of_all_kinds_and_sizes(tmp_path):
    image = random_image(80, 136)
    Image.fromarray(image).save(tmp_path / "a.png")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    expected = TILED.transform([image])
    for item in (
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        buffer.getvalue(),
        Image.fromarray(image),
    ):
        assert_same(TILED.transform([item]), expected)
    deep = image.astype(np.uint16) * 257
    assert_close(TILED.transform([deep]), expected, 1e-4)
    twelve = image.astype(np.uint16) * 16
    ranged = Tiled(FilterBankPatches(), tile=64, value_range=4080)
    assert_close(ranged.transform([twelve]), expected, 1e-4)
    grey = image[..., 0]
    assert_same(TILED.transform([grey]), TILED.transform([np.stack([grey] * 3, axis=-1)]))
    mixed = TILED.transform([image, random_image(64, 64)])
    assert mixed.dtype == object
    assert_same(mixed[0], expected[0])


def test_a_training_set_of_little_contrast_is_warned_of():
    dark = [random_image(64, 72).astype(np.uint16) for _ in range(2)]
    with pytest.warns(UserWarning, match="at most a quarter"):
        TILED.fit_transform(dark)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batches_of_tiles_do_not_matter(batch_size):
    X = random_images((72, 136), (64, 200))
    inner = FilterBankPatches(batch_size=batch_size, n_jobs=2)
    for tokens, expected in zip(
        Tiled(inner, tile=64).transform(X[::-1])[::-1], TILED.transform(X), strict=True
    ):
        assert_same(tokens, expected)


def test_a_tile_is_by_default_what_the_embedder_takes():
    image = random_image(80, 136)
    other = FilterBankPatches(image_size=64, resize="shortest_edge")
    assert_same(Tiled(other).transform([image]), TILED.transform([image]))
    assert other.image_size == 64 and other.resize == "shortest_edge"


def test_views_of_whole_images():
    image = random_image(96, 96)
    embedder = Tiled(FilterBankPatches(), tile=64, augmentation="rotate90")
    views = embedder.fit_transform([image])
    assert views.shape == (1, 4, 12, 12, 102)
    assert_same(views[0, 1], TILED.transform([np.rot90(image)])[0])
    with pytest.raises(ValueError, match="images must be square and of one size"):
        embedder.fit_transform([random_image(96, 104)])


# The cache


def test_tokens_of_whole_images_are_kept(tmp_path):
    images = random_images((80, 136), (64, 72))
    embedder = Tiled(FilterBankPatches(), tile=64, cache_dir=tmp_path)
    expected = embedder.transform(images)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
    for tokens, kept in zip(embedder.transform(images), expected, strict=True):
        assert_same(tokens, kept)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
    for changes in (
        {"overlap": 0.5},
        {"scale": 0.5},
        {"tile": 32},
        {"embedder": FunctionPatches(cells_of_8, func_version="1")},
    ):
        other = clone(embedder).set_params(**changes)
        fresh = clone(other).set_params(cache_dir=None)
        for tokens, kept in zip(other.transform(images), fresh.transform(images), strict=True):
            assert_same(tokens, kept)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 10


def test_a_function_needs_a_version_to_be_kept(tmp_path):
    embedder = Tiled(FunctionPatches(cells_of_8), tile=64, cache_dir=tmp_path)
    with pytest.raises(ValueError, match="cache_dir needs func_version"):
        embedder.transform([random_image(64, 64)])


# What is refused


@pytest.mark.parametrize(
    "params, message",
    [
        ({"tile": 60}, "tile=60 is no multiple of the patch of 8 pixels; the nearest is 64"),
        ({"overlap": 12}, "overlap=12 pixels must be less than the tile of 64"),
        ({"overlap": 64}, "overlap=64 pixels must be less than the tile of 64"),
        ({"overlap": 1.0}, "'overlap' parameter of Tiled"),
        ({"overlap": -1}, "'overlap' parameter of Tiled"),
        ({"scale": 0}, "'scale' parameter of Tiled"),
        ({"tile": True}, "'tile' parameter of Tiled must not be a bool"),
        ({"embedder": "filterbank"}, "'embedder' parameter of Tiled"),
        ({"embedder": TILED}, "cannot be given tiles"),
        ({"embedder": FilterBankPatches(image_size=-1)}, "'image_size' parameter"),
        ({"embedder": FilterBankPatches(value_range=4095)}, "set value_range of Tiled"),
        ({"embedder": FilterBankPatches(cache_dir="x")}, "set cache_dir of Tiled"),
        ({"embedder": FilterBankPatches(stream=True)}, "set stream of Tiled"),
        ({"embedder": FilterBankPatches(augmentation="rotate90")}, "set augmentation of Tiled"),
        ({"embedder": FunctionPatches(cells_of_8), "tile": None}, "set tile"),
        ({"embedder": FunctionPatches(lambda x: x[:1, :2])}, "patches must be squares"),
        ({"embedder": FunctionPatches(lambda x: x[:3, :3])}, "patches must be squares"),
    ],
)
def test_what_cannot_be_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        Tiled(FilterBankPatches(), tile=64).set_params(**params).transform([random_image(64, 72)])


def test_an_object_that_reads_images_itself_is_refused():
    class Reader:
        def embed(self, path):
            return np.ones((2, 2, 3))

    with pytest.raises(ValueError, match="cannot be given tiles"):
        Tiled(FunctionPatches(Reader()), tile=64).transform([random_image(64, 72)])


def test_errors_name_the_image():
    def few(image):
        return cells_of_8(image) * (np.nan if image.max() == 77 else 1) / [1, 1, 1, 1, 1, 1]

    def wrong(image):
        tokens = cells_of_8(image)
        tokens[0, 0, 0] = np.inf if image.max() == 77 else 0
        return tokens

    X = [random_image(64, 64), np.full((64, 136, 3), 77, np.uint8)]
    assert np.isnan(Tiled(FunctionPatches(few), tile=64).transform(X)[1]).all()  # masked
    with pytest.raises(ValueError, match="in a tile of image 1, .* is not finite"):
        Tiled(FunctionPatches(wrong), tile=64).transform(X)
    with pytest.raises(ImageReadError, match="image 1 "):
        TILED.transform([X[0], b"no image"])

    def fails(image):
        if image.max() == 77:
            raise ZeroDivisionError("my own")
        return cells_of_8(image)

    with pytest.raises(ZeroDivisionError, match="my own") as caught:
        Tiled(FunctionPatches(fails), tile=64).transform(X)
    if sys.version_info >= (3, 11):
        assert caught.value.__notes__[-1] == "raised for a tile of image 1"


# As an estimator


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"tile": 32}, "tile"),
        ({"overlap": 0.5}, "overlap"),
        ({"scale": 0.5}, "scale"),
        ({"value_range": 255}, "value_range"),
        ({"embedder": FunctionPatches(cells_of_8)}, "embedder"),
    ],
)
def test_a_fitted_one_refuses_what_would_change_its_tokens(changes, named):
    images = random_images((72, 136))
    embedder = clone(TILED).fit(images)
    embedder.set_params(embedder__batch_size=3, embedder__n_jobs=1, embedder__image_size=32)
    embedder.transform(images)
    embedder.set_params(**changes)
    with pytest.raises(NotFittedError, match=f"{named}.* of this Tiled changed since fit"):
        embedder.transform(images)


def test_changes_of_the_inner_embedder_are_named():
    pytest.importorskip("timm")
    images = random_images((40, 72))
    inner = TimmPatches("test_vit", image_size=32, weights="random", device="cpu")
    embedder = Tiled(inner).fit(images).set_params(embedder__layers=0)
    with pytest.raises(NotFittedError, match="embedder__layers of this Tiled changed"):
        embedder.transform(images)
    func = Tiled(FunctionPatches(lambda x: cells_of_8(x)), tile=32).fit(images)
    func.set_params(embedder__func=lambda x: 2 * cells_of_8(x))
    with pytest.raises(NotFittedError, match="embedder__func of this Tiled changed"):
        func.transform(images)


def test_what_auto_meant_is_kept():
    pytest.importorskip("timm")
    images = random_images((40, 72))
    inner = TimmPatches("test_vit", image_size=32, weights="random", device="cpu")
    bfloat16 = Tiled(inner.set_params(dtype="bfloat16")).fit(images)
    expected = bfloat16.transform(images)
    # As on a machine that has it, where "auto" stood for it.
    bfloat16.embedder.dtype = "auto"
    assert_same(pickle.loads(pickle.dumps(bfloat16)).transform(images), expected)


def test_streams_are_the_same():
    images = random_images((64, 136), (64, 136), (64, 136))
    stream = clone(TILED).set_params(stream=True).transform(images)
    assert_same(np.asarray(stream), TILED.transform(images))
    assert_same(stream[1], TILED.transform(images)[1])


def test_names_of_components():
    assert len(TILED.get_feature_names_out()) == 102
    assert not hasattr(Tiled(FunctionPatches(cells_of_8), tile=64), "get_feature_names_out")


def surface(seed, bad=False, size=(120, 480)):
    """A brushed sheet, as the noise of lines, where bad with a spot of 20 pixels; and the spot."""
    rng = np.random.default_rng(seed)
    lines = 120 + 15 * np.cumsum(rng.normal(size=(size[0], 1, 1)), axis=0) / size[0] ** 0.5
    image = lines + rng.normal(0, 8, (*size, 1))
    top, left = rng.integers(20, size[0] - 40), rng.integers(20, size[1] - 40)
    if bad:
        y, x = np.indices((20, 20)) - 9.5
        image[top : top + 20, left : left + 20] += 25 * (np.hypot(y, x) < 8)[..., None]
    return np.clip(np.broadcast_to(image, (*size, 3)), 0, 255).astype(np.uint8), (top, left)


@pytest.fixture(scope="module")
def sheets():
    good = [surface(seed)[0] for seed in range(10)]
    return good, [surface(100 + seed, bad=True) for seed in range(2)]


def test_small_defects_of_large_images_are_found(sheets):
    good, bad = sheets
    new = [*good[7:], *(image for image, _ in bad)]
    y = [1] * 3 + [-1] * 2
    tiled = make_pipeline(
        Tiled(FilterBankPatches(), tile=128), PatchGaussianScorer("shared", aggregation="max")
    ).fit(good[:7])
    assert image_auroc(y, tiled.score_samples(new)) == 1.0
    np.testing.assert_allclose(
        tiled.score_samples(good[:7]), tiled[-1].train_scores_
    )  # calibrated as ever, image by image
    maps = anomaly_maps(tiled, new)
    assert maps.shape == (5, 120, 480)
    for of_image, (_, (top, left)) in zip(maps[3:], bad, strict=True):
        row, column = np.unravel_index(of_image.argmax(), of_image.shape)
        assert top - 8 <= row < top + 28 and left - 8 <= column < left + 28
    with pytest.warns(UserWarning, match="regions are calibrated on 7 images"):
        (regions,) = anomaly_regions(tiled, [bad[0][0]])
    x, y = max(regions, key=lambda region: region.peak).peak_at
    top, left = bad[0][1]
    assert top - 8 <= y < top + 28 and left - 8 <= x < left + 28
    results = list(iter_scores(tiled, iter(new)))
    np.testing.assert_array_equal([r.score for r in results], tiled.score_samples(new))


def test_in_searches_and_explanations(sheets):
    good, bad = (
        [image[:64, :136] for image in part] for part in (sheets[0], [b for b, _ in sheets[1]])
    )
    pipe = make_pipeline(Tiled(FilterBankPatches(), tile=64), PatchKNNScorer(metric="euclidean"))
    y = np.array([1] * 8 + [-1] * 2)
    search = GridSearchCV(
        pipe,
        {"tiled__tile": [56, 64], "tiled__embedder__n_jobs": [1]},
        cv=OneClassSplit(2),
        scoring=image_auroc_scorer,
    ).fit([*good[:8], *bad], y)
    assert search.best_params_["tiled__tile"] in (56, 64)
    assert pipe[0].embedder.n_jobs is None
    explanation = explain(pipe.fit(good[:8]), bad[0])
    assert explanation is not None
    streamed = make_pipeline(
        Tiled(FilterBankPatches(), tile=64, stream=True), PatchGaussianScorer(n_components=16)
    ).fit(good[:8])
    assert streamed.score_samples(bad).shape == (2,)


@pytest.mark.filterwarnings("ignore::skanomaly.persistence.ModelTrustWarning")
def test_in_a_model_file(tmp_path, sheets):
    images = [image[:72, :136] for image in sheets[0][:6]]
    for embedder in (
        Tiled(FilterBankPatches(), tile=64),
        Tiled(FunctionPatches(cells_of_8), tile=32),
    ):
        pipe = make_pipeline(embedder, PatchKNNScorer(metric="euclidean")).fit(images)
        save_model(pipe, tmp_path / "model.skan")
        if isinstance(embedder.embedder, FunctionPatches):
            loaded = load_model(tmp_path / "model.skan", trusted=[f"{__name__}.cells_of_8"])
        else:
            loaded = load_model(tmp_path / "model.skan")
        assert repr(loaded[0]) == repr(pipe[0])
        np.testing.assert_array_equal(loaded.score_samples(images), pipe.score_samples(images))
        assert model_manifest(tmp_path / "model.skan")["embedders"][0]["tile"] in (32, 64)
        with pytest.raises(NotFittedError, match="overlap of this Tiled changed"):
            loaded.set_params(tiled__overlap=0.5).predict(images)


def test_weights_go_with_a_model_file(tmp_path):
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    network = timm.create_model("test_vit", pretrained=False)
    save_file(network.state_dict(), tmp_path / "vit.safetensors")
    inner = TimmPatches(
        "test_vit", image_size=32, weights=tmp_path / "vit.safetensors", device="cpu"
    )
    images = random_images(*[(40, 72)] * 4)
    pipe = make_pipeline(Tiled(inner), PatchKNNScorer()).fit(images)
    expected = pipe.score_samples(images)
    save_model(pipe, tmp_path / "model.skan", include_weights=True)
    (tmp_path / "vit.safetensors").unlink()
    loaded = load_model(tmp_path / "model.skan", weights_dir=tmp_path / "weights")
    np.testing.assert_array_equal(loaded.score_samples(images), expected)
    assert str(tmp_path / "weights") in loaded[0].embedder.weights


def test_as_the_embedder_of_a_named_model(tmp_path):
    made = create_model("filterbank", embedder=Tiled(FilterBankPatches(), tile=64))
    assert isinstance(made["emb"], Tiled) and made["emb"].tile == 64
    made = create_model(
        "filterbank", embedder=TILED, cache_dir=tmp_path, batch_size=2, tile=32, overlap=8
    )
    assert made["emb"].cache_dir == tmp_path and made["emb"].embedder.cache_dir is None
    assert made["emb"].embedder.batch_size == 2 and made["emb"].overlap == 8
