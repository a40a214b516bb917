"""Recognition of training images by their patch tokens."""

from __future__ import annotations

import numpy as np

from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import IntArray
from skanomaly.core.products import product

# What float32 leaves between two runs of one model on one image, relative to the norm of a token;
# and how small that has to be beside the spread of the tokens to tell images apart.
_NOISE, _SEPARATION = 1e-5, 1e-3
# A patch that changed can only pass if it moved across all of these directions.
_N_PROJECTIONS = 8


class ImageFingerprints:
    """Fingerprints of images, to tell which of them comes again.

    An image is recognised when every one of its patches lies within float noise of the same
    image's patch. To compare without keeping the tokens, each token is reduced to a few random
    projections.

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
        self.prints = self._reduce(tokens)
        self.tolerance = _tolerance(tokens, np.concatenate(self.prints))
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
        for i, fingerprint in enumerate(self._reduce(tokens)):
            mean = fingerprint[:, 0].mean()
            first = np.searchsorted(self.means, mean - self.tolerance, side="left")
            last = np.searchsorted(self.means, mean + self.tolerance, side="right")
            for known in np.sort(self.by_mean[first:last]):
                if (
                    fingerprint.shape == self.prints[known].shape
                    and np.abs(fingerprint - self.prints[known]).max() <= self.tolerance
                ):
                    found[i] = known
                    break
        return found

    def _reduce(self, tokens):
        prints = []
        for i in range(tokens.n_images):
            rows = tokens.rows(i)
            fingerprint = product(tokens.values[rows][tokens.valid[rows]], self.directions)
            prints.append(fingerprint if self.ordered else np.sort(fingerprint, axis=0))
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


def _tolerance(tokens, projected):
    """Largest difference of projections that counts as noise; medians, for outliers among them."""
    values = tokens.values
    squared = np.einsum("ij,ij->i", values, values, dtype=np.float64)[tokens.valid]
    norm = np.median(np.sqrt(squared))
    spread = np.median(np.abs(projected - np.median(projected, axis=0)))
    return min(_NOISE * norm, _SEPARATION * spread)
