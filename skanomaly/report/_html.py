"""One self-contained page of an inspection: what was flagged, where, and what a threshold costs."""

from __future__ import annotations

import os
from pathlib import Path

from skanomaly._output import Guard, check_folder, written_beside
from skanomaly._results.evaluated import EvaluationResult
from skanomaly._results.scored import ScoredImages
from skanomaly._typing import PathLike
from skanomaly.metrics._costs import check_costs
from skanomaly.report._html_page import is_own_page, page
from skanomaly.report._report_data import report_data, subject_of


def write_report(
    result: EvaluationResult | ScoredImages,
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
    >>> model = create_model("vision_tiny")
    >>> result = evaluate_split(model, read_dataset("parts"))  # doctest: +SKIP
    >>> write_report(result, "report.html")  # doctest: +SKIP
    """
    test = getattr(result, "test", None)
    images = test.images if test is not None else getattr(result, "images", ())
    inputs = [image for image in images if isinstance(image, (str, os.PathLike))]
    target = check_report_file(path, Guard(inputs, overwrite))
    check_costs(cost_miss, cost_false_alarm, None)
    save_report(result, target, cost_miss=cost_miss, cost_false_alarm=cost_false_alarm)


def save_report(
    result: EvaluationResult | ScoredImages,
    target: Path,
    *,
    cost_miss: float = 1.0,
    cost_false_alarm: float = 1.0,
    command: str | None = None,
) -> None:
    """As :func:`write_report`, into a file that was checked.

    Parameters
    ----------
    result, cost_miss, cost_false_alarm
        See :func:`write_report`.
    target : Path
        From :func:`check_report_file`.
    command : str or None, default=None
        That makes the report again, for its provenance.
    """
    subject = subject_of(result)
    data = report_data(
        subject, cost_miss=cost_miss, cost_false_alarm=cost_false_alarm, command=command
    )
    text = page(data, subject.estimator)
    with written_beside(target) as file:
        file.write(text.encode("utf-8"))


def check_report_file(path: PathLike, guard: Guard) -> Path:
    """Raise where a report cannot be written: said before the work.

    Parameters
    ----------
    path : path-like
        Of the file.
    guard : Guard
        What must not be written over.

    Returns
    -------
    Path
        The file itself: a link stays a link.

    Raises
    ------
    FileExistsError
        When there is something else.
    OSError
        When nothing can be written there.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file in it, such as report.html")
    guard.check([target], is_own_page)
    check_folder(target.parent)
    return target
