"""Records which every reader of a data set returns: lists of files, labels and masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skanomaly._images import image_size
from skanomaly._labels import check_labels
from skanomaly._typing import ArrayLike, IntArray, PathLike
from skanomaly.datasets._mask_files import read_mask

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

    Examples
    --------
    >>> import tempfile
    >>> from skanomaly.datasets import LayoutError, read_mvtec
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     try:
    ...         read_mvtec(folder)
    ...     except LayoutError as exc:
    ...         print([path.relative_to(exc.root).as_posix() for path, _ in exc.offenders])
    ['train/good']
    """

    def __init__(self, root: PathLike, offenders: Sequence[tuple[Path, str]]) -> None:
        self.root = Path(root)
        self.offenders = tuple(offenders)
        # Both arguments go to args, so that the error survives pickling between processes.
        super().__init__(self.root, self.offenders)

    def __str__(self) -> str:
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
    masks : sequence of path-like, sequence of path-like, or None, length n
        Mask file of each image, or a tuple of them where every defect of an
        image has a file of its own; None for normal images and where the mask
        of an anomalous image is not known.
    defect_types : sequence of str, length n
        Type of defect, ``"good"`` for normal images and only for these.
    name : str
        Name of the set, such as ``"bottle/test"``.
    groups : sequence of str, length n, or None, default=None
        What the images of one part, or of one batch, have in common; None
        where nothing is known. The views of a part share its group.
    defects : sequence of DefectType or None, default=None
        Meaning of the pixel values in the masks, see :meth:`load_regions`.
    class_ids : bool, default=False
        Whether the pixel values in the masks are ids of defects, any of which marks a defective
        pixel. Otherwise a mask has two levels, 0 and one other.

    Raises
    ------
    TypeError
        Something is text, a set or a dict, and no sequence.
    ValueError
        The lengths differ, `y` holds other values than +1 and -1, a normal
        image has a mask, `y` and `defect_types` contradict each other, or two
        `defects` share a pixel value.

    Examples
    --------
    >>> from skanomaly.datasets import ImageSet
    >>> caps = ImageSet(
    ...     ["a.png", "b.png"], [1, -1], [None, "b_mask.png"], ["good", "scratch"], "cap/test"
    ... )
    >>> [path.name for path, label in zip(caps.images, caps.y, strict=True) if label == -1]
    ['b.png']
    """

    images: tuple[Path, ...]
    y: IntArray
    masks: tuple[Path | tuple[Path, ...] | None, ...]
    defect_types: tuple[str, ...]
    name: str
    groups: tuple[str, ...] | None = None
    defects: tuple[Any, ...] | None = None
    class_ids: bool = False

    if TYPE_CHECKING:  # any sequences are taken, and kept as tuples

        def __init__(
            self,
            images: Sequence[PathLike],
            y: ArrayLike,
            masks: Sequence[PathLike | Sequence[PathLike] | None],
            defect_types: Sequence[str],
            name: str,
            groups: Sequence[str] | None = None,
            defects: Sequence[Any] | None = None,
            class_ids: bool = False,
        ) -> None: ...

    def __post_init__(self) -> None:
        for field in ("images", "masks", "defect_types", "groups", "defects"):
            value = getattr(self, field)
            if isinstance(value, (str, bytes, Set, Mapping)):  # a set has no order
                raise TypeError(f"{field} of {self.name!r} must be a sequence, got {value!r}")
        images = tuple(Path(path) for path in self.images)
        masks = tuple(_checked_mask(path) for path in self.masks)
        defect_types = tuple(str(kind) for kind in self.defect_types)
        y = check_labels(self.y)
        y.flags.writeable = False
        lengths = {
            "images": len(images),
            "y": len(y),
            "masks": len(masks),
            "defect_types": len(defect_types),
        }
        groups, defects = self.groups, self.defects
        if groups is not None:
            groups = tuple(str(group) for group in groups)
            lengths["groups"] = len(groups)
        if len(set(lengths.values())) > 1:
            raise ValueError(f"lengths differ in {self.name!r}: {lengths}")
        for path, label, mask, kind in zip(images, y, masks, defect_types, strict=True):
            if (label == 1) != (kind == GOOD):
                raise ValueError(f"{path}: y is {label:+d} but the defect type is {kind!r}")
            if label == 1 and mask is not None:
                raise ValueError(f"{path}: a normal image with a mask, {mask}")
        if defects is not None:
            defects = tuple(defects)
            values = Counter(defect.pixel_value for defect in defects)
            if len(values) < len(defects):
                raise ValueError(f"defects of {self.name!r} share a pixel value: {dict(values)}")
        for field, value in (
            ("images", images),
            ("y", y),
            ("masks", masks),
            ("defect_types", defect_types),
            ("groups", groups),
            ("defects", defects),
        ):
            object.__setattr__(self, field, value)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        counts = Counter(kind for kind in self.defect_types if kind != GOOD)
        kinds = list(counts)
        listed = ", ".join(kinds[:8] + ["..."] * (len(kinds) > 8))
        masks = sum(path is not None for path in self.masks)
        return (
            f"ImageSet({self.name!r}: {_count(len(self), 'image')}, "
            f"{np.count_nonzero(self.y == 1)} normal, {counts.total()} anomalous"
            f"{f' ({listed})' if kinds else ''}, {_count(masks, 'mask')})"
        )

    def load_mask(self, i: int) -> NDArray[np.bool_] | None:
        """Load the true mask of image `i`, over all of its mask files.

        A mask has two levels, of which 0, black, means no defect; fully transparent pixels have
        none either. Levels between, which JPEG compression and smooth resizing leave, are an
        error, but for the ids of defects of a layout that has them (`class_ids`).

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
            The mask has other levels than two, differs from its image in size, or marks no pixel.
        ImageReadError
            The image or the mask cannot be read.
        """
        if self.y[i] == 1:
            return np.zeros(image_size(self.images[i]), dtype=bool)
        if self.masks[i] is None:
            return None
        return np.logical_or.reduce([mask for _, mask, _ in self._load_masks(i)])

    def load_regions(self, i: int) -> tuple[NDArray[np.bool_], IntArray] | None:
        """Load the defects of image `i` one by one, each with its saturation area.

        This is what the saturated per-region overlap of MVTec LOCO is made
        of: a mask file is one region, however many parts it is in, and its
        pixel value says which defect of `defects` it is.

        Parameters
        ----------
        i : int
            Index of the image.

        Returns
        -------
        loaded : tuple (regions, saturation), or None
            `regions` is a boolean array of shape (n_regions, H, W), one mask
            for each defect; `saturation` an integer array of shape
            (n_regions,), the number of pixels, at least 1, from which on the
            defect counts as found in full. Both have length 0 for a normal
            image; None where the masks are not known.

        Raises
        ------
        ValueError
            As for :meth:`load_mask`; also where the set has no `defects`, or
            the pixel value of a mask is not theirs.
        ImageReadError
            The image or a mask cannot be read.
        """
        if self.defects is None:
            raise ValueError(f"{self.name!r} has no defects with saturation thresholds")
        if self.y[i] == 1:
            return np.zeros((0, *image_size(self.images[i])), bool), np.zeros(0, np.int64)
        if self.masks[i] is None:
            return None
        by_value = {defect.pixel_value: defect for defect in self.defects}
        regions, saturation = [], []
        for path, mask, levels in self._load_masks(i):
            value = levels[mask][0].item()
            if value not in by_value:
                raise ValueError(
                    f"mask {path} holds the pixel value {value}, expected one of {sorted(by_value)}"
                )
            regions.append(mask)
            saturation.append(by_value[value].saturation_area(np.count_nonzero(mask)))
        return np.stack(regions), np.array(saturation, dtype=np.int64)

    def _load_masks(self, i):
        image, paths = self.images[i], self.masks[i]
        size = tuple(image_size(image))
        for path in (paths,) if isinstance(paths, Path) else paths:
            mask, levels = read_mask(path, self.class_ids)
            if mask.shape != size:
                raise ValueError(
                    f"sizes (height, width) differ: mask {path} {mask.shape}, image {image} {size}"
                )
            if not mask.any():
                raise ValueError(f"mask {path} marks no pixel, though its image is anomalous")
            yield path, mask, levels


@dataclass(frozen=True, eq=False, repr=False)
class DatasetSplit:
    """One data set, split into images to fit on and images to evaluate on.

    Parameters
    ----------
    name : str
        Name of the data set or of its category.
    train, test : ImageSet
        The two parts.
    validation : ImageSet or None, default=None
        Images apart from both, mostly normal ones, where the layout has them.
    unlabelled : dict of str to sequence of path-like, or None, default=None
        Image files of test folders whose labels are secret, by folder.

    Examples
    --------
    >>> from skanomaly.datasets import DatasetSplit, ImageSet
    >>> train = ImageSet(["a.png", "b.png"], [1, 1], [None, None], ["good", "good"], "cap/train")
    >>> test = ImageSet(["c.png"], [-1], ["c_mask.png"], ["scratch"], "cap/test")
    >>> split = DatasetSplit("cap", train, test)
    >>> len(split.train.images), split.test.y
    (2, array([-1]))
    """

    name: str
    train: ImageSet
    test: ImageSet
    validation: ImageSet | None = None
    unlabelled: dict[str, tuple[Path, ...]] | None = None

    def __post_init__(self) -> None:
        if self.unlabelled is not None:
            copied = {
                name: tuple(Path(path) for path in paths) for name, paths in self.unlabelled.items()
            }
            object.__setattr__(self, "unlabelled", copied)

    def __repr__(self) -> str:
        parts = [repr(self.name), f"train={self.train!r}", f"test={self.test!r}"]
        if self.validation is not None:
            parts.append(f"validation={self.validation!r}")
        if self.unlabelled is not None:
            counts = {name: len(paths) for name, paths in self.unlabelled.items()}
            parts.append(f"unlabelled={counts!r}")
        return "DatasetSplit(" + ",\n  ".join(parts) + ")"


def _count(number, noun):
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _checked_mask(mask):
    if mask is None or isinstance(mask, str) or not isinstance(mask, Iterable):
        return None if mask is None else Path(mask)
    paths = tuple(Path(path) for path in mask)
    if not paths:
        raise ValueError("an empty sequence of masks; pass None for a mask that is not known")
    return paths
