"""A small convolutional network on NumPy alone: images to deep descriptors on a regular grid.

The weights are no part of it: `skanomaly._networks.tiny` reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from skanomaly.core.products import product

# By the patches along 256 pixels: the side, in cells of the network, of the window whose mean a
# patch is, and the step from one window to the next. Windows of three overlap.
_WINDOWS = {16: (2, 2), 32: (3, 1)}
GRIDS = tuple(_WINDOWS)
# Numbers that are copied together for one product: they stay in the processor's cache, and bound
# the memory for large images. Of the finest map so many times as many are made together.
_BAND = 2**17
_BANDS_OF_THE_FINEST = 16


@dataclass(frozen=True)
class Convolution:
    """A convolution; its input is padded by zeros, so that cells stay where they are.

    Attributes
    ----------
    weight : ndarray of shape (side * side * n_inputs, n_outputs), float32
        A row for each row of the kernel, column of it and channel, in this order.
    bias : ndarray of shape (n_outputs,), float32
        Added to the sums.
    side : int
        Of the kernel, in cells; odd.
    stride : int
        Cells from one place to the next.
    dilation : int
        Cells from one row of the kernel to the next.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    side: int
    stride: int
    dilation: int

    @property
    def padding(self) -> int:
        """Cells of zeros at each border."""
        return self.dilation * (self.side // 2)

    @property
    def n_inputs(self) -> int:
        """Channels that come in."""
        return len(self.weight) // self.side**2

    @property
    def n_outputs(self) -> int:
        """Channels that go out."""
        return len(self.bias)


@dataclass(frozen=True)
class TinyNetwork:
    """The layers of the network.

    Attributes
    ----------
    stem : tuple of Convolution
        Of stride 2 each; each is followed by a rectification.
    body : tuple of (Convolution, Convolution, Convolution)
        Residual blocks: to fewer channels, over neighbouring cells, and back.
    head : Convolution
        From the mean of some cells to the components of a token.
    """

    stem: tuple[Convolution, ...]
    body: tuple[tuple[Convolution, Convolution, Convolution], ...]
    head: Convolution

    @property
    def dilations(self) -> list[int]:
        """Of each block: the only thing that its tensors do not say."""
        return [spatial.dilation for _, spatial, _ in self.body]


def network_of(tensors: Mapping[str, ArrayLike], dilations: Sequence[int]) -> TinyNetwork:
    """The network of some tensors, whose shapes say how deep and how wide it is.

    Parameters
    ----------
    tensors : mapping of str to array-like
        ``stem.0.weight`` and so on of shape (side, side, n_inputs, n_outputs), ``stem.0.bias`` of
        shape (n_outputs,); ``body.0.reduce``, ``body.0.spatial``, ``body.0.expand`` and so on
        likewise; ``head.weight`` of shape (n_inputs, n_outputs) and ``head.bias``.
    dilations : sequence of int
        One of each block.

    Returns
    -------
    TinyNetwork
        In float32, whatever the precision of the tensors.

    Raises
    ------
    ValueError
        When a tensor is missing, left over, or of a shape that does not go with the others.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.tiny_network import network_of
    >>> tensors = {
    ...     "stem.0.weight": np.zeros((3, 3, 3, 8)),
    ...     "stem.0.bias": np.zeros(8),
    ...     "head.weight": np.zeros((8, 4)),
    ...     "head.bias": np.zeros(4),
    ... }
    >>> network_of(tensors, dilations=()).head.n_outputs
    4
    """
    left = {name: np.asarray(tensor, dtype=np.float32) for name, tensor in tensors.items()}

    def take(name, n_inputs, side=None, n_outputs=None, stride=1, dilation=1):
        try:
            weight, bias = left.pop(f"{name}.weight"), left.pop(f"{name}.bias")
        except KeyError as exc:
            raise ValueError(f"the tensor {exc.args[0]} is missing") from None
        if weight.ndim == 2:
            weight = weight[None, None]
        known = weight.shape if weight.ndim == 4 else (1, 1, n_inputs, 1)
        side = known[0] if side is None else side
        n_outputs = known[-1] if n_outputs is None else n_outputs
        wanted = (side, side, n_inputs, n_outputs)
        if weight.shape != wanted or bias.shape != (n_outputs,) or side % 2 == 0:
            raise ValueError(
                f"{name} has tensors of the shapes {weight.shape} and {bias.shape}, where "
                f"{wanted}, of odd sides, and {(n_outputs,)} would go with the others"
            )
        if dilation < 1:
            raise ValueError(f"{name} has the dilation {dilation}, of which 1 is the least")
        weight = np.ascontiguousarray(weight.reshape(-1, n_outputs))
        return Convolution(weight, bias, side, stride, int(dilation))

    stem = [take("stem.0", 3, stride=2)]
    while f"stem.{len(stem)}.weight" in left:
        stem.append(take(f"stem.{len(stem)}", stem[-1].n_outputs, stride=2))
    width = stem[-1].n_outputs
    body = []
    for number, dilation in enumerate(dilations):
        name = f"body.{number}"
        reduce = take(f"{name}.reduce", width, side=1)
        spatial = take(f"{name}.spatial", reduce.n_outputs, dilation=dilation)
        expand = take(f"{name}.expand", spatial.n_outputs, side=1, n_outputs=width)
        body.append((reduce, spatial, expand))
    head = take("head", width, side=1)
    if left:
        raise ValueError(f"there are tensors of no layer: {', '.join(sorted(left)[:3])}")
    return TinyNetwork(tuple(stem), tuple(body), head)


def tiny_tokens(image: ArrayLike, network: TinyNetwork, grid: int = 32) -> NDArray[np.float32]:
    """Deep descriptors of the patches of a regular grid.

    Parameters
    ----------
    image : array-like of shape (height, width, 3)
        RGB image: uint8, or floating point with values in [0, 1].
    network : TinyNetwork
        From :func:`network_of`.
    grid : {16, 32}, default=32
        Patches along 256 pixels: patches of 8 pixels, whose tokens are means of 3 by 3 overlapping
        cells, or of 16 pixels, means of 2 by 2 cells, where the network halves three times.

    Returns
    -------
    ndarray of shape (grid_h, grid_w, n_outputs), float32
        With ``grid_h = ceil(height / 8)`` for 32, half as many for 16; likewise for the width.
        Where a window reaches beyond the image, the mean is of the cells inside.

    Raises
    ------
    ValueError
        For another shape or dtype of the image, or another grid.

    Notes
    -----
    Convolutions are products of matrices, whose rows are copied together band by band. Besides
    the tokens the memory is that of the coarsest map, of half of it, and of some megabytes.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly._networks.tiny import load_tiny
    >>> from skanomaly.core.tiny_network import tiny_tokens
    >>> network = load_tiny("pretrained").network
    >>> tiny_tokens(np.zeros((60, 256, 3), dtype=np.uint8), network).shape
    (8, 32, 128)
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image must have shape (height, width, 3), got {image.shape}")
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"image must be uint8 or floating point, got {image.dtype}")
    if grid not in _WINDOWS:
        raise ValueError(f"grid must be one of {GRIDS}, got {grid!r}")
    cells = _cells(image, network.stem)
    for block in network.body:
        _add_block(cells, *block)
    return _tokens(cells, network.head, *_WINDOWS[grid])


def _cells(image, stem):
    """(grid_h, grid_w, channels) map of what the stem makes of an image."""
    steps = [2**number for number in range(len(stem) + 1)]
    height, width = (-(-side // steps[-1]) for side in image.shape[:2])
    cells = np.empty((height, width, stem[-1].n_outputs), dtype=np.float32)
    of_a_row = steps[-2] * width * steps[-2] * stem[0].n_outputs
    for rows in _bands(height, of_a_row, _BANDS_OF_THE_FINEST * _BAND):
        cells[rows] = _stem_rows(image, stem, rows.start, rows.stop)
    return cells


def _stem_rows(image, layers, start, stop):
    """Rows of the map of the last of some layers, from the rows of the image that they need."""
    if not layers:
        return _centred(image[start:stop])
    *before, layer = layers
    height = -(-len(image) // 2 ** len(before))
    first = layer.stride * start - layer.padding
    last = layer.stride * (stop - 1) - layer.padding + layer.side
    inside = _stem_rows(image, before, max(first, 0), min(last, height))
    above, beside = max(-first, 0), layer.padding
    width = inside.shape[1]
    padded = np.zeros((last - first, width + 2 * beside, layer.n_inputs), dtype=np.float32)
    padded[above : above + len(inside), beside : beside + width] = inside
    out = np.empty((stop - start, -(-width // layer.stride), layer.n_outputs), dtype=np.float32)
    for rows, columns in _columns(padded, layer):
        part = out[rows].reshape(len(columns), -1)
        product(columns, layer.weight, out=part)
        _rectify(part, layer.bias)
    return out


def _add_block(cells, reduce, spatial, expand):
    """Add to a map, in place, what a residual block makes of it."""
    height, width, _ = cells.shape
    margin = spatial.padding
    size = (height + 2 * margin, width + 2 * margin, reduce.n_outputs)
    padded = np.zeros(size, dtype=np.float32)
    inside = padded[margin : margin + height, margin : margin + width]
    for rows in _bands(height, width * reduce.n_inputs, _BAND):
        part = cells[rows]
        reduced = product(part.reshape(-1, reduce.n_inputs), reduce.weight)
        reduced += reduce.bias
        np.maximum(reduced.reshape(*part.shape[:2], -1), 0, out=inside[rows])
    for rows, columns in _columns(padded, spatial):
        part = cells[rows].reshape(len(columns), -1)
        part += product(_rectify(product(columns, spatial.weight), spatial.bias), expand.weight)
        _rectify(part, expand.bias)


def _tokens(cells, head, side, step):
    """Means of square windows of a map, and what the head makes of them."""
    height, width = (-(-n // step) for n in cells.shape[:2])
    tokens = np.empty((height, width, head.n_outputs), dtype=np.float32)
    for rows in _bands(height, step * cells.shape[1] * head.n_inputs, _BAND):
        means = _window_means(cells, side, step, rows.start, rows.stop)
        # Of the columns as of the rows: a window is the product of both.
        means = _window_means(means.swapaxes(0, 1), side, step, 0, width).swapaxes(0, 1)
        part = tokens[rows].reshape(-1, head.n_outputs)
        product(np.ascontiguousarray(means).reshape(len(part), -1), head.weight, out=part)
        part += head.bias
    return tokens


def _window_means(cells, side, step, start, stop):
    """Means over some windows along the first axis, each of the cells that are there."""
    n = len(cells)
    # A window of odd side lies around its cell, one of even side begins there.
    first = step * np.arange(start, stop) - (side - 1) // 2
    count = np.minimum(first + side, n) - np.maximum(first, 0)
    means = np.zeros((stop - start, *cells.shape[1:]), dtype=np.float32)
    for offset in range(side):
        there = np.flatnonzero((first + offset >= 0) & (first + offset < n))
        if len(there):
            low, high = there[0], there[-1] + 1
            source = first[low] + offset
            means[low:high] += cells[source : source + step * (high - low) : step]
    means /= count.astype(np.float32).reshape(-1, *[1] * (cells.ndim - 1))
    return means


def _centred(pixels):
    """Pixels as the network was trained to see them: float32 in [-2, 2]."""
    if pixels.dtype == np.uint8:
        return pixels * np.float32(4 / 255) - np.float32(2)
    return pixels.astype(np.float32) * np.float32(4) - np.float32(2)


def _columns(
    padded: NDArray[np.float32], layer: Convolution
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield bands of rows of the output, and what lies under the kernel at each of their places.

    Of shape (places, side * side * n_inputs); the next band overwrites it.
    """
    span = layer.dilation * (layer.side - 1) + 1
    windows = sliding_window_view(padded, (span, span), axis=(0, 1))
    windows = windows[:: layer.stride, :: layer.stride, :, :: layer.dilation, :: layer.dilation]
    windows = windows.transpose(0, 1, 3, 4, 2)
    of_a_row = windows[0].size
    bands = list(_bands(len(windows), of_a_row, _BAND))
    memory = np.empty((bands[0].stop, *windows.shape[1:]), dtype=np.float32)
    for rows in bands:
        part = memory[: rows.stop - rows.start]
        np.copyto(part, windows[rows])
        yield rows, part.reshape(-1, len(layer.weight))


def _bands(n_rows: int, of_a_row: int, most: int) -> Iterator[slice]:
    """Yield slices of rows that hold together so many numbers at most, but a row at least."""
    step = max(1, most // of_a_row)
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def _rectify(values, bias):
    """Add the bias, in place, and cut at zero."""
    values += bias
    return np.maximum(values, 0, out=values)
