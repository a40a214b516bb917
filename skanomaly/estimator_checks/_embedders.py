"""Checks of embedders: what scorers, maps and users rely on."""

from __future__ import annotations

import io
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skanomaly.estimator_checks._asserting import (
    assert_same,
    check_bools,
    must_raise,
    prepared,
)

# What two runs of a network may differ by, of its largest output, in other batches.
_NOISE = 1e-4
_LARGEST_PICKLE = 100_000  # bytes


def _photographs(n_images=3, height=64, width=64):
    """uint8 images: noise over a gradient, each another."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 150, height * width).reshape(height, width, 1)
    return [
        (ramp + rng.integers(0, 100, (height, width, 3))).astype(np.uint8) for _ in range(n_images)
    ]


def _objects(items):
    out = np.empty(len(items), dtype=object)
    out[:] = items
    return out


def check_embedder_output(estimator: Any) -> None:
    """Tokens are float32, C-contiguous, (n_images, grid_h, grid_w, dim), from `fit` or without."""
    images = _photographs()
    tokens = prepared(estimator).fit(images).transform(images)
    assert isinstance(tokens, np.ndarray), "transform must return an ndarray"
    assert tokens.dtype == np.float32, f"tokens are {tokens.dtype}, not float32"
    assert tokens.ndim == 4 and len(tokens) == 3, f"tokens are of shape {tokens.shape}"
    assert tokens.flags.c_contiguous, "tokens must be C-contiguous"
    finite = np.isfinite(tokens).all(axis=-1) | np.isnan(tokens).all(axis=-1)
    assert finite.all(), "a token is finite, or NaN in all its components where it is masked"
    assert not np.array_equal(tokens[0], tokens[1]), "different images have the same tokens"
    plain = prepared(estimator, augmentation=None)
    assert_same(plain.fit_transform(images), tokens, "fit_transform without augmentation", _NOISE)


def check_embedder_batches(estimator: Any) -> None:
    """The tokens of an image depend neither on the batch nor on the order in it."""
    images = _photographs(5)
    together = prepared(estimator).transform(images)
    alone = np.concatenate([prepared(estimator).transform([image]) for image in images])
    assert_same(alone, together, "tokens of images one by one", _NOISE)
    backwards = prepared(estimator).transform(images[::-1])[::-1]
    assert_same(backwards, together, "tokens in another order", _NOISE)
    in_twos = prepared(estimator, batch_size=2).transform(images)
    assert_same(in_twos, together, "tokens in batches of two", _NOISE)


def check_embedder_containers(estimator: Any) -> None:
    """Arrays, PIL images, bytes and paths, in any container, give the same tokens."""
    images = _photographs()
    expected = prepared(estimator).transform(images)
    opened = [Image.fromarray(image) for image in images]
    encoded = []
    for image in opened:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.png" for i in range(len(images))]
        for path, content in zip(paths, encoded, strict=True):
            path.write_bytes(content)
        texts = [str(path) for path in paths]
        for name, X in {
            "a tuple": tuple(images),
            "an object array": _objects(images),
            "a 4-D array": np.stack(images),
            "PIL images": opened,
            "bytes": encoded,
            "paths": paths,
            "an array of paths": np.array(texts),
        }.items():
            tokens = prepared(estimator).transform(X)
            assert_same(tokens, expected, f"tokens of {name}", _NOISE)


def check_embedder_grids(estimator: Any) -> None:
    """Images of different sizes keep their tokens; different grids come as an object array."""
    images = [_photographs(1, *size)[0] for size in ((64, 64), (64, 96), (96, 64))]
    tokens = prepared(estimator).transform(images)
    assert len(tokens) == 3, "one array an image"
    shapes = [np.shape(image) for image in tokens]
    assert all(len(shape) == 3 for shape in shapes), f"tokens of the images are of {shapes}"
    assert len({shape[2] for shape in shapes}) == 1, "tokens of all images have one dimension"
    one_array = tokens.dtype == np.float32 and tokens.ndim == 4
    assert one_array == (len(set(shapes)) == 1), "a 1-D object array where grids differ, only there"
    for image, expected in zip(images, tokens, strict=True):
        assert expected.dtype == np.float32, f"tokens are {expected.dtype}, not float32"
        alone = prepared(estimator).transform([image])[0]
        assert_same(alone, expected, "tokens of images of different sizes", _NOISE)


def check_embedder_augmentation(estimator: Any) -> None:
    """With `augmentation`, `fit_transform` adds views; the first is the image, `transform` none."""
    if "augmentation" not in estimator.get_params(deep=False):
        return
    images = _photographs()
    embedder = prepared(estimator, augmentation="rotate90", resize="squash")
    views, plain = embedder.fit_transform(images), embedder.transform(images)
    assert views.ndim == 5 and views.shape[:2] == (3, 4), f"views are of shape {views.shape}"
    assert views.dtype == np.float32 and views.flags.c_contiguous, "views are float32, C-contiguous"
    assert_same(views[:, 0], plain, "the first view", _NOISE)
    # Turned before it was resized, an image may differ by rounding.
    turned = embedder.transform([np.rot90(image) for image in images])
    to_turned, to_plain = (np.abs(views[:, 1] - tokens).mean() for tokens in (turned, plain))
    assert 10 * to_turned < to_plain, "the second view must be the image turned by a quarter"


def check_embedder_refusals(estimator: Any) -> None:
    """One path, a table and nothing at all are no images."""
    wrong = {"one path": "image.png", "an empty list": []}
    try:
        import pandas
    except ImportError:
        pass
    else:
        wrong["a DataFrame"] = pandas.DataFrame({"path": ["image.png"]})
    for name, X in wrong.items():
        for method in ("fit", "transform"):
            with must_raise(ValueError, TypeError, what=f"{method} of {name}"):
                getattr(prepared(estimator), method)(X)


def check_embedder_broken_images(estimator: Any) -> None:
    """The error on an image that cannot be read names it, by its path or its number."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "broken.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
        try:
            prepared(estimator).transform([_photographs(1)[0], path])
        except Exception as exc:
            text = " ".join([str(exc), *getattr(exc, "__notes__", [])])
            assert "broken.png" in text or "image 1" in text, f"which image is broken? {text}"
            return
    raise AssertionError("a broken image must be an error")


