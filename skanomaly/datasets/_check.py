"""Look into every file of a data set, to find what its names alone do not tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from skanomaly._images import ImageReadError, image_size
from skanomaly.datasets._copies import equal_files, near_copies
from skanomaly.datasets._records import DatasetSplit, ImageSet

Shares = dict[str, dict[Path, float]]

_INVERTED = (
    "this mask, as all others of {}, marks more than half of the image: are they inverted? 0 means "
    "no defect"
)


# A mask that marks all but this share, among masks that mark less than it, is likely inverted.
_LITTLE = 0.2
_ONE_INVERTED = (
    "its mask marks {:.0%} of the image, others mark {:.1%} in the median: is it inverted? 0 means "
    "no defect"
)


def find_problems(
    split: DatasetSplit, deep: bool = False, verbose: bool = False
) -> list[tuple[Path, str]]:
    """Find what is wrong with the images and masks of a data set.

    The readers look at names only. This decodes every mask and the header of every image, and
    finds files which cannot be read or are larger than Pillow's limit, masks of another size than
    their image, of other levels than two, or which mark nothing or most of all images, groups with
    images on both sides, and files with the content of another: of training images, or of training
    images among the test images.

    Parameters
    ----------
    split : DatasetSplit
        From any of the readers.
    deep : bool, default=False
        Decode every image too, in threads: that finds truncated and damaged files, near copies, by
        thumbnails of 32 x 32 pixels, and a set of more than 8 bits that uses a small part of its
        range. Images of one group may be near copies.
    verbose : bool, default=False
        Show a bar of the progress, on stderr.

    Returns
    -------
    problems : list of (Path, str)
        Image file and what is wrong with it or with its mask; empty if all is
        well.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from skanomaly.datasets import find_problems, read_mvtec
    >>> names = ["train/good/0.png", "test/good/0.png", "test/crack/0.png",
    ...          "ground_truth/crack/0_mask.png"]
    >>> with TemporaryDirectory() as folder:
    ...     for grey, name in enumerate(names, 100):
    ...         path = Path(folder, name)
    ...         path.parent.mkdir(parents=True)
    ...         Image.new("L", (8, 9 if "mask" in name else 6), grey).save(path)
    ...     for path, reason in find_problems(read_mvtec(folder)):
    ...         print(path.relative_to(Path(folder)).as_posix(), reason)
    test/crack/0.png sizes (height, width) differ: mask ...(9, 8), image ...(6, 8)
    """
    shares: Shares = {}
    unusable = unusable_files(_sets(split), _unlabelled(split), shares)
    paths = _paths(split)
    copies = equal_files(paths)
    problems = [*unusable, *inverted_masks(_sets(split), shares), *_of_groups(split)]
    problems += _of_copies(split, copies, near=False)
    if deep:
        damaged, near, range_message = near_copies(paths, _unlabelled(split), verbose)
        known = {path for path, _ in unusable}
        problems += [(path, reason) for path, reason in damaged if path not in known]
        exact = {later for _, later in copies}
        problems += _of_copies(split, [pair for pair in near if pair[1] not in exact], near=True)
        if range_message is not None:
            problems.append((paths[0], range_message))
    return problems


def unusable_files(
    sets: Sequence[ImageSet], unlabelled: Sequence[Path] = (), shares: Shares | None = None
) -> list[tuple[Path, str]]:
    """Images and masks that no evaluation can use: by every mask, and the header of every image.

    Parameters
    ----------
    sets : sequence of ImageSet
        Of a data set.
    unlabelled : sequence of Path, default=()
        Other images.
    shares : dict or None
        Is given the share of pixels that each mask marks, by its set and image.

    Returns
    -------
    list of (Path, str)
        Image file and what is wrong with it or with its mask.
    """
    problems = []
    for images in sets:
        for i, path in enumerate(images.images):
            try:
                mask = None if images.masks[i] is None else images.load_mask(i)
                if mask is None:
                    image_size(path)
                    continue
                if shares is not None:
                    shares.setdefault(images.name, {})[path] = float(np.mean(mask))
                if images.defects is not None:
                    images.load_regions(i)
            except (ValueError, ImageReadError) as error:
                problems.append((path, str(error)))
    for path in unlabelled:
        try:
            image_size(path)
        except ImageReadError as error:
            problems.append((path, str(error)))
    return problems


def doubtful_images(split: DatasetSplit) -> list[tuple[Path, str]]:
    """Images that can be used, but make numbers that mean little: copies, and groups trained on.

    Parameters
    ----------
    split : DatasetSplit
        From any of the readers.

    Returns
    -------
    list of (Path, str)
        Image file, and what it has in common with which other. Of the files only those are read
        that have the size of another.
    """
    return [*_of_groups(split), *_of_copies(split, equal_files(_paths(split)), near=False)]


def repeated_images(images: ImageSet) -> list[tuple[Path, str]]:
    """Images of one set, used without any other, that are listed twice or copies."""
    nothing = ImageSet([], [], [], [], images.name)
    alone = DatasetSplit(images.name, nothing, images)
    return list(_of_copies(alone, equal_files(images.images), near=False))


def _sets(split: DatasetSplit) -> list[ImageSet]:
    return [part for part in (split.train, split.validation, split.test) if part is not None]


def _paths(split: DatasetSplit) -> list[Path]:
    return [path for images in _sets(split) for path in images.images]


def _unlabelled(split: DatasetSplit) -> list[Path]:
    return [path for folder in (split.unlabelled or {}).values() for path in folder]


def inverted_masks(sets: Sequence[ImageSet], shares: Shares) -> list[tuple[Path, str]]:
    """Masks that may be inverted: all of a set, or one that marks most where others mark little.

    Parameters
    ----------
    sets : sequence of ImageSet
        Of a data set.
    shares : dict
        As :func:`unusable_files` fills it.

    Returns
    -------
    list of (Path, str)
        Image file, and what is odd about its mask.
    """
    problems = []
    for images in sets:
        found = {path: share for path, share in shares.get(images.name, {}).items() if share > 0}
        usual = float(np.median([*found.values()])) if found else 0.0
        # Masks that mark whole images are meant so.
        if found and all(0.5 < share < 1 for share in found.values()):
            problems.append((next(iter(found)), _INVERTED.format(images.name)))
        elif usual < _LITTLE:
            problems += [
                (path, _ONE_INVERTED.format(share, usual))
                for path, share in found.items()
                if 1 - _LITTLE < share < 1
            ]
    return problems


def _of_groups(split: DatasetSplit) -> Iterator[tuple[Path, str]]:
    train, test = split.train, split.test
    if train.groups is None or test.groups is None:
        return
    trained: dict[str, Path] = {}
    for group, path in zip(train.groups, train.images, strict=True):
        trained.setdefault(group, path)
    reported = set()
    for group, path in zip(test.groups, test.images, strict=True):
        if group in trained and group not in reported:
            reported.add(group)
            yield path, f"its group, {group!r}, is trained on too: {trained[group]}"


def _of_copies(
    split: DatasetSplit, pairs: Iterable[tuple[int, int]], near: bool
) -> Iterator[tuple[Path, str]]:
    sets = _sets(split)
    images = [
        (part, path, int(part.y[i]), None if part.groups is None else part.groups[i])
        for part in sets
        for i, path in enumerate(part.images)
    ]
    how = "nearly the same image" if near else "the same image"
    for earlier, later in pairs:
        (part, first, label, group), (own, path, own_label, own_group) = (
            images[earlier],
            images[later],
        )
        if near and group is not None and group == own_group:
            continue
        if first == path:
            reason = "is listed twice"
        elif part is not sets[0]:
            reason = f"{how} as {first}: it counts twice"
        elif own is part:
            reason = (
                f"{how} as {first}: training images that are copies vouch for each other, and the "
                "threshold is too tight for new ones"
            )
        else:
            reason = f"{how} as the training image {first}: it tests nothing"
        if label != own_label:
            words = {1: "normal", -1: "anomalous"}
            reason += f"; that one is labelled {words[label]}, this one {words[own_label]}"
        yield path, reason
