"""Regions as files that labelling tools open: COCO JSON, and masks as PNG."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from skanomaly._images import check_images, image_size
from skanomaly._images.names import distinct_stems, path_of
from skanomaly._output import (
    Guard,
    check_folder,
    foreign_images,
    is_own_picture,
    save_picture,
    unique_names,
    written_beside,
)
from skanomaly._typing import Images, PathLike
from skanomaly._version import __version__
from skanomaly.core.outlines import outline_polygon
from skanomaly.inspection._regions import Region

_CATEGORY = {"id": 1, "name": "anomaly", "supercategory": "anomaly"}
# How a file of ours begins.
_HEAD = '{"info": {"contributor": "skanomaly"'

Regions = Sequence[Sequence[Region]]


def regions_to_coco(
    images: Images, regions: Regions, *, root: PathLike | None = None
) -> dict[str, Any]:
    """Regions as a data set in the format of COCO.

    Parameters
    ----------
    images : list, tuple, 1-D array or Series of images, or a 4-D uint8 array
        Paths, bytes, PIL images or arrays.
    regions : sequence of sequence of Region
        Those of each image, as from :func:`~skanomaly.anomaly_regions`; images without any are
        listed too.
    root : path-like or None, default=None
        Folder that the names of files are relative to. None: the one that all of them lie in.

    Returns
    -------
    dict
        Ready for `json.dump`; for a file see :func:`write_coco`.

    Raises
    ------
    ValueError
        When there are not as many images as lists of regions, when a region does not fit into its
        image, or an image does not lie in `root`.

    Notes
    -----
    Each region is an annotation of the category ``"anomaly"``, with `bbox` and `area` in pixels,
    the peak of the map as `score`, and the mean of the map as `mean`. Its `segmentation` is one
    polygon along the edges of its pixels, which encloses them exactly (`pycocotools.mask`
    decodes to the same mask). A hole is cut open by a slit of no width, because polygons of COCO
    have no holes and run lengths, the other form, are not read by all tools.

    Images that are no paths have as name their number, such as ``000003.png``, as the files of
    :func:`save_region_masks` do; with a number behind it where a file has that name. Sizes are
    those of the upright image.

    References
    ----------
    .. [1] Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.inspection import find_regions, regions_to_coco
    >>> image = np.zeros((4, 6, 3), dtype=np.uint8)
    >>> heat_map = np.zeros((4, 6))
    >>> heat_map[1:3, 2:5] = 7.0
    >>> coco = regions_to_coco([image], [find_regions(heat_map, 1.0)])
    >>> coco["images"]
    [{'id': 1, 'file_name': '000000.png', 'width': 6, 'height': 4}]
    >>> coco["annotations"][0]["bbox"], coco["annotations"][0]["segmentation"]
    ([2, 1, 3, 2], [[2, 1, 5, 1, 5, 3, 2, 3]])
    """
    items, sizes = _checked(images, regions)
    annotations: list[dict[str, Any]] = []
    for number, of_image in enumerate(regions, start=1):
        for region in of_image:
            x, y = region.box[:2]
            outline = [(x + right, y + down) for right, down in outline_polygon(region.mask)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": _CATEGORY["id"],
                    "bbox": list(region.box),
                    "area": region.area,
                    "segmentation": [[value for point in outline for value in point]],
                    "iscrowd": 0,
                    "score": region.peak,
                    "mean": region.mean,
                }
            )
    names = zip(_file_names(items, root), sizes, strict=True)
    return {
        "info": {
            "contributor": "skanomaly",
            "version": __version__,
            "description": "Anomalous regions; score is the peak of the heat map, unbounded",
        },
        "licenses": [],
        "images": [
            {"id": number, "file_name": name, "width": width, "height": height}
            for number, (name, (height, width)) in enumerate(names, start=1)
        ],
        "categories": [_CATEGORY],
        "annotations": annotations,
    }


def write_coco(
    path: PathLike,
    images: Images,
    regions: Regions,
    *,
    root: PathLike | None = None,
    overwrite: bool = False,
) -> None:
    """Write regions to a JSON file in the format of COCO, for FiftyOne, CVAT and Label Studio.

    Parameters
    ----------
    path : path-like
        Of the file. One of an earlier call is replaced.
    images : list, tuple, 1-D array or Series of images, or a 4-D uint8 array
        Paths, bytes, PIL images or arrays.
    regions : sequence of sequence of Region
        Those of each image, as from :func:`~skanomaly.anomaly_regions`.
    root : path-like or None, default=None
        As for :func:`regions_to_coco`.
    overwrite : bool, default=False
        Replace a file of others too; one of the images never.

    Raises
    ------
    FileExistsError
        When another file, or an image, would be replaced.
    ValueError
        As from :func:`regions_to_coco`.
    OSError
        When nothing can be written there.

    Examples
    --------
    >>> import json
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from skanomaly.inspection import find_regions, write_coco
    >>> image = np.zeros((4, 6, 3), dtype=np.uint8)
    >>> regions = find_regions(np.eye(4, 6), 0.5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_coco(Path(folder, "regions.json"), [image], [regions])
    ...     coco = json.loads(Path(folder, "regions.json").read_text())
    >>> [annotation["area"] for annotation in coco["annotations"]]
    [4]
    """
    target = Path(path)
    Guard(_paths(check_images(images)), overwrite).check([target], _is_own_file)
    check_folder(target.parent)
    text = json.dumps(regions_to_coco(images, regions, root=root))
    with written_beside(target) as file:
        file.write(text.encode() + b"\n")


def save_region_masks(
    folder: PathLike, images: Images, regions: Regions, *, overwrite: bool = False
) -> list[Path]:
    """Write a mask for each image: 255 in its regions, 0 elsewhere.

    Parameters
    ----------
    folder : path-like
        For the masks; made where it is missing. Masks of an earlier call are replaced.
    images : list, tuple, 1-D array or Series of images, or a 4-D uint8 array
        Paths, bytes, PIL images or arrays.
    regions : sequence of sequence of Region
        Those of each image, as from :func:`~skanomaly.anomaly_regions`.
    overwrite : bool, default=False
        Replace files of others too; an image never.

    Returns
    -------
    list of Path
        Of the masks: PNG files of 8 bits and of the size of the image, named like it; where two
        names are alike, with the folders before them.

    Raises
    ------
    FileExistsError
        When another file would be replaced, or the folder holds images, among which masks would be
        taken for images later on.
    ValueError
        As from :func:`regions_to_coco`.
    OSError
        When nothing can be written there.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from PIL import Image
    >>> from skanomaly.inspection import find_regions, save_region_masks
    >>> image = np.zeros((4, 6, 3), dtype=np.uint8)
    >>> regions = find_regions(np.eye(4, 6), 0.5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (mask,) = save_region_masks(Path(folder, "masks"), [image], [regions])
    ...     np.unique(Image.open(mask)).tolist()
    [0, 255]
    """
    items, sizes = _checked(images, regions)
    folder = Path(folder)
    targets = [folder / f"{stem}.png" for stem in distinct_stems(_named(items))]
    guard = Guard(_paths(items), overwrite)
    guard.check(targets, is_own_picture)
    is_there = os.path.lexists(folder)
    if guard.holds_inputs(folder) or (
        is_there and folder.is_dir() and foreign_images(folder, targets)
    ):
        raise FileExistsError(
            f"{folder} holds images, and masks among them would be taken for images later on; name "
            "another folder"
        )
    check_folder(folder)
    for target, size, of_image in zip(targets, sizes, regions, strict=True):
        mask = np.zeros(size, dtype=np.uint8)
        for region in of_image:
            x, y, width, height = region.box
            mask[y : y + height, x : x + width][region.mask] = 255
        save_picture(Image.fromarray(mask), target)
    return targets


def _checked(images, regions):
    """The images and their sizes, where the regions are those of these images."""
    items = check_images(images)
    if len(items) != len(regions):
        raise ValueError(f"there are {len(items)} images, and regions of {len(regions)}")
    sizes = [image_size(item, i) for i, item in enumerate(items)]
    for i, (of_image, size) in enumerate(zip(regions, sizes, strict=True)):
        for region in of_image:
            x, y, width, height = region.box
            if x + width > size[1] or y + height > size[0]:
                raise ValueError(
                    f"image {i} has {size[0]} x {size[1]} pixels (height x width), but a region of "
                    f"it the box {region.box}: pass the regions of these images, in their order"
                )
    return items, sizes


def _paths(items):
    return [path for path in map(path_of, items) if path is not None]


def _named(items):
    """A path for each image: its own, or its number."""
    return [Path(path_of(item) or f"{i:06d}.png") for i, item in enumerate(items)]


def _file_names(items, root):
    """Names of files with ``/``, relative to a folder."""
    paths = [Path(os.path.abspath(item)) for item in _paths(items)]
    if root is not None:
        folder = Path(os.path.abspath(root))
    elif paths:
        folder = Path(os.path.commonpath([path.parent for path in paths]))
    names: list[str | None] = []
    for item in items:
        if (path := path_of(item)) is None:
            names.append(None)
            continue
        place = PurePath(os.path.abspath(path))
        if not place.is_relative_to(folder):
            raise ValueError(f"{path} does not lie in root={os.fspath(root)!r}")
        names.append(place.relative_to(folder).as_posix())
    unnamed = [i for i, name in enumerate(names) if name is None]
    taken = [PurePath(name).stem for name in names if name is not None and "/" not in name]
    made = unique_names([f"{i:06d}" for i in unnamed], reserved=taken)
    for i, name in zip(unnamed, made, strict=True):
        names[i] = f"{name}.png"
    return names


def _is_own_file(path):
    try:
        with open(path, "rb") as file:
            return file.read(len(_HEAD)) == _HEAD.encode()
    except OSError:
        return False
