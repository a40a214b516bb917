"""Reader of a plain folder of good and bad images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from skanomaly._labels import GOOD_WORDS
from skanomaly._typing import PathLike
from skanomaly.datasets._records import GOOD, DatasetSplit, LayoutError
from skanomaly.datasets._tree import (
    check_stems,
    class_files,
    existing_folder,
    exists_inside,
    file_masks,
    image_files,
    image_set,
    list_entries,
    looks_like,
    require_normal_folder,
)


def read_folder(
    root: PathLike,
    normal: str = GOOD,
    anomalous: str | Sequence[str] | None = None,
    normal_test: str | None = None,
    masks: str | None = "ground_truth",
    test_size: float = 0.2,
    random_state: int | np.random.RandomState | None = 0,
) -> DatasetSplit:
    """Read folders of images, one of them normal and the others anomalous.

    The layout is ``<normal>/*``, ``<anomalous>/*`` and, optionally,
    ``<masks>/<anomalous>/*``, under any names. Masks are paired as by
    :func:`read_mvtec`, and what does not fit is an error in the same way. No
    image is decoded.

    Parameters
    ----------
    root : str or path-like
        Folder that holds the others.
    normal : str, default="good"
        Folder of normal images.
    anomalous : str, sequence of str or None, default=None
        Folders of anomalous images; their names are the types of the defects.
        With None, all folders which no other parameter names; one that is
        called after masks or normal images is an error then.
    normal_test : str or None, default=None
        Folder of normal test images. With None, some of the normal images are
        held out for the test.
    masks : str or None, default="ground_truth"
        Folder of the masks, which may be missing; None for no masks.
    test_size, random_state : float, int or None
        How many of the normal images to hold out, and which: as in
        :func:`sklearn.model_selection.train_test_split`, but reproducible
        unless it is told otherwise. Not used with `normal_test`.

    Returns
    -------
    split : DatasetSplit
        ``split.train`` and ``split.test``.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        `root` does not exist or is not a folder.
    LayoutError
        Every path that does not fit the layout.
    ValueError
        Too few normal images to hold out `test_size` of them, or a folder is named twice.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from skanomaly.datasets import read_folder
    >>> names = [f"ok/{i}.png" for i in range(5)] + ["scratched/7.png"]
    >>> with TemporaryDirectory() as root:
    ...     for name in names:
    ...         path = Path(root, "nut", name)
    ...         path.parent.mkdir(parents=True, exist_ok=True)
    ...         Image.new("L", (8, 6)).save(path)
    ...     split = read_folder(Path(root, "nut"), normal="ok")
    >>> split
    DatasetSplit('nut',
      train=ImageSet('nut/train': 4 images, 4 normal, 0 anomalous, 0 masks),
      test=ImageSet('nut/test': 2 images, 1 normal, 1 anomalous (scratched), 0 masks))
    """
    if isinstance(test_size, bool):
        raise ValueError(f"test_size must be a share or a number of images, got {test_size!r}")
    root = existing_folder(root)
    require_normal_folder(root, normal)
    offenders: list[tuple[Path, str]] = []
    if anomalous is None:
        anomalous = _others(root, {normal, normal_test, masks})
        for name in anomalous:
            what = looks_like(name)
            if what is not None and name != GOOD:
                reason = f"looks like {what}: rename it, or pass normal_test=, masks= or anomalous="
                offenders.append((root / name, reason))
    anomalous = [anomalous] if isinstance(anomalous, str) else list(anomalous)
    chosen = [name for name in (normal, normal_test, *anomalous) if name is not None]
    if len(set(chosen)) < len(chosen) or masks in chosen:
        raise ValueError(f"a folder is named for two purposes: {chosen}, masks {masks!r}")
    classes: dict[str, list[Path]] = {}
    for name in chosen:
        folder = root / name
        if not folder.exists() and not folder.is_symlink():
            offenders.append((folder, "this folder is missing"))
        elif exists_inside(root, folder, offenders):
            classes[name] = image_files(root, folder, offenders)
            check_stems(classes[name], offenders)
    bad = {name: classes[name] for name in anomalous if name in classes}
    paired = file_masks(root, masks, ".", bad, normal, offenders) if masks else {}
    if GOOD in bad:
        reason = f"the name of normal images, which are in {normal} here"
        offenders.append((root / GOOD, reason))
    if not anomalous:
        offenders.append((root, "holds no folder of anomalous images beside that of normal ones"))
    if offenders:
        raise LayoutError(root, offenders)
    if normal_test is not None:
        train, test = classes[normal], classes[normal_test]
    else:
        held = train_test_split(classes[normal], test_size=test_size, random_state=random_state)
        train, test = (sorted(part) for part in held)
    return DatasetSplit(
        name=root.name,
        train=image_set(f"{root.name}/train", {GOOD: train}, {}),
        test=image_set(f"{root.name}/test", {GOOD: test, **bad}, paired),
    )


def read_folders(normal: PathLike, test: PathLike, masks: PathLike | None = None) -> DatasetSplit:
    """Read a folder of normal images to train on, and a folder of test images, wherever they lie.

    The layout is ``<normal>/*`` and ``<test>/<class>/*``: in `test`, the folder ``good`` (or
    ``ok``, ``normal``) holds normal images, every other one type of defect. Optionally the masks
    are in ``<masks>/<class>/*``, and paired as by :func:`read_mvtec`. What does not fit is an
    error in the same way. No image is decoded.

    Parameters
    ----------
    normal : str or path-like
        Folder of normal images.
    test : str or path-like
        Folder of the folders of test images.
    masks : str, path-like or None, default=None
        Folder of the folders of masks; with None the masks are not known.

    Returns
    -------
    split : DatasetSplit
        ``split.train`` and ``split.test``. Its name is that of the folder that holds both, or
        that of `test` where none holds both directly.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        A folder does not exist or is none.
    LayoutError
        Every path that does not fit the layout.

    See Also
    --------
    read_folder : Both kinds of images in one folder, of which normal ones are held out.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from skanomaly.datasets import read_folders
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("may/0.png", "june/good/0.png", "june/crack/0.png"):
    ...         path = Path(folder, name)
    ...         path.parent.mkdir(parents=True, exist_ok=True)
    ...         Image.new("L", (8, 6)).save(path)
    ...     split = read_folders(Path(folder, "may"), Path(folder, "june"))
    >>> split.train.y.tolist(), split.test.defect_types
    ([1], ('good', 'crack'))
    """
    normal, test = existing_folder(normal), existing_folder(test)
    offenders: list[tuple[Path, str]] = []
    train = image_files(normal, normal, offenders)
    entries = list_entries(test)
    folders = [entry for entry in entries if entry.is_dir()]
    if entries and not folders:
        reason = (
            "holds no folder for each class, so that nothing says which images are good and which "
            "are not: sort them into good/ and folders named after the defects; or train with "
            "`skanomaly fit` and judge the images with `skanomaly score`"
        )
        raise LayoutError(test, [(test, reason)])
    tested = class_files(test, ".", offenders)
    good = [name for name in tested if name.lower() in GOOD_WORDS]
    offenders += [
        (test / name, f"normal images are in {good[0]} already: one folder holds them")
        for name in good[1:]
    ]
    for name in tested:
        if os.path.samefile(test / name, normal):
            reason = (
                "is the folder that is trained on: test on other images; `skanomaly evaluate` "
                f"with the folder {test.name} alone holds some of them out"
            )
            offenders.append((test / name, reason))
        elif looks_like(name) == "masks":
            reason = "looks like masks: pass them as masks (--masks), outside of the test images"
            offenders.append((test / name, reason))
    for files in (train, *tested.values()):
        check_stems(files, offenders)
    normal_name = good[0] if good else GOOD
    paired: dict[Path, Path] = {}
    if masks is not None:
        masks = existing_folder(masks)
        bad = {name: files for name, files in tested.items() if name != normal_name}
        paired = file_masks(masks, ".", test.name, bad, normal_name, offenders)
    if offenders:
        raise LayoutError(test, offenders)
    name = test.parent.name if test.parent == normal.parent else test.name
    return DatasetSplit(
        name=name,
        train=image_set(f"{name}/{normal.name}", {GOOD: train}, {}),
        test=image_set(f"{name}/{test.name}", tested, paired, normal_name),
    )


def _others(root, known):
    return [path.name for path in list_entries(root) if path.is_dir() and path.name not in known]
