"""The command ``skanomaly forget``."""

from __future__ import annotations

import skanomaly
from skanomaly._output import Guard
from skanomaly.cli._changed import NewModel, as_text, brings_weights, described, plural
from skanomaly.cli._inputs import ImageArguments, Null, image_paths
from skanomaly.cli._model_files import check_new_model
from skanomaly.cli._options import (
    JsonSummary,
    MaxPixels,
    ModelFile,
    Overwrite,
    Plugin,
    Trust,
    plain_errors,
)
from skanomaly.cli._settings import load_kept
from skanomaly.cli._summary import check_summary, give_summary


def forget(
    model: ModelFile,
    images: ImageArguments,
    *,
    null: Null = False,
    output: NewModel,
    plugin: Plugin = None,
    trust: Trust = None,
    json_file: JsonSummary = None,
    overwrite: Overwrite = False,
    max_pixels: MaxPixels = None,
) -> None:
    """Take training images out of a trained model, without training it again."""
    with plain_errors(max_pixels):
        from skanomaly.cli._training_set import check_readable
        from skanomaly.growth import forget_images
        from skanomaly.growth._parts import check_changes

        check_new_model(output, overwrite)
        paths = list(image_paths(images, null=null))
        guard = Guard([*paths, model, *(plugin or ())], overwrite)
        guard.check([output], lambda path: True)
        check_summary(json_file, guard, [output])
        before = load_kept(model, plugin, trust)
        check_changes(before)
        check_readable(paths, before)
        after = forget_images(before, paths)
        skanomaly.save_model(after, output, include_weights=brings_weights(model))
        old, new = described(before), described(after)
        summary = {
            "command": "forget",
            "skanomaly": skanomaly.__version__,
            "model": str(model),
            "file": str(output),
            "n_forgotten": old["n_images"] - new["n_images"],
            "before": old["threshold"],
            **new,
        }
        what = f"forgotten  {summary['n_forgotten']} of {plural(old['n_images'])} of {model}"
        give_summary(summary, lambda: print(as_text(summary, what), flush=True), json_file)
