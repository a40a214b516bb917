"""The page of the fault matrix lists every row, as it is."""

from _fault_table import PAGE, page, tables


def test_the_page_is_that_of_the_tables():
    """Where it is not: python tests/_fault_table.py."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_there_are_many_rows_of_each_subject():
    every = tables()
    assert sum(len(table.rows) for table in every) >= 250
    assert min(len(table.rows) for table in every) >= 8
    for table in every:
        for row in table.rows:
            assert row.given and row.then and row.id == row.id.strip(), row
