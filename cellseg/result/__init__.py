"""The result folder ``NAME.cellseg``: open it, read it lazily, change it all at once.

Here belong the files of a result, their names, the journal of an unfinished run, and the way from
a staging folder to the final names. What follows from the cells is in :mod:`cellseg.derive`, what
people see of them in :mod:`cellseg.draw`; this room imports neither.
"""

from cellseg.result.change import Change, add_file, changing
from cellseg.result.folder import ResultFolder
from cellseg.result.labels import labels_at
from cellseg.result.result import Ground, Result, load_result
from cellseg.result.table import class_codes, table_writer

__all__ = [
    "Change",
    "Ground",
    "Result",
    "ResultFolder",
    "add_file",
    "changing",
    "class_codes",
    "labels_at",
    "load_result",
    "table_writer",
]
