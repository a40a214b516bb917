"""Tables of models, data sets, shots and seeds, that can be interrupted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from skanomaly._output import Guard
from skanomaly._parameters import check_integer
from skanomaly._recipes import fingerprint_of
from skanomaly._results.digests import data_digest, file_digests, split_files
from skanomaly._results.file import ResultsFile, row_key
from skanomaly._typing import PathLike
from skanomaly.datasets import DatasetSplit, ImageSet
from skanomaly.evaluation import check_n_train, check_split, evaluate_checked
from skanomaly.model_selection import few_shot_indices

__all__ = ["benchmark", "summarize"]


def benchmark(
    models: Mapping[str, Any],
    datasets: Iterable[DatasetSplit],
    *,
    shots: Sequence[int | None] = (None,),
    seeds: int = 1,
    n_jobs: int | None = None,
    path: PathLike | None = None,
    overwrite: bool = False,
) -> list[dict[str, Any]]:
    """Evaluate every model on every data set, for numbers of shots and seeds.

    Parameters
    ----------
    models : dict of str to estimator
        Pipelines, detectors or searches by name, as for
        :func:`~skanomaly.evaluate_split`.
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
        File of results, one JSON line a run, each there as soon as it is had: a table that was
        interrupted goes on. A run is read instead of repeated where names, shots and seed are the
        same, and so are the contents of all images and masks, the model with its parameters and
        weights, and the version of this package. Other rows in the file are kept.
    overwrite : bool, default=False
        Whether a file that holds anything else is replaced; images and masks never are.

    Returns
    -------
    list of dict
        One for each run: `model`, `shots`, `seed`, `data_digest`, `model_digest`, and what
        `EvaluationResult.to_dict` holds.

    Raises
    ------
    ValueError
        When names of data sets are the same, `seeds` or `shots` are no integers of at least 1, a
        data set or a model's needs do not allow them, or images or masks do not fit; before the
        first run.
    TypeError
        When a model gives no maps of images, or a data set is no DatasetSplit; before the first
        run.
    OSError
        When `path` cannot be written, or holds other things (a FileExistsError); before the first
        run.

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
    splits = _splits(datasets)
    results = None
    if path is not None:
        inputs = [file for split in splits for file in split_files(split)]
        results = ResultsFile(path, Guard(inputs, overwrite))
    return list(each_run(models, splits, shots=shots, seeds=seeds, n_jobs=n_jobs, results=results))


def each_run(
    models: Mapping[str, Any],
    datasets: Iterable[DatasetSplit],
    *,
    shots: Sequence[int | None],
    seeds: int,
    n_jobs: int | None = None,
    results: ResultsFile | None = None,
) -> Iterator[dict[str, Any]]:
    """The rows of :func:`~skanomaly.benchmark`, each as soon as it is had and in the file.

    Parameters
    ----------
    models, datasets, shots, seeds, n_jobs : object
        As for :func:`~skanomaly.benchmark`.
    results : ResultsFile or None, default=None
        Where rows are read from, and written to.

    Yields
    ------
    dict
    """
    splits = _splits(datasets)
    runs = _runs(models, splits, list(shots), seeds)
    done = {} if results is None else results.rows
    digests = file_digests(splits)
    prints = {name: fingerprint_of(model) for name, model in models.items()}
    known = [
        {
            "model": name,
            "name": split.name,
            "shots": k,
            "seed": seed,
            "data_digest": data_digest(split, digests),
            "model_digest": prints[name],
        }
        for name, _, split, k, seed in runs
    ]
    keys = list(map(row_key, known))
    missing = [i for i, key in enumerate(keys) if key not in done]
    for split in splits:
        if any(runs[i][2].name == split.name for i in missing):
            check_split(split)
    made = Parallel(n_jobs=n_jobs, return_as="generator_unordered")(
        delayed(_numbers)(i, *runs[i][1:3]) for i in missing
    )
    for key in keys:
        while key not in done:  # runs after it may be had before it
            i, numbers = next(made)
            row = {**known[i], **numbers}
            if results is not None:
                results.add(row)
            done[keys[i]] = row
        yield done[key]


def summarize(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds of the rows of :func:`~skanomaly.benchmark`.

    Parameters
    ----------
    rows : list of dict
        From :func:`~skanomaly.benchmark`.

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


def _splits(datasets):
    splits = list(datasets)
    for split in splits:
        if not isinstance(split, DatasetSplit):
            raise TypeError(
                "datasets must be a list of DatasetSplit, such as "
                f"[skanomaly.datasets.read_dataset(FOLDER)], but holds a {type(split).__name__}"
            )
    names = [split.name for split in splits]
    if len(set(names)) < len(names):
        raise ValueError(f"names of the data sets must differ, got {names}")
    return splits


def _runs(models, splits, shots, seeds):
    """Of each run: name, model, its part of the data set, shots and seed."""
    check_integer(seeds, "seeds", 1)
    if len(set(shots)) < len(shots):
        raise ValueError(f"numbers of shots must differ, got {shots}: their runs would be the same")
    runs = []
    for split, (name, model), k in product(splits, models.items(), shots):
        n_normal = int(np.count_nonzero(split.train.y == 1))
        for seed in range(1 if k is None else seeds):
            part = split if k is None else _few_shots(split, n_normal, k, seed)
            check_n_train(model, part.train, part.train.name)
            runs.append((name, model, part, k, seed))
    return runs


def _numbers(i, model, split):
    """The numbers of run `i`: what else was found would have to be sent between processes."""
    return i, evaluate_checked(model, split).to_dict()


def _few_shots(split, n_normal, shots, seed):
    train = split.train
    try:
        chosen = np.flatnonzero(train.y == 1)[few_shot_indices(n_normal, shots, seed)]
    except ValueError as exc:
        raise ValueError(f"{split.name}, {shots} shots: {exc}") from exc
    references = ImageSet(
        images=[train.images[i] for i in chosen],
        y=train.y[chosen],
        masks=[None] * shots,
        defect_types=[train.defect_types[i] for i in chosen],
        name=f"{train.name}, {shots} shots, seed {seed}",
        groups=None if train.groups is None else [train.groups[i] for i in chosen],
    )
    return DatasetSplit(split.name, references, split.test)
