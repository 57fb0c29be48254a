"""``spatialdata.zarr``: masks and table as a SpatialData, for squidpy, sopa and napari-spatialdata.

Two coordinate systems: ``global`` is the slide's own pixels, ``um`` is µm (where the pixel size is
known). The masks are a labels element ``cells`` on the lattice that was counted on, read and
written chunk by chunk; the table annotates it.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import dask.array
from spatialdata import SpatialData
from spatialdata.models import Labels2DModel, TableModel
from spatialdata.transformations import Scale

from cellseg.export.cells_h5ad import anndata_of
from cellseg.result.result import Result

_ELEMENT, _KEY = "cells", "element"


def write(result: Result, path: Path) -> None:
    """Write the masks and the table of a finished result, into a folder that is not there yet."""
    frame = result.frame
    sides = {"global": frame.downsample}
    if frame.mpp is not None:
        sides["um"] = frame.downsample * frame.mpp
    labels = Labels2DModel.parse(
        dask.array.from_array(result.labels()[0]),  # type: ignore[no-untyped-call]
        dims=("y", "x"),
        transformations={
            system: Scale([side, side], axes=("x", "y")) for system, side in sides.items()
        },
    )
    tables = {}
    if len(result.table):  # spatialdata knows no table without rows
        table = anndata_of(result)
        table.obs[_KEY] = _ELEMENT
        table.obs[_KEY] = table.obs[_KEY].astype("category")
        tables["table"] = TableModel.parse(
            table, region=_ELEMENT, region_key=_KEY, instance_key="label"
        )
    with warnings.catch_warnings():
        # What zarr and ome-zarr will change one day, once for each array: nothing for our users.
        warnings.simplefilter("ignore")
        SpatialData(labels={_ELEMENT: labels}, tables=tables).write(path)
