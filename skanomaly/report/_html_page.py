"""The page of a report: the template, filled in, behind a Content-Security-Policy."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import jinja2

from skanomaly._version import __version__
from skanomaly.report._html_diagram import diagram_of
from skanomaly.report._metric_words import metric_in_words

_FOLDER = Path(__file__).parent / "template"
_SCRIPTS = (
    *("elements.js", "threshold.js", "charts.js", "gallery.js", "detail.js"),
    *("summary.js", "report.js", "controls.js"),
)
# How a page of ours is known again; it stands before anything that is long.
_MARK = '<meta name="generator" content="skanomaly report">'


def page(data: dict[str, Any], estimator: Any) -> str:
    """The page, as text.

    Parameters
    ----------
    data : dict
        From :func:`skanomaly.report._report_data.report_data`.
    estimator : estimator
        Fitted, for its diagram.

    Returns
    -------
    str
        HTML in which nothing from the data is markup.

    Notes
    -----
    Styles and scripts are inline, and allowed by their digests: what a name might smuggle in has
    another digest, and does not run.
    """
    diagram = diagram_of(estimator)
    styles = [_read("report.css"), diagram.style]
    script = "\n".join(map(_read, _SCRIPTS))
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"style-src {' '.join(map(_digest, styles))}",
            f"script-src {_digest(script)}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        mark=_MARK,
        policy=policy,
        styles=styles,
        script=script,
        json=json_text(data),
        diagram=diagram.body,
        data=data,
        labelled=data["images"][0]["y"] is not None,
        outlined=any(row["outline"] for row in data["images"]),
        metrics=[(*metric_in_words(name), value) for name, value in data["metrics"].items()],
        version=__version__,
    )


def json_text(data: Any) -> str:
    """JSON that can stand within a script element, whatever texts are in it.

    Parameters
    ----------
    data : object
        Plain values, with finite numbers.

    Returns
    -------
    str
        ASCII without ``<``, ``>`` and ``&``: neither ``</script`` nor ``<!--`` can be in it.
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def is_own_page(path: Path) -> bool:
    """Whether a file is a report of ours.

    Parameters
    ----------
    path : Path
        Of any file.

    Returns
    -------
    bool
    """
    try:
        with open(path, "rb") as file:
            return _MARK.encode() in file.read(400)
    except OSError:
        return False


def _read(name):
    return (_FOLDER / name).read_text(encoding="utf-8")


def _digest(text):
    """By what a policy knows an inline style or script."""
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
