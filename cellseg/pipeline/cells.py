"""What a count found, for Python: totals, the table, outlines, a page in a notebook."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellseg.errors import InputError
from cellseg.export import anndata_of, outlines_of
from cellseg.pipeline.page import page_of
from cellseg.result.result import Result
from cellseg.result.result import load_result as load_folder
from cellseg.table.summary import Summary

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


@dataclass(frozen=True, eq=False, repr=False)
class Cells:
    """What a count found.

    Attributes
    ----------
    summary : Summary
    folder : Path
        The result folder, with ``cells.csv``, ``labels.ome.zarr``, ``run.json``.
    warnings : tuple of str
        What a person should know, one line each.
    load_table : callable
        Reads the table from the folder; called once, when :attr:`table` is first asked for.
    """

    summary: Summary
    folder: Path
    _: KW_ONLY
    warnings: tuple[str, ...] = ()
    load_table: Callable[[Path], pd.DataFrame] = field(
        default=lambda folder: load_folder(folder).table()
    )

    @classmethod
    def of(cls, result: Result) -> Cells:
        """Of a finished result folder.

        Raises
        ------
        InputError
            If its record does not hold the totals.
        """
        try:
            summary = Summary.from_dict(result.run["summary"])
            warnings = tuple(str(line) for line in result.run["warnings"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{result.run_path}: does not hold the totals: {error!r}") from error
        return cls(summary, result.path, warnings=warnings)

    def __len__(self) -> int:
        return self.summary.cells

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a cell; the columns are those of ``cells.csv``."""
        return self.load_table(self.folder)

    @cached_property
    def outlines(self) -> NDArray[np.object_]:
        """One shapely Polygon or MultiPolygon for each row of :attr:`table`, as exports have them.

        (x, y) in level-0 pixels, 0 at the corner of the first pixel, finer than a pixel; an
        outline's area is that of its mask. ``geopandas.GeoDataFrame(cells.table,
        geometry=cells.outlines)`` brings both together.
        """
        return outlines_of(load_folder(self.folder))

    def to_anndata(self) -> AnnData:
        """The table as scverse has it; the same as the export ``cells.h5ad``.

        Raises
        ------
        SettingsError
            If anndata is not installed.
        """
        return anndata_of(load_folder(self.folder))

    def __repr__(self) -> str:
        return f"<Cells: {self.summary}; in {self.folder}>"

    def _repr_html_(self) -> str:
        return page_of(self.summary, self.folder, self.warnings)


def load_result(folder: str | Path) -> Cells:
    """A finished count again, as :func:`cellseg.count` returned it.

    Parameters
    ----------
    folder : str or Path
        ``NAME.cellseg``, or ``NAME.corrected.cellseg``.

    Raises
    ------
    InputError
        If the folder is no result, or its run is not finished.
    """
    return Cells.of(load_folder(folder))
