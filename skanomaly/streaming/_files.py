"""Files of images judged into a folder of Parquet files, a shard at a time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import closing
from functools import lru_cache
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

from skanomaly._optional import import_optional
from skanomaly._output import check_folder
from skanomaly._parameters import check_integer
from skanomaly._recipes import digest_of_fitted
from skanomaly._stamps import file_stamp
from skanomaly._typing import PathLike
from skanomaly.streaming._parts import COLUMNS, Parts, Run
from skanomaly.streaming._scores import Failure, iter_numbered, split_fitted

_JUDGED = ("decision", "score", "threshold", "p_value")
_LOADING = Lock()


def score_files(
    estimator: Any,
    paths: Iterable[PathLike],
    *,
    out: PathLike,
    shard: int = 0,
    n_shards: int = 1,
    resume: bool = True,
    batch_size: int = 16,
    rows_per_file: int = 4096,
) -> dict[str, int]:
    """Judge files of images into a folder of Parquet files: all of them, or one shard of several.

    Each shard may be judged by a process, a machine or a time of its own. What was killed is begun
    again by the same call, as often as it takes: every image is in the folder once.

    Parameters
    ----------
    estimator : Pipeline, detector, or path of a model file
        As for :func:`skanomaly.iter_scores`, fitted. A model file (:func:`skanomaly.save_model`) is
        loaded once a process, however many shards that judges.
    paths : iterable of str or os.PathLike
        All images, those of other shards too, each once: the same list in each call. It is gone
        through once, and paths of this shard are kept.
    out : str or os.PathLike
        Folder of the results, of all shards; it is made where it is missing, and may hold nothing
        else. ``~`` is expanded.
    shard : int, default=0
        Number of the shard to judge, from 0.
    n_shards : int, default=1
        How many there are. An image belongs to one of them by a digest of its path as it is
        written, wherever in the list it stands; shards are of nearly the same size.
    resume : bool, default=True
        Keep the files of this shard that are there, and judge the other images. False: it is an
        error where there are some.
    batch_size : int, default=16
        Images that are scored at a time.
    rows_per_file : int, default=4096
        Images in a file of results. So many at the most are judged again after a kill.

    Returns
    -------
    dict of str to int
        `shard`, `n_shards`, `images` (of the shard), `kept` (of these, judged before), and of the
        others `anomalous`, `normal` and `failed`.

    Raises
    ------
    ImportError
        Without pyarrow: ``pip install "skanomaly[parquet]"``.
    TypeError
        When `paths` is a single one, or holds what is no path.
    ValueError
        When a path of this shard is there twice, or a number is out of its range.
    FileExistsError
        When `out` holds other files than results, or those of another model, list, `n_shards`,
        `rows_per_file` or version of this package; or with ``resume=False`` those of this shard.

    See Also
    --------
    skanomaly.iter_scores : Decisions one after the other, of images of any kind.

    Notes
    -----
    A row has the `path` of its image as it was given (bytes that are no UTF-8 are shown as
    ``\\udc80`` to ``\\udcff``), its `number` in the list, `decision` ("anomalous" or "normal"),
    `score` (higher is more normal), `threshold`, `p_value` (null where the model has none), `error`
    (null, or what is wrong with the image, whose decision and numbers then are null) and `model`:
    twelve digits of the digest of all that was learned, the same in every process. An image that
    failed has its row, and is not judged again. What is no fault of an image is raised, as by
    `iter_scores`.

    A file of results is written beside its place and then moved there, so that it is whole or not
    there; one that is damaged is made again. Which images it holds follows from the list alone:
    two processes that judge the same shard at once, as where a scheduler takes a worker for lost,
    write the same files. Any reader of Parquet takes the folder for one table, such as
    ``pyarrow.dataset.dataset(out)`` or ``pandas.read_parquet(out)``; temporary files, whose names
    begin with a dot, are passed over.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchKNNScorer, score_files
    >>> from skanomaly.datasets import make_surfaces
    >>> surfaces = make_surfaces(9, 1, image_size=64, random_state=0)
    >>> pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer())
    >>> pipe = pipe.fit(surfaces.images[:9])
    >>> with TemporaryDirectory() as folder:
    ...     Image.fromarray(surfaces.images[9]).save(Path(folder, "part.png"))
    ...     score_files(pipe, [Path(folder, "part.png")], out=Path(folder, "scores"))
    {'shard': 0, 'n_shards': 1, 'images': 1, 'kept': 0, 'anomalous': 1, 'normal': 0, 'failed': 0}
    """
    import_optional("pyarrow.parquet", "parquet", "score_files")
    n_shards = check_integer(n_shards, "n_shards", 1)
    shard = check_integer(shard, "shard", 0)
    if shard >= n_shards:
        raise ValueError(f"shard={shard} is none of {n_shards} shards, which count from 0")
    batch_size = check_integer(batch_size, "batch_size", 1)
    rows_per_file = check_integer(rows_per_file, "rows_per_file", 1)
    folder = Path(out).expanduser()
    model = _loaded(estimator) if isinstance(estimator, (str, os.PathLike)) else None
    estimator, digest = model or (estimator, digest_of_fitted(estimator))
    split = split_fitted(estimator)
    mine, of_all = _shard_of(paths, shard, n_shards)
    run = Run(digest, of_all, n_shards, rows_per_file)
    check_folder(folder)
    parts = Parts(folder, run, shard, mine)
    missing = parts.missing(resume)
    left = [pair for part in missing for pair in parts.images(part)]
    counts = {"anomalous": 0, "normal": 0, "failed": 0}
    with closing(iter_numbered(split, left, batch_size)) as judged:
        for part in missing:
            rows = [_row(result, digest[:12]) for result in islice(judged, len(parts.images(part)))]
            parts.write(part, rows)
            for row in rows:
                counts[row["decision"] or "failed"] += 1
    n_kept = len(mine) - len(left)
    return {"shard": shard, "n_shards": n_shards, "images": len(mine), "kept": n_kept, **counts}


def _loaded(path):
    """The model of a file and its digest; one is kept, so that it is loaded once a process."""
    with _LOADING:  # shards in threads of one process wait for the first of them
        return _load(os.fspath(path), file_stamp(path))


@lru_cache(maxsize=1)
def _load(path, stamp):
    from skanomaly.persistence import load_model

    model = load_model(path)
    return model, digest_of_fitted(model)


def _shard_of(paths, shard, n_shards):
    """Images of one shard, each with its number, and a digest of the paths of all."""
    if isinstance(paths, (str, bytes, os.PathLike)):
        raise TypeError(f"paths has to be a list of paths, got the single {paths!r}")
    of_all = hashlib.sha256()
    mine: dict[bytes, tuple[int, str]] = {}
    for number, path in enumerate(paths):
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"paths[{number}] is no path but a {type(path).__name__}")
        name = os.fsencode(path)
        digest = hashlib.blake2b(name, digest_size=16).digest()
        of_all.update(digest)
        if int.from_bytes(digest[:8], "big") % n_shards == shard:
            if digest in mine:
                raise ValueError(
                    f"paths holds {os.fsdecode(path)!r} twice, as numbers {mine[digest][0]} and "
                    f"{number}: give each image once"
                )
            mine[digest] = number, os.fsdecode(path)
    return list(mine.values()), of_all.hexdigest()


def _row(result, model):
    row = {
        **dict.fromkeys(COLUMNS),
        "path": _as_utf8(result.image),
        "number": result.index,
        "model": model,
    }
    if isinstance(result, Failure):
        return {**row, "error": _as_utf8(result.error)}
    numbers = result.to_dict()
    return {**row, **{name: numbers[name] for name in _JUDGED}}


def _as_utf8(text):
    return text.encode("utf-8", "backslashreplace").decode()
