"""The network on NumPy: what plain loops and torch compute, in bounded memory, to the bit."""

import tracemalloc
from functools import partial

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from skanomaly.core import tiny_network
from skanomaly.core.threads import map_products
from skanomaly.core.tiny_network import network_of, tiny_tokens

DILATIONS = (1, 2, 4)


def some_tensors(seed=0, stem=((5, 6), (3, 8), (3, 10)), inner=4, dim=7, n_blocks=3):
    """A network of other widths than ours, with biases."""
    rng = np.random.RandomState(seed)
    tensors = {}

    def add(name, side, n_inputs, n_outputs):
        weight = rng.normal(size=(side, side, n_inputs, n_outputs)) / np.sqrt(side**2 * n_inputs)
        tensors[f"{name}.weight"] = weight.astype(np.float16)
        tensors[f"{name}.bias"] = rng.normal(size=n_outputs).astype(np.float16)

    width = 3
    for number, (side, channels) in enumerate(stem):
        add(f"stem.{number}", side, width, channels)
        width = channels
    for number in range(n_blocks):
        add(f"body.{number}.reduce", 1, width, inner)
        add(f"body.{number}.spatial", 3, inner, inner)
        add(f"body.{number}.expand", 1, inner, width)
    add("head", 1, width, dim)
    tensors["head.weight"] = tensors["head.weight"][0, 0]
    return tensors


TENSORS = some_tensors()
NETWORK = network_of(TENSORS, DILATIONS)


