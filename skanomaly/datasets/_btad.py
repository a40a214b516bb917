"""Reader of one category of the BTAD data set."""

from __future__ import annotations

from skanomaly._typing import PathLike
from skanomaly.datasets._records import DatasetSplit
from skanomaly.datasets._tree import read_class_folders


def read_btad(root: PathLike) -> DatasetSplit:
    """Read the file lists and labels of one category of BTAD (beanTech AD).

    The layout is ``train/ok/*``, ``test/ok/*``, ``test/ko/*`` and, optionally,
    ``ground_truth/ko/*``, with images and masks in bmp or png independently.
    Masks are paired as by :func:`read_mvtec`, and what does not fit is an error
    in the same way. No image is decoded.

    Parameters
    ----------
    root : str or path-like
        Folder of one category, such as ``01``.

    Returns
    -------
    split : DatasetSplit
        ``split.train`` and ``split.test``; the type of a defect is ``"ko"``.

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
    >>> from skanomaly.datasets import read_btad
    >>> names = ["train/ok/0000.bmp", "test/ok/0000.bmp", "test/ko/0000.bmp",
    ...          "ground_truth/ko/0000.png"]
    >>> with TemporaryDirectory() as folder:
    ...     for name in names:
    ...         path = Path(folder, "01", name)
    ...         path.parent.mkdir(parents=True)
    ...         Image.new("L", (8, 6), 255).save(path)
    ...     split = read_btad(Path(folder, "01"))
    >>> split.test
    ImageSet('01/test': 2 images, 1 normal, 1 anomalous (ko), 1 mask)
    """
    return read_class_folders(root, normal="ok")
