"""An explanation: which patch, and what it is compared to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from skanomaly._typing import ImageLike
from skanomaly.core.explanations import Component, Kind, Member, Prompt
from skanomaly.inspection._regions import Region

Box = tuple[int, int, int, int]

_SHOWN = 5  # components in the text of an explanation


def patch_box(row: int, column: int, grid: tuple[int, int], size: tuple[int, int]) -> Box:
    """The pixels of an image that a patch stands for.

    Parameters
    ----------
    row, column : int
        The patch.
    grid : tuple of int
        ``(grid_h, grid_w)``.
    size : tuple of int
        ``(height, width)`` of the image.

    Returns
    -------
    tuple of int
        ``(x, y, width, height)``; boxes of neighbouring patches join without a gap. A pixel belongs
        to the patch that its upper left corner lies in; a patch that no corner lies in stands for
        the pixel around it.

    Examples
    --------
    >>> from skanomaly.inspection import patch_box
    >>> patch_box(1, 2, grid=(4, 4), size=(100, 200))
    (100, 25, 50, 25)
    """
    (top, height), (left, width) = (
        _pixels_of(*of_axis) for of_axis in zip((row, column), grid, size, strict=True)
    )
    return left, top, width, height


def _pixels_of(index, n, side):
    """The first of the pixels for which ``pixel * n // side`` is `index`, and their number."""
    first, end = -(-index * side // n), -(-(index + 1) * side // n)
    return (first, end - first) if end > first else (index * side // n, 1)


@dataclass(frozen=True)
class NearestPatch:
    """A patch of the training images that is near the explained one.

    Parameters
    ----------
    image_number : int
        Number of its image in the X of `fit`.
    path : str or None
        Where the image lies; None where it was given as no path, or paths are not kept.
    row, column : int
        Its place in the grid of the image, whatever view of it the patch is from.
    grid : tuple of int
        ``(grid_h, grid_w)`` of the image.
    distance : float
        From the explained patch.
    view : int, default=0
        Number of the view; 0 is the image itself.
    box : tuple of int or None, default=None
        ``(x, y, width, height)`` in pixels of the image; None where that is not at hand. See
        :meth:`box_in`.
    problem : str or None, default=None
        Why the file at `path` cannot be shown, such as that it is missing or has changed.

    Examples
    --------
    >>> from skanomaly.inspection import NearestPatch
    >>> near = NearestPatch(3, None, row=1, column=0, grid=(4, 4), distance=0.25)
    >>> near.box_in((64, 64))
    (0, 16, 16, 16)
    """

    image_number: int
    path: str | None
    row: int
    column: int
    grid: tuple[int, int]
    distance: float
    view: int = 0
    box: Box | None = None
    problem: str | None = None

    def box_in(self, size: tuple[int, int]) -> Box:
        """The patch in pixels of its image.

        Parameters
        ----------
        size : tuple of int
            ``(height, width)`` of the image.

        Returns
        -------
        tuple of int
            ``(x, y, width, height)``.
        """
        return patch_box(self.row, self.column, self.grid, size)


@dataclass(frozen=True)
class Explanation:
    """Why a place of an image is anomalous, or the least normal.

    Made by :func:`skanomaly.explain`.

    Parameters
    ----------
    kind : {"neighbors", "components", "prompts", "members"}
        What the scorer says; ``"members"`` of a union, whose first member says one of the others.
    image : image
        As it was given. It does not count when explanations are compared.
    size : tuple of int
        ``(height, width)`` of the image.
    region : Region or None
        The most anomalous region; None where the map is nowhere above the threshold of regions.
    row, column : int
        The explained patch: the one with the highest score in the region, or of all.
    grid : tuple of int
        ``(grid_h, grid_w)``.
    box : tuple of int
        ``(x, y, width, height)`` of the patch in pixels of the image.
    score : float
        Of the patch, as from `score_patches`: higher is more anomalous.
    neighbors : tuple of NearestPatch, default=()
        The nearest first.
    components : tuple of Component, default=()
        Of :mod:`skanomaly.core.explanations`, that of the highest contribution first. Of all
        components the contributions sum to the squared distance.
    prompts : tuple of Prompt, default=()
        The nearest first.
    members : tuple of Member, default=()
        That of the highest contribution first.
    note : str, default=""
        What has to be known to read it.

    Examples
    --------
    >>> from skanomaly import explain
    >>> from skanomaly import create_model
    >>> from skanomaly.datasets import make_surfaces
    >>> images = make_surfaces(6, 1, image_size=64, random_state=0).images
    >>> model = create_model("filterbank", scorer="knn", image_size=64).fit(images[:6])
    >>> explanation = explain(model, images[6])
    >>> explanation.kind, explanation.size, explanation.neighbors[0].image_number < 6
    ('neighbors', (64, 64), True)

    In words, of a file:

    >>> print(explain(pipe, "part.png"))  # doctest: +SKIP
    patch (12, 40), x 640-655, y 192-207, score 0.41
    in a region of 1830 pixels, x 611-672, y 170-224, peak 0.33
    nearest patch of the training images: /parts/good/17.png, x 640-655, y 208-223, distance 0.41
    """

    kind: Kind
    image: ImageLike = field(repr=False, compare=False)
    size: tuple[int, int]
    region: Region | None
    row: int
    column: int
    grid: tuple[int, int]
    box: Box
    score: float
    neighbors: tuple[NearestPatch, ...] = ()
    components: tuple[Component, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    members: tuple[Member, ...] = ()
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON.

        Returns
        -------
        dict of str to object
            All but the image; of the kinds that there are not, empty lists.
        """
        values: dict[str, Any] = {
            "kind": self.kind,
            "size": list(self.size),
            "region": None if self.region is None else self.region.to_dict(),
            "patch": {
                "row": self.row,
                "column": self.column,
                "grid": list(self.grid),
                "box": list(self.box),
                "score": self.score,
            },
            "note": self.note,
        }
        for name in ("neighbors", "components", "prompts", "members"):
            values[name] = [_plain(asdict(entry)) for entry in getattr(self, name)]
        return values

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """The explanation in words, line by line.

        Yields
        ------
        str
        """
        yield f"patch ({self.row}, {self.column}), {_place(self.box)}, score {self.score:.4g}"
        if self.region is None:
            yield "in no region: the map is nowhere above what good images show"
        else:
            yield (
                f"in a region of {self.region.area} pixels, {_place(self.region.box)}, peak "
                f"{self.region.peak:.4g}"
            )
        if self.members:
            shares = ", ".join(f"{m.name} {m.contribution:+.3g}" for m in self.members)
            says = any((self.neighbors, self.components, self.prompts))
            more = f"; {self.members[0].name} says:" if says else ""
            yield f"from the members of the union: {shares}{more}"
        for i, near in enumerate(self.neighbors):
            which = "nearest patch of the training images" if i == 0 else "next"
            where = f"image {near.image_number} of fit" if near.path is None else near.path
            place = (
                f"patch ({near.row}, {near.column}) of {near.grid[0]} x {near.grid[1]}"
                if near.box is None
                else _place(near.box)
            )
            problem = "" if near.problem is None else f" ({near.problem})"
            yield f"{which}: {where}{problem}, {place}, distance {near.distance:.4g}"
        for entry in self.components[:_SHOWN]:
            yield (
                f"{entry.name}: {entry.deviation:+.1f} sd, {entry.contribution:.4g} of the squared "
                "distance"
            )
        for kind in ("anomaly", "normal"):
            best = next((prompt for prompt in self.prompts if prompt.kind == kind), None)
            if best is not None:
                yield f"nearest {kind} text: {best.text!r}, cosine {best.cosine:.4f}"
        if self.note:
            yield f"({self.note})"


def _place(box):
    x, y, width, height = box
    return f"x {x}-{x + width - 1}, y {y}-{y + height - 1}"


def _plain(values):
    """Tuples as lists, and NumPy's numbers as Python's: scorers of others may give either."""
    return {
        key: [_number(entry) for entry in v] if isinstance(v, tuple) else _number(v)
        for key, v in values.items()
    }


def _number(value):
    return value.item() if isinstance(value, np.generic) else value
