"""Generator of inspection images: procedural surfaces with defects and exact masks."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.utils import Bunch, check_random_state

from skanomaly._output import Guard, foreign_images, is_own_picture, save_picture
from skanomaly.datasets._defects import DEFECTS
from skanomaly.datasets._textures import SURFACES, pixel_grid

# In grey levels: a pixel that a defect changes by less is not in the mask, and a defect that
# changes the pixels of its mask by less on average is drawn again.
_LEAST_CHANGE, _LEAST_MEAN_CHANGE = 5, 9.0


def make_surfaces(
    n_normal: int = 100,
    n_anomalous: int = 0,
    *,
    surface: str = "brushed_metal",
    defects: str | Sequence[str] = "all",
    image_size: int | tuple[int, int] = 256,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Generate inspection images of one product, normal ones and ones with a defect.

    All images of a surface show the same product; they differ as photographs of
    different parts on a production line do: in texture, shift, small rotation,
    illumination, gain, white balance and sensor noise. Sets generated with
    different seeds are therefore sets of the same product.

    Parameters
    ----------
    n_normal, n_anomalous : int, default=100 and 0
        Number of images of each kind, at least one image in total.
    surface : {"brushed_metal", "disc", "fabric", "tile", "wood"}, default="brushed_metal"
        Product. ``"disc"`` is a part on a background, with holes and a stamped
        ring; the others fill the image.
    defects : "all", str or sequence of str, default="all"
        One or more defect types among ``"dent"``, ``"missing_piece"``, ``"scratch"``,
        ``"spot"`` and ``"stain"``. The anomalous images take them in turn.
        Size, position, orientation and contrast are random.
    image_size : int or (int, int), default=256
        Side of square images, or (height, width), in pixels, at least 32.
    random_state : int, RandomState instance or None, default=None
        Source of the randomness. With the same int, the i-th normal and the i-th
        anomalous image do not depend on how many images are asked for.

    Returns
    -------
    data : Bunch
        Normal images first. With n = n_normal + n_anomalous:

        images : ndarray of uint8, shape (n, H, W, 3)
            RGB.
        y : ndarray of int, shape (n,)
            +1 for normal, -1 for anomalous images.
        masks : ndarray of bool, shape (n, H, W)
            An anomalous image is rendered twice, with and without its defect
            and otherwise equal down to the sensor noise. The mask is True
            exactly where the two differ by 5 or more of 255 grey levels in at
            least one channel. It is never empty on an anomalous image and may
            have holes, such as between the bright and the dark side of a dent.
        defect_types : list of str, length n
            Type of defect, ``"good"`` for normal images.

    Raises
    ------
    ValueError
        An unknown surface or defect, a negative count, no image at all, an
        image size below 32, or a bool where a number is meant.

    Examples
    --------
    >>> from skanomaly.datasets import make_surfaces
    >>> data = make_surfaces(2, 2, surface="wood", image_size=64, random_state=0)
    >>> data.images.shape, data.images.dtype.name, data.y.tolist()
    ((4, 64, 64, 3), 'uint8', [1, 1, -1, -1])
    >>> data.defect_types, data.masks.any(axis=(1, 2)).tolist()
    (['good', 'good', 'dent', 'missing_piece'], [False, False, True, True])
    """
    n_normal = _count(n_normal, "n_normal")
    n_anomalous = _count(n_anomalous, "n_anomalous")
    if n_normal + n_anomalous == 0:
        raise ValueError("n_normal + n_anomalous must be at least 1")
    if not isinstance(surface, str) or surface not in SURFACES:
        raise ValueError(f"unknown surface {surface!r}, known are {sorted(SURFACES)}")
    kinds = _defect_names(defects)
    size = _size(image_size)
    if isinstance(random_state, bool):
        raise ValueError(f"random_state must not be a bool, got {random_state!r}")
    seed = check_random_state(random_state).randint(2**31 - 1)

    n = n_normal + n_anomalous
    data = Bunch(
        images=np.empty((n, *size, 3), dtype=np.uint8),
        y=np.repeat([1, -1], [n_normal, n_anomalous]),
        masks=np.zeros((n, *size), dtype=bool),
        defect_types=["good"] * n_normal + [kinds[i % len(kinds)] for i in range(n_anomalous)],
    )
    for i in range(n_normal):
        data.images[i] = _render_normal([seed, 0, i, *surface.encode()], surface, size)[0]
    for i in range(n_normal, n):
        key = [seed, 1, i - n_normal, *surface.encode()]
        _, data.images[i], data.masks[i] = _render_pair(key, surface, data.defect_types[i], size)
    return data


