"""Class tokens of images: taken out of patch tokens, and what their likeness says of scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skanomaly._faults import of_an_image
from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.prepared import unit_rows
from skanomaly.core.products import exact_product, rounded_for_products

_CONSTANT = 1e-3  # of the largest component; float16 rounds it by less


def class_tokens(tokens: PatchTokens, part: slice) -> FloatArray:
    """The class token of each image, which every patch of it has beside its own.

    Parameters
    ----------
    tokens : PatchTokens
        Of one view, or with all but one of the views masked.
    part : slice
        Components of the class token.

    Returns
    -------
    ndarray of shape (n_images, n_components), float64
        Zeros of images that are all masked.

    Raises
    ------
    ValueError
        When that part is not the same in all patches of an image.
    """
    images = range(tokens.n_images)
    firsts = [tokens.offsets[i] + np.argmax(tokens.valid[tokens.rows(i)]) for i in images]
    found = np.where(tokens.valid[firsts, None], tokens.values[firsts, part], 0).astype(np.float64)
    for i in images:
        rows = tokens.rows(i)
        apart = np.abs(tokens.values[rows, part][tokens.valid[rows]] - found[i]).max(initial=0)
        if apart > _CONSTANT * np.abs(found[i]).max():
            raise of_an_image(
                ValueError(
                    f"class_token=True, but the last part of the tokens of image "
                    f"{tokens.first + i} is not the same in all of its patches: embed with "
                    "class_token=True, and count the class token in parts"
                )
            )
    return found


def mean_over_alike(
    scores: FloatArray,
    class_tokens: FloatArray,
    counts: Sequence[int],
    group_of_image: IntArray,
) -> FloatArray:
    """Scores of images, averaged with those of the images that are most like them.

    Parameters
    ----------
    scores : ndarray of shape (n_images,)
    class_tokens : ndarray of shape (n_images, dim)
        Images are as alike as the cosine of these says.
    counts : sequence of int
        For each, the mean of that many images, itself among them, by the weight of their likeness;
        then the mean of these means.
    group_of_image : ndarray of shape (n_images,), int
        Images of its own group stand for no image.

    Returns
    -------
    ndarray of shape (n_images,), float64
    """
    if not len(counts):
        return scores
    unit = unit_rows(class_tokens.astype(np.float64))
    alike = exact_product(unit, rounded_for_products(unit.T, unit.shape[1], axis=-2))
    alike = np.clip(alike, 0, 1)  # where none is alike, none is asked
    alike[group_of_image[:, None] == group_of_image] = -1
    np.fill_diagonal(alike, 2)  # first
    order = np.argsort(-alike, axis=1, kind="stable")
    np.fill_diagonal(alike, 1)
    weights = np.maximum(np.take_along_axis(alike, order, axis=1), 0)
    ordered = scores[order]
    means = [(w * s).sum(axis=1) / w.sum(axis=1) for w, s in _first(weights, ordered, counts)]
    return np.mean(means, axis=0)


def _first(weights, scores, counts):
    return [(weights[:, :count], scores[:, :count]) for count in counts]
