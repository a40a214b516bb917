"""What the local scorer learns, and the places of the patches of images of any grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skanomaly._faults import of_an_image
from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.local_bank import LocalBank
from skanomaly.core.local_places import nearest_places, reference_grid


@dataclass(frozen=True)
class LocalModel:
    """Patches of normal images by their place.

    Attributes
    ----------
    bank : LocalBank
    grid : tuple of int
        Of the training images, or the one to which theirs are brought; ``(patches,)`` where they
        have none.
    group_of_image : ndarray of shape (n_images,), int
        Number of the group of each training image.
    n_views : int
        Images of the bank for each training image.
    sides : ndarray of shape (n_images, 2), int
        Rows and columns of each training image's patches.
    lengths : ndarray of shape (n_rows,), float64, or None
        Of the tokens of all training images and views, where the bank has them of unit length
        though more images would be compared otherwise.
    """

    bank: LocalBank
    grid: tuple
    group_of_image: IntArray
    n_views: int
    sides: IntArray
    lengths: FloatArray | None = None


def reference_of(tokens: PatchTokens, radius: int) -> tuple:
    """The grid of places, for training images of one grid or several."""
    grids = {grid or (1,) for grid in tokens.grids}
    if all(len(grid) == 2 for grid in grids):
        return reference_grid(sorted(grids))
    if len(grids) > 1:
        raise ValueError(
            f"places need tokens of shape (grid_h, grid_w, dim), or one number of patches "
            f"without a grid, got images of the grids {sorted(grids)}"
        )
    (grid,) = grids
    if grid != (1,) and radius > 0:
        raise ValueError(
            f"radius={radius} needs the grid of the images: tokens of shape (n_images, "
            f"grid_h, grid_w, dim), got {grid[0]} patches an image; or take radius=0"
        )
    return grid


def rows_of_places(tokens: PatchTokens, sides: tuple[int, int]) -> IntArray:
    """Where the patch of each image, or view of one, is that lies at each place."""
    rows = []
    for i, grid in enumerate(tokens.grids):
        own = grid if len(grid) == 2 else (1, int(np.prod(grid)))
        patches, n_patches = nearest_places(sides, own), own[0] * own[1]
        first = tokens.offsets[i] + n_patches * np.arange(tokens.n_views)
        rows.append(first[:, None] + patches)
    return np.concatenate(rows)


def values_of(model: LocalModel, layout: PatchTokens) -> FloatArray:
    """The tokens of the training images, as far as a model of one grid has them.

    Parameters
    ----------
    model : LocalModel
        Of all components, not thinned.
    layout : PatchTokens
        The training images.

    Returns
    -------
    ndarray of shape (n_rows, dim), float32
        Off by what the rounding of standardised components to float32 leaves; of unit length where
        that is how they are compared. NaN for masked ones.
    """
    bank = model.bank
    sides = model.grid if len(model.grid) == 2 else (1, model.grid[0])
    rows = rows_of_places(layout, sides)[bank.sources[0]]
    values = np.full((len(layout.valid), bank.units.dim), np.nan, dtype=np.float32)
    for place, tokens in enumerate(bank.tokens):
        valid, at = bank.valid[place], rows[:, place]
        found = tokens[valid] * bank.units.scale + bank.units.centre
        if model.lengths is not None:
            found *= model.lengths[at[valid], None]
        values[at[valid]] = found
    return values


def places_of(model: LocalModel, tokens: PatchTokens) -> IntArray:
    """The place of each row of tokens."""
    places = {grid: _places_of_grid(model, grid, tokens) for grid in set(tokens.grids)}
    return np.concatenate([places[grid] for grid in tokens.grids])


def _places_of_grid(model, grid, tokens):
    n_places = len(model.bank.tokens)
    if len(grid) == 2 and len(model.grid) == 2:
        return nearest_places(grid, model.grid)
    if int(np.prod(grid)) == n_places and (len(grid) < 2 or n_places == 1):
        return np.arange(n_places)
    raise of_an_image(
        ValueError(
            f"image {tokens.first + tokens.grids.index(grid)} has the grid {grid}, the "
            f"training images had {model.grid}: places are compared between grids of rows "
            "and columns, or of the same number of patches"
        )
    )
