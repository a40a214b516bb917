"""Patch tokens for benchmarks: realistic ones, and the worst case."""

import os
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

KINDS = ("mixture", "vit", "noise")
_CLUSTERS, _DIRECTIONS, _COMMON = 300, 24, 48


def make_tokens(kind, n_tokens, seed=0, dim=384):
    """Unit tokens of one kind; other seeds give other tokens of the same distribution.

    Parameters
    ----------
    kind : {"mixture", "vit", "noise"}
        ``"mixture"``: Gaussian clusters of 24 directions each, of falling variance, and a little
        noise in all others. ``"vit"``: a ViT-Tiny (dim 192) at 448 pixels on random crops of
        real photographs. Even seeds are for training; odd ones have 2% of anomalies or are
        photographs for testing.
        ``"noise"``: independent components, where no search can rule out anything.
    n_tokens : int
    seed : int
    dim : int
        Not for ``"vit"``.

    Returns
    -------
    ndarray of shape (n_tokens, dim), float32
    """
    if kind == "vit":
        return _vit(n_tokens, seed)
    tokens = np.empty((n_tokens, dim), dtype=np.float32)
    rng = np.random.default_rng([seed, 1])
    for start in range(0, n_tokens, 65536):
        part = tokens[start : start + 65536]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
        if kind == "mixture":
            _cluster(part, rng, share_of_anomalies=0.02 if seed % 2 else 0)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return tokens


def _cluster(noise, rng, share_of_anomalies):
    """Turn standard normal rows into points of the mixture, in place."""
    common, centers, own, shares = _mixture(noise.shape[1])
    cluster = rng.choice(_CLUSTERS, len(noise), p=shares)
    noise *= 0.012
    for number in np.unique(cluster):
        rows = np.flatnonzero(cluster == number)
        weights = rng.standard_normal((rows.size, _DIRECTIONS))
        noise[rows] += (centers[number] + weights @ own[number]).astype(np.float32)
    odd = rng.choice(len(noise), int(share_of_anomalies * len(noise)), replace=False)
    noise[odd] += (0.25 * rng.standard_normal((odd.size, _COMMON)) @ common).astype(np.float32)


@lru_cache(maxsize=1)
def _mixture(dim):
    """Directions that all clusters share, their centres, own directions and shares."""
    fixed = np.random.default_rng(0)
    falls = np.arange(1, _COMMON + 1)[:, None]
    common = fixed.standard_normal((_COMMON, dim)) / dim**0.5 * falls**-0.4
    centers = fixed.standard_normal((_CLUSTERS, _COMMON)) @ common
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    own = fixed.standard_normal((_CLUSTERS, _DIRECTIONS, dim)) / dim**0.5
    own *= falls[:_DIRECTIONS] ** -0.6 * 0.55 * fixed.uniform(0.6, 1.4, (_CLUSTERS, 1, 1))
    return common, centers, own, fixed.dirichlet(np.full(_CLUSTERS, 0.8))


def _vit(n_tokens, seed):
    shared = Path(os.environ.get("SKANOMALY_SHARED", Path(__file__).parents[2] / "shared"))
    cached = Path(tempfile.gettempdir()) / f"skanomaly-vit-tokens-{seed}-{n_tokens}.npy"
    if cached.exists():
        return np.load(cached)
    from skanomaly import TimmPatches

    split = "test" if seed % 2 else "train"
    files = sorted(
        path for path in (shared / "data").glob(f"*/{split}/*/*") if path.suffix in {".jpg", ".png"}
    )
    weights = shared / "weights" / "vit_tiny_patch16_224.safetensors"
    if not files or not weights.exists():
        raise FileNotFoundError(
            f"no photographs or weights under {shared}: set SKANOMALY_SHARED or take other tokens"
        )
    embedder = TimmPatches("vit_tiny_patch16_224", weights=str(weights), image_size=448)
    rng = np.random.default_rng(seed)
    tokens = []
    while sum(len(part) for part in tokens) < n_tokens:
        with Image.open(files[rng.integers(len(files))]) as image:
            image = image.convert("RGB").resize((512, 512), Image.Resampling.BICUBIC)
        x, y = rng.integers(0, 64, 2).tolist()
        patches = embedder.fit_transform([image.crop((x, y, x + 448, y + 448))])
        tokens.append(patches.reshape(-1, patches.shape[-1]))
    tokens = np.concatenate(tokens)[:n_tokens]
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    np.save(cached, tokens)
    return tokens
