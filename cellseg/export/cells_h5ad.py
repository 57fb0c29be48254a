"""``cells.h5ad``: the table as an AnnData, for scanpy and squidpy."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.io import write_elem
from h5py import File

from cellseg.export._cells import described, with_texts
from cellseg.result.files import readable
from cellseg.result.result import Result

_NO_MEASUREMENTS = ("score", "centroid_", "bbox_")  # Numbers that say where and how sure.


def write(result: Result, path: Path) -> None:
    """Write the table of a result."""
    # In memory first: where a disk is full, HDF5 takes the process down with it.
    packed = BytesIO()
    with File(packed, "w") as file:
        write_elem(file, "/", anndata_of(result), dataset_kwargs={"compression": "gzip"})
    path.write_bytes(packed.getbuffer())


def anndata_of(result: Result) -> AnnData:
    """The cells as observations, their measurements as variables.

    ``X``: float32, (cells, measurements); ``var``: unit and meaning of each. ``obs``: label,
    class, score, place and flags. ``obsm["spatial"]``: float64, (cells, 2), the centre's x and y
    in µm, or in level-0 pixels where the pixel size is unknown (``uns["cellseg"]`` says which), 0
    at the corner of the first pixel.
    """
    measured = [
        column
        for column in described(result)
        if column.dtype.startswith("float") and not column.name.startswith(_NO_MEASUREMENTS)
    ]
    names = [column.name for column in measured]
    table = result.table.load()
    values = table[names].to_numpy(np.float32)
    obs = with_texts(table.drop(columns=names), readable)
    for name in obs.select_dtypes(exclude=["number", "bool"]):
        obs[name] = obs[name].astype("category")
    obs.index = pd.Index(obs["label"].astype(str).to_numpy(dtype=object))
    about = {
        "unit": [column.unit for column in measured],
        "meaning": [column.meaning for column in measured],
    }
    found = AnnData(X=values, obs=obs, var=pd.DataFrame(about, np.array(names, dtype=object)))
    mpp = result.frame.mpp
    centres = obs[["centroid_x_px", "centroid_y_px"]].to_numpy(np.float64) + 0.5
    found.obsm["spatial"] = centres * (mpp or 1.0)
    found.uns["cellseg"] = {
        "result": readable(result.path.name),
        "spatial_unit": "px" if mpp is None else "µm",
        **({} if mpp is None else {"mpp": mpp}),
    }
    return found
