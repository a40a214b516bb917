"""In what space patch tokens are compared: which components, which metric, and where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skanomaly._faults import of_an_image
from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.prepared import PreparedRows
from skanomaly.core.search.brute_force import prepare_bank


@dataclass(frozen=True)
class TokenSpace:
    """How a part of each token is compared.

    Parameters
    ----------
    first, stop : int
        The components of the token that count, ``first`` to ``stop - 1``.
    metric : {"cosine", "euclidean"}
    position_weight : float, default=0.0
        What a place that is one row or column away costs. The places are appended to the tokens,
        so that one exact search finds what is nearest in both.

    Notes
    -----
    With places, the cosine distance of unit vectors is half their squared Euclidean distance, to
    which appended coordinates add half of theirs. Rows of zeros, which are at distance 1 from all
    others, get a coordinate of their own that says just that.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.token_space import TokenSpace
    >>> space = TokenSpace(0, 2, "cosine", position_weight=1.0)
    >>> space.prepare(np.array([[3.0, 4.0, 9.0]]), places=np.array([[0.5, 0.25]]))
    array([[0.6 , 0.8 , 0.  , 0.5 , 0.25]])
    >>> space.distances(np.array([2.0]))
    array([2.])
    """

    first: int
    stop: int
    metric: str
    position_weight: float = 0.0

    @property
    def search_metric(self) -> str:
        """The metric in which prepared rows are searched."""
        return "euclidean" if self.position_weight else self.metric

    def prepare(
        self,
        values: FloatArray,
        rows: IntArray | None = None,
        places: FloatArray | None = None,
    ) -> FloatArray:
        """Rows of tokens as the search wants them.

        Parameters
        ----------
        values : ndarray of shape (n, dim)
            Finite tokens, but for those that `rows` leaves out.
        rows : ndarray of int, optional
            Only these rows.
        places : ndarray of shape (n, 2), optional
            Where the tokens lie; needed with a weight of the position.

        Returns
        -------
        ndarray of shape (n_rows, n_components)
            C-contiguous, of the dtype of `values`.
        """
        tokens = prepare_bank(self._part(values), self.metric, rows)
        if not self.position_weight or places is None:
            return np.ascontiguousarray(tokens)
        columns: list[FloatArray] = [tokens]
        if self.metric == "cosine":
            is_zero = np.logical_not(tokens.any(axis=1))
            columns.append(is_zero[:, None].astype(values.dtype))
        columns.append(self.position_weight * (places if rows is None else places[rows]))
        return np.concatenate(columns, axis=1, dtype=values.dtype)

    def lazy(
        self, values: FloatArray, rows: IntArray | None, places: FloatArray | None
    ) -> FloatArray | PreparedRows:
        """As :meth:`prepare`, without a copy of all rows where there can be none."""
        if self.position_weight:
            return self.prepare(values, rows, places)
        return PreparedRows(self._part(values), self.metric, rows)

    def distances(self, found: FloatArray) -> FloatArray:
        """Distances in this space, from those that a search of prepared rows found."""
        if self.position_weight and self.metric == "cosine":
            return 0.5 * found * found
        return found

    def _part(self, values):
        whole = self.first == 0 and self.stop == values.shape[1]
        return values if whole else values[:, self.first : self.stop]


def places_in_grids(
    grids: Sequence[tuple[int, ...]],
    n_views: int = 1,
    flat_grid: tuple[int, ...] | None = None,
    first: int = 0,
) -> FloatArray:
    """Where each patch lies: its row and column.

    Parameters
    ----------
    grids : sequence of tuple
        Of the images, as of :class:`skanomaly.base.PatchTokens`.
    n_views : int, default=1
        Of each image.
    flat_grid : tuple of int, optional
        The grid of patches that come without one, as far as they are as many.
    first : int, default=0
        Number of the first image, for the message.

    Returns
    -------
    ndarray of shape (n_rows, 2), float64
        Counted from the upper left corner, so that masked patches at the other end of an image do
        not move the others.

    Raises
    ------
    ValueError
        Where patches have no grid.

    Examples
    --------
    >>> from skanomaly.core.token_space import places_in_grids
    >>> places_in_grids([(1, 2)])
    array([[0., 0.],
           [0., 1.]])
    """
    places = []
    for number, grid in enumerate(grids):
        size = int(np.prod(grid))
        if len(grid) != 2 and size == 1:
            grid = (1, 1)
        elif len(grid) != 2 and flat_grid is not None and int(np.prod(flat_grid)) == size:
            grid = flat_grid
        if len(grid) != 2:
            raise of_an_image(
                ValueError(
                    f"image {first + number} has {size} patches without a grid: where they lie is "
                    "known of tokens of shape (n_images, grid_h, grid_w, dim) only"
                )
            )
        one = np.indices(grid, dtype=np.float64).reshape(2, -1).T
        places += [one] * n_views
    return np.concatenate(places)
