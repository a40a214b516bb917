"""Decode every file of a data set, to find what its names alone do not tell."""

from __future__ import annotations

from pathlib import Path

from skanomaly._images import ImageReadError, image_size
from skanomaly.datasets._records import DatasetSplit


def find_problems(split: DatasetSplit) -> list[tuple[Path, str]]:
    """Find what is wrong with the images and masks of a data set.

    The readers look at names only. This decodes every mask and the header of
    every image, and finds files which cannot be read, masks of another size
    than their image, masks which mark nothing, and pixel values without a
    meaning.

    Parameters
    ----------
    split : DatasetSplit
        From any of the readers.

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
    ...     for name in names:
    ...         path = Path(folder, name)
    ...         path.parent.mkdir(parents=True)
    ...         Image.new("L", (8, 9 if "mask" in name else 6), 255).save(path)
    ...     for path, reason in find_problems(read_mvtec(folder)):
    ...         print(path.relative_to(Path(folder)).as_posix(), reason)
    test/crack/0.png sizes (height, width) differ: mask ...(9, 8), image ...(6, 8)
    """
    problems = []
    for images in filter(None, (split.train, split.validation, split.test)):
        for i, path in enumerate(images.images):
            try:
                if images.masks[i] is None:
                    image_size(path)
                elif images.defects is None:
                    images.load_mask(i)
                else:
                    images.load_regions(i)
            except (ValueError, ImageReadError) as error:
                problems.append((path, str(error)))
    for paths in (split.unlabelled or {}).values():
        for path in paths:
            try:
                image_size(path)
            except ImageReadError as error:
                problems.append((path, str(error)))
    return problems
