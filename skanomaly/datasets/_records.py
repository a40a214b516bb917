"""Records which every reader of a data set returns: lists of files, labels and masks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from skanomaly._images import image_size, load_image

GOOD = "good"
_PRINTED_OFFENDERS = 20


class LayoutError(ValueError):
    """The files of a data set do not fit its layout.

    Parameters
    ----------
    root : Path
        Folder of the data set.
    offenders : sequence of (Path, str)
        Every path that does not fit, with the reason.

    Attributes
    ----------
    root : Path
    offenders : tuple of (Path, str)
        All of them, also those which the message leaves out.
    """

    def __init__(self, root, offenders):
        self.root = Path(root)
        self.offenders = tuple(offenders)
        # Both arguments go to args, so that the error survives pickling between processes.
        super().__init__(self.root, self.offenders)

    def __str__(self):
        count = len(self.offenders)
        verb = "does" if count == 1 else "do"
        lines = [f"{self.root}: {_count(count, 'path')} {verb} not fit the layout"]
        for path, reason in self.offenders[:_PRINTED_OFFENDERS]:
            shown = path.relative_to(self.root) if path.is_relative_to(self.root) else path
            lines.append(f"  {shown.as_posix()}: {reason}")
        if count > _PRINTED_OFFENDERS:
            lines.append(f"  and {count - _PRINTED_OFFENDERS} more")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Image files with labels and, where they are known, masks of the defects.

    Parameters
    ----------
    images : sequence of path-like, length n
        Image files; kept as a tuple of Path.
    y : array-like of int, shape (n,)
        +1 for a normal and -1 for an anomalous image; kept as a read-only copy.
    masks : sequence of path-like or None, length n
        Mask file of each image; None for normal images and where the mask of
        an anomalous image is not known.
    defect_types : sequence of str, length n
        Type of defect, ``"good"`` for normal images and only for these.
    name : str
        Name of the set, such as ``"bottle/test"``.

    Raises
    ------
    ValueError
        The lengths differ, `y` holds other values than +1 and -1, a normal
        image has a mask, or `y` and `defect_types` contradict each other.
    """

    images: tuple[Path, ...]
    y: np.ndarray
    masks: tuple[Path | None, ...]
    defect_types: tuple[str, ...]
    name: str

    def __post_init__(self):
        images = tuple(Path(path) for path in self.images)
        masks = tuple(None if path is None else Path(path) for path in self.masks)
        defect_types = tuple(str(kind) for kind in self.defect_types)
        y = _checked_labels(self.y)
        lengths = {
            "images": len(images),
            "y": len(y),
            "masks": len(masks),
            "defect_types": len(defect_types),
        }
        if len(set(lengths.values())) > 1:
            raise ValueError(f"lengths differ in {self.name!r}: {lengths}")
        for path, label, mask, kind in zip(images, y, masks, defect_types, strict=True):
            if (label == 1) != (kind == GOOD):
                raise ValueError(f"{path}: y is {label:+d} but the defect type is {kind!r}")
            if label == 1 and mask is not None:
                raise ValueError(f"{path}: a normal image with a mask, {mask}")
        for field, value in (
            ("images", images),
            ("y", y),
            ("masks", masks),
            ("defect_types", defect_types),
        ):
            object.__setattr__(self, field, value)

    def __len__(self):
        return len(self.images)

    def __repr__(self):
        counts = Counter(kind for kind in self.defect_types if kind != GOOD)
        kinds = list(counts)
        listed = ", ".join(kinds[:8] + ["..."] * (len(kinds) > 8))
        masks = sum(path is not None for path in self.masks)
        return (
            f"ImageSet({self.name!r}: {_count(len(self), 'image')}, "
            f"{np.count_nonzero(self.y == 1)} normal, {counts.total()} anomalous"
            f"{f' ({listed})' if kinds else ''}, {_count(masks, 'mask')})"
        )

    def load_mask(self, i):
        """Load the true mask of image `i`.

        A pixel is defective where any colour channel of the mask file is not
        zero, unless an alpha channel makes the pixel fully transparent. Masks
        have to be stored without loss: the noise which JPEG compression adds
        is not zero either.

        Parameters
        ----------
        i : int
            Index of the image.

        Returns
        -------
        mask : ndarray of bool, shape (H, W), or None
            True at defective pixels; all False for a normal image; None for
            an anomalous image whose mask is not known.

        Raises
        ------
        ValueError
            The mask differs from its image in size, or marks no pixel.
        ImageReadError
            The image or the mask cannot be read.
        """
        image, path = self.images[i], self.masks[i]
        if self.y[i] == 1:
            return np.zeros(image_size(image), dtype=bool)
        if path is None:
            return None
        mask = _read_mask(path)
        size = tuple(image_size(image))
        if mask.shape != size:
            raise ValueError(
                f"sizes (height, width) differ: mask {path} {mask.shape}, image {image} {size}"
            )
        if not mask.any():
            raise ValueError(f"mask {path} marks no pixel, though its image is anomalous")
        return mask


@dataclass(frozen=True, eq=False, repr=False)
class DatasetSplit:
    """One data set, split into images to fit on and images to evaluate on.

    Parameters
    ----------
    name : str
        Name of the data set or of its category.
    train, test : ImageSet
        The two parts.
    """

    name: str
    train: ImageSet
    test: ImageSet

    def __repr__(self):
        return f"DatasetSplit({self.name!r},\n  train={self.train!r},\n  test={self.test!r})"


def _count(number, noun):
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _checked_labels(y):
    y = np.asarray(y)
    if y.ndim != 1:
        raise ValueError(f"y must have one dimension, got shape {y.shape}")
    if not np.isin(y, (1, -1)).all():
        others = [value.item() for value in np.unique(y) if value not in (1, -1)]
        raise ValueError(f"y must hold +1 (normal) and -1 (anomalous) only, got {others[:5]}")
    y = y.astype(np.int64)
    y.flags.writeable = False
    return y


def _read_mask(path):
    marked = (load_image(path) != 0).any(axis=2)
    with Image.open(path) as im:
        if not im.has_transparency_data:
            return marked
        # load_image lays transparent pixels over white, which here would mark them.
        key, im = im.info.get("transparency"), ImageOps.exif_transpose(im)
        if im.mode.startswith("I"):  # 16-bit grey, which has no conversion to RGBA
            values = np.asarray(im)
            return (values != 0) & (values != key)
        rgba = np.asarray(im.convert("RGBA"))
    return rgba[..., :3].any(axis=2) & (rgba[..., 3] != 0)
