"""From patch scores to heat maps in a graph."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from skanomaly.deployment._graph import Graph

SIGMA = 4.0  # of `anomaly_maps`, in pixels of the map
_FLOAT, _DOUBLE = 1, 11  # as ONNX numbers them


def maps_graph(
    graph: Graph,
    patch_scores: str,
    size: tuple[int, int] | None,
    *,
    image: str | None = None,
    sigma: float = SIGMA,
) -> str:
    """Add the nodes of :func:`skanomaly.anomaly_maps`.

    Parameters
    ----------
    graph : Graph
    patch_scores : str
        Of float32 (batch, grid_h, grid_w).
    size : tuple of int or None
        ``(height, width)`` of the maps; None for that of `image`.
    image : str or None, default=None
        Of uint8 (batch, height, width, 3); needed without `size`.
    sigma : float, default=4.0
        Standard deviation of the Gaussian in pixels; 0 for none.

    Returns
    -------
    str
        Of float32 (batch, height, width).

    Raises
    ------
    ValueError
        When neither `size` nor `image` says how large the maps are.

    Notes
    -----
    What makes rows and columns of a map of those of the grid is computed in the graph, from the
    shapes. Where these are fixed ONNX Runtime does it once, when it loads the model.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.deployment._graph import Graph
    >>> from skanomaly.deployment._maps import maps_graph
    >>> graph = Graph()
    >>> scores = graph.input("scores", np.float32, ["batch", 8, 8])
    >>> graph.output(maps_graph(graph, scores, (60, 64)), "map", np.float32, ["batch", 60, 64])
    """
    if size is None and image is None:
        raise ValueError("maps of images of any size need the image")
    operators = []
    for axis in (0, 1):
        n_cells = _length(graph, patch_scores, axis + 1)
        if size is not None:
            n_pixels = _integer(graph, size[axis])
        else:
            n_pixels = _length(graph, str(image), axis + 1)
        operators.append(_operator(graph, n_cells, n_pixels, sigma))
    rows, columns = operators
    across = graph.op("MatMul", patch_scores, graph.op("Transpose", columns, perm=[1, 0]))
    maps = graph.op("MatMul", rows, across)
    # Rounding may leave the range of the grid, which a map must not.
    sides = graph.constant(np.array([1, 2]))
    lowest, highest = (
        graph.op(kind, patch_scores, sides, keepdims=1) for kind in ("ReduceMin", "ReduceMax")
    )
    return graph.op("Min", graph.op("Max", maps, lowest), highest)


def _operator(graph: Graph, n_cells: str, n_pixels: str, sigma: float) -> str:
    """(n_pixels, n_cells): linear interpolation, then the blur, along one axis.

    As :func:`skanomaly.core.maps.map_operator`, whose rows it also has for the pixels beyond the
    borders, which the blur reaches: reflections of those inside.
    """
    reach = int(4 * sigma + 0.5)  # of SciPy
    places = graph.op(
        "Range",
        _integer(graph, -reach),
        graph.op("Add", n_pixels, _integer(graph, reach)),
        _integer(graph, 1),
    )
    twice = graph.op("Add", n_pixels, n_pixels)
    places = graph.op("Mod", places, twice)
    last = graph.op("Sub", twice, _integer(graph, 1))
    places = graph.op("Min", places, graph.op("Sub", last, places))
    ratio = graph.op("Div", _double(graph, n_cells), _double(graph, n_pixels))
    half, zero, one = (graph.constant(np.float64(value)) for value in (0.5, 0, 1))
    centres = graph.op("Mul", graph.op("Add", _double(graph, places), half), ratio)
    centres = graph.op("Max", graph.op("Sub", centres, half), zero)
    cells = _double(graph, graph.op("Range", _integer(graph, 0), n_cells, _integer(graph, 1)))
    centres = graph.op("Min", centres, graph.op("Sub", _double(graph, n_cells), one))
    centres = graph.op("Unsqueeze", centres, graph.constant(np.array([1])))
    distance = graph.op("Abs", graph.op("Sub", centres, cells))
    operator = graph.op("Max", graph.op("Sub", one, distance), zero)
    operator = graph.op("Cast", operator, to=_FLOAT)
    if reach == 0:
        return operator
    impulse = np.zeros(2 * reach + 1)
    impulse[reach] = 1
    kernel = gaussian_filter1d(impulse, sigma).astype(np.float32).reshape(1, 1, -1, 1)
    outer = graph.constant(np.array([0, 1]))
    blurred = graph.op("Conv", graph.op("Unsqueeze", operator, outer), graph.constant(kernel))
    return graph.op("Squeeze", blurred, outer)


def _length(graph: Graph, value: str, axis: int) -> str:
    """How long a value is along an axis, of int64 and without dimensions."""
    shape = graph.op("Shape", value, start=axis, end=axis + 1)
    return graph.op("Squeeze", shape, graph.constant(np.array([0])))


def _integer(graph: Graph, value: int) -> str:
    return graph.constant(np.int64(value))


def _double(graph: Graph, value: str) -> str:
    return graph.op("Cast", value, to=_DOUBLE)
