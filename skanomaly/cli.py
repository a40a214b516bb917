"""The command ``skanomaly``."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import skanomaly

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_Model = Annotated[
    str,
    typer.Option(
        help="'filterbank' (no download), dinov2_vits14, dinov3_vits16 and kin, or any name of timm"
    ),
]
_Output = Annotated[
    Path | None, typer.Option(help="Folder for the heat maps of the test images, as PNG files.")
]
_Json = Annotated[
    str | None, typer.Option("--json", help="File for the results as JSON; '-' for the terminal.")
]


def _show_version(wanted: bool):
    if wanted:
        print(skanomaly.__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="And exit.")
    ] = False,
):
    """Visual anomaly detection for scikit-learn."""


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for images and heat maps.")] = Path(
        "skanomaly-demo"
    ),
    surface: Annotated[str, typer.Option(help="Surface to make, see make_surfaces.")] = "disc",
    images: Annotated[int, typer.Option(min=3, help="Good images to train on.")] = 30,
    size: Annotated[int, typer.Option(min=32, help="Side of the images in pixels.")] = 384,
    seed: Annotated[int, typer.Option(help="Seed of the images.")] = 0,
    json_file: _Json = None,
):
    """Make pictures of parts, good and defective, train on the good ones and find the defects."""
    with _one_line_errors():
        from skanomaly._reports import write_surfaces
        from skanomaly.datasets import read_mvtec

        # One folder for each set of options, so that no run finds the images of another.
        data = output / f"{surface}-{size}px-{images}-seed{seed}"
        write_surfaces(data, surface, images, size, seed)
        pipeline = build_pipeline("filterbank", verbose=sys.stderr.isatty())
        _evaluate(pipeline, [read_mvtec(data)], output / "heatmaps", json_file)


@app.command(context_settings={"allow_extra_args": True})
def evaluate(
    context: typer.Context,
    root: Annotated[Path, typer.Argument(help="Data set, one category or the folder of several.")],
    model: _Model = "filterbank",
    weights: Annotated[
        str | None, typer.Option(help="Local weight file; without it, timm downloads.")
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers of the model, such as '7' or '5,8'.")
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels the model sees.")] = None,
    scorer: Annotated[
        str, typer.Option(help="'knn', 'gaussian', or 'auto': gaussian for filterbank, else knn.")
    ] = "auto",
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
    category: Annotated[str | None, typer.Option(help="One category of several.")] = None,
    layout: Annotated[
        str | None, typer.Option(help="Layout of the data set; recognised by default.")
    ] = None,
    device: Annotated[str, typer.Option(help="Such as cpu or cuda:0.")] = "auto",
    cache_dir: Annotated[Path | None, typer.Option(help="Folder that keeps patch tokens.")] = None,
    n_jobs: Annotated[int | None, typer.Option(help="Threads that read images.")] = None,
    output: _Output = None,
    json_file: _Json = None,
):
    """Train on the good images of a data set, and measure on its test images."""
    with _one_line_errors():
        splits = _read_splits(root, layout, category)
        shots = _more_shots(shots, context.args)
        pipeline = build_pipeline(
            model,
            scorer,
            embedder={
                "weights": weights,
                "layers": None if layers is None else _parse_layers(layers),
                "image_size": image_size,
                "device": None if device == "auto" else device,
            },
            scoring={
                "coreset": _share_or_number("--coreset", coreset),
                "topk": _share_or_number("--topk", topk),
                "contamination": contamination,
            },
            cache_dir=cache_dir,
            n_jobs=n_jobs,
            verbose=sys.stderr.isatty(),
        )
        if shots and output is not None:
            raise ValueError("--output is for one training set; leave out --shots")
        if seeds > 1 and not shots:
            raise ValueError("--seeds is for --shots")
        if shots:
            _few_shot_table(pipeline, splits, shots, seeds, json_file)
            return
        _evaluate(pipeline, splits, output, json_file)


@app.command()
def datasets(
    root: Annotated[Path, typer.Argument(help="Data set, one category or the folder of several.")],
    layout: Annotated[
        str | None, typer.Option(help="Layout of the data set; recognised by default.")
    ] = None,
    category: Annotated[str | None, typer.Option(help="One category of several.")] = None,
):
    """Show what a folder holds, and what is wrong with it."""
    with _one_line_errors():
        from skanomaly.datasets import find_problems

        table = Table("name", "part", "normal", "anomalous", "masks", "defect types")
        problems = []
        for split in _read_splits(root, layout, category):
            for part in ("train", "validation", "test"):
                images = getattr(split, part)
                if images is not None:
                    kinds = sorted(set(images.defect_types) - {"good"})
                    table.add_row(
                        split.name,
                        part,
                        str(np.count_nonzero(images.y == 1)),
                        str(np.count_nonzero(images.y == -1)),
                        str(sum(mask is not None for mask in images.masks)),
                        ", ".join(kinds),
                    )
            problems += find_problems(split)
        Console().print(table)
        for path, reason in problems:
            print(f"{path}: {reason}")
        if problems:
            raise ValueError(f"{len(problems)} problems found")


def build_pipeline(model, scorer="auto", *, embedder=None, scoring=None, **common):
    """The Pipeline of a model name and a scorer name.

    Parameters
    ----------
    model : str
        ``"filterbank"``, a name of :class:`~skanomaly.DinoV2Patches`, or one of timm.
    scorer : {"auto", "knn", "gaussian"}, default="auto"
        ``"auto"``: per-position Gaussians for the filter bank, else nearest patches.
    embedder, scoring : dict, optional
        Parameters of the two steps; those that are None keep their default.
    **common
        Parameters that every embedder has.

    Returns
    -------
    Pipeline

    Raises
    ------
    ValueError
        For an unknown scorer, or a parameter the step does not have.

    Examples
    --------
    >>> from skanomaly.cli import build_pipeline
    >>> build_pipeline("filterbank").named_steps["emb"]
    FilterBankPatches()
    """
    from sklearn.pipeline import Pipeline

    given = {key: value for key, value in (embedder or {}).items() if value is not None}
    if model == "filterbank":
        step = skanomaly.FilterBankPatches()
    elif model.startswith(("dinov2_", "dinov3_")):
        step = skanomaly.DinoV2Patches(model)
    else:
        step = skanomaly.TimmPatches(model)
    if scorer == "auto":
        scorer = "gaussian" if model == "filterbank" else "knn"
    scorers = {
        "knn": skanomaly.PatchKNNScorer(),
        "gaussian": skanomaly.PatchGaussianScorer(
            neighborhood=3,
            n_components=None if model == "filterbank" else 128,
            topk=0.005,
            random_state=0,
        ),
    }
    if scorer not in scorers:
        raise ValueError(f"scorer must be 'auto', 'knn' or 'gaussian', got {scorer!r}")
    for target, params in ((step, {**given, **common}), (scorers[scorer], scoring or {})):
        params = {key: value for key, value in params.items() if value is not None}
        unknown = sorted(set(params) - set(target.get_params()))
        if unknown:
            raise ValueError(f"{type(target).__name__} has no parameter {', '.join(unknown)}")
        target.set_params(**params)
    return Pipeline([("emb", step), (scorer, scorers[scorer])])


def _read_splits(root, layout, category):
    """The data sets of a folder: one, or each of its categories."""
    from skanomaly.datasets import list_categories, read_dataset, sniff_layout

    if category is None and root.is_dir() and sniff_layout(root) is None:
        categories = list_categories(root)
        if categories:
            return [read_dataset(root, layout, category=name) for name in categories]
    return [read_dataset(root, layout, category=category)]


def _more_shots(shots, extra):
    """`--shots 1 2 4`: the numbers behind the first arrive as arguments of no option."""
    if extra and not (shots and all(text.isdigit() for text in extra)):
        raise ValueError(f"unexpected arguments: {' '.join(extra)}")
    return [*(shots or []), *map(int, extra)]


def _few_shot_table(pipeline, splits, shots, seeds, json_file):
    from skanomaly.benchmarking import benchmark, summarize

    path = None if json_file == "-" else json_file
    rows = benchmark(
        {pipeline[-1].__class__.__name__: pipeline}, splits, shots=shots, seeds=seeds, path=path
    )
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


def _parse_layers(text):
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"--layers must be numbers such as '7' or '5,8', got {text!r}") from None


def _share_or_number(option, text):
    """A float of text with a point, an int of text without."""
    if text is None:
        return None
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise ValueError(f"{option} must be a share or a number, got {text!r}") from None


def _evaluate(pipeline, splits, output, json_file):
    from skanomaly._reports import write_heat_maps
    from skanomaly.evaluation import evaluate_split

    # Better said before the work than after it.
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    if json_file not in (None, "-"):
        with open(json_file, "a", encoding="utf-8"):
            pass
    lines = []
    for split in splits:
        result = evaluate_split(pipeline, split)
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


@contextmanager
def _one_line_errors():
    """What a person did wrong ends the program with one line and a code, not a traceback."""
    try:
        yield
    except (OSError, ValueError, TypeError, ImportError, RuntimeError) as exc:
        message = " ".join(str(exc).split()) or type(exc).__name__
        print(f"error: {message}", file=sys.stderr)
        raise typer.Exit(1) from exc


if __name__ == "__main__":
    app()
