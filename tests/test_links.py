"""Links between the Markdown pages lead to files that are there, and to headings in them."""

import re

import pytest
from _pages import DOCS, api_pages, markdown_pages
from _rooms import ROOT

FENCE = re.compile(r"^( *)(`{3,})[^`\n]*\n.*?^\1\2`*$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(text):
    """Without blocks of code; directives are prose."""
    return FENCE.sub(lambda match: match[0] if "`{" in match[0].partition("\n")[0] else "", text)


def anchors(text):
    """The slugs of headings, as GitHub makes them."""
    found = []
    for heading in re.findall(r"^#{1,6} +(.*?) *$", prose(text), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        n = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other) is not None for other in found)
        found.append(f"{slug}-{n}" if n else slug)
    return set(found)


def source_of(target):
    """The file that a page is made from, where it is made by the build."""
    if not target.is_relative_to(DOCS):
        return target
    folder, _, rest = target.relative_to(DOCS).as_posix().partition("/")
    if folder == "auto_examples":
        source = DOCS / "gallery" / rest
        return source.parent if source.stem == "index" else source.with_suffix(".py")
    return target


def faults(page, text):
    for link in LINK.findall(re.sub(r"`[^`\n]*`", "", prose(text))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = source_of((page.parent / path).resolve()) if path else page
        if target.is_relative_to(DOCS / "_static" / "generated"):
            continue  # drawn by the build, for which one that is missing is an error
        if target.parent == DOCS / "api" / "generated":
            if target.suffix != ".rst" or target.stem not in api_pages():
                yield f"{link}: no page of the API"
        elif not target.is_relative_to(ROOT) or not target.exists():
            yield f"{link}: no such file"
        elif anchor and target.suffix == ".md":
            if anchor not in anchors(target.read_text(encoding="utf-8")):
                yield f"{link}: no such heading"


@pytest.mark.parametrize("page", markdown_pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    found = list(faults(page, page.read_text(encoding="utf-8")))
    assert not found, "\n".join(found)


def test_what_leads_nowhere_is_found():
    text = (
        "# Some `code`, and [more](x.md)!\n## A  b\n## Some code and more\n"
        "```python\na[0](nothing.md)\n# no heading\n```\n"
        "```{container}\n[inside](neither.md)\n```\n"
        "[here](#some-code-and-more) [gone](guide.md#no-such-heading) `[code](no.md)`\n"
        "[out](https://example.org/x) [api](api/generated/skanomaly.Nonsense.rst)\n"
        "[page](api/generated/skanomaly.explain.rst) [outside](../../else.md)\n"
        "![house](_static/generated/house.svg) ![not drawn](images/house.svg)\n"
    )
    assert anchors(text) == {"some-code-and-more", "a--b", "some-code-and-more-1"}
    assert list(faults(DOCS / "guide.md", text)) == [
        "x.md: no such file",
        "neither.md: no such file",
        "#some-code-and-more: no such heading",
        "guide.md#no-such-heading: no such heading",
        "api/generated/skanomaly.Nonsense.rst: no page of the API",
        "../../else.md: no such file",
        "images/house.svg: no such file",
    ]


def lost_numbers(text):
    """Lines inside a paragraph that begin as an item of a numbered list does."""
    for paragraph in re.split(r"\n\s*\n", prose(text)):
        lines = paragraph.strip("\n").splitlines()
        in_list = False
        for before, line in zip(["", *lines], lines, strict=False):
            item = re.match(r" *\d+[.)] ", line) is not None
            if item and before and not in_list and not before.startswith("#"):
                yield line
            # What is indented belongs to an item before it.
            in_list = in_list or item or re.match(r" | *[-*+] ", line) is not None


@pytest.mark.parametrize("page", markdown_pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_no_line_of_a_paragraph_becomes_a_list(page):
    assert not list(lost_numbers(page.read_text(encoding="utf-8")))


def test_lost_numbers_are_found():
    text = "P-values lie between 0 and\n1. If many\nare small\n\n1. a\n   list\n2. of two\n"
    assert list(lost_numbers(text)) == ["1. If many"]
