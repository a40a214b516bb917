"""The command ``skanomaly``."""

import csv
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
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
        from skanomaly.datasets import read_mvtec

        # One folder for each set of options, so that no run finds the images of another.
        data = output / f"{surface}-{size}px-{images}-seed{seed}"
        _write_surfaces(data, surface, images, size, seed)
        pipeline = build_pipeline("filterbank", verbose=sys.stderr.isatty())
        _evaluate(pipeline, read_mvtec(data), output / "heatmaps", json_file)


@app.command()
def evaluate(
    root: Annotated[Path, typer.Argument(help="Category in the layout of MVTec AD.")],
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
    device: Annotated[str, typer.Option(help="Such as cpu or cuda:0.")] = "auto",
    cache_dir: Annotated[Path | None, typer.Option(help="Folder that keeps patch tokens.")] = None,
    n_jobs: Annotated[int | None, typer.Option(help="Threads that read images.")] = None,
    output: _Output = None,
    json_file: _Json = None,
):
    """Train on the good images of a data set, and measure on its test images."""
    with _one_line_errors():
        from skanomaly.datasets import read_mvtec

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
        _evaluate(pipeline, read_mvtec(root), output, json_file)


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


def _evaluate(pipeline, split, output, json_file):
    from skanomaly.evaluation import evaluate_split

    # Better said before the work than after it.
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    if json_file not in (None, "-"):
        with open(json_file, "a", encoding="utf-8"):
            pass
    result = evaluate_split(pipeline, split)
    if json_file != "-":
        _print_table(result)
    if output is not None:
        _write_heat_maps(result, split.test, output)
        print(f"{len(split.test)} heat maps and scores.csv in {output}", file=sys.stderr)
    if json_file is not None:
        text = json.dumps(result.to_dict(), indent=2)
        if json_file == "-":
            print(text)
        else:
            Path(json_file).write_text(text + "\n")


def _print_table(result):
    table = Table(title=result.name, title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    images = f"{result.n_train} / {result.n_normal} / {result.n_anomalous}"
    for name, value in (
        ("images: train / test normal / test anomalous", images),
        ("image AUROC", f"{result.image_auroc:.4f}"),
        ("image average precision", f"{result.image_average_precision:.4f}"),
        ("image F1-max (best threshold, knows the labels)", f"{result.image_f1_max:.4f}"),
        (
            f"normal images flagged (nominal {result.contamination:.0%})",
            f"{result.false_positive_rate:.1%}",
        ),
        ("anomalous images flagged", f"{result.recall:.1%}"),
        ("seconds to fit / to score", f"{result.fit_seconds:.1f} / {result.score_seconds:.1f}"),
    ):
        table.add_row(name, value)
    Console().print(table)


def _write_heat_maps(result, images, output):
    """Write image and overlay side by side, on one scale for all, and a table of the scores."""
    from skanomaly._images import image_size
    from skanomaly.core.maps import upsample_map
    from skanomaly.inspection import overlay_map

    patch_scores = np.concatenate([grid.ravel() for grid in result.patch_scores])
    limits = np.quantile(patch_scores, [0.5, 0.999])
    _remove_heat_maps(output)
    with open(output / "scores.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "heat_map", "defect_type", "score", "threshold", "verdict"])
        for i, (path, kind) in enumerate(zip(images.images, images.defect_types, strict=True)):
            heat = upsample_map(result.patch_scores[i], image_size(path), sigma=4)
            plain = overlay_map(path, np.zeros_like(heat), (0, 1))
            picture = np.hstack([plain, overlay_map(path, heat, limits, images.load_mask(i))])
            target = output / kind / f"{path.stem}.png"
            target.parent.mkdir(exist_ok=True)
            Image.fromarray(picture).save(target)
            verdict = "anomalous" if result.predictions[i] == -1 else "normal"
            name = target.relative_to(output).as_posix()
            table.writerow([path, name, kind, result.scores[i], result.threshold, verdict])


def _remove_heat_maps(output):
    """Remove the heat maps that an earlier run listed in its table."""
    if not (output / "scores.csv").is_file():
        return
    with open(output / "scores.csv", newline="", encoding="utf-8") as file:
        names = [row.get("heat_map") or "" for row in csv.DictReader(file)]
    for name in names:
        path = output / name
        if path.suffix == ".png" and path.resolve().is_relative_to(output.resolve()):
            path.unlink(missing_ok=True)


def _write_surfaces(root, surface, n_train, size, seed):
    """A small data set in the layout of MVTec AD."""
    from skanomaly.datasets import make_surfaces

    n_test, n_defects = 10, 15
    made = make_surfaces(
        n_train + n_test, n_defects, surface=surface, image_size=size, random_state=seed
    )
    for i, (image, mask, kind) in enumerate(
        zip(made.images, made.masks, made.defect_types, strict=True)
    ):
        folder = root / ("train" if i < n_train else "test") / kind
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:03d}.png")
        if mask.any():
            folder = root / "ground_truth" / kind
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(folder / f"{i:03d}_mask.png")


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
