"""A result's table as an AnnData."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from cellseg.export._cells import tables, with_texts
from cellseg.export._columns import described
from cellseg.result.files import readable
from cellseg.result.result import Result

_PLACES = ("score", "centroid_", "bbox_")
"""Numbers that say where and how sure, and are no measurement."""


def anndata_of(result: Result) -> AnnData:
    """The cells as observations, their measurements as variables.

    Parameters
    ----------
    result : Result
        Finished; its table is read part by part.

    Returns
    -------
    AnnData
        ``X``: float32, (cells, measurements); ``var``: unit and meaning of each. ``obs``: label,
        class, score, place and flags. ``obsm["spatial"]``: float64, (cells, 2), the centre's x and
        y in µm, or in level-0 pixels where the pixel size is unknown (``uns["cellseg"]`` says
        which), 0 at the corner of the first pixel.
    """
    columns = described(result)
    measured = [
        column
        for column in columns
        if column.dtype.startswith("float") and not column.name.startswith(_PLACES)
    ]
    names = [column.name for column in measured]
    rows = result.table
    none = rows.take([]).drop(columns=names)
    values = np.empty((len(rows), len(names)), dtype=np.float32)
    others: list[pd.DataFrame] = []
    filled = 0
    for table in tables(result):
        values[filled : filled + len(table)] = table[names]
        others.append(table.drop(columns=names))
        filled += len(table)
    obs = pd.concat(others, ignore_index=True) if others else none
    obs = with_texts(obs, readable)
    for name in obs.select_dtypes(exclude=["number", "bool"]):
        obs[name] = obs[name].astype("category")
    obs.index = pd.Index(obs["label"].astype(str).to_numpy(dtype=object))
    found = AnnData(
        X=values,
        obs=obs,
        var=pd.DataFrame(
            {
                "unit": [column.unit for column in measured],
                "meaning": [column.meaning for column in measured],
            },
            index=np.array(names, dtype=object),
        ),
    )
    mpp = result.frame.mpp
    centres = obs[["centroid_x_px", "centroid_y_px"]].to_numpy(np.float64) + 0.5
    found.obsm["spatial"] = centres * (mpp or 1.0)
    found.uns["cellseg"] = {
        "result": readable(result.path.name),
        "spatial_unit": "px" if mpp is None else "µm",
        **({} if mpp is None else {"mpp": mpp}),
    }
    return found
