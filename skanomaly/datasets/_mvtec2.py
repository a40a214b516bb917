"""Reader of one category of the MVTec AD 2 data set."""

from __future__ import annotations

from skanomaly._typing import PathLike
from skanomaly.datasets._records import DatasetSplit
from skanomaly.datasets._tree import read_class_folders


def read_mvtec2(root: PathLike) -> DatasetSplit:
    """Read the file lists and labels of one category of MVTec AD 2.

    The layout is ``train/good/*``, ``test_public/<class>/*`` with masks in
    ``test_public/ground_truth/<class>/*`` and, optionally,
    ``validation/good/*``, and ``test_private/*`` and ``test_private_mixed/*``,
    of which the labels are secret. Masks are paired as by :func:`read_mvtec`, and what
    does not fit is an error in the same way. No image is decoded.

    Parameters
    ----------
    root : str or path-like
        Folder of one category.

    Returns
    -------
    split : DatasetSplit
        ``split.train``, ``split.validation``, and the public test images in
        ``split.test``. ``split.unlabelled`` holds the private test images as
        ``{"test_private": paths, "test_private_mixed": paths}``, as far as they
        are there; None without either.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        `root` does not exist or is not a folder.
    LayoutError
        Every path that does not fit the layout.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from skanomaly.datasets import read_mvtec2
    >>> names = ["train/good/000_regular.png", "validation/good/001_regular.png",
    ...          "test_public/good/002_regular.png", "test_public/bad/003_regular.png",
    ...          "test_public/ground_truth/bad/003_regular_mask.png",
    ...          "test_private/000.png"]
    >>> with TemporaryDirectory() as folder:
    ...     for name in names:
    ...         path = Path(folder, "vial", name)
    ...         path.parent.mkdir(parents=True, exist_ok=True)
    ...         Image.new("L", (8, 6), 255).save(path)
    ...     split = read_mvtec2(Path(folder, "vial"))
    >>> split
    DatasetSplit('vial',
      train=ImageSet('vial/train': 1 image, 1 normal, 0 anomalous, 0 masks),
      test=ImageSet('vial/test_public': 2 images, 1 normal, 1 anomalous (bad), 1 mask),
      validation=ImageSet('vial/validation': 1 image, 1 normal, 0 anomalous, 0 masks),
      unlabelled={'test_private': 1})
    """
    return read_class_folders(
        root,
        validation="validation",
        test="test_public",
        truth="test_public/ground_truth",
        unlabelled=("test_private", "test_private_mixed"),
    )