def some_image(height, width, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


def loops(image, tensors, dilations, grid):
    """The network place by place, in float64."""
    x = image.astype(np.float64)
    x = ((x / 255 if image.dtype == np.uint8 else x) - 0.5) * 4

    def convolve(x, name, stride=1, dilation=1):
        weight = np.asarray(tensors[f"{name}.weight"], dtype=np.float64)
        weight = weight[None, None] if weight.ndim == 2 else weight
        height, width = (-(-n // stride) for n in x.shape[:2])
        out = np.zeros((height, width, weight.shape[-1])) + tensors[f"{name}.bias"]
        reach = len(weight) // 2
        for i, j, k, m in np.ndindex(height, width, *weight.shape[:2]):
            row, column = stride * i + dilation * (k - reach), stride * j + dilation * (m - reach)
            if 0 <= row < x.shape[0] and 0 <= column < x.shape[1]:
                out[i, j] += x[row, column] @ weight[k, m]
        return out

    for number in range(sum(name.startswith("stem") for name in tensors) // 2):
        x = np.maximum(convolve(x, f"stem.{number}", stride=2), 0)
    for number, dilation in enumerate(dilations):
        y = np.maximum(convolve(x, f"body.{number}.reduce"), 0)
        y = np.maximum(convolve(y, f"body.{number}.spatial", dilation=dilation), 0)
        x = np.maximum(x + convolve(y, f"body.{number}.expand"), 0)
    if grid == 16:
        pooled = [
            [x[i : i + 2, j : j + 2].mean(axis=(0, 1)) for j in range(0, x.shape[1], 2)]
            for i in range(0, x.shape[0], 2)
        ]
    else:
        pooled = [
            [
                x[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].mean(axis=(0, 1))
                for j in range(x.shape[1])
            ]
            for i in range(x.shape[0])
        ]
    return convolve(np.array(pooled), "head")


@pytest.mark.parametrize("grid", [16, 32])
@pytest.mark.parametrize("size", [(64, 64), (40, 96), (45, 30), (8, 8), (1, 1), (1, 50), (33, 7)])
def test_tokens_are_those_of_plain_loops(size, grid):
    image = some_image(*size)
    expected = loops(image, TENSORS, DILATIONS, grid)
    tokens = tiny_tokens(image, NETWORK, grid)
    cells = [-(-side // (256 // grid)) for side in size]
    assert tokens.dtype == np.float32 and tokens.flags.c_contiguous
    assert tokens.shape == expected.shape == (*cells, 7)
    np.testing.assert_allclose(tokens, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("grid", [16, 32])
@pytest.mark.parametrize("size", [(256, 256), (200, 333)])
def test_tokens_are_those_of_torch_in_float64(size, grid):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    tensors = some_tensors(1, stem=((5, 24), (3, 64), (3, 128)), inner=64, dim=128)
    double = {name: torch.tensor(tensor.astype(np.float64)) for name, tensor in tensors.items()}

    def convolve(x, name, stride=1, dilation=1):
        weight = double[f"{name}.weight"]
        weight = weight[None, None] if weight.ndim == 2 else weight
        padding = dilation * (len(weight) // 2)
        return functional.conv2d(
            x,
            weight.permute(3, 2, 0, 1),
            double[f"{name}.bias"],
            stride,
            padding,
            dilation,
        )

    image = some_image(*size)
    x = (torch.tensor(image).permute(2, 0, 1)[None].double() / 255 - 0.5) * 4
    for number in range(3):
        x = convolve(x, f"stem.{number}", stride=2).relu()
    for number, dilation in enumerate(DILATIONS):
        y = convolve(x, f"body.{number}.reduce").relu()
        y = convolve(y, f"body.{number}.spatial", dilation=dilation).relu()
        x = (x + convolve(y, f"body.{number}.expand")).relu()
    side, step, padding = (2, 2, 0) if grid == 16 else (3, 1, 1)
    x = functional.avg_pool2d(x, side, step, padding, ceil_mode=True, count_include_pad=False)
    expected = convolve(x, "head")[0].permute(1, 2, 0).numpy()
    tokens = tiny_tokens(image, network_of(tensors, DILATIONS), grid)
    np.testing.assert_allclose(tokens, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("grid", [16, 32])
@pytest.mark.parametrize("band", [1, 500, 10**9])
def test_bands_change_nothing_but_the_rounding(grid, band, monkeypatch):
    image = some_image(150, 90)
    expected = tiny_tokens(image, NETWORK, grid)
    monkeypatch.setattr(tiny_network, "_BAND", band)
    tokens = tiny_tokens(image, NETWORK, grid)
    np.testing.assert_allclose(tokens, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_number_of_threads_changes_nothing():
    tensors = some_tensors(1, stem=((5, 24), (3, 64), (3, 128)), inner=64, dim=128)
    network, image = network_of(tensors, DILATIONS), some_image(256, 256)
    found = []
    for n_threads in (1, 2, 4):
        with threadpool_limits(n_threads, user_api="blas"):
            found += map_products(
                partial(tiny_tokens, network=network), [image], 1, always_one=True
            )
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_numbers_between_0_and_1_are_pixels_too(kind):
    image = some_image(48, 40)
    expected = tiny_tokens(image, NETWORK)
    np.testing.assert_allclose(
        tiny_tokens((image / 255).astype(kind), NETWORK), expected, atol=1e-4
    )


@pytest.mark.parametrize("grid", [16, 32])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (90, 90, 90), (255, 0, 60)])
def test_an_image_of_one_colour(colour, grid):
    image = np.full((352, 352, 3), colour, dtype=np.uint8)
    tokens = tiny_tokens(image, NETWORK, grid)
    assert np.isfinite(tokens).all()
    # Away from the border, which is seen as far as the blocks reach, they are all alike.
    margin = 9 * grid // 32 + 1
    inside = tokens[margin:-margin, margin:-margin].reshape(-1, 7)
    assert len(inside) > 4
    np.testing.assert_allclose(inside, np.broadcast_to(inside[0], inside.shape), atol=1e-4)


def test_tokens_of_a_shifted_image_are_shifted():
    image = some_image(400, 352)
    first, second = tiny_tokens(image[:352], NETWORK), tiny_tokens(image[48:], NETWORK)
    np.testing.assert_allclose(second[10:20, 10:-10], first[16:26, 10:-10], atol=1e-4)


def test_the_memory_is_that_of_the_map_and_of_some_bands():
    """Of an image of 12 megapixels, at the widths of our own network but with one block."""
    tensors = some_tensors(2, stem=((5, 24), (3, 64), (3, 128)), inner=64, dim=128, n_blocks=1)
    network, image = network_of(tensors, (4,)), np.zeros((3000, 4096, 3), dtype=np.uint8)
    tracemalloc.start()
    try:
        tokens = tiny_tokens(image, network)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert tokens.shape == (375, 512, 128)
    # The finest map alone, of a quarter of the pixels, would be three times the tokens.
    assert peak < 2.1 * tokens.nbytes + 40e6


@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((8, 8), np.uint8), r"shape \(height, width, 3\), got \(8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), "shape"),
        (np.zeros((0, 8, 3), np.uint8), "shape"),
        (np.zeros((8, 8, 3), np.int32), "uint8 or floating point, got int32"),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(ValueError, match=message):
        tiny_tokens(image, NETWORK)


@pytest.mark.parametrize("grid", [8, 64, "32"])
def test_another_grid_is_refused(grid):
    with pytest.raises(ValueError, match="grid must be one of"):
        tiny_tokens(some_image(8, 8), NETWORK, grid)


def changed(**tensors):
    return {**TENSORS, **{name.replace("_", "."): tensor for name, tensor in tensors.items()}}


@pytest.mark.parametrize(
    "tensors, dilations, message",
    [
        ({}, (), "the tensor stem.0.weight is missing"),
        ({n: t for n, t in TENSORS.items() if n != "head.bias"}, DILATIONS, "head.bias is missing"),
        (TENSORS, (1, 2, 4, 1), "body.3.reduce.weight is missing"),
        (TENSORS, (1, 2), "tensors of no layer: body.2"),
        (changed(other=np.zeros(3)), DILATIONS, "tensors of no layer: other"),
        (changed(stem_1_bias=np.zeros(9)), DILATIONS, r"stem.1 has .*\(9,\)"),
        (changed(stem_1_weight=np.zeros((3, 3, 5, 8))), DILATIONS, r"stem.1 has .*5, 8"),
        (changed(stem_1_weight=np.zeros((3, 5, 6, 8))), DILATIONS, r"stem.1 has .*3, 5"),
        (changed(stem_1_weight=np.zeros((4, 4, 6, 8))), DILATIONS, r"stem.1 has .*4, 4"),
        (changed(stem_1_weight=np.zeros(8)), DILATIONS, "stem.1 has"),
        (changed(stem_1_weight=np.zeros(())), DILATIONS, "stem.1 has"),
        (changed(body_0_reduce_weight=np.zeros((3, 3, 10, 4))), DILATIONS, "body.0.reduce has"),
        (
            changed(body_0_expand_weight=np.zeros((1, 1, 4, 9)), body_0_expand_bias=np.zeros(9)),
            DILATIONS,
            "body.0.expand has",
        ),
        (TENSORS, (1, 0, 1), "the dilation 0"),
    ],
)
def test_tensors_that_are_no_network_are_refused(tensors, dilations, message):
    with pytest.raises(ValueError, match=message):
        network_of(tensors, dilations)
