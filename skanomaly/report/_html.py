"""One self-contained page of an inspection: what was flagged, where, and what a threshold costs."""

from __future__ import annotations

import math
import os
from numbers import Real
from pathlib import Path
from typing import Any

from skanomaly._output import Guard, check_folder, written_beside
from skanomaly._results.evaluated import EvaluationResult
from skanomaly._typing import PathLike
from skanomaly.report._html_page import is_own_page, page
from skanomaly.report._report_data import report_data, subject_of


def write_report(
    result: EvaluationResult,
    path: PathLike,
    *,
    cost_miss: float = 1.0,
    cost_false_alarm: float = 1.0,
    overwrite: bool = False,
) -> None:
    """Write what was found as one HTML file that needs nothing else: no network, no server.

    Parameters
    ----------
    result : EvaluationResult or ScoredImages
        From :func:`skanomaly.evaluate_split`, or scores of images without labels.
    path : path-like
        The file to write. An earlier report there is replaced.
    cost_miss, cost_false_alarm : float, default=1.0
        What a defective part that passes costs, and a good one that is flagged, in any unit: with
        these the page begins, and a reader may change them.
    overwrite : bool, default=False
        Whether a file that is no report is replaced too; never an image of `result`.

    Raises
    ------
    FileExistsError
        When there is a file at `path` that is no report, or that is an image of `result`.
    ValueError
        When a cost is not a number of at least 0, or there is no image.
    TypeError
        When `result` is nothing of which a report can be made.
    ImageReadError
        When an image cannot be read any more.

    Notes
    -----
    The page ranks the images by score, lower is more anomalous, each with its heat map, the outline
    of its known defect, and the nearest normal patch where the scorer has one and its training
    image can still be read. The threshold can be moved: counts, recall by type of defect and costs
    follow. An image is flagged where its score is below the threshold, compared as here, in
    float64. What the page shows are small copies of the images, of at most some 30 MB together.
    No name, label or parameter can run as script: a Content-Security-Policy allows the page's own
    script alone, by its digest, and no request.

    Examples
    --------
    >>> from skanomaly import create_model, evaluate_split, write_report
    >>> from skanomaly.datasets import read_dataset
    >>> result = evaluate_split(create_model("filterbank"), read_dataset("parts"))  # doctest: +SKIP
    >>> write_report(result, "report.html")  # doctest: +SKIP
    """
    target = check_target(path, result, overwrite)
    for name, cost in (("cost_miss", cost_miss), ("cost_false_alarm", cost_false_alarm)):
        if isinstance(cost, bool) or not isinstance(cost, Real) or not 0 <= cost < math.inf:
            raise ValueError(f"{name} must be a number of at least 0, got {cost!r}")
    subject = subject_of(result)
    data = report_data(subject, cost_miss=cost_miss, cost_false_alarm=cost_false_alarm)
    text = page(data, subject.estimator)
    with written_beside(target) as file:
        file.write(text.encode("utf-8"))


def check_target(path: PathLike, result: Any, overwrite: bool) -> Path:
    """The file to write, checked: what would be lost is an error."""
    target = Path(os.path.realpath(path))  # a link stays a link
    test = getattr(result, "test", None)
    images = test.images if test is not None else getattr(result, "images", ())
    inputs = [image for image in images if isinstance(image, (str, os.PathLike))]
    check_report_file(target, Guard(inputs, overwrite))
    return target


def check_report_file(path: Path, guard: Guard) -> None:
    """Raise where a report cannot be written: said before the work.

    Parameters
    ----------
    path : Path
        Of the file.
    guard : Guard
        What must not be written over.

    Raises
    ------
    FileExistsError
        When there is something else.
    OSError
        When nothing can be written there.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name the file of the report, such as "
                                f"{path / 'report.html'}")
    guard.check([path], is_own_page)
    check_folder(path.parent)
