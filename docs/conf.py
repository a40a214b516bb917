"""Sphinx's settings: `python -m sphinx -W --keep-going -b html docs docs/_build/html`."""

import re
import sys
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).resolve().parent
MADE = DOCS / "_static" / "generated"
sys.path.insert(0, str(DOCS))  # for what is drawn and run for the pages

import _house  # noqa: E402
import _tutorial  # noqa: E402

import skanomaly  # noqa: E402

SOURCE = "https://github.com/skanomaly/skanomaly"

project = "skanomaly"
author = "The skanomaly developers"
copyright = author
version = release = skanomaly.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates", "gallery"]
default_role = "literal"
templates_path = ["_templates"]

# Anchors as on GitHub, down to the headings that pages link to.
myst_heading_anchors = 4

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's sections say what they are
toc_object_entries_show_parents = "hide"  # the sidebar is too narrow for Class.method()
# References to what has no page here. Nothing is fetched, so that the build needs no network.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(sklearn|skanomaly\.core)\..*")]
numpydoc_show_class_members = False  # the template of classes lists them
# The file of its examples, for each name on an API page, and a link from each name in an example.
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_examples",
    "doc_module": ("skanomaly",),
    "reference_url": {"skanomaly": None},
    "backreferences_dir": "api/generated/examples",
    "download_all_examples": False,
    "ignore_repr_types": r"Display'|matplotlib\.",  # what is printed of a picture is no result
    "show_memory": False,
    "write_computation_times": False,  # in a table that fetches its scripts
}

html_theme = "pydata_sphinx_theme"
html_title = f"skanomaly {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_sidebars = {"tutorial": [], "glossary": []}  # no page is below these
html_theme_options = {
    "github_url": SOURCE,
    "external_links": [{"name": "What is new", "url": f"{SOURCE}/blob/main/CHANGELOG.md"}],
    "show_toc_level": 2,
}


def link_to_the_source(app, name, content):
    """Links that leave `docs/`, as they are written for GitHub, go to the repository."""
    here = (DOCS / name).parent

    def absolute(match):
        path, hash_, anchor = match[1].partition("#")
        target = (here / path).resolve()
        if target.is_relative_to(DOCS) or not target.is_relative_to(DOCS.parent):
            return match[0]
        path = target.relative_to(DOCS.parent).as_posix()
        return f"]({SOURCE}/blob/main/{path}{hash_}{anchor})"

    content[0] = re.sub(r"\]\((\.\./[^)\s]+)\)", absolute, content[0])


def run_tutorial(app):
    """Make what the tutorial shows, where it changed; where no example is run, stand-ins for it."""
    page, folder = _tutorial.PAGE, MADE / "tutorial"
    stamp = folder / "ran"
    if str(app.config.plot_gallery) in ("0", "False"):
        for name in _tutorial.included(page.read_text(encoding="utf-8")):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".png" and not path.exists():
                Image.new("L", (8, 8)).save(path)
            path.touch()
    elif not stamp.exists() or stamp.stat().st_mtime < page.stat().st_mtime:
        _tutorial.build(folder)
        stamp.touch()


def is_skipped(app, what, name, obj, skip, options):
    """Leave out what scikit-learn adds for metadata: its docstrings refer to its own guide."""
    return True if re.fullmatch(r"set_\w+_request|set_output|get_metadata_routing", name) else None


def setup(app):
    _house.draw(MADE / "house.svg")
    app.connect("builder-inited", run_tutorial)
    app.connect("source-read", link_to_the_source)
    app.connect("autodoc-skip-member", is_skipped)
