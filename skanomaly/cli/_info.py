"""The command ``skanomaly info``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import skanomaly
from skanomaly._output import Guard
from skanomaly.cli._options import JsonSummary, ModelFile, Overwrite, plain_errors, shown
from skanomaly.cli._summary import check_summary, give_summary

_CALLED = {"n_images": "calibrated on", "n_groups": "in groups"}


def info(
    model: ModelFile,
    json_file: JsonSummary = None,
    overwrite: Overwrite = False,
) -> None:
    """Show what a model file says of its model; nothing of the model is loaded."""
    from skanomaly.persistence import model_manifest

    with plain_errors():
        check_summary(json_file, Guard([model], overwrite))
        manifest = model_manifest(model)
        head = {"command": "info", "skanomaly": skanomaly.__version__, "file": str(model)}
        summary = {**head, **manifest, **head}  # a file made up by others says nothing of ours
        give_summary(summary, lambda: _show(model, manifest), json_file)


def _show(model: Path, manifest: dict[str, Any]) -> None:
    console = Console()
    console.print(_summary(model, manifest))
    table = Table("parameter", "value")
    for name, value in _get(manifest, "estimator", "parameters").items():
        table.add_row(shown(name), shown(str(value)))
    console.print(table)


def _summary(model: Path, manifest: dict[str, Any]) -> Table:
    table = Table(title=shown(model.name), title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(manifest):
        table.add_row(name, shown(value))
    return table


def _rows(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and texts of what is worth a look; the whole of it is for ``--json``."""
    saved = _get(manifest, "versions")
    rows = [
        ("created", str(manifest.get("created"))),
        ("by", ", ".join(f"{name} {version}" for name, version in saved.items())),
        ("format", str(manifest.get("format_version"))),
    ]
    rows += [("step", str(step)) for step in _get(manifest, "estimator").get("steps", [])]
    for embedder in manifest.get("embedders") or []:
        facts = (f"{name}={value}" for name, value in embedder.items() if name != "embedder")
        rows.append(("tokens", ", ".join(facts)))
    for region in manifest.get("regions") or []:
        rows.append(("region", f"{region['area']:.1%} of the image, {region['sha256']}"))
    images = _get(manifest, "training_images")
    if images:
        paths = [path for path in images.get("paths") or [] if path is not None]
        where = f", {paths[0]} and others" if len(paths) > 1 else "".join(f", {p}" for p in paths)
        rows.append(("training images", f"{images.get('count')}{where}"))
    for name, value in _get(manifest, "calibration").items():
        text = _short(value)
        if isinstance(value, dict):
            text = ", ".join(f"{key}: {_short(item)}" for key, item in value.items())
        if value is not None:
            rows.append((_CALLED.get(name, name.replace("_", " ")), text))
    for entry in manifest.get("weights") or []:
        place = "in this file" if entry["included"] else "not in this file"
        digests = ", ".join(of_file["sha256"] for of_file in entry["files"])
        rows.append(("weights", f"{entry['value']} ({place}) {digests}".rstrip()))
    arrays = _get(manifest, "arrays")
    rows.append(("arrays", f"{arrays.get('count')}, {arrays.get('bytes', 0) / 1e6:.1f} MB"))
    return rows


def _short(value: Any) -> str:
    """A number with the digits that tell something; the others are for ``--json``."""
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _get(manifest: dict[str, Any], *names: str) -> dict[str, Any]:
    found: Any = manifest
    for name in names:
        found = (found or {}).get(name)
    return found or {}
