"""From images to patch tokens in a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from skanomaly._networks.tiny import load_tiny
from skanomaly.deployment._filter_bank import filter_bank_tokens
from skanomaly.deployment._graph import Graph
from skanomaly.deployment._networks import tiny_network_tokens, torch_network_tokens
from skanomaly.deployment._resizing import resized
from skanomaly.deployment._resizing_any import resized_of_any_size
from skanomaly.embedders import (
    DinoV2Patches,
    FilterBankPatches,
    OpenClipPatches,
    TimmPatches,
    TinyPatches,
)
from skanomaly.embedders._torch_base import TorchPatches
from skanomaly.preprocessing import PCAForeground, RegionOfInterest


def tokens_graph(graph: Graph, embedder: Any, image: str, size: tuple[int, int] | None) -> str:
    """Add the nodes that make patch tokens of images.

    Parameters
    ----------
    graph : Graph
    embedder : embedder
        One of those of this package that are fixed filters or networks.
    image : str
        Of uint8 (batch, height, width, 3).
    size : tuple of int or None
        ``(height, width)`` of the images; None where they may be of any.

    Returns
    -------
    str
        Of float32 (batch, grid_h, grid_w, dim): what the embedder gives for the same images.

    Raises
    ------
    ValueError
        When the embedder has no form in a graph; the message says what to do.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly import FilterBankPatches
    >>> from skanomaly.deployment._graph import Graph
    >>> from skanomaly.deployment._images import tokens_graph
    >>> graph = Graph()
    >>> image = graph.input("image", np.uint8, ["batch", 100, 80, 3])
    >>> tokens = tokens_graph(graph, FilterBankPatches(image_size=64), image, (100, 80))
    >>> graph.output(tokens, "tokens", np.float32, ["batch", 8, 8, 102])
    """
    name = type(embedder).__name__
    nodes = _NODES.get(type(embedder))
    if nodes is None:
        raise ValueError(
            f"{name} has no form in a graph, which holds fixed filters and networks alone; those "
            f"that have one are {', '.join(sorted(kind.__name__ for kind in _NODES))}"
        )
    if embedder.value_range is not None:
        raise ValueError(
            f"value_range={embedder.value_range!r} of {name} is for images of more than 8 bits, "
            "and a graph takes those of 8 bits; bring images to 8 bits before fitting, and leave "
            "value_range=None"
        )
    embedder._validate_params()
    interpolation = embedder._interpolation()
    if size is not None:
        new_size = embedder._size_of(np.empty((*size, 0)), 0)
        x = resized(graph, image, size, new_size, interpolation, embedder._resize)
    elif embedder.resize == "squash":
        new_size = embedder._input_size(1, 1)
        by_torch = isinstance(embedder, TorchPatches)
        x = resized_of_any_size(graph, image, new_size, interpolation, by_torch)
    else:
        raise ValueError(
            f"resize={embedder.resize!r} of {name} makes another grid of images of another size, "
            "and that of a graph is fixed: export for a fixed size, or fit with resize='squash'"
        )
    return nodes(graph, embedder, x, new_size)


def transformed_graph(graph: Graph, transformer: Any, tokens: str, grid: tuple[int, int]) -> str:
    """Add the nodes of a transformer of patch tokens.

    Parameters
    ----------
    graph : Graph
    transformer : transformer
        Fitted; a step between embedder and scorer.
    tokens : str
        Of float32 (batch, grid_h, grid_w, dim).
    grid : tuple of int
        ``(grid_h, grid_w)``.

    Returns
    -------
    str
        Of float32 (batch, grid_h, grid_w, dim), masked patches NaN.

    Raises
    ------
    ValueError
        When the transformer has no form in a graph; the message says what to do.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly import RegionOfInterest
    >>> from skanomaly.deployment._graph import Graph
    >>> from skanomaly.deployment._images import transformed_graph
    >>> left = RegionOfInterest([(0, 0), (0.5, 0), (0.5, 1), (0, 1)])
    >>> left = left.fit(np.ones((1, 4, 4, 3)))
    >>> graph = Graph()
    >>> tokens = graph.input("tokens", np.float32, ["batch", 4, 4, 3])
    >>> masked = transformed_graph(graph, left, tokens, (4, 4))
    """
    if type(transformer) is RegionOfInterest:
        outside = graph.constant(transformer._outside(grid).reshape(*grid, 1))
        return graph.op("Where", outside, graph.constant(np.float32(np.nan)), tokens)
    reason = "which is no transformer that a graph can hold"
    if type(transformer) is PCAForeground:
        reason = "which looks for the foreground of each image by an analysis that no graph holds"
    raise ValueError(
        f"between embedder and scorer stands a {type(transformer).__name__}, {reason}; leave it "
        "out, or mask by a RegionOfInterest, which is the same in all images"
    )


def _of_filters(graph: Graph, embedder: Any, x: str, size: tuple[int, int]) -> str:
    return filter_bank_tokens(graph, x, size, embedder._cell())


def _of_tiny_network(graph: Graph, embedder: Any, x: str, size: tuple[int, int]) -> str:
    network = load_tiny(embedder.weights).network
    return tiny_network_tokens(graph, x, network, int(embedder.grid))


def _of_torch(graph: Graph, embedder: TorchPatches, x: str, size: tuple[int, int]) -> str:
    network = embedder._network()
    plan = embedder._plan(network)
    if plan.reduced:
        raise ValueError(
            f"{type(embedder).__name__} of {network.name} computes in {plan.dtype}, and a graph in "
            "float32, whose tokens are others: fit with dtype='float32'"
        )
    return torch_network_tokens(graph, x, network, size)


_NODES: dict[type, Callable[[Graph, Any, str, tuple[int, int]], str]] = {
    FilterBankPatches: _of_filters,
    TinyPatches: _of_tiny_network,
    TimmPatches: _of_torch,
    DinoV2Patches: _of_torch,
    OpenClipPatches: _of_torch,
}
