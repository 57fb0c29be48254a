"""Results without slides, networks or much time: a few discs in a small field."""

import numpy as np
from finished import frame_of, measured

from cellseg.instances import Instances

SIDE = 256


def made(
    folder,
    *,
    image="/scans/a.tif",
    radii=(5, 6, 7, 8),
    classes=("nucleus",),
    mpp=0.5,
    channel="dapi",
    **record,
):
    """A result of ``image``: a cell for each radius (lattice px); ``record`` goes into run.json."""
    cells = [_disc(number, radius, len(classes)) for number, radius in enumerate(radii)]
    about = {
        "made": "2026-01-01T00:00:00+00:00",
        "image": {"path": image},
        "model": {"name": "m", "checksum": "0" * 64},
        "protocol": {"name": "he", "score": 0.5, "stain": "he"},
        "pixel_size": {"mpp": mpp, "source": "given" if mpp else "none"},
        "seconds": {"total": 1.25},
        "warnings": [],
        "doubts": [],
    }
    return measured(
        folder,
        Instances.build(*zip(*cells, strict=True)) if cells else Instances.empty(),
        frame_of(SIDE, SIDE, mpp=mpp),
        classes,
        channels=[channel],
        tissue_mm2=0.01 if mpp else None,
        **(about | record),
    )


def _disc(number, radius, classes):
    step = SIDE // 8
    y, x = (step * (number // 8) + step // 2, step * (number % 8) + step // 2)
    rows, columns = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    box = (y - radius, x - radius, y + radius + 1, x + radius + 1)
    return box, 0.9, number % classes, rows**2 + columns**2 <= radius**2


def region(name, kind, cells, area_mm2, of="nucleus"):
    """A region's part of ``summary.regions``."""
    sizes = {"area_px": None, "area_um2": None, "region_px2": 9.0, "tissue_mm2": None}
    return {"name": name, "class": kind, "area_mm2": area_mm2, "cells": cells,
            "cells_per_class": {of: cells}, **sizes}  # fmt: skip


def marker(name, index, **scores):
    """A marker's part of ``summary.labelling``, as ``cellseg classify`` leaves it."""
    unknown = {"index_interval": None, "h_score": None, "allred": None, "regions": {}}
    return {"name": name, "index": index, **unknown, **scores}
