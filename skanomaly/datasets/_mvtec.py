"""Reader of one category in the folder layout of the MVTec AD data set."""

from __future__ import annotations

from skanomaly._typing import PathLike
from skanomaly.datasets._records import DatasetSplit
from skanomaly.datasets._tree import read_class_folders


def read_mvtec(root: PathLike) -> DatasetSplit:
    """Read the file lists and labels of one category in the MVTec AD layout.

    The layout is ``train/good/*``, ``test/<class>/*`` and, optionally,
    ``ground_truth/<class>/*``. ``test/good`` holds normal parts, every other
    class folder of ``test`` holds one type of defect. Other entries directly
    in `root`, such as a licence text, are not looked at. No image is decoded.

    A mask belongs to the image of the same class whose stem it carries:
    ``<stem>_mask.<suffix>`` or ``<stem>.<suffix>``. Where there is no
    ``ground_truth`` folder, or none for a class, the masks are not known
    (``None``), which is no error.

    Hidden files and folders (a leading ``.``) and the files ``Thumbs.db`` and
    ``desktop.ini`` are skipped. Everything else which does not fit is an
    error, so that no image is lost and no mask is paired wrongly in silence.

    Parameters
    ----------
    root : str or path-like
        Folder of one category.

    Returns
    -------
    split : DatasetSplit
        ``split.train`` and ``split.test``. The order of the test images is
        ``good`` first, then the other classes by name; within a class by file
        name (by code point, so that it is the same on all machines). Paths are
        absolute. Labels are +1 for normal and -1 for anomalous images.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        `root` does not exist or is not a folder.
    LayoutError
        A ValueError whose ``offenders`` attribute names every path that does
        not fit the layout, each with the reason; the message prints the first
        ones.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from skanomaly.datasets import read_mvtec
    >>> names = ["train/good/0.png", "test/good/0.png", "test/crack/0.png",
    ...          "ground_truth/crack/0_mask.png"]
    >>> with TemporaryDirectory() as folder:
    ...     for name in names:
    ...         path = Path(folder, "nut", name)
    ...         path.parent.mkdir(parents=True)
    ...         Image.new("L", (8, 6), 255).save(path)
    ...     split = read_mvtec(Path(folder, "nut"))
    ...     mask = split.test.load_mask(1)
    >>> split.test
    ImageSet('nut/test': 2 images, 1 normal, 1 anomalous (crack), 1 mask)
    >>> split.test.y.tolist(), split.test.defect_types, mask.shape
    ([1, -1], ('good', 'crack'), (6, 8))
    """
    return read_class_folders(root)
