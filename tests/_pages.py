"""The pages of the documentation: the Markdown that is written, and the API pages that are made."""

import re

from _rooms import ROOT

DOCS = ROOT / "docs"
MADE = ("_build", "auto_examples", "generated", "__pycache__")  # folders


def markdown_pages():
    """The pages of `docs/`, and those that stand elsewhere in the repository."""
    pages = [path for path in DOCS.rglob("*.md") if not set(path.parts) & set(MADE)]
    elsewhere = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]
    pages += [ROOT / name for name in [*elsewhere, "benchmarks/README.md", "training/README.md"]]
    return sorted(pages)


def api_pages():
    """Names with a page of their own, as `docs/api/index.rst` lists them."""
    return re.findall(r"^   (skanomaly\.[\w.]+)$", _api_index(), re.MULTILINE)


def api_entries():
    """Names that `docs/api/index.rst` describes itself."""
    described = re.findall(r"^\.\. py:data::((?: +skanomaly\.\S+\n)+)", _api_index(), re.MULTILINE)
    return " ".join(described).split()


def _api_index():
    return (DOCS / "api" / "index.rst").read_text(encoding="utf-8")
