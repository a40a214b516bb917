"""The command ``skanomaly score``."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import Counter
from contextlib import closing
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm.auto import tqdm

from skanomaly._output import (
    Guard,
    check_folder,
    foreign_images,
    is_own_picture,
    safe_name,
    save_picture,
)
from skanomaly.cli._inputs import LISTED, ImageArguments, Null, image_paths
from skanomaly.cli._options import (
    DATA,
    LIMITS,
    OUTPUT,
    MaxPixels,
    ModelFile,
    Plugin,
    Trust,
    home,
    plain_errors,
)
from skanomaly.cli._records import Printed, RecordFile, field_names, is_terminal
from skanomaly.cli._settings import load_kept
from skanomaly.cli._typed import WrongUsage

_SIGMA = 4.0  # of heat maps, as of anomaly_maps
_FOUND = 3  # exit code


class OnError(str, Enum):
    """What happens at an image that cannot be read or scored."""

    RAISE = "raise"
    SKIP = "skip"


def score(
    model: ModelFile,
    images: ImageArguments,
    null: Null = False,
    on_error: Annotated[
        OnError,
        typer.Option(
            rich_help_panel=DATA,
            help="At an image that cannot be read: end with an error, or record it and go on.",
        ),
    ] = OnError.RAISE,
    jsonl_file: Annotated[
        str | None,
        typer.Option(
            "--jsonl",
            show_default=False,
            metavar="FILE",
            callback=home,
            rich_help_panel=OUTPUT,
            help="Write the records to this file, one JSON object a line; '-' prints them, as is "
            "done where the output is no terminal.",
        ),
    ] = None,
    csv_file: Annotated[
        str | None,
        typer.Option(
            "--csv",
            show_default=False,
            metavar="FILE",
            callback=home,
            rich_help_panel=OUTPUT,
            help="Write the records to this file as CSV; '-' prints them.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            rich_help_panel=OUTPUT,
            help="Go on with the file of --jsonl or --csv: leave out the images that it has.",
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", rich_help_panel=OUTPUT, help="Replace the file of --jsonl or --csv."
        ),
    ] = False,
    regions: Annotated[
        bool,
        typer.Option(
            "--regions",
            rich_help_panel=OUTPUT,
            help="Say where: boxes of the regions that are above what good parts show.",
        ),
    ] = False,
    min_area: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default=False,
            metavar="PIXELS",
            rich_help_panel=OUTPUT,
            help="Leave out regions of fewer pixels.",
        ),
    ] = None,
    maps: Annotated[
        Path | None,
        typer.Option(
            "--maps",
            show_default=False,
            metavar="FOLDER",
            callback=home,
            rich_help_panel=OUTPUT,
            help="Write a picture of each image beside its heat map into this folder.",
        ),
    ] = None,
    plugin: Plugin = None,
    trust: Trust = None,
    fail_on_anomaly: Annotated[
        bool,
        typer.Option(
            "--fail-on-anomaly",
            rich_help_panel=OUTPUT,
            help="End with code 3 where an image is anomalous.",
        ),
    ] = False,
    batch_size: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            rich_help_panel=LIMITS,
            help="Score so many images at a time; 1 gives each result before the next image is "
            "asked for.",
        ),
    ] = 16,
    max_pixels: MaxPixels = None,
) -> None:
    """Judge images by a trained model, one after the other, however many there are."""
    with plain_errors(max_pixels):
        from skanomaly import iter_scores
        from skanomaly._stamps import file_digest

        if min_area is not None and not regions:
            raise WrongUsage("--min-area is for --regions")
        if resume and overwrite:
            raise WrongUsage("--resume goes on with a file that --overwrite would replace")
        paths = image_paths(images, null=null)
        estimator = load_kept(model, plugin, trust)
        digest = file_digest(model)[:12]
        named = [Path(name) for name in images if name != LISTED and os.path.isfile(name)]
        fields = field_names(regions=regions, maps=maps is not None)
        shown = _Shown(estimator, regions, min_area or 1, maps)
        guard = Guard([model, *(plugin or ()), *named], overwrite)
        records = _open(jsonl_file, csv_file, fields, digest, guard, resume)
        if resume and records.n_kept:
            print(f"{records.n_kept} images were judged before", file=sys.stderr)
        counts = Counter(anomalous=records.n_anomalous, normal=records.n_kept - records.n_anomalous)
        left = (path for path in paths if not records.takes(path))
        # A bar among the lines for a person would be in their way.
        no_bar = not sys.stderr.isatty() or (isinstance(records, Printed) and is_terminal())
        with (
            closing(
                iter_scores(
                    estimator,
                    left,
                    batch_size=batch_size,
                    on_error="raise" if on_error is OnError.RAISE else "record",
                )
            ) as judged,
            tqdm(desc="score", unit="image", disable=no_bar) as bar,
        ):
            for result in judged:
                record = _record(result, shown, digest, on_error)
                records.add(record)
                counts["failed" if record["error"] else record["decision"]] += 1
                bar.update()
        n = counts.total()
        print(
            f"{n} image{'s' * (n != 1)}: {counts['anomalous']} anomalous, {counts['normal']} normal"
            + (f", {counts['failed']} failed" if counts["failed"] else ""),
            file=sys.stderr,
        )
        if fail_on_anomaly and counts["anomalous"]:
            raise typer.Exit(_FOUND)


def _open(jsonl_file, csv_file, fields, digest, guard, resume):
    """Where the records go."""
    if jsonl_file is not None and csv_file is not None:
        raise WrongUsage("give --jsonl or --csv, not both")
    form = "jsonl" if csv_file is None else "csv"
    name = jsonl_file if csv_file is None else csv_file
    if name in (None, "-"):
        if resume:
            raise WrongUsage("--resume goes on with a file: name it by --jsonl or --csv")
        return Printed(fields, None if name is None and is_terminal() else form)
    return RecordFile(Path(name), fields, form, digest, guard, resume)


def _record(result, shown, digest, on_error):
    """What is written of one image."""
    from skanomaly import Failure
    from skanomaly._images import ImageReadError

    record = dict.fromkeys(("path", "decision", "score", "threshold", "p_value", "error"))
    record |= {"path": os.fspath(result.image), "model": digest, **dict.fromkeys(shown.fields)}
    if isinstance(result, Failure):
        return {**record, "error": result.error}
    try:
        found = shown.of(result)
    except ImageReadError as exc:  # it was there when it was judged
        if on_error is OnError.RAISE:
            raise
        return {**record, "error": str(exc)}
    numbers = result.to_dict()
    judged = {name: numbers[name] for name in ("decision", "score", "threshold", "p_value")}
    return {**record, **judged, **found}


class _Shown:
    """What is shown of the heat map of an image: regions, a picture, both or nothing."""

    def __init__(self, estimator: Any, regions: bool, min_area: int, folder: Path | None) -> None:
        self.fields = (*(["regions"] if regions else []), *(["heat_map"] if folder else []))
        self.min_area, self.folder = min_area, folder
        if regions:
            from skanomaly.inspection._region_threshold import RegionCalibration

            self.calibration = RegionCalibration(estimator, None, _SIGMA)
            self.calibration.warn_of_few_images()
        if folder is not None:
            from skanomaly.inspection import color_limits

            limits = color_limits(estimator)
            if limits is None:
                raise ValueError("--maps: the model knows no limits of colours; fit it on images")
            self.limits = limits
            if inside := _folder_of_images(folder):
                raise FileExistsError(
                    f"--maps {folder} holds folders of images, such as {inside}, where pictures "
                    "would be taken for more of them: name a folder of its own"
                )
            check_folder(folder)
            if others := foreign_images(folder, ()):
                raise FileExistsError(
                    f"--maps {folder} holds images that are no heat maps, such as {others[0].name};"
                    " name a folder of its own"
                )

    def of(self, decision: Any) -> dict[str, Any]:
        """Values of the fields for one image; its picture is written."""
        if not self.fields:
            return {}
        from skanomaly._images import image_size
        from skanomaly.core.maps import upsample_map
        from skanomaly.inspection import find_regions
        from skanomaly.report._picture import part_picture

        path = decision.image
        if decision.patch_scores is None:
            raise ValueError(f"--regions and --maps: this model gives no heat map of {path}")
        heat_map = upsample_map(decision.patch_scores, image_size(path, decision.index), _SIGMA)
        values: dict[str, Any] = {}
        if "regions" in self.fields:
            threshold = self.calibration.threshold(heat_map.shape)
            found = find_regions(heat_map, threshold, self.min_area)
            values["regions"] = [region.to_dict() for region in found]
        if self.folder is not None:
            target = self.folder / _picture_name(path)
            picture = part_picture(
                path,
                heat_map,
                None,
                decision.score,
                decision.threshold,
                self.limits,
                name=path.name,
                p_value=decision.p_value,
            )
            save_picture(picture, target)
            values["heat_map"] = os.fspath(target)
        return values


def _folder_of_images(folder):
    """A folder below another one with images that are no pictures of ours, or None."""
    from skanomaly.datasets._tree import IMAGE_SUFFIXES

    for place, _, names in os.walk(folder):
        paths = [Path(place, name) for name in names]
        found = (path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES)
        if Path(place) != folder and not all(map(is_own_picture, found)):
            return place
    return None


def _picture_name(path):
    """A name that is the same in each run, and of no other image: names come one by one."""
    digest = hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:10]
    return f"{safe_name(path.stem.encode('utf-8', 'replace').decode())}-{digest}.png"
