"""Results without slides, networks or much time: a few discs in a small field."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from finished import Report, left_by

from cellseg.geometry import Frame
from cellseg.instances import Instances
from cellseg.result.folder import ResultFolder
from cellseg.result.result import Result
from cellseg.table import Column
from cellseg.table.summary import summarised

SIDE = 256


def made(
    folder: Path,
    *,
    image="/scans/a.tif",
    radii=(5, 6, 7, 8),
    classes=("nucleus",),
    mpp=0.5,
    channel="dapi",
    complete=True,
    **record,
) -> Result:
    """A result of ``image``: a cell for each radius (lattice px); ``record`` goes into run.json."""
    frame = Frame(
        height=SIDE, width=SIDE, lattice_height=SIDE, lattice_width=SIDE, downsample=1.0, mpp=mpp
    )
    areas_um2 = ["area_um2"] if mpp else []
    types = {
        "label": "int64", "image": "str", "class": "str", "object": "str", "score": "float32",
        **dict.fromkeys(["area_px", *areas_um2, f"intensity_mean_{channel}"], "float64"),
        "touches_border": "bool", "stitched": "bool",
    }  # fmt: skip
    columns = [Column(name, "", dtype, "") for name, dtype in types.items()]
    cells = [_disc(number, radius, len(classes)) for number, radius in enumerate(radii)]
    instances = Instances.build(*zip(*cells, strict=True)) if cells else Instances.empty()
    table = pd.DataFrame(
        {
            "area_px": instances.areas.astype(float),
            **dict.fromkeys(areas_um2, instances.areas * (mpp or 1.0) ** 2),
            f"intensity_mean_{channel}": np.arange(len(cells), dtype=float),
            "touches_border": False,
            "stitched": False,
        },
        index=range(len(cells)),
    )
    counted = table.assign(**{"class": [classes[n % len(classes)] for n in range(len(cells))]})
    tissue_mm2 = 0.01 if mpp else None
    found = summarised(counted, classes, object="nucleus", mpp=mpp, tissue_mm2=tissue_mm2)
    summary = found.as_dict()
    provenance = {
        "made": "2026-01-01T00:00:00+00:00",
        "image": {"path": image},
        "model": {"name": "m", "checksum": "0" * 64},
        "protocol": {"name": "he", "score": 0.5, "stain": "he"},
        "pixel_size": {"mpp": mpp, "source": "given" if mpp else "none"},
        "seconds": {"total": 1.25},
        "warnings": [],
        "doubts": [],
        **record,
        "summary": summary | record.get("summary", {}),
    }
    with ResultFolder.open(folder, key=f"{image} {record!r}") as out:
        if cells:
            out.journal.add_cells(table, instances)
        return left_by(
            out,
            Report(
                frame=frame,
                columns=columns,
                class_names=classes,
                object_name="nucleus",
                image_name=Path(image).name,
                provenance=provenance,
                complete=complete,
            ),
        )


def _disc(number: int, radius: int, classes: int):
    step = SIDE // 8
    y, x = (step * (number // 8) + step // 2, step * (number % 8) + step // 2)
    rows, columns = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    box = (y - radius, x - radius, y + radius + 1, x + radius + 1)
    return box, 0.9, number % classes, rows**2 + columns**2 <= radius**2
