"""The documentation as a site: its API pages, its picture of the house, and that it builds."""

import importlib
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from _pages import DOCS, MADE, api_entries, api_pages, markdown_pages
from _public import public_modules, public_objects
from _rooms import FLOOR, MODULES, ROOT, imports, room_of, tree_of

import skanomaly

SITE = ("sphinx", "pydata_sphinx_theme", "numpydoc", "sphinx_gallery", "myst_parser", "matplotlib")


def test_each_public_function_and_class_has_a_page():
    assert sorted(api_pages()) == sorted(public_objects())


def test_each_public_constant_is_described():
    constants = {
        f"{module.__name__}.{name}"
        for module in public_modules()[1:]
        for name in getattr(module, "__all__", ())
        if not callable(getattr(module, name)) or not hasattr(getattr(module, name), "__name__")
    }
    assert sorted(api_entries()) == sorted(constants)
    assert "skanomaly.metrics.IMAGE_SCORERS" in constants


@pytest.fixture
def house(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("_house")


def test_the_picture_of_the_house_shows_all_rooms_and_imports(house, tmp_path):
    house.draw(tmp_path / "made" / "house.svg")
    root = ElementTree.parse(tmp_path / "made" / "house.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert sorted(text.text for text in root.iter(f"{space}text")) == sorted(FLOOR)
    graph = house.rooms_imported()
    pairs = {
        (room_of(name), room_of(target))
        for name, path in MODULES.items()
        for target in imports(tree_of(path))
    }
    expected = {(a, b) for a, b in pairs if a and b and a != b}
    assert {(a, b) for a in graph for b in graph[a]} == expected
    drawn = house.without_detours(graph)
    arrows = [path for path in root.iter(f"{space}path") if "marker-end" in path.attrib]
    assert len(arrows) == sum(map(len, drawn.values())) < len(expected)


def test_only_detours_are_left_out(house):
    graph = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set(), "e": {"d"}}
    assert house.without_detours(graph) == {
        "a": {"b"},
        "b": {"c"},
        "c": {"d"},
        "d": set(),
        "e": {"d"},
    }


def test_no_box_of_the_picture_overlaps_another(house):
    boxes = list(house.places().values())
    for i, (x, y, width) in enumerate(boxes):
        assert width / 2 <= x <= house.WIDTH - width / 2
        for other_x, other_y, other_width in boxes[:i]:
            apart = abs(x - other_x) >= (width + other_width) / 2
            assert apart or abs(y - other_y) >= house.BOX


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages; examples are shown and not run. Made from a copy: it writes beside them."""
    for name in SITE:
        pytest.importorskip(name, reason=f'{name} is not installed: pip install -e ".[docs]"')
    copy = tmp_path_factory.mktemp("site")
    for name in ("docs", "skanomaly", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns(*MADE))
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    command += ["-D", "plot_gallery=0", "docs", "html"]
    run = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return copy / "html"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(site):
    assert {f"{name}.html" for name in api_pages()} <= {
        path.name for path in (site / "api" / "generated").iterdir()
    }
    written = [path.relative_to(DOCS) for path in markdown_pages() if path.is_relative_to(DOCS)]
    assert all((site / path).with_suffix(".html").is_file() for path in written)
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert all(f'"{name.rpartition(".")[2]}"' in index for name in api_pages())


@pytest.mark.slow
def test_pages_fetch_nothing_from_elsewhere(site):
    for path in site.rglob("*.html"):
        for tag in re.findall(r"<(?:script|link|img)\b[^>]*>", path.read_text(encoding="utf-8")):
            if 'rel="canonical"' not in tag:
                assert not re.search(r'(?:src|href)="(?:https?:)?//', tag), f"{path.name}: {tag}"


@pytest.mark.slow
def test_links_that_leave_the_pages_lead_to_the_repository(site):
    page = (site / "development" / "house.html").read_text(encoding="utf-8")
    assert "/skanomaly/blob/main/CONTRIBUTING.md#how-the-house-is-laid-out" in page
    assert (site / "_images" / "house.svg").is_file()
    assert skanomaly.__version__ in page
