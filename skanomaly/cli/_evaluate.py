"""The commands that train a model and measure it: ``evaluate`` and ``demo``."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import skanomaly
from skanomaly.cli._options import (
    Category,
    Json,
    Layout,
    Model,
    Output,
    Plugin,
    Root,
    more_shots,
    one_line_errors,
    parse_layers,
    read_splits,
    share_or_number,
)
from skanomaly.registry import list_scorers
from skanomaly.registry._plugins import import_plugin


def demo(
    output: Annotated[Path, typer.Option(help="Folder for images and heat maps.")] = Path(
        "skanomaly-demo"
    ),
    surface: Annotated[str, typer.Option(help="Surface to make, see make_surfaces.")] = "disc",
    images: Annotated[int, typer.Option(min=3, help="Good images to train on.")] = 30,
    size: Annotated[int, typer.Option(min=32, help="Side of the images in pixels.")] = 384,
    seed: Annotated[int, typer.Option(help="Seed of the images.")] = 0,
    json_file: Json = None,
):
    """Make pictures of parts, good and defective, train on the good ones and find the defects."""
    with one_line_errors():
        from skanomaly.datasets import read_mvtec
        from skanomaly.datasets._surfaces import write_surfaces

        # One folder for each set of options, so that no run finds the images of another.
        data = output / f"{surface}-{size}px-{images}-seed{seed}"
        write_surfaces(data, surface, images, size, seed)
        model = _make_model("filterbank", None, None)
        _evaluate(model, [read_mvtec(data)], output / "heatmaps", json_file)


def evaluate(
    context: typer.Context,
    root: Root,
    model: Model = "filterbank",
    weights: Annotated[
        str | None, typer.Option(help="Local weight file; without it, the model's are downloaded.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint or exported model of anomalib.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Let the checkpoint run its own code.")
    ] = False,
    class_name: Annotated[
        str | None, typer.Option(help="What the images show, for models that compare with texts.")
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers of the model, such as '7' or '5,8'.")
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels the model sees.")] = None,
    scorer: Annotated[
        str | None,
        typer.Option(
            help=f"In place of the model's own: {', '.join(list_scorers())}, or one of --plugin. "
            "A backbone has knn."
        ),
    ] = None,
    coreset: Annotated[
        str | None, typer.Option(help="knn: share (0.1) or number (5000) of patches in the bank.")
    ] = None,
    topk: Annotated[
        str | None, typer.Option(help="Share (0.01) or number (10) of highest patch scores.")
    ] = None,
    contamination: Annotated[
        float, typer.Option(help="Share of good images that may be flagged.")
    ] = 0.1,
    shots: Annotated[
        list[int] | None, typer.Option(help="Train on so many good images: --shots 1 2 4.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Choices of images for each of --shots.")] = 1,
    category: Category = None,
    layout: Layout = None,
    device: Annotated[str, typer.Option(help="Such as cpu or cuda:0.")] = "auto",
    cache_dir: Annotated[Path | None, typer.Option(help="Folder that keeps patch tokens.")] = None,
    n_jobs: Annotated[int | None, typer.Option(help="Threads that read images.")] = None,
    plugin: Plugin = None,
    output: Output = None,
    json_file: Json = None,
):
    """Train on the good images of a data set, and measure on its test images."""
    with one_line_errors():
        for source in plugin or ():
            import_plugin(source)
        splits = read_splits(root, layout, category)
        shots = more_shots(shots, context.args)
        detector = _make_model(
            model,
            scorer,
            weights,
            checkpoint_path=None if checkpoint is None else str(checkpoint),
            trust=trust or None,
            class_name=class_name,
            layers=parse_layers(layers),
            image_size=image_size,
            device=None if device == "auto" else device,
            coreset=share_or_number("--coreset", coreset),
            topk=share_or_number("--topk", topk),
            contamination=contamination,
            cache_dir=cache_dir,
            n_jobs=n_jobs,
        )
        if getattr(detector, "checkpoint_path", "") is None:
            raise ValueError(f"{model} needs --checkpoint FILE")
        if shots and output is not None:
            raise ValueError("--output is for one training set; leave out --shots")
        if seeds > 1 and not shots:
            raise ValueError("--seeds is for --shots")
        if shots:
            _few_shot_table({model: detector}, splits, shots, seeds, json_file)
            return
        _evaluate(detector, splits, output, json_file)


def _make_model(name, scorer, weights, **params):
    """The model of the options; those that are None keep its own value."""
    from sklearn.pipeline import Pipeline

    params = {key: value for key, value in params.items() if value is not None}
    if weights is not None:
        params["weights"] = weights
    model = skanomaly.create_model(name, scorer=scorer, **params)
    readers = [step for _, step in model.steps[:-1]] if isinstance(model, Pipeline) else [model]
    for reader in readers:
        if "verbose" in reader.get_params(deep=False):
            reader.set_params(verbose=sys.stderr.isatty())
    return model


def _few_shot_table(models, splits, shots, seeds, json_file):
    from skanomaly.benchmarking import benchmark, summarize

    path = None if json_file == "-" else json_file
    rows = benchmark(models, splits, shots=shots, seeds=seeds, path=path)
    if json_file == "-":
        for row in rows:
            print(json.dumps(row))
        return
    shown = ("image_auroc", "image_f1_max", "pixel_auroc", "aupro_0.3")
    table = Table("data set", "shots", "seeds", *(name.replace("_", " ") for name in shown))
    for line in summarize(rows):
        cells = []
        for name in shown:
            mean, std = line["mean"].get(name), line["std"].get(name)
            text = "-" if mean is None else f"{mean:.4f}"
            cells.append(text if std is None else f"{text} ± {std:.4f}")
        table.add_row(line["name"], str(line["shots"]), str(line["n_seeds"]), *cells)
    Console().print(table)


def _evaluate(detector, splits, output, json_file):
    from skanomaly.evaluation import evaluate_split
    from skanomaly.report._folder import write_heat_maps

    # Better said before the work than after it.
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    if json_file not in (None, "-"):
        with open(json_file, "a", encoding="utf-8"):
            pass
    lines = []
    for split in splits:
        result = evaluate_split(detector, split)
        lines.append(json.dumps(result.to_dict()) + "\n")
        if json_file == "-":
            print(lines[-1], end="")
        else:
            _print_table(result)
        if output is not None:
            folder = output if len(splits) == 1 else output / split.name
            folder.mkdir(exist_ok=True)
            write_heat_maps(result, split.test, folder)
            print(f"{len(split.test)} heat maps and scores.csv in {folder}", file=sys.stderr)
    if json_file not in (None, "-"):
        Path(json_file).write_text("".join(lines), encoding="utf-8")


def _print_table(result):
    table = Table(title=result.name, title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    for name, value in result.rows():
        table.add_row(name, value)
    Console().print(table)
