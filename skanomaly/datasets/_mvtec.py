"""Reader of one category in the folder layout of the MVTec AD data set."""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from pathlib import Path

from skanomaly.datasets._records import GOOD, DatasetSplit, ImageSet, LayoutError

IMAGE_SUFFIXES = frozenset(
    ".bmp .gif .jp2 .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)
_MASK_ENDING = "_mask"
_DESKTOP_FILES = frozenset({"thumbs.db", "desktop.ini"})


def read_mvtec(root):
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
    root = _existing_folder(root)
    if not (root / "train" / GOOD).is_dir():
        raise LayoutError(root, [(root / "train" / GOOD, _missing_train(root))])

    offenders = []
    train = _class_files(root, "train", offenders)
    test = _class_files(root, "test", offenders)
    truth = _class_files(root, "ground_truth", offenders, required=False)

    for name in sorted(set(train) - {GOOD}):
        offenders.append((root / "train" / name, "train holds only good parts, in train/good"))
    for part, classes in (("train", train), ("test", test)):
        for name, files in classes.items():
            _check_images(root / part / name, files, offenders)
    masks = {}
    for name, files in truth.items():
        masks.update(_pair_masks(root, name, files, test.get(name, ()), offenders))
    if offenders:
        raise LayoutError(root, offenders)
    return DatasetSplit(
        name=root.name,
        train=_image_set(f"{root.name}/train", train, {}),
        test=_image_set(f"{root.name}/test", test, masks),
    )


def _existing_folder(root):
    # abspath, not resolve: a data set reached by a link keeps the name it was given
    path = Path(os.path.abspath(Path(root)))
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    return path


def _missing_train(root):
    entries = _listed(root)
    reason = f"looked for this folder of normal images; the root contains: {_names(entries)}"
    categories = [entry for entry in entries if (entry / "train" / GOOD).is_dir()]
    if categories:
        parent = "; the root looks like the parent of categories, pass one of them: "
        reason += parent + _names(categories)
    return reason


def _names(paths, limit=20):
    names = [path.name + "/" * path.is_dir() for path in paths]
    more = [f"and {len(names) - limit} more"] if len(names) > limit else []
    return ", ".join(names[:limit] + more) or "nothing"


def _listed(folder):
    """Entries of a folder by name, without what desktops and tools leave behind."""
    return sorted(
        (
            entry
            for entry in folder.iterdir()
            if not entry.name.startswith(".") and entry.name.lower() not in _DESKTOP_FILES
        ),
        key=lambda entry: entry.name,
    )


def _sound(root, entry, offenders):
    """Whether an entry exists and lies in root once links are followed; reports it if not."""
    # realpath, since Path.resolve raises on a loop of links before Python 3.13
    if not Path(os.path.realpath(entry)).is_relative_to(os.path.realpath(root)):
        offenders.append((entry, "symbolic link to a place outside of the root"))
        return False
    if not entry.exists():
        offenders.append((entry, "broken symbolic link"))
        return False
    return True


def _class_files(root, part, offenders, required=True):
    """Image files of ``root/part`` as {class: [path]}; whatever else is there is reported."""
    folder = root / part
    if not os.path.lexists(folder):
        if required:
            offenders.append((folder, "this folder is missing"))
        return {}
    if not _sound(root, folder, offenders):
        return {}
    if not folder.is_dir():
        offenders.append((folder, "is not a folder"))
        return {}
    classes = {}
    for entry in _listed(folder):
        if not _sound(root, entry, offenders):
            continue
        if not entry.is_dir():
            offenders.append((entry, f"a file outside of the class folders of {part}"))
            continue
        classes[entry.name] = _image_files(root, entry, offenders)
    if required and not _listed(folder):
        offenders.append((folder, "holds no class folder"))
    return classes


def _image_files(root, folder, offenders):
    entries = _listed(folder)
    if not entries:
        contents = _names(_listed(root))
        reason = f"empty class folder, looked for image files; the root contains: {contents}"
        offenders.append((folder, reason))
    files = []
    for entry in entries:
        if not _sound(root, entry, offenders):
            continue
        if entry.is_dir():
            offenders.append((entry, "a folder within a class folder"))
        elif entry.suffix.lower() not in IMAGE_SUFFIXES:
            offenders.append((entry, f"not an image suffix ({' '.join(sorted(IMAGE_SUFFIXES))})"))
        else:
            files.append(entry)
    return files


def _check_images(folder, files, offenders):
    by_stem = defaultdict(list)
    for path in files:
        by_stem[path.stem].append(path)
    for stem, paths in by_stem.items():
        if len(paths) > 1:
            offenders += [(path, f"one of {len(paths)} images of stem {stem!r}") for path in paths]


def _pair_masks(root, name, files, images, offenders):
    """Pair the masks of one class as {image path: mask path}; odd masks are reported."""
    if name == GOOD:
        offenders += [(path, "a mask for good images, which have no defect") for path in files]
        return {}
    stems = {path.stem for path in images}
    found = defaultdict(list)
    for path in files:
        owners = {path.stem, path.stem.removesuffix(_MASK_ENDING)} & stems
        if not owners:
            offenders.append((path, f"a mask for which there is no image in test/{name}"))
        elif len(owners) > 1:
            offenders.append((path, f"a mask of either image: {', '.join(sorted(owners))}"))
        for owner in owners:
            found[owner].append(path)
    for stem, paths in found.items():
        if len(paths) > 1:
            reason = f"one of {len(paths)} masks for the image {stem!r} of test/{name}"
            offenders += [(path, reason) for path in paths]
    if files:
        offenders += [
            (path, f"no mask in ground_truth/{name}, which has masks for others")
            for path in images
            if path.stem not in found
        ]
    return {path: found[path.stem][0] for path in images if path.stem in found}


def _image_set(name, classes, masks):
    order = sorted(classes, key=lambda kind: (kind != GOOD, kind))
    listed = [(path, kind) for kind in order for path in classes[kind]]
    return ImageSet(
        images=[path for path, _ in listed],
        y=[1 if kind == GOOD else -1 for _, kind in listed],
        masks=[masks.get(path) for path, _ in listed],
        defect_types=[kind for _, kind in listed],
        name=name,
    )
