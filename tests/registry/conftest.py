"""What a test registers is known to no other test."""

import pytest

from skanomaly.registry._table import EMBEDDERS, SCORERS


@pytest.fixture(autouse=True)
def tables():
    """Leave the tables of names as they were."""
    before = [(table, dict(table)) for table in (SCORERS, EMBEDDERS)]
    yield
    for table, names in before:
        table.clear()
        table.update(names)
