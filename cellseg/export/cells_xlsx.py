"""``cells.xlsx``: ``cells.csv`` for Excel and LibreOffice, and a sheet with the units.

A sheet ends at 1,048,576 rows: further cells come on further sheets.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from xlsxwriter import Workbook
from xlsxwriter.exceptions import FileCreateError

from cellseg.export._cells import described, with_texts
from cellseg.result.result import Result
from cellseg.text import as_cell, visible

SHEET_ROWS = 1_048_576  # Of a sheet, the header among them.
_OPTIONS = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False}


def write(result: Result, path: Path) -> None:
    """Write the table of a result."""
    with TemporaryDirectory(prefix=f"{path.name}.", dir=path.parent) as folder:
        book = Workbook(str(path), {**_OPTIONS, "tmpdir": folder})
        _fill(book, result)
        try:
            book.close()
        except FileCreateError as error:
            raise error.args[0] from error  # the disk's own


def _fill(book: Workbook, result: Result) -> None:
    columns = described(result)
    names = [column.name for column in columns]
    sheet, filled = book.add_worksheet("cells"), 1
    sheet.write_row(0, 0, names)
    for table in result.table.batches():
        shown = with_texts(table, lambda text: as_cell(visible(text))).astype(object)
        for row in shown.where(table.notna(), None).itertuples(index=False, name=None):
            if filled == SHEET_ROWS:
                sheet, filled = book.add_worksheet(f"cells {len(book.worksheets()) + 1}"), 1
                sheet.write_row(0, 0, names)
            sheet.write_row(filled, 0, row)
            filled += 1
    units = book.add_worksheet("columns")
    units.write_row(0, 0, ["column", "unit", "meaning"])
    for number, column in enumerate(columns, start=1):
        units.write_row(number, 0, [column.name, column.unit, column.meaning.replace("`", "")])
