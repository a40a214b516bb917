"""The command ``skanomaly doctor``."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import skanomaly
from skanomaly._output import Guard
from skanomaly.cli._installation import (
    EXTRAS,
    REQUIRED,
    caches,
    environment,
    fastest_networks,
    fastest_searches,
    installed_version,
    look_at_extra,
    processor,
)
from skanomaly.cli._options import DEFAULT_MODEL, JsonSummary, Overwrite, plain_errors, printable
from skanomaly.cli._summary import check_summary, give_summary

# Of the self-test: enough good parts for the default model, and defects that it finds.
_N_TRAIN, _N_GOOD, _N_DEFECTIVE, _SIDE = 40, 8, 10, 128
_LEAST_AUROC = 0.8


def doctor(json_file: JsonSummary = None, overwrite: Overwrite = False) -> None:
    """Check the installation: versions, extras, devices and caches, and a test of a few seconds."""
    with plain_errors():
        check_summary(json_file, Guard(overwrite=overwrite))
        extras, devices = [], []
        for extra in EXTRAS:
            found, more = look_at_extra(extra)
            extras.append(found)
            devices += more
        torch = next((extra for extra in extras if extra["extra"] == "torch"), None)
        ready = torch is not None and torch["state"] == "ready"
        print("testing the default model ...", file=sys.stderr, flush=True)
        test = _self_test()
        fastest = {
            "transformers": fastest_networks() if ready else None,
            "searches": fastest_searches(),
        }
        summary = {
            "command": "doctor",
            "skanomaly": skanomaly.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "versions": {name: installed_version(name) for name in REQUIRED},
            "extras": extras,
            "devices": ["cpu", *devices],
            "processor": processor(),
            "fastest": fastest,
            "caches": caches(),
            "environment": environment(),
            "self_test": test,
        }
        give_summary(summary, lambda: _show(summary), json_file)
        if not test["ok"]:
            raise typer.Exit(1)


def _self_test() -> dict[str, Any]:
    """Whether the default model finds made defects, and the same ones once kept and loaded."""
    start = time.perf_counter()
    error = None
    try:
        with TemporaryDirectory(prefix="skanomaly-doctor-") as folder:
            error = _first_fault(Path(folder))
    except Exception as exc:  # whatever it is, it is what was asked for
        error = f"{type(exc).__name__}: {exc}"
    return {"ok": error is None, "seconds": time.perf_counter() - start, "error": error}


def _first_fault(folder):
    import numpy as np

    from skanomaly.datasets import read_mvtec
    from skanomaly.datasets._surfaces import write_surfaces
    from skanomaly.metrics import image_auroc

    write_surfaces(
        folder / "parts", "fabric", _N_TRAIN, _SIDE, 0, n_good=_N_GOOD, n_defective=_N_DEFECTIVE
    )
    split = read_mvtec(folder / "parts")
    model = skanomaly.create_model(DEFAULT_MODEL, image_size=_SIDE)
    model.fit(list(split.train.images))
    tested = list(split.test.images)
    scores = model.score_samples(tested)
    auroc = image_auroc(split.test.y, scores)
    if not auroc >= _LEAST_AUROC:
        return f"the default model does not find made defects: image AUROC {auroc:.3f}"
    maps = skanomaly.anomaly_maps(model, tested[:2])
    if not np.isfinite(maps).all():
        return "heat maps hold numbers that are not finite"
    skanomaly.save_model(model, folder / "parts.skan")
    again = skanomaly.load_model(folder / "parts.skan").score_samples(tested)
    if not np.allclose(again, scores, rtol=1e-5):
        return "a model that was kept and loaded gives other scores"
    return None


def _show(summary: Mapping[str, Any]) -> None:
    console = Console()
    for title, rows in (
        ("versions", _versions(summary)),
        ("extras", map(_extra, summary["extras"])),
        ("machine", _machine(summary)),
        ("caches of weights", map(_cache, summary["caches"])),
    ):
        table = _table(title, rows)
        if table.row_count:
            console.print(table)
    test = summary["self_test"]
    kinds = summary["fastest"].values()
    fastest = _table("fastest here", (_fastest(choice) for kind in kinds for choice in kind or []))
    verdict = "ok, in" if test["ok"] else "FAILED after"
    reason = "" if test["ok"] else f": {test['error']}"
    print(printable(f"self-test: {verdict} {test['seconds']:.1f} s{reason}"), flush=True)
    if fastest.row_count:
        console.print(fastest)


def _table(title, rows):
    table = Table(title=title, title_justify="left", show_header=False)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _versions(summary):
    yield "skanomaly", summary["skanomaly"]
    yield "python", f"{summary['python']} on {summary['platform']}"
    for name, version in summary["versions"].items():
        yield name, version or "not installed"


def _extra(found):
    there = {name: version for name, version in found["versions"].items() if version}
    missing = [name for name, version in found["versions"].items() if not version]
    more = ", ".join(f"{name} {version}" for name, version in there.items())
    if found["state"] == "not installed":
        more = found["install"]
    elif found["state"] == "incomplete":
        more += f"; without {', '.join(missing)}: {found['install']}"
    elif found["state"] == "broken":
        more = f"{found['error']} ({more})"
    return found["extra"], found["state"], more


def _machine(summary):
    machine, settings = summary["processor"], summary["environment"]
    features = machine["features"]
    yield "devices", ", ".join(summary["devices"])
    yield (
        "processor",
        f"{machine['machine']}, {machine['usable_cores']} of {machine['cores']} cores",
    )
    if features is not None:
        yield "its features", ", ".join(features) or "none of those made use of"
    yield (
        "threads",
        ", ".join(f"{name} {n}" for name, n in machine["threads"].items()) or "not known",
    )
    for name, value in settings.items():
        if value is not None:
            yield name, value
    if not settings["HF_HUB_OFFLINE"]:
        yield "downloads", "allowed; not tried here"


def _fastest(choice):
    times = ", ".join(f"{name} {ms:.2f} ms" for name, ms in choice["milliseconds"].items())
    return choice["question"], choice["winner"], times


def _cache(cache):
    state = "writable" if cache["writable"] else "NOT writable"
    return cache["of"], cache["folder"], f"{cache['bytes'] / 1e6:.0f} MB, {state}"
