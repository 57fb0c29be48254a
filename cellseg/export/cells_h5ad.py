"""``cells.h5ad``: the table as an AnnData, for scanpy and squidpy."""

from __future__ import annotations

from pathlib import Path

from cellseg.export._anndata import anndata_of
from cellseg.results import Result

__all__ = ["anndata_of", "write"]


def write(result: Result, path: Path) -> None:
    """Write the table of a result.

    Parameters
    ----------
    result : Result
        Finished.
    path : Path
        Overwritten.
    """
    anndata_of(result).write_h5ad(path, compression="gzip")
