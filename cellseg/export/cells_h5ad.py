"""``cells.h5ad``: the table as an AnnData, for scanpy and squidpy."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from anndata.io import write_elem
from h5py import File

from cellseg.export._anndata import anndata_of
from cellseg.result.result import Result

__all__ = ["anndata_of", "write"]


def write(result: Result, path: Path) -> None:
    """Write the table of a result."""
    # In memory first: where a disk is full, HDF5 takes the process down with it.
    packed = BytesIO()
    with File(packed, "w") as file:
        write_elem(file, "/", anndata_of(result), dataset_kwargs={"compression": "gzip"})
    path.write_bytes(packed.getbuffer())
