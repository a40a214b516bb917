"""Recognition of training images by their patch tokens."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np

from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import ArrayLike, IntArray
from skanomaly.core.products import product

# What float32 leaves between two runs of one model on one image, relative to the norm of a token;
# and how small that has to be beside the spread of the tokens to tell images apart.
_NOISE, _SEPARATION = 1e-5, 1e-3
# Tokens of reduced precision, which are rounded to float16, are computed in bfloat16. Another kind
# of processor leaves differences of 0.01 to 0.03 of the spread in the root mean square, and at one
# patch up to 12 times that (ViT-Tiny by AVX-512, AVX2 and SSE); different images differ by 0.3.
_HALF_NOISE, _HALF_OUTLIER = 0.06, 16.0
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
        # Of each image, the order of its patches that is the same for every permutation.
        self.orders = [] if ordered else [self.order(tokens, i) for i in range(tokens.n_images)]
        self.norms = _median_norms(tokens)
        first = tokens.values[tokens.rows(0)][tokens.valid[tokens.rows(0)]]
        self.is_half = _is_half(first)
        # Sorted, the patches of two images of one texture are alike.
        self.in_place = in_place if self.is_half else []
        self.prints = [self._comparable(fingerprint) for fingerprint in in_place]
        self._settle()

    def _settle(self) -> None:
        """What depends on all images: the tolerance, and the order in which they are looked up."""
        projected = np.concatenate(self.prints)
        spread = np.median(np.abs(projected - np.median(projected, axis=0)))
        # By medians, for outliers among patches and images.
        self.tolerance = min(_NOISE * np.median(self.norms), _SEPARATION * spread)
        self.half_noise = _HALF_NOISE * spread if self.is_half else 0.0
        means = np.array([fingerprint[:, 0].mean() for fingerprint in self.prints])
        self.by_mean = np.argsort(means, kind="stable")
        self.means = means[self.by_mean]

    @classmethod
    def joined(cls, parts: Sequence[ImageFingerprints]) -> ImageFingerprints:
        """The fingerprints of all images of several, one after the other.

        Parameters
        ----------
        parts : sequence of ImageFingerprints
            Of tokens of as many components, all ordered or none.

        Returns
        -------
        ImageFingerprints
            Those of the images together, as they would be made at once.
        """
        made = copy(parts[0])
        for name in ("orders", "in_place", "prints"):
            setattr(made, name, [one for part in parts for one in getattr(part, name)])
        made.norms = np.concatenate([part.norms for part in parts])
        made.is_half = len(made.in_place) == len(made.prints)
        if not made.is_half:
            made.in_place = []
        made._settle()
        return made

    def select(self, images: ArrayLike) -> ImageFingerprints:
        """The fingerprints of some of the images, as they would be made of these alone.

        Parameters
        ----------
        images : array-like of int
            Their numbers, at least one.

        Returns
        -------
        ImageFingerprints
        """
        made, numbers = copy(self), np.asarray(images, dtype=np.intp)
        for name in ("orders", "in_place", "prints"):
            kept = getattr(self, name)
            setattr(made, name, [kept[i] for i in numbers] if kept else [])
        made.norms = self.norms[numbers]
        made._settle()
        return made

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
        found = [next(iter(of_image), -1) for of_image in self._matches(tokens)]
        return np.array(found, dtype=np.int64)

    def match_all(self, tokens: PatchTokens) -> list[list[int]]:
        """All known images that each image is: several where copies of it are known.

        Parameters
        ----------
        tokens : PatchTokens
            Without views.

        Returns
        -------
        list of list of int
            Numbers, ascending; of an unknown image none.
        """
        return [list(of_image) for of_image in self._matches(tokens)]

    def _matches(self, tokens):
        """For each image its known ones, looked for as they are asked for."""
        for in_place in self._reduce(tokens):
            yield self._matches_of(in_place)

    def _matches_of(self, in_place):
        fingerprint = self._comparable(in_place)
        mean, reach = fingerprint[:, 0].mean(), max(self.tolerance, self.half_noise)
        first = np.searchsorted(self.means, mean - reach, side="left")
        last = np.searchsorted(self.means, mean + reach, side="right")
        for known in np.sort(self.by_mean[first:last]).tolist():
            if fingerprint.shape == self.prints[known].shape and (
                np.abs(fingerprint - self.prints[known]).max() <= self.tolerance
                or self._is_rounded_otherwise(in_place, known)
            ):
                yield known

    def _is_rounded_otherwise(self, fingerprint, known):
        """Whether tokens in half precision differ from known ones as another processor's do."""
        if not self.half_noise or len(fingerprint) < _LEAST_PATCHES:
            return False
        difference = np.abs(fingerprint - self.in_place[known])
        usual = np.sqrt(np.mean(difference**2))
        return usual <= self.half_noise and difference.max() <= _HALF_OUTLIER * usual

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
        # There are as many of these numbers as patches.
        return np.argsort(product(values, self.directions[:, 0]), kind="stable").astype(np.int32)

    def known_order(self, image: int) -> IntArray:
        """As :meth:`order`, of a known image.

        Parameters
        ----------
        image : int
            Its number.

        Returns
        -------
        ndarray of shape (n_valid,), int
        """
        return np.arange(len(self.prints[image])) if self.ordered else self.orders[image]


def _is_half(values):
    """Whether float16 holds all numbers to the bit."""
    with np.errstate(over="ignore"):
        return bool(np.array_equal(values, values.astype(np.float16)))


def _median_norms(tokens):
    """Norm of the usual token of each image."""
    values = tokens.values
    norms = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    rows = [tokens.rows(i) for i in range(tokens.n_images)]
    return np.array([np.median(norms[of_image][tokens.valid[of_image]]) for of_image in rows])
