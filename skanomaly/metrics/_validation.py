"""What the pixel metrics take: pairs of a map and a mask, checked, and the regions of a mask."""

import numpy as np
from scipy import ndimage

_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


def check_maps(maps):
    """Anomaly maps as arrays, every one checked.

    Parameters
    ----------
    maps : sequence of array-like of shape (height, width)
        Higher is more anomalous. Sizes may differ.

    Returns
    -------
    list of ndarray of shape (height, width)
        Not copied where that can be avoided; float32 or wider, or integers.

    Raises
    ------
    ValueError
        When there is none, or one is not two-dimensional, empty, not of real numbers, NaN or
        infinite. The error names the image.

    Examples
    --------
    >>> from skanomaly.metrics._validation import check_maps
    >>> check_maps([[[0.5, 2.0]]])
    [array([[0.5, 2. ]])]
    """
    maps = [check_map(pixels, f"maps[{index}]") for index, pixels in enumerate(maps)]
    if not maps:
        raise ValueError("undefined: there is no map")
    return maps


def check_map(pixels, name):
    """One anomaly map as an array; see :func:`check_maps`."""
    pixels = np.asarray(pixels)
    if pixels.ndim != 2 or not pixels.size:
        raise ValueError(f"{name} has shape {pixels.shape}; a map is (height, width), not empty")
    if pixels.dtype.kind not in "biuf":
        raise ValueError(f"{name} holds {pixels.dtype}; a map is of real numbers")
    if pixels.dtype.kind == "b":
        return pixels.view(np.uint8)
    if pixels.dtype.kind == "f":
        if not np.isfinite(pixels).all():
            raise ValueError(f"{name} contains NaN or infinity")
        if pixels.dtype.itemsize == 2:
            return pixels.astype(np.float32)  # sorting half floats is slow
    return pixels


def check_masks(masks, maps):
    """Masks as arrays, every one checked against its map.

    Parameters
    ----------
    masks : sequence of array-like of shape (height, width), bool
        True where there is a defect; all False for a good image.
    maps : list of ndarray of shape (height, width)
        From :func:`check_maps`.

    Returns
    -------
    list of ndarray of shape (height, width), bool
        Not copied where that can be avoided.

    Raises
    ------
    ValueError
        When there are more or fewer masks than maps, or one is None, not bool, or of another size
        than its map. The error names the image.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.metrics._validation import check_masks
    >>> check_masks([[[True, False]]], [np.zeros((1, 2))])
    [array([[ True, False]])]
    """
    masks = list(masks)
    if len(masks) != len(maps):
        raise ValueError(f"there are {len(maps)} maps but {len(masks)} masks")
    pairs = enumerate(zip(masks, maps, strict=True))
    return [check_mask(mask, pixels.shape, f"masks[{i}]") for i, (mask, pixels) in pairs]


def check_mask(mask, shape, name):
    """One mask as an array of that shape; see :func:`check_masks`."""
    if mask is None:
        raise ValueError(
            f"{name} is None, so whether the image has defects is not known: leave the image out, "
            "or pass an all-False mask if it is good"
        )
    mask = np.asarray(mask)
    if mask.dtype != bool:
        # Class ids, 0/255 and half-covered pixels of a resized mask each need another rule.
        raise ValueError(f"{name} holds {mask.dtype}; a mask is bool, for example `mask != 0`")
    if mask.shape != shape:
        raise ValueError(f"{name} has shape {mask.shape}, but its map has {shape}")
    return mask


def label_regions(mask):
    """The connected regions of a mask, pixels touching at a corner included.

    Parameters
    ----------
    mask : ndarray of shape (height, width), bool
        True where there is a defect.

    Returns
    -------
    labels : ndarray of shape (n_defect_pixels,), int32
        Region of every defect pixel, from 0, in the order of ``map[mask]``.
    sizes : ndarray of shape (n_regions,), int64
        Pixels of every region.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.metrics._validation import label_regions
    >>> label_regions(np.array([[1, 0, 0, 1], [0, 1, 0, 1]], dtype=bool))
    (array([0, 1, 0, 1], dtype=int32), array([2, 2]))
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64)
    # Only the box around the defects is labelled: it is most often a small part of the image.
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    labels, n_regions = ndimage.label(box, structure=_EIGHT_CONNECTED, output=np.int32)
    labels = labels[box] - np.int32(1)
    return labels, np.bincount(labels, minlength=n_regions)


def check_threshold(threshold):
    """A threshold as an array of one float64, not NaN: NumPy would round a scalar to float32."""
    if np.isnan(threshold):
        raise ValueError("threshold is NaN")
    return np.array([threshold], dtype=np.float64)


def check_max_fpr(max_fpr):
    """A limit of the false-positive rate as a float in (0, 1]."""
    limit = float(max_fpr)
    if not 0 < limit <= 1:
        raise ValueError(f"max_fpr must lie in (0, 1], got {max_fpr!r}")
    return limit
