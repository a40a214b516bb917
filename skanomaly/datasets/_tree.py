"""Walk over the folders of a data set: what readers of class folders have in common.

A reader collects everything that does not fit in a list of `offenders`, pairs of path and
reason, and raises them all at once. No function here decodes an image.
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from skanomaly._labels import GOOD_WORDS
from skanomaly._typing import PathLike
from skanomaly.datasets._records import GOOD, DatasetSplit, ImageSet, LayoutError

Offenders = list[tuple[Path, str]]  # what does not fit, and why

IMAGE_SUFFIXES = frozenset(
    ".bmp .gif .jp2 .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)
_MASK_ENDING = "_mask"
# Names of folders that hold masks by custom: as a class of images they would be defects.
_MASK_FOLDERS = frozenset({"ground_truth", "ground-truth", "groundtruth", "gt", "mask", "masks"})
_DESKTOP_FILES = frozenset({"thumbs.db", "desktop.ini"})


def existing_folder(root: PathLike) -> Path:
    """Absolute path of a folder, which must exist; under the name that it was given, links kept."""
    path = Path(os.path.abspath(Path(root)))
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    return path


def list_entries(folder: Path) -> list[Path]:
    """Entries of a folder by name, without what desktops and tools leave behind."""
    return sorted(
        (
            entry
            for entry in folder.iterdir()
            if not entry.name.startswith(".") and entry.name.lower() not in _DESKTOP_FILES
        ),
        key=lambda entry: entry.name,
    )


def join_names(paths: Iterable[Path], limit: int = 20) -> str:
    """Names of the first paths for a message; folders with a slash behind."""
    found = [path.name + "/" * path.is_dir() for path in paths]
    more = [f"and {len(found) - limit} more"] if len(found) > limit else []
    return ", ".join(found[:limit] + more) or "nothing"


def stays_inside(root: Path, path: Path) -> bool:
    """Whether a path is in the root once links are followed."""
    # Not by Path.resolve, which raises on a loop of links before Python 3.13.
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def exists_inside(root: Path, entry: Path, offenders: Offenders) -> bool:
    """Whether an entry exists and is in the root once links are followed; reports it if not."""
    if not stays_inside(root, entry):
        offenders.append((entry, "symbolic link to a place outside of the root"))
        return False
    if not entry.exists():
        offenders.append((entry, "broken symbolic link"))
        return False
    return True


def require_normal_folder(root: Path, part: str) -> None:
    """Raise unless ``root/part``, which tells the layout, is there; say what is instead."""
    if (root / part).is_dir():
        return
    entries = list_entries(root)
    reason = f"looked for this folder of normal images; the root contains: {join_names(entries)}"
    categories = [entry for entry in entries if (entry / part).is_dir()]
    if categories:
        parent = "; the root looks like the parent of categories, pass one of them: "
        reason += parent + join_names(categories)
    raise LayoutError(root, [(root / part, reason)])


def looks_like(name: str) -> str | None:
    """What a folder holds by its name, where that is no class of anomalous images."""
    if name.lower() in GOOD_WORDS:
        return "normal images"
    return "masks" if name.lower() in _MASK_FOLDERS else None


def class_folders(
    root: Path,
    part: str,
    offenders: Offenders,
    required: bool = True,
    ignored: Sequence[str] = (),
) -> list[Path]:
    """Class folders in ``root/part`` as [path]; whatever else is there is reported."""
    folder = root / part
    if not os.path.lexists(folder):
        if required:
            offenders.append((folder, "this folder is missing"))
        return []
    if not exists_inside(root, folder, offenders):
        return []
    if not folder.is_dir():
        offenders.append((folder, "is not a folder"))
        return []
    entries = [entry for entry in list_entries(folder) if entry.name not in ignored]
    if required and not entries:
        offenders.append((folder, "holds no class folder"))
    classes = []
    for entry in entries:
        if not exists_inside(root, entry, offenders):
            continue
        if not entry.is_dir():
            offenders.append((entry, f"a file outside of the class folders of {part}"))
            continue
        if entry.name != GOOD and entry.name.lower() == GOOD:
            # Where case does not matter it is the folder of good images, elsewhere a defect type.
            offenders.append((entry, f"the folder of good images is spelled {GOOD!r}"))
            continue
        classes.append(entry)
    return classes


def class_files(
    root: Path,
    part: str,
    offenders: Offenders,
    required: bool = True,
    ignored: Sequence[str] = (),
) -> dict[str, list[Path]]:
    """Image files of ``root/part`` as {class: [path]}; whatever else is there is reported."""
    return {
        folder.name: image_files(root, folder, offenders)
        for folder in class_folders(root, part, offenders, required, ignored)
    }


def image_files(root: Path, folder: Path, offenders: Offenders) -> list[Path]:
    """Image files directly in a folder; whatever else is there is reported."""
    if not folder.is_dir():
        offenders.append((folder, "is not a folder"))
        return []
    entries = list_entries(folder)
    if not entries:
        contents = join_names(list_entries(root))
        reason = f"empty class folder, looked for image files; the root contains: {contents}"
        offenders.append((folder, reason))
    files = []
    for entry in entries:
        if not exists_inside(root, entry, offenders):
            continue
        if entry.is_dir():
            offenders.append((entry, "a folder within a class folder"))
        elif entry.suffix.lower() not in IMAGE_SUFFIXES:
            offenders.append((entry, f"not an image suffix ({' '.join(sorted(IMAGE_SUFFIXES))})"))
        else:
            files.append(entry)
    return files


def check_stems(files: Iterable[Path], offenders: Offenders) -> None:
    """Report images of one folder that share a stem: a mask could belong to either."""
    by_stem = defaultdict(list)
    for path in files:
        by_stem[path.stem].append(path)
    for stem, paths in by_stem.items():
        if len(paths) > 1:
            offenders += [(path, f"one of {len(paths)} images of stem {stem!r}") for path in paths]


def file_masks(
    root: Path,
    truth: str,
    test: str,
    classes: Mapping[str, Sequence[Path]],
    normal: str,
    offenders: Offenders,
) -> dict[Path, Path]:
    """Masks in ``root/truth/<class>/<stem>_mask.<suffix>`` as {image path: mask path}."""
    masks: dict[Path, Path] = {}
    for name, files in class_files(root, truth, offenders, required=False).items():
        images = classes.get(name, ())
        if name == normal:
            reason = "a mask for good images, which have no defect"
            offenders += [(path, reason) for path in files]
        else:
            where = f"{test}/{name}".removeprefix("./"), f"{truth}/{name}"
            masks.update(_pair_masks(where, files, images, offenders))
    return masks


def _pair_masks(where, files, images, offenders):
    """Pair the masks of one class as {image path: mask path}; odd masks are reported."""
    image_folder, mask_folder = where
    stems = {path.stem for path in images}
    found = defaultdict(list)
    for path in files:
        owners = {path.stem, path.stem.removesuffix(_MASK_ENDING)} & stems
        if not owners:
            offenders.append((path, f"a mask for which there is no image in {image_folder}"))
        elif len(owners) > 1:
            offenders.append((path, f"a mask of either image: {', '.join(sorted(owners))}"))
        for owner in owners:
            found[owner].append(path)
    for stem, paths in found.items():
        if len(paths) > 1:
            reason = f"one of {len(paths)} masks for the image {stem!r} of {image_folder}"
            offenders += [(path, reason) for path in paths]
    if files:
        report_unmasked(mask_folder, images, found, offenders)
    return {path: found[path.stem][0] for path in images if path.stem in found}


def report_unmasked(
    mask_folder: str, images: Iterable[Path], found: Collection[str], offenders: Offenders
) -> None:
    """Report images without a mask among images with one."""
    reason = f"no mask in {mask_folder}, which has masks for others"
    offenders += [(path, reason) for path in images if path.stem not in found]


def image_set(
    name: str,
    classes: Mapping[str, Sequence[Path]],
    masks: Mapping[Path, Path | tuple[Path, ...]],
    normal: str = GOOD,
    defects: tuple[Any, ...] | None = None,
) -> ImageSet:
    """ImageSet of {class: [path]}: the normal class first, then the others by name."""
    order = sorted(classes, key=lambda kind: (kind != normal, kind))
    rows = [(path, GOOD if kind == normal else kind) for kind in order for path in classes[kind]]
    return ImageSet(
        images=[path for path, _ in rows],
        y=[1 if kind == GOOD else -1 for _, kind in rows],
        masks=[masks.get(path) for path, _ in rows],
        defect_types=[kind for _, kind in rows],
        name=name,
        defects=defects,
    )


def read_class_folders(
    root: PathLike,
    normal: str = GOOD,
    validation: str | None = None,
    test: str = "test",
    truth: str = "ground_truth",
    masks_of: Callable[..., Mapping[Path, Any]] = file_masks,
    unlabelled: Sequence[str] = (),
    defects_of: Callable[[Path, Offenders], tuple[Any, ...] | None] | None = None,
) -> DatasetSplit:
    """Read ``train/<normal>``, ``<test>/<class>`` and the masks of ``<truth>/<class>``.

    Parameters
    ----------
    root : path-like
        Folder of one category.
    normal : str
        Name of the class of normal images.
    validation : str or None
        Folder of more normal images, which may be missing.
    test, truth : str
        Folder of the test images, and of their masks; the latter is optional,
        and may lie in the former.
    masks_of : callable
        Pairs the masks, with the signature of `file_masks`.
    unlabelled : sequence of str
        Folders of images without labels, each of them optional.
    defects_of : callable or None
        ``defects_of(root, offenders)`` reads what the masks' pixel values mean.

    Returns
    -------
    split : DatasetSplit

    Raises
    ------
    FileNotFoundError, NotADirectoryError, LayoutError
        As for `read_mvtec`.
    """
    root = existing_folder(root)
    require_normal_folder(root, f"train/{normal}")
    offenders: Offenders = []
    parts = ["train"]
    if validation is not None and os.path.lexists(root / validation):
        parts.append(validation)
    normals = {part: class_files(root, part, offenders) for part in parts}
    inner = truth.removeprefix(f"{test}/")
    tested = class_files(root, test, offenders, ignored=() if inner == truth else (inner,))
    for part, classes in normals.items():
        reason = f"{part} holds only good parts, in {part}/{normal}"
        offenders += [(root / part / name, reason) for name in sorted(set(classes) - {normal})]
    for name in sorted(set(tested) - {normal}):
        what = looks_like(name)
        if what is not None:
            place = f"{test}/{normal}" if what == "normal images" else truth
            offenders.append((root / test / name, f"{what} are in {place} here"))
    for classes in (*normals.values(), tested):
        for files in classes.values():
            check_stems(files, offenders)
    masks = masks_of(root, truth, test, tested, normal, offenders)
    defects = defects_of(root, offenders) if defects_of else None
    secret = {
        part: tuple(image_files(root, root / part, offenders))
        for part in unlabelled
        if os.path.lexists(root / part) and exists_inside(root, root / part, offenders)
    }
    for secret_files in secret.values():
        check_stems(secret_files, offenders)
    if offenders:
        raise LayoutError(root, offenders)
    sets = {
        part: image_set(f"{root.name}/{part}", classes, {}, normal)
        for part, classes in normals.items()
    }
    return DatasetSplit(
        name=root.name,
        train=sets["train"],
        test=image_set(f"{root.name}/{test}", tested, masks, normal, defects),
        validation=None if validation is None else sets.get(validation),
        unlabelled=secret or None,
    )
