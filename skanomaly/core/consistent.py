"""Defects that several images share: found by a graph of images, left out as references.

A patch of a repeated defect has as many near images as there are images with that defect, and none
beyond. Links that are so much closer than what comes after them join images; images that many such
links join are a community, and patches of it that look normal only because of it stand for nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage

from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.mutual import lowest_mean, n_lowest

_FROM_ZERO = 1e30  # the rise of a score from 0, and the most that one rises
_COVERED = 0.8  # of the images have a link; the closest links that do it are taken

# Without distances where only scores are asked for.
Blocks = Iterable[tuple[IntArray, FloatArray | None]]


class SuspiciousLinks:
    """The links of patches to images that are closest beside what comes after them.

    Parameters
    ----------
    others : ndarray of shape (n_images, n_images), bool
        Which images an image is compared to.
    share : float
        The distance that links are measured by is that to the last image of this share of them.
    """

    def __init__(self, others: NDArray[np.bool_], share: float) -> None:
        self.others, self.share = others, share
        self.closest = np.full(len(others), np.inf)  # ratio of a link of each image
        self.pairs = np.empty((0, 2), dtype=np.intp)
        self.ratios = np.empty(0, dtype=np.float32)

    def add(self, image: int, distances: FloatArray) -> None:
        """Take the links of the patches of an image.

        Parameters
        ----------
        image : int
            Its number.
        distances : ndarray of shape (n_tokens, n_images)
            Of its patches that are not masked.
        """
        numbers = np.flatnonzero(self.others[image])
        count = n_lowest(len(numbers), self.share)
        if count < 2:
            return
        order = np.argsort(distances[:, numbers], axis=1, kind="stable")[:, :count]
        lowest = np.take_along_axis(distances[:, numbers], order, axis=1)
        last = np.where(lowest[:, -1:] > 0, lowest[:, -1:], 1)
        ratios = np.where(lowest[:, -1:] > 0, lowest[:, :-1] / last, 1).ravel()
        targets = numbers[order[:, :-1]].ravel()
        np.minimum.at(self.closest, targets, ratios)
        self.closest[image] = min(self.closest[image], ratios.min())
        # The bound only falls, as more links are known.
        kept = ratios <= self.bound
        found = np.stack([np.full(kept.sum(), image), targets[kept]], axis=1)
        self.pairs = np.concatenate([self.pairs, found])
        self.ratios = np.concatenate([self.ratios, ratios[kept].astype(np.float32)])
        kept = self.ratios <= self.bound
        self.pairs, self.ratios = self.pairs[kept], self.ratios[kept]

    @property
    def bound(self) -> np.float32:
        """The ratio up to which links are taken, so that the share of images has one."""
        return np.float32(np.quantile(self.closest, _COVERED, method="inverted_cdf"))

    def communities(self) -> list[IntArray]:
        """Images that more and closer links join than half of what joins those of a usual link.

        Returns
        -------
        list of ndarray of int
            Numbers of the images of each, ascending.
        """
        n_images = len(self.others)
        weights = np.zeros((n_images, n_images))
        # Multiples of a power of two: sums do not depend on the order of the images.
        closeness = np.rint((1 - self.ratios / np.float64(1 + self.bound)) * 2.0**24)
        np.add.at(weights, tuple(self.pairs.T), closeness)
        between = (weights + weights.T)[np.triu_indices(n_images, 1)]
        if not between.any():
            return []
        # Half of what joins the two images of a link, in the mean over all links.
        least = 0.5 * (between**2).sum() / between.sum()
        tree = linkage(between.max() - between, "average")
        label = fcluster(tree, between.max() - least, "distance")
        found = [np.flatnonzero(label == number) for number in np.unique(label)]
        return [images for images in found if len(images) > 1]


def consistent_patches(
    tokens: PatchTokens,
    others: NDArray[np.bool_],
    share: float,
    blocks: Callable[[], Blocks],
) -> NDArray[np.bool_]:
    """Patches that look normal because of a few images that share something.

    Parameters
    ----------
    tokens : PatchTokens
        Without views.
    others : ndarray of shape (n_images, n_images), bool
        Which images an image is compared to.
    share : float
        As of :class:`SuspiciousLinks`.
    blocks : callable
        Iterates over images: their numbers, and the distances of their patches to every image.

    Returns
    -------
    ndarray of shape (n_tokens,), bool
        Patches of communities of images whose score rises, when the rest of the community does not
        count, by more than the upper quartile of the community's patches and one and a half times
        the distance of the quartiles.
    """
    links = SuspiciousLinks(others, share)
    for image, distances in _images(tokens, blocks()):
        links.add(image, distances[tokens.valid[tokens.rows(image)]])
    communities = links.communities()
    excluded = np.zeros(len(tokens.values), dtype=bool)
    if not communities:
        return excluded
    of_image = np.full(tokens.n_images, -1)
    for number, images in enumerate(communities):
        of_image[images] = number
    rises = np.full(len(excluded), -np.inf)
    for image, distances in _images(tokens, blocks()):
        if of_image[image] < 0:
            continue
        valid, strangers = tokens.valid[tokens.rows(image)], others[image].copy()
        strangers[communities[of_image[image]]] = False
        if strangers.any():
            before, after = (
                lowest_mean(distances[valid], who, share) for who in (others[image], strangers)
            )
            # Where all are at distance 0, none rises.
            rise = after / np.where(
                before > 0, before, np.where(after > 0, np.finfo(float).tiny, 1)
            )
            rises[tokens.offsets[image] + np.flatnonzero(valid)] = np.minimum(rise, _FROM_ZERO)
    of_row = of_image[tokens.image_of_row()]
    for number in range(len(communities)):
        rows = np.flatnonzero((of_row == number) & np.isfinite(rises))
        if len(rows):
            low, high = np.quantile(rises[rows], [0.25, 0.75])
            excluded[rows[rises[rows] > high + 1.5 * (high - low)]] = True
    return excluded


def _images(tokens, blocks):
    """Image by image of what comes in blocks of them."""
    for images, distances in blocks:
        assert distances is not None
        start = tokens.offsets[images[0]]
        for image in images:
            rows = tokens.rows(image)
            yield int(image), distances[rows.start - start : rows.stop - start]
