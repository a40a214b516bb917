"""Why a patch has its score: what a scorer can say of it, without images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.gaussian import PatchGaussian

PromptKind = Literal["normal", "anomaly"]
Kind = Literal["neighbors", "components", "prompts", "members"]


@dataclass(frozen=True)
class NeighborPatch:
    """A patch of the training images that is near the explained one.

    Parameters
    ----------
    image_number : int
        Number of its image in the X of `fit`.
    view : int
        Number of its view; 0 is the image itself.
    row, column : int
        Its place in the grid of that view.
    grid : tuple of int
        ``(grid_h, grid_w)`` of that view.
    distance : float
        From the explained patch.

    Examples
    --------
    >>> from skanomaly.base import NeighborPatch
    >>> near = NeighborPatch(3, view=0, row=1, column=2, grid=(4, 4), distance=0.5)
    >>> near.image_number, near.distance
    (3, 0.5)
    """

    image_number: int
    view: int
    row: int
    column: int
    grid: tuple[int, int]
    distance: float


@dataclass(frozen=True)
class Component:
    """What one component of a token adds to a squared distance from normal patches.

    To the squared Mahalanobis distance from a Gaussian, or the squared distance from a subspace.

    Parameters
    ----------
    number : int
        Of the component of the token, or of the principal axis.
    name : str
        What it is. ``"component 3"``, with the `number` of the component, is shown as the name that
        the embedder has for it, where it has one.
    deviation : float
        From the mean of normal patches, or from their subspace, in standard deviations of these.
    contribution : float
        To the squared distance; of all components they sum to it. Negative where the component
        deviates as others would have one expect.

    Examples
    --------
    >>> from skanomaly.base import Component
    >>> Component(3, "component 3", deviation=-2.0, contribution=4.0).contribution
    4.0
    """

    number: int
    name: str
    deviation: float
    contribution: float


@dataclass(frozen=True)
class Prompt:
    """How near a patch is to a text.

    Attributes
    ----------
    text : str
        The prompt, or which of the given features it is.
    kind : {"normal", "anomaly"}
        What it describes.
    cosine : float
        Between its feature and the embedding of the patch.
    """

    text: str
    kind: PromptKind
    cosine: float


@dataclass(frozen=True)
class Member:
    """What a member of a union says of a patch.

    Attributes
    ----------
    name : str
        Of the scorer in the union.
    score : float
        Its own patch score.
    scaled : float
        That on the common scale.
    contribution : float
        To the union's score: weighted; of a maximum, the highest alone counts.
    """

    name: str
    score: float
    scaled: float
    contribution: float


@dataclass(frozen=True)
class PatchExplanation:
    """What a scorer says of one patch, by its method `explain_patch`.

    A scorer of your own returns one from ``_explain_row(tokens, row, n_neighbors)``, of the kind
    ``"neighbors"`` or ``"components"``.

    Parameters
    ----------
    kind : {"neighbors", "components", "prompts", "members"}
        Which of the following there is.
    neighbors : tuple of NeighborPatch, default=()
        The nearest first.
    components : tuple of Component, default=()
        That of the highest contribution first.
    prompts : tuple of Prompt, default=()
        Of scorers that compare to texts: the nearest first.
    members : tuple of Member, default=()
        Of unions: that of the highest contribution first, of a maximum that of the highest scaled
        score; what the first one says is in the others of these, where it explains its scores.
    note : str, default=""
        What has to be known to read it; empty if nothing.

    Examples
    --------
    >>> from skanomaly.base import Component, PatchExplanation
    >>> colour = Component(3, "component 3", deviation=-2.0, contribution=4.0)
    >>> PatchExplanation("components", components=(colour,)).kind
    'components'
    """

    kind: Kind
    neighbors: tuple[NeighborPatch, ...] = ()
    components: tuple[Component, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    members: tuple[Member, ...] = ()
    note: str = ""


def squared_contributions(
    gaussian: PatchGaussian, token: FloatArray, position: int
) -> tuple[FloatArray, FloatArray]:
    """The squared Mahalanobis distance of a patch, by the components of its token.

    Parameters
    ----------
    gaussian : PatchGaussian
        Of several positions, or of one that serves all.
    token : ndarray of shape (dim,)
        Finite.
    position : int
        Of the patch.

    Returns
    -------
    deviations : ndarray of shape (dim,), float64
        From the mean, in standard deviations of the Gaussian.
    contributions : ndarray of shape (dim,), float64
        ``d * (S^-1 d)``, where `d` is the deviation and `S` the covariance: they sum to the
        squared distance, as of :func:`skanomaly.core.gaussian.mahalanobis`. A component that
        deviates against those that it goes with adds more than one that deviates with them, which
        may take away from the sum.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.explanations import squared_contributions
    >>> from skanomaly.core.gaussian import PatchGaussian
    >>> gaussian = PatchGaussian(np.zeros((1, 2)), np.ones(2), np.diag([1.0, 0.5])[None])
    >>> squared_contributions(gaussian, np.array([3.0, 4.0]), 0)
    (array([3., 2.]), array([9., 4.]))
    """
    position = position if len(gaussian.mean) > 1 else 0
    whitening = gaussian.whitening[position].astype(np.float64)
    deviation = (token.astype(np.float64) - gaussian.mean[position]) / gaussian.scale
    white = deviation @ whitening
    spread = np.sqrt(np.square(np.linalg.inv(whitening)).sum(axis=0))
    return deviation / spread, deviation * (whitening @ white)


def grid_sides(grids: Sequence[tuple[int, ...]]) -> IntArray:
    """Rows and columns of each image's patches; patches without a grid are a row of it.

    Parameters
    ----------
    grids : sequence of tuple
        As of :class:`skanomaly.base.PatchTokens`.

    Returns
    -------
    ndarray of shape (n_images, 2), int
    """
    return np.array([g if len(g) == 2 else (1, int(np.prod(g))) for g in grids], dtype=np.int64)


def place_of_row(
    row: int, offsets: IntArray, sides: IntArray
) -> tuple[int, int, int, int, tuple[int, int]]:
    """Where a row of a table of patch tokens comes from.

    Parameters
    ----------
    row : int
        Of the tokens of all images, as in :class:`skanomaly.base.PatchTokens`.
    offsets : ndarray of shape (n_images + 1,), int
        Where the rows of each image start.
    sides : ndarray of shape (n_images, 2), int
        As from :func:`grid_sides`.

    Returns
    -------
    image, view, row, column : int
        Numbers of the image and of its view, and the place in the grid.
    grid : tuple of int
        ``(grid_h, grid_w)`` of the image.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.explanations import grid_sides, place_of_row
    >>> place_of_row(11, np.array([0, 6, 12]), grid_sides([(2, 3), (2, 3)]))
    (1, 0, 1, 2, (2, 3))
    """
    image = int(np.searchsorted(offsets, row, side="right")) - 1
    height, width = (int(side) for side in sides[image])
    view, place = divmod(int(row - offsets[image]), height * width)
    return image, view, *divmod(place, width), (height, width)
