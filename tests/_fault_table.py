"""The fault matrix: rows of what may be wrong, what then happens, and how that is checked.

Each module of `tests/faults` fills a `Table` and runs every row as a test of its own;
`tests/faults/test_fault_page.py` holds `docs/faults.md` equal to the tables.
"""

import importlib.util
import io
import itertools
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "faults"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "faults.md"


@dataclass(frozen=True)
class Row:
    """One line of the matrix."""

    id: str
    given: str  # what a person does, or what is wrong
    then: str  # what happens
    check: Callable[[Path], None] = field(repr=False)  # takes an empty folder
    marks: tuple[Any, ...] = ()


class Table:
    """Rows about one subject.

    `name` is of the module that fills it, `title` and `text` are for the page.
    """

    def __init__(self, name: str, title: str, text: str) -> None:
        self.name, self.title, self.text = name, title, text
        self.rows: list[Row] = []

    def add(self, id: str, given: str, then: str, check: Callable[[Path], None], marks=()) -> None:
        assert id not in {row.id for row in self.rows}, f"two rows are called {id}"
        self.rows.append(Row(id, given, then, check, tuple(marks)))

    def row(self, id: str, given: str, then: str, marks=(), **values: Iterable[Any]):
        """Make a row of a function of a folder; several, where values are given by name.

        The value of a name stands for ``{name}`` in the texts. A dict has what it is called in
        them by what the function is given, and that is also what the name of the row is made of.
        """
        named = {key: found if isinstance(found, dict) else None for key, found in values.items()}

        def keep(function):
            for chosen in itertools.product(*values.values()):
                given_to = dict(zip(values, chosen, strict=True))
                texts = {k: named[k][v] if named[k] else v for k, v in given_to.items()}
                self.add(
                    id.format(**{key: slug(value) for key, value in given_to.items()}),
                    given.format(**texts),
                    then.format(**texts),
                    lambda here, kept=given_to: function(here, **kept),
                    marks,
                )
            return function

        return keep

    def error(self, id: str, given: str, error: type, says: tuple[str, ...], act, marks=()) -> None:
        """Make a row of an error: `act`, which takes a folder, raises it, and it says all that."""

        def check(here):
            with pytest.raises(error) as info:
                act(here)
            text = str(info.value)
            assert [part for part in says if part not in text] == [], text

        told = " … ".join(says).replace("\n", " ")
        self.add(id, given, f"`{error.__name__}`: “{told}”", check, marks)

    def params(self) -> list[Any]:
        """Of `pytest.mark.parametrize`."""
        return [pytest.param(row, id=row.id, marks=row.marks) for row in self.rows]


def slug(value: Any) -> str:
    """A value as part of a name."""
    parts = value if isinstance(value, tuple) else (value,)
    text = "-".join(part.decode() if isinstance(part, bytes) else str(part) for part in parts)
    return text.replace(" ", "-")


def tables() -> list[Table]:
    """Of all modules, in the order of the page."""
    found = []
    for path in FOLDER.glob("test_fault_*.py"):
        spec = importlib.util.spec_from_file_location(f"_of_page_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if hasattr(module, "TABLE"):
            assert f"test_fault_{module.TABLE.name}" == path.stem
            found.append((module.ORDER, module.TABLE))
    return [table for _, table in sorted(found, key=lambda pair: pair[0])]


def page() -> str:
    """What `docs/faults.md` is to hold."""
    text = io.StringIO()
    every = tables()
    total = sum(len(table.rows) for table in every)
    text.write(HEAD.format(total=total))
    for table in every:
        text.write(f"\n## {table.title}\n\n{table.text}\n\n")
        text.write(f"Tests: `tests/faults/test_fault_{table.name}.py`.\n\n")
        text.write("| given | what happens | row |\n|---|---|---|\n")
        for row in table.rows:
            cells = [cell.replace("|", "\\|") for cell in (row.given, row.then)]
            text.write(f"| {cells[0]} | {cells[1]} | `{row.id}` |\n")
    return text.getvalue()


HEAD = """# What happens when something is wrong

This page is a reference of faults: damaged files, wrong arguments, full disks and so on. Search it
if you want to know what the package does with bad input. If you have a problem to solve, begin with
[Troubleshooting](troubleshooting.md).

Each line of the tables is a test. It says what is given, what happens, and the name of the test:
`python -m pytest "tests/faults/test_fault_images.py::test_row[missing]"` runs the line `missing`.
There are {total} lines.

- An error names the image by its number and its path, or the parameter or the option as it was
  typed, and says what was expected. The words in quotation marks are part of the message.
- No line ends with a wrong result and without a message. Each test looks for the wrong result that
  the fault could cause, such as a picture that lies on its side, and fails if it finds it.

`python tests/_fault_table.py` writes this page; a test checks that the page agrees with the tests.
"""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE}: {os.path.getsize(PAGE)} bytes")
