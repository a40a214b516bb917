"""Attention and linear maps: all ways give the same numbers."""

import pytest

from skanomaly._networks import kernels
from skanomaly._networks.kernels import (
    ATTENTIONS,
    LinearMap,
    choose_attention,
    choose_packed,
)
from skanomaly.core import choosing

torch = pytest.importorskip("torch")


@pytest.fixture
def asked(monkeypatch):
    """What was asked, and which ways there were; the last of them is taken."""
    questions = {}

    def last(question, ways):
        questions[question] = list(ways)
        for way in ways.values():
            way()
        return list(ways)[-1]

    monkeypatch.setattr(kernels, "choose", last)
    return questions


def loops(qkv):
    """Attention in float64, image by image, head by head, query by query."""
    queries, keys, values = qkv.double()
    n_images, n_heads, n_tokens, head_dim = queries.shape
    out = torch.empty(n_images, n_tokens, n_heads, head_dim, dtype=torch.float64)
    for image in range(n_images):
        for head in range(n_heads):
            for token in range(n_tokens):
                scores = (queries[image, head, token] * keys[image, head]).sum(-1)
                weights = torch.exp(scores - scores.max())
                weights /= weights.sum()
                out[image, token, head] = (weights[:, None] * values[image, head]).sum(0)
    return out


@pytest.mark.parametrize("name", ATTENTIONS)
@pytest.mark.parametrize("shape", [(1, 1, 1, 8), (2, 3, 17, 8), (1, 2, 65, 24), (3, 1, 130, 64)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_each_attention_is_that_of_plain_loops(name, shape, dtype):
    torch.manual_seed(0)
    n_images, n_heads, n_tokens, head_dim = shape
    # As the map hands them over: of each token queries, keys and values, head by head.
    rows = torch.randn(n_images, n_tokens, 3 * n_heads * head_dim)
    rows[..., : n_heads * head_dim] *= head_dim**-0.5
    qkv = rows.unflatten(2, (3, n_heads, head_dim)).permute(2, 0, 3, 1, 4).to(getattr(torch, dtype))
    attended = ATTENTIONS[name](qkv)
    assert attended.dtype == qkv.dtype
    # Scores of 5, weights, values of 4 and their sums are rounded, each by half of eps.
    limit = 20 * torch.finfo(qkv.dtype).eps
    torch.testing.assert_close(attended.double(), loops(qkv), rtol=0, atol=limit)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_large_scores_do_not_overflow(name):
    qkv = torch.full((3, 1, 1, 20, 64), 40.0, dtype=torch.bfloat16)  # scores of 102,400
    assert torch.equal(ATTENTIONS[name](qkv), torch.full((1, 20, 1, 64), 40.0).bfloat16())


def test_memory_of_all_scores_is_not_taken(asked, monkeypatch):
    monkeypatch.setattr(kernels, "_SCORES", 2 * 64**2)
    assert choose_attention(60, 2, 8, torch.float32) == "batched"
    assert choose_attention(60, 3, 8, torch.float32) == "fused"
    assert asked == {
        "attention of 64 tokens, 2 heads of 8, float32": ["by head", "fused", "batched"],
        "attention of 64 tokens, 3 heads of 8, float32": ["by head", "fused"],
    }


@pytest.mark.parametrize(
    "n_tokens, timed",
    [(1, 16), (17, 16), (197, 256), (257, 256), (362, 256), (363, 512), (1025, 1024)]
    + [(1370, 1024), (1449, 2048), (10**6, 4096)],
)
def test_near_sizes_have_one_choice(monkeypatch, n_tokens, timed):
    """Which does not depend on the image that came first."""
    questions = []
    monkeypatch.setattr(kernels, "choose", lambda question, ways: questions.append(question))
    choose_attention(n_tokens, 2, 8, torch.bfloat16)
    assert questions == [f"attention of {timed} tokens, 2 heads of 8, bfloat16"]


def test_to_choose_leaves_the_random_numbers_alone(asked):
    before = torch.get_rng_state()
    choose_attention(20, 2, 8, torch.bfloat16)
    choose_packed(torch.ones(16, 8), None)
    assert torch.equal(torch.get_rng_state(), before)


def packs(dtype):
    """Whether this torch and this processor pack weights in that precision."""
    try:
        LinearMap(torch.ones(16, 8, dtype=dtype), None, True)(torch.ones(4, 8, dtype=dtype))
    except (RuntimeError, AttributeError):
        return False
    return True


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (96, 33), (48, 192), (1536, 384)])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_packed_maps_give_the_bits_of_plain_ones(with_bias, shape, dtype):
    dtype = getattr(torch, dtype)
    if not packs(dtype):
        pytest.skip(f"weights are not packed in {dtype} here")
    torch.manual_seed(0)
    weight = torch.randn(shape).to(dtype)
    bias = torch.randn(shape[0]).to(dtype) if with_bias else None
    plain, packed = LinearMap(weight, bias, False), LinearMap(weight, bias, True)
    for rows in ((1,), (3, 17), (1, 257), (1030,)):
        x = torch.randn(*rows, shape[1]).to(dtype)
        expected = x.double() @ weight.double().T + (0 if bias is None else bias.double())
        one, other = plain(x), packed(x)
        assert one.shape == other.shape == expected.shape
        torch.testing.assert_close(other.double(), expected, rtol=1e-2, atol=1e-2 * shape[1] ** 0.5)
        if dtype == torch.bfloat16:  # elsewhere plain maps may be MKL's
            assert torch.equal(one, other)


@pytest.mark.parametrize("missing", ["all of oneDNN", "its map", "the precision"])
def test_without_the_private_operations_maps_are_plain(monkeypatch, missing):
    class Missing:
        def __getattr__(self, name):
            if missing == "all of oneDNN":
                raise AttributeError(name)
            if missing == "the precision" and name == "_reorder_linear_weight":
                raise RuntimeError("needs the cpu support")
            if missing == "its map" and name == "_linear_pointwise":
                raise AttributeError(name)
            return lambda weight, *_: weight

    monkeypatch.setattr(torch.ops, "mkldnn", Missing())
    monkeypatch.setattr(choosing, "_made", {})
    assert choose_packed(torch.ones(16, 8).bfloat16(), None) is False
    (choice,) = choosing.choices().values()
    assert set(choice.milliseconds) == {"plain"}
