"""The commands ``skanomaly weights``: what is downloaded, and downloading ahead of time."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import skanomaly
from skanomaly._networks import hub
from skanomaly.cli._command import examples
from skanomaly.cli._options import known_models, plain_errors

app = typer.Typer(
    no_args_is_help=True, help="List pretrained weights, or download them ahead of time."
)


@app.command("list", epilog=examples("skanomaly weights list"))
def list_weights() -> None:
    """Show which weights the models need, what is there, and in which folders."""
    with plain_errors():
        table = Table("model", "weights", "are")
        table.columns[0].no_wrap = True
        table.columns[1].overflow = "fold"
        for row in _needed():
            table.add_row(*map(escape, row))
        Console().print(table)
        for folder, variable, who in (
            (hub.hub_folder(), "HF_HOME", "timm and open_clip"),
            (hub.torch_folder(), "TORCH_HOME", "addresses of torch"),
            (hub.clip_folder(), None, "addresses of open_clip"),
        ):
            moved = f", moved by {variable}" if variable else ""
            print(f"{folder} ({who}{moved})")
            for name, size, path in hub.downloaded():
                if folder in path.parents:
                    print(f"  {_size(size):>8}  {name}")


@app.command(epilog=examples("skanomaly weights fetch vision_winclip"))
def fetch(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            autocompletion=known_models,
            show_default=False,
            help="Fetch the weights of this model: a name of `skanomaly models`, or a backbone "
            "such as dinov2_vits14, resnet18.tv_in1k (timm) or ViT-B-16/openai (open_clip).",
        ),
    ],
) -> None:
    """Download the weights of a model ahead of time, to run offline later."""
    with plain_errors():
        members = [name] if name in skanomaly.list_models() else name.split("+")
        if len(members) > 1:  # a union, not all of whose members have weights
            members = [member for member in members if _has_weights(member)] or members[:1]
        for member in members:
            path = _fetch(member)
            print(f"{path} ({_size(path.stat().st_size)})")


def _needed():
    """Of each model with weights of its own: name, weights, and whether they are there."""
    from skanomaly.registry import embedder_of, list_models
    from skanomaly.registry._backbones import weight_file

    for name in list_models():
        embedder = embedder_of(name)
        if embedder is None:
            continue
        try:
            file = weight_file(embedder)
        except ImportError as exc:
            yield name, "?", str(exc).rpartition(": ")[2]
            continue
        if file is not None:
            path = file.cached()
            state = "not there" if path is None else f"there ({_size(path.stat().st_size)})"
            yield name, file.source(), state


def _has_weights(name):
    from skanomaly.registry import embedder_of
    from skanomaly.registry._backbones import weight_file

    embedder = embedder_of(name)
    return embedder is not None and weight_file(embedder) is not None


def _fetch(name):
    from skanomaly._optional import import_optional
    from skanomaly.registry import embedder_of
    from skanomaly.registry._backbones import weight_file

    embedder = embedder_of(name)
    if embedder is None:
        raise ValueError(f"{name} takes a checkpoint of your own: there is nothing to download")
    user = f"fetching {name}"
    if isinstance(embedder, skanomaly.OpenClipPatches):
        openclip = import_optional("skanomaly._networks.openclip", "clip", user)
        return openclip.fetch_weights(embedder.model_name, embedder.weights)
    file = weight_file(embedder)
    if file is None:
        raise ValueError(f"{name} has no weights to download")
    # Loaded as it will be loaded: what works now works offline.
    timm = import_optional("skanomaly._networks.timm", "torch", user)
    timm.build_timm(embedder._timm_name(), embedder.weights, None, False, user)
    return file.cached()


def _size(n_bytes):
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes < 1e9 else f"{n_bytes / 1e9:.1f} GB"