def _count(value, name):
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral) or value < 0:
        raise ValueError(f"{name} must be an integer of at least 0, got {value!r}")
    return int(value)


def _defect_names(defects):
    known = sorted(DEFECTS)
    if isinstance(defects, str):
        names = known if defects == "all" else [defects]
    else:
        names = list(defects) if np.iterable(defects) else []
    if not names or any(name not in known for name in names):
        raise ValueError(f"defects must be 'all' or names among {known}, got {defects!r}")
    return names


def _size(image_size):
    pair = (image_size, image_size) if isinstance(image_size, Integral) else image_size
    if (
        not isinstance(pair, (tuple, list))
        or len(pair) != 2
        or any(isinstance(side, bool) or not isinstance(side, Integral) for side in pair)
        or min(pair) < 32
    ):
        raise ValueError(
            f"image_size must be an integer or (height, width) of at least 32, got {image_size!r}"
        )
    return int(pair[0]), int(pair[1])


def _render_normal(key, surface, size):
    """Render a normal image; also return its scene and a function that photographs scenes."""
    rng = np.random.default_rng(key)
    scene = SURFACES[surface](rng, size)
    camera = _camera(rng, size)
    return camera(scene.image), scene, camera


def _render_pair(key, surface, kind, size):
    """Render one image without and with a defect and the mask of where they differ."""
    normal, scene, camera = _render_normal(key, surface, size)
    rng = np.random.default_rng([*key, 1])
    strength = 1.0
    while True:
        defective = camera(DEFECTS[kind](rng, scene, strength))
        change = np.abs(defective.astype(np.int16) - normal).max(axis=2)
        mask = change >= _LEAST_CHANGE
        if mask.sum() >= 8 and change[mask].mean() >= _LEAST_MEAN_CHANGE:
            return normal, defective, mask
        # The draw can fall on a place where it does not show, such as a dark stain on a dark
        # pore; a stronger one somewhere else does.
        strength *= 1.15


def _camera(rng, size):
    """Light, gain and noise of one exposure, as a function of the scene's colours."""
    y, x = pixel_grid(size)
    y, x = y / size[0] - 0.5, x / size[1] - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(0.03, 0.14)
    light = 1 + slope * (np.cos(angle) * x + np.sin(angle) * y) - 0.18 * (x * x + y * y)
    light = (light * rng.normal(1, 0.025))[..., None] * rng.normal(1, 0.004, 3).astype(np.float32)
    noise = rng.standard_normal((*size, 3), dtype=np.float32)

    def camera(image):
        exposed = np.clip(image * light, 0, 1)
        # shot noise grows with the square root of the light, read noise does not
        exposed += noise * np.sqrt(2e-5 + 6e-5 * exposed)
        return (np.clip(exposed, 0, 1) * 255 + 0.5).astype(np.uint8)

    return camera


def write_surfaces(
    root: Path,
    surface: str,
    n_train: int,
    size: int,
    seed: int,
    *,
    n_good: int = 10,
    n_defective: int = 15,
    overwrite: bool = False,
) -> None:
    """Write a small data set in the layout of MVTec AD.

    Parameters
    ----------
    root : Path
        Folder of the category.
    surface : str
        As for :func:`make_surfaces`.
    n_train : int
        Normal images to fit on.
    size : int
        Side of the images in pixels.
    seed : int
        Of the random numbers.
    n_good, n_defective : int, default=10 and 15
        Normal images, made as those to fit on, and images with a defect, to test on.
    overwrite : bool, default=False
        Whether files of others are written over.

    Raises
    ------
    FileExistsError
        When such a file is in the way, or an image of others lies among these; nothing is written
        then.
    """
    made = make_surfaces(
        n_train + n_good, n_defective, surface=surface, image_size=size, random_state=seed
    )
    pictures = {}
    for i, (image, mask, kind) in enumerate(
        zip(made.images, made.masks, made.defect_types, strict=True)
    ):
        part = "train" if i < n_train else "test"
        pictures[root / part / kind / f"{i:03d}.png"] = image
        if mask.any():
            pictures[root / "ground_truth" / kind / f"{i:03d}_mask.png"] = mask
    Guard(overwrite=overwrite).check(pictures, is_own_picture)
    for folder in {path.parent for path in pictures}:
        if others := foreign_images(folder, pictures) if folder.is_dir() else []:
            raise FileExistsError(
                f"{others[0]} is none of these surfaces, and would be taken for one: move it away, "
                "or name another folder"
            )
    for path, picture in pictures.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Sensor noise does not compress: the quick way saves time, and loses few bytes.
        save_picture(Image.fromarray(picture), path, compress_level=1, photograph=True)
