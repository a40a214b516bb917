"""Recognition of training images by their patch tokens."""

from __future__ import annotations

import numpy as np

from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import IntArray
from skanomaly.core.products import product

# What float32 leaves between two runs of one model on one image, relative to the norm of a token;
# and how small that has to be beside the spread of the tokens to tell images apart.
_NOISE, _SEPARATION = 1e-5, 1e-3
# Tokens of reduced precision, which are rounded to float16, are computed in bfloat16. Another kind
# of processor leaves differences of 0.01 to 0.04 of the spread in the root mean square, and another
# way to the attention, which may go with it, of 0.02 to 0.13; at one patch up to 12 times that, and
# 1.2 of the spread (ViT-Tiny, blocks 5 and 11, four kinds of parts by AMX, AVX-512, AVX2 and SSE).
# Photographs of different parts differ by 0.7 and more.
_HALF_NOISE, _HALF_OUTLIER, _HALF_LARGEST = 0.2, 16.0, 1.5
# Of fewer patches a root mean square says little.
_LEAST_PATCHES = 64
# A patch that changed can only pass if it moved across all of these directions.
_N_PROJECTIONS = 8


class ImageFingerprints:
    """Fingerprints of images, to tell which of them comes again.

    An image is recognised when every one of its patches lies within float noise of the same
    image's patch; of tokens in half precision, when all of them together differ by no more than
    the rounding of another processor does, and none stands out. To compare without keeping the
    tokens, each token is reduced to a few random projections.

    Parameters
    ----------
    tokens : PatchTokens
        The images to be recognised later.
    ordered : bool
        Whether a patch's position matters. If not, an image is recognised with its patches in any
        order: each projection is compared in sorted order, which float noise changes by no more
        than itself.
    """

    def __init__(self, tokens: PatchTokens, ordered: bool) -> None:
        self.ordered = ordered
        directions = np.random.RandomState(0).standard_normal((tokens.dim, _N_PROJECTIONS))
        self.directions = directions / np.linalg.norm(directions, axis=0)
        in_place = self._reduce(tokens)
        self.prints = [self._comparable(fingerprint) for fingerprint in in_place]
        self.tolerance, spread = _tolerance(tokens, np.concatenate(self.prints))
        first = tokens.values[tokens.rows(0)][tokens.valid[tokens.rows(0)]]
        self.half_noise = _HALF_NOISE * spread if _is_half(first) else 0.0
        self.half_largest = _HALF_LARGEST * spread
        # Sorted, the patches of two images of one texture are alike.
        self.in_place = in_place if self.half_noise else []
        means = np.array([fingerprint[:, 0].mean() for fingerprint in self.prints])
        self.by_mean = np.argsort(means, kind="stable")
        self.means = means[self.by_mean]

    def match(self, tokens: PatchTokens) -> IntArray:
        """Which known image each image is.

        Parameters
        ----------
        tokens : PatchTokens
            Without views.

        Returns
        -------
        ndarray of shape (n_images,), int
            Number of the known image, of several the lowest; -1 for an unknown image.
        """
        found = np.full(tokens.n_images, -1)
        for i, in_place in enumerate(self._reduce(tokens)):
            fingerprint = self._comparable(in_place)
            mean, reach = fingerprint[:, 0].mean(), max(self.tolerance, self.half_noise)
            first = np.searchsorted(self.means, mean - reach, side="left")
            last = np.searchsorted(self.means, mean + reach, side="right")
            for known in np.sort(self.by_mean[first:last]):
                if fingerprint.shape == self.prints[known].shape and (
                    np.abs(fingerprint - self.prints[known]).max() <= self.tolerance
                    or self._is_rounded_otherwise(in_place, known)
                ):
                    found[i] = known
                    break
        return found

    def _is_rounded_otherwise(self, fingerprint, known):
        """Whether tokens in half precision differ from known ones as another processor's do."""
        if not self.half_noise or len(fingerprint) < _LEAST_PATCHES:
            return False
        difference = np.abs(fingerprint - self.in_place[known])
        usual = np.sqrt(np.mean(difference**2))
        largest = min(_HALF_OUTLIER * usual, self.half_largest)
        return usual <= self.half_noise and difference.max() <= largest

    def _comparable(self, fingerprint):
        return fingerprint if self.ordered else np.sort(fingerprint, axis=0)

    def _reduce(self, tokens):
        prints = []
        for i in range(tokens.n_images):
            rows = tokens.rows(i)
            prints.append(product(tokens.values[rows][tokens.valid[rows]], self.directions))
        return prints

    def order(self, tokens: PatchTokens, image: int) -> IntArray:
        """Order of the valid patches of one image that is the same for every permutation.

        Parameters
        ----------
        tokens : PatchTokens
        image : int
            Number of the image.

        Returns
        -------
        ndarray of shape (n_valid,), int
        """
        rows = tokens.rows(image)
        values = tokens.values[rows][tokens.valid[rows]]
        if self.ordered:
            return np.arange(len(values))
        return np.argsort(product(values, self.directions[:, 0]), kind="stable")


def _is_half(values):
    """Whether float16 holds all numbers to the bit."""
    with np.errstate(over="ignore"):
        return np.array_equal(values, values.astype(np.float16))


def _tolerance(tokens, projected):
    """Largest difference of projections that counts as noise, and their spread.

    Both by medians, for outliers among them.
    """
    values = tokens.values
    squared = np.einsum("ij,ij->i", values, values, dtype=np.float64)[tokens.valid]
    norm = np.median(np.sqrt(squared))
    spread = np.median(np.abs(projected - np.median(projected, axis=0)))
    return min(_NOISE * norm, _SEPARATION * spread), spread
