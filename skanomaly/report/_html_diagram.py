"""The estimator's own diagram, as scikit-learn draws it, without its scripts."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from typing import Any, NamedTuple

from sklearn.utils import estimator_html_repr

# What the diagram is made of. Everything else goes: scripts, handlers and inline styles, which the
# page's policy forbids, buttons that would need them, links out, and the documentation of each
# parameter, which is longer than the report.
_TAGS = frozenset(
    "div details summary table thead tbody tr th td label input span pre p b code br".split()
)
_ATTRIBUTES = frozenset({"class", "id", "for", "type", "title", "colspan"})
_EMPTY = frozenset({"br", "input"})
_DROPPED = frozenset({"script", "style", "button", "svg"})
_DROPPED_CLASSES = frozenset(
    {"sk-text-repr-fallback", "sk-estimator-doc-link", "param-doc-description"}
)
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


class Diagram(NamedTuple):
    """Style and body of a diagram."""

    style: str
    body: str


def diagram_of(estimator: Any) -> Diagram:
    """Scikit-learn's diagram of an estimator, opened and closed by CSS alone.

    Parameters
    ----------
    estimator : estimator
        Fitted or not.

    Returns
    -------
    Diagram
        Its style, unchanged, and its body, of which only plain elements and attributes are left.
    """
    text = estimator_html_repr(estimator)
    style = "\n".join(_STYLE.findall(text))
    cleaner = _Cleaner()
    cleaner.feed(_STYLE.sub("", text))
    cleaner.close()
    return Diagram(style, "".join(cleaner.out))


class _Cleaner(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.out: list[str] = []
        self.depth = 0  # within what is dropped
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        classes = set((values.get("class") or "").split())
        if self.depth or tag in _DROPPED or classes & _DROPPED_CLASSES:
            if tag not in _EMPTY:
                self.depth += 1
            return
        if tag not in _TAGS or (tag == "input" and values.get("type") != "checkbox"):
            return
        kept = "".join(
            f' {name}="{html.escape(value or "")}"' for name, value in attrs if name in _ATTRIBUTES
        )
        self.out.append(f"<{tag}{kept}>")

    def handle_endtag(self, tag):
        if self.depth:
            if tag not in _EMPTY:
                self.depth -= 1
        elif tag in _TAGS and tag not in _EMPTY:
            self.out.append(f"</{tag}>")

    def handle_data(self, data):
        if not self.depth:
            self.out.append(html.escape(data))
