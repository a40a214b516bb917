"""Recognise the layout of a data set and read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skanomaly._typing import PathLike
from skanomaly.datasets._btad import read_btad
from skanomaly.datasets._folder import read_folder
from skanomaly.datasets._loco import CONFIG, read_loco
from skanomaly.datasets._manifest import SUFFIXES, read_manifest
from skanomaly.datasets._mvtec import read_mvtec
from skanomaly.datasets._mvtec2 import read_mvtec2
from skanomaly.datasets._realiad import LISTS, list_files, read_realiad
from skanomaly.datasets._records import GOOD, DatasetSplit, LayoutError
from skanomaly.datasets._tree import (
    existing_folder,
    exists_inside,
    join_names,
    list_entries,
    stays_inside,
)
from skanomaly.datasets._visa import read_visa, split_files, visa_categories


@dataclass(frozen=True)
class _Layout:
    """How a layout is recognised and read; `categories` where one root holds several of them."""

    look_for: str
    matches: Callable[[Path], bool]
    read: Callable[..., DatasetSplit]
    categories: Callable[[Path], tuple[str, ...]] | None = None


def _is_loco(root):
    if not (root / "train" / GOOD).is_dir():
        return False
    truth = root / "ground_truth"
    return (
        (root / "validation" / GOOD).is_dir()
        or (root / CONFIG).is_file()
        or any(entry.is_dir() for folder in _folders(truth) for entry in list_entries(folder))
    )


def _folders(folder):
    return [entry for entry in list_entries(folder) if entry.is_dir()] if folder.is_dir() else []


def _manifests(root):
    return [path for path in (root / f"manifest{suffix}" for suffix in SUFFIXES) if path.is_file()]


# The first that matches is taken: layouts that fewer folders could be taken for come first.
_LAYOUTS = {
    "visa": _Layout(
        "split_csv/*.csv",
        lambda root: bool(split_files(root)),
        read_visa,
        visa_categories,
    ),
    "realiad": _Layout(
        f"{LISTS}/<category>.json",
        lambda root: bool(list_files(root)),
        read_realiad,
        lambda root: tuple(sorted(list_files(root))),
    ),
    "mvtec2": _Layout(
        "train/good with test_public",
        lambda root: (root / "train" / GOOD).is_dir() and (root / "test_public").is_dir(),
        read_mvtec2,
    ),
    "loco": _Layout(
        f"train/good with validation/good, {CONFIG} or ground_truth/<class>/<stem>/",
        _is_loco,
        read_loco,
    ),
    "mvtec": _Layout("train/good", lambda root: (root / "train" / GOOD).is_dir(), read_mvtec),
    "btad": _Layout("train/ok", lambda root: (root / "train" / "ok").is_dir(), read_btad),
    "manifest": _Layout(
        f"manifest{', manifest'.join(SUFFIXES)}",
        lambda root: len(_manifests(root)) == 1,
        lambda root, **options: read_manifest(
            root if root.is_file() else (_manifests(root) or [root / "manifest.csv"])[0], **options
        ),
    ),
    "folder": _Layout(
        "good beside other folders",
        lambda root: (root / GOOD).is_dir() and len(_folders(root)) > 1,
        read_folder,
    ),
}


def sniff_layout(root: PathLike) -> str | None:
    """Name of the layout of a data set, by a look at a few names in its folder.

    Parameters
    ----------
    root : str or path-like
        Folder of a data set or of one of its categories, or a manifest.

    Returns
    -------
    layout : str or None
        One of "visa", "realiad", "mvtec2", "loco", "mvtec", "btad",
        "manifest" and "folder"; None for what is none of them, such as a
        folder of several categories.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        `root` does not exist, or is a file but no manifest.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from skanomaly.datasets import sniff_layout
    >>> with TemporaryDirectory() as folder:
    ...     Path(folder, "train", "good").mkdir(parents=True)
    ...     sniff_layout(folder)
    'mvtec'
    """
    if Path(root).is_file() and Path(root).suffix.lower() in SUFFIXES:
        return "manifest"
    root = existing_folder(root)
    return next((name for name, layout in _LAYOUTS.items() if layout.matches(root)), None)


def list_categories(root: PathLike) -> tuple[str, ...]:
    """Names of the categories which a folder holds.

    Parameters
    ----------
    root : str or path-like
        Folder of a data set.

    Returns
    -------
    categories : tuple of str
        What :func:`read_dataset` takes as `category`, by name. Empty for a
        folder that is one category, and where none is recognised. A folder
        of any good and bad images, without `train`, is not taken for one.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        `root` does not exist or is not a folder.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from skanomaly.datasets import list_categories
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("nut", "bolt"):
    ...         Path(folder, name, "train", "good").mkdir(parents=True)
    ...     list_categories(folder)
    ('bolt', 'nut')
    """
    root = existing_folder(root)
    layout = sniff_layout(root)
    if layout is not None:
        categories = _LAYOUTS[layout].categories
        return categories(root) if categories else ()
    # A folder is no category because it holds `good` beside others: so does `test`.
    return tuple(
        entry.name
        for entry in _folders(root)
        if stays_inside(root, entry) and sniff_layout(entry) not in (None, "folder")
    )


def read_dataset(
    root: PathLike, layout: str | None = None, *, category: str | None = None, **options: Any
) -> DatasetSplit:
    """Read a data set, whatever its layout.

    Parameters
    ----------
    root : str or path-like
        Folder of one category, or of a data set whose `category` is given, or
        a manifest file.
    layout : str or None, default=None
        Reads it as this layout: "mvtec", "mvtec2", "loco", "btad", "visa",
        "realiad", "folder" or "manifest". With None the layout is recognised
        as by :func:`sniff_layout`.
    category : str or None, default=None
        One of :func:`list_categories`.
    **options
        Passed on to the layout's reader, such as ``split="2cls_fewshot"`` to
        :func:`read_visa`.

    Returns
    -------
    split : DatasetSplit
        With `train` and `test`, its training and test images, each an :class:`ImageSet`.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        `root` does not exist or is not a folder.
    LayoutError
        The layout is not recognised, with what was looked for and what was
        found; several categories are there and none is chosen, with their
        names; or files do not fit the layout, with all of them.
    ValueError
        There is no layout of this name.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from skanomaly.datasets import read_dataset
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("train/good/0.png", "test/good/0.png", "test/crack/0.png"):
    ...         path = Path(folder, "nut", name)
    ...         path.parent.mkdir(parents=True)
    ...         Image.new("L", (8, 6)).save(path)
    ...     split = read_dataset(folder, category="nut")
    >>> split.test
    ImageSet('nut/test': 2 images, 1 normal, 1 anomalous (crack), 0 masks)
    """
    if layout is not None and layout not in _LAYOUTS:
        raise ValueError(f"layout is {layout!r}, expected one of {', '.join(_LAYOUTS)}")
    if not Path(root).is_file():
        root = existing_folder(root)
        chosen = sniff_layout(root) if layout is None else layout
        if chosen is not None and _LAYOUTS[chosen].categories:
            return _LAYOUTS[chosen].read(root, category=category, **options)
        if category is not None:
            root = _category_folder(root, category)
    elif category is not None:
        raise ValueError(f"{root} is a file, which has no category {category!r}")
    chosen = sniff_layout(root) if layout is None else layout
    if chosen is None:
        raise LayoutError(root, [(Path(root), _unknown(Path(root)))])
    return _LAYOUTS[chosen].read(Path(root), **options)


def _category_folder(root, category):
    # Found among the entries instead of joined to the root, which ".." could lead out of.
    offenders = []
    for entry in list_entries(root):
        if entry.name == category and exists_inside(root, entry, offenders) and entry.is_dir():
            return entry
    reason = f"no category {category!r}; the root contains: {join_names(list_entries(root))}"
    raise LayoutError(root, offenders or [(root, reason)])


def _unknown(root):
    categories = list_categories(root)
    if categories:
        return f"several categories, pass one of them as category=: {', '.join(categories)}"
    if (root / "Data" / "Images").is_dir():
        return (
            "one category of VisA without its split_csv; pass the folder above, "
            f"with category={root.name!r}"
        )
    wanted = "; ".join(f"{layout.look_for} ({name})" for name, layout in _LAYOUTS.items())
    return f"no layout is recognised; looked for {wanted}; found: {join_names(list_entries(root))}"