def check_embedder_input(estimator: Any) -> None:
    """Images stay as they are."""
    images = _photographs()
    kept = [image.copy() for image in images]
    prepared(estimator, augmentation="rotate90").fit_transform(images)
    for image, before in zip(images, kept, strict=True):
        np.testing.assert_array_equal(image, before, "an image after fit_transform")


def check_embedder_bools(estimator: Any) -> None:
    """True is refused where a number is meant."""
    check_bools(estimator, lambda wrong: wrong.fit(_photographs()))


def check_embedder_persistence(estimator: Any) -> None:
    """A pickled embedder is small, because it holds no weights, and gives the same tokens."""
    images = _photographs()
    embedder = prepared(estimator)
    expected = embedder.fit(images).transform(images)
    pickled = pickle.dumps(embedder)
    assert len(pickled) < _LARGEST_PICKLE, f"a pickled embedder has {len(pickled)} bytes"
    assert_same(pickle.loads(pickled).transform(images), expected, "tokens of the pickled", _NOISE)
    assert repr(clone(embedder)) == repr(embedder), "parameters of a clone"


def check_embedder_changes(estimator: Any) -> None:
    """After `fit`, `transform` refuses parameters that would give other tokens, and no others."""
    images = _photographs()
    fitted = prepared(estimator).fit(images)
    expected = fitted.transform(images)
    for changes in _token_changes(estimator):
        other = prepared(estimator).set_params(**changes)  # never fitted, it may give what it gives
        if _same_tokens(other.transform(images), expected):
            continue
        names = ", ".join(changes)
        changed = prepared(estimator).fit(images).set_params(**changes)
        with must_raise(NotFittedError, what=f"transform after {names} changed since fit"):
            changed.transform(images)
        assert_same(
            changed.fit(images).transform(images), other.transform(images), "tokens after a refit"
        )
    for name, value in {"batch_size": 2, "verbose": False}.items():
        if name in fitted.get_params(deep=False):
            fitted.set_params(**{name: value})
    assert_same(fitted.transform(images), expected, "tokens in other batches", _NOISE)


def _token_changes(estimator):
    """Values of parameters that many embedders have, which should give other tokens."""
    params = estimator.get_params(deep=False)
    if isinstance(params.get("image_size"), int):
        yield {"image_size": 2 * params["image_size"]}
    if callable(params.get("func")):
        func = params["func"]
        yield {"func": lambda image: func(image)[:, ::-1]}


def _same_tokens(tokens, expected):
    return tokens.shape == expected.shape and np.allclose(tokens, expected)


def check_embedder_output_config(estimator: Any) -> None:
    """Tokens stay an array: a table of them is refused, or not offered, but never made silently."""
    images = _photographs()
    expected = prepared(estimator).transform(images)
    try:
        with sklearn.config_context(transform_output="pandas"):
            tokens = prepared(estimator).fit(images).transform(images)
    except (TypeError, ValueError, AttributeError):
        pass
    else:
        assert isinstance(tokens, np.ndarray), "transform_output='pandas' gave no tokens"
        assert_same(tokens, expected, "tokens with transform_output='pandas'", _NOISE)
    try:
        names = prepared(estimator).fit(images).get_feature_names_out()
    except (TypeError, ValueError, AttributeError):
        return
    assert len(set(names)) == expected.shape[-1], "one name for each component of a token"


EMBEDDER_CHECKS = (
    check_embedder_output,
    check_embedder_batches,
    check_embedder_containers,
    check_embedder_grids,
    check_embedder_augmentation,
    check_embedder_refusals,
    check_embedder_broken_images,
    check_embedder_input,
    check_embedder_bools,
    check_embedder_persistence,
    check_embedder_changes,
    check_embedder_output_config,
)
