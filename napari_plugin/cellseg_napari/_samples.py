"""Sample data in napari's own menu: the example slides, made on the spot."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from cellseg_napari._reader import read_slide

LayerData = tuple[Any, ...]


@cache
def _home() -> Path:
    """A folder of this session's own, where results can lie beside the slides."""
    return Path(tempfile.mkdtemp(prefix="cellseg-samples-"))


def fluorescence() -> list[LayerData]:
    """2,500 generated nuclei, 4,096 × 4,096 px, 0.5 µm/px."""
    from cellseg.synthetic import FluorescenceScene, write_fluorescence_example

    path = _home() / "fluorescence.ome.tif"
    if not path.exists():
        write_fluorescence_example(path, FluorescenceScene())
    return read_slide(path)


def ihc() -> list[LayerData]:
    """scikit-image's immunohistochemistry field, 512 × 512 px, without pixel size."""
    from cellseg.synthetic import write_ihc_example

    path = _home() / "ihc.tif"
    if not path.exists():
        write_ihc_example(path)
    return read_slide(path)
