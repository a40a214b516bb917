"""Tables of models, data sets, shots and seeds, that can be interrupted."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from skanomaly._parameters import check_integer
from skanomaly._pipelines import parameters_as_text, split_detector
from skanomaly._typing import PathLike
from skanomaly.datasets import DatasetSplit, ImageSet
from skanomaly.evaluation import evaluate_split
from skanomaly.model_selection import few_shot_indices


def benchmark(
    models: Mapping[str, Any],
    datasets: Iterable[DatasetSplit],
    *,
    shots: Sequence[int | None] = (None,),
    seeds: int = 1,
    n_jobs: int | None = None,
    path: PathLike | None = None,
) -> list[dict[str, Any]]:
    """Evaluate every model on every data set, for numbers of shots and seeds.

    Parameters
    ----------
    models : dict of str to estimator
        Pipelines, detectors or searches by name, as for
        :func:`~skanomaly.evaluation.evaluate_split`.
    datasets : iterable of DatasetSplit
        Their names must differ.
    shots : sequence of int or None, default=(None,)
        Training images to take; None takes all of them, once.
    seeds : int, default=1
        Which of them: seed `s` takes images `s * k` to `(s + 1) * k - 1` of the normal training
        images.
    n_jobs : int or None, default=None
        Workers of joblib.
    path : str, os.PathLike or None, default=None
        File of results, one JSON line a run. Runs that are there already, with the same
        parameters, are read instead of repeated: a table that was interrupted goes on.

    Returns
    -------
    list of dict
        One for each run: `model`, `shots`, `seed` and what `EvaluationResult.to_dict` holds.

    Raises
    ------
    ValueError
        When names of data sets are the same, `seeds` or `shots` are no integers of at least 1, or a
        data set has too few images for them; before the first run.
    TypeError
        When a model gives no maps of images; before the first run.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import DinoV2Patches, PatchKNNScorer, benchmark
    >>> from skanomaly.datasets import read_dataset
    >>> models = {"dino": make_pipeline(DinoV2Patches(), PatchKNNScorer())}
    >>> splits = [read_dataset("mvtec", category=name) for name in ("bottle", "nut")]
    ... # doctest: +SKIP
    >>> rows = benchmark(models, splits, shots=(1, 4), seeds=3, path="runs.jsonl")
    ... # doctest: +SKIP
    """
    splits = list(datasets)
    names = [split.name for split in splits]
    if len(set(names)) < len(names):
        raise ValueError(f"names of the data sets must differ, got {names}")
    check_integer(seeds, "seeds", 1)
    shots = list(shots)
    if len(set(shots)) < len(shots):
        raise ValueError(f"numbers of shots must differ, got {shots}: their runs would be the same")
    for model in models.values():
        split_detector(model)
    done = {} if path is None else _read_runs(Path(path))
    runs = [
        (name, model, split, k, seed)
        for split, (name, model), k in product(splits, models.items(), shots)
        for seed in range(1 if k is None else seeds)
    ]
    for _, _, split, k, seed in runs:
        if k is not None:
            few_shot_indices(int(np.count_nonzero(split.train.y == 1)), k, seed)  # raises
    keys = [
        _run_key(name, split.name, k, seed, parameters_as_text(m))
        for name, m, split, k, seed in runs
    ]
    missing = [(key, run) for key, run in zip(keys, runs, strict=True) if key not in done]
    results = Parallel(n_jobs=n_jobs, return_as="generator")(
        delayed(_run)(*run) for _, run in missing
    )
    for (key, _), row in zip(missing, results, strict=True):
        done[key] = row
        if path is not None:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    return [done[key] for key in keys]


def summarize(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds of the rows of :func:`benchmark`.

    Parameters
    ----------
    rows : list of dict
        From :func:`benchmark`.

    Returns
    -------
    list of dict
        One for each model, data set and number of shots: `model`, `name`, `shots`, `n_seeds`, and
        `mean` and `std` of each metric (`std` is None for one seed).

    Examples
    --------
    >>> from skanomaly.benchmarking import summarize
    >>> run = {"model": "knn", "name": "nut", "shots": 1}
    >>> rows = [{**run, "seed": s, "metrics": {"image_auroc": 0.5 + s}} for s in (0, 1, 2)]
    >>> summarize(rows)[0]["mean"], summarize(rows)[0]["std"]
    ({'image_auroc': 1.5}, {'image_auroc': 1.0})
    """
    groups = defaultdict(list)
    for row in rows:
        groups[row["model"], row["name"], row["shots"]].append(row["metrics"])
    return [
        {
            "model": model,
            "name": name,
            "shots": k,
            "n_seeds": len(found),
            "mean": {m: float(np.mean([f[m] for f in found])) for m in found[0]},
            "std": {
                m: float(np.std([f[m] for f in found], ddof=1)) if len(found) > 1 else None
                for m in found[0]
            },
        }
        for (model, name, k), found in groups.items()
    ]


def _run(name, model, split, shots, seed):
    if shots is not None:
        split = _few_shots(split, shots, seed)
    return {"model": name, "shots": shots, "seed": seed, **evaluate_split(model, split).to_dict()}


def _few_shots(split, shots, seed):
    train = split.train
    normal = np.flatnonzero(train.y == 1)
    chosen = normal[few_shot_indices(len(normal), shots, seed)]
    references = ImageSet(
        images=[train.images[i] for i in chosen],
        y=train.y[chosen],
        masks=[None] * shots,
        defect_types=[train.defect_types[i] for i in chosen],
        name=f"{train.name}, {shots} shots, seed {seed}",
    )
    return DatasetSplit(split.name, references, split.test)


def _read_runs(path):
    """Rows of a file of results by key; a line that was cut off by a kill is removed."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
        path.write_text("".join(lines), encoding="utf-8")
    rows = [json.loads(line) for line in lines]
    if not all({"model", "name", "shots", "seed", "parameters"} <= set(row) for row in rows):
        raise ValueError(f"{path} holds other things than runs of a benchmark; name another file")
    return {
        _run_key(r["model"], r["name"], r["shots"], r["seed"], r["parameters"]): r for r in rows
    }


def _run_key(model, dataset, shots, seed, parameters):
    return json.dumps([model, dataset, shots, seed, parameters], sort_keys=True)
