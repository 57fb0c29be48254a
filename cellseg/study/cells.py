"""``cells.parquet``: the cells of all images of a study, streamed."""

from __future__ import annotations

from cellseg.export import check_exports
from cellseg.result.files import output_errors, replacing
from cellseg.storage import Location
from cellseg.study.folder import Study

CELLS = "cells.parquet"


def write_cells(study: Study) -> Location:
    """Write the tables of all results into one, with the result and the image in each row.

    Parameters
    ----------
    study : Study

    Returns
    -------
    Path or RemotePath
        Of the table, in the study's folder.

    Raises
    ------
    SettingsError
        If the package that writes it is not installed.
    InputError
        If a result is damaged.
    OutputError
        If it cannot be written.
    """
    check_exports((CELLS,))
    from cellseg.export.cells_parquet import write_together

    path = study.folder / CELLS
    with output_errors(path), replacing(path) as temporary:
        write_together({one.place: one.folder for one in study.counted}, temporary)
    return study.left(path)
