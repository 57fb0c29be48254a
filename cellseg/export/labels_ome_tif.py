"""``labels.ome.tif``: the label image at the slide's own size as an OME-TIFF with a pyramid.

Like ``labels.tif``, and each further level half as large, by nearest neighbour, down to a tile.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import tifffile

from cellseg.derive.corrections import PatchedPyramid
from cellseg.export.labels_tif import TILE_PX, layout, tiles
from cellseg.result.result import Result


def write(result: Result, path: Path) -> None:
    """Write the labels of a result."""
    labels, base = PatchedPyramid(result.labels()).levels[0], result.frame
    levels = [base]
    while max(levels[-1].height, levels[-1].width) > TILE_PX:
        # As if each were the slide's: a pixel is as wide as two.
        height, width = (-(-side // 2) for side in (levels[-1].height, levels[-1].width))
        half = levels[-1].downsample / 2
        levels.append(replace(levels[-1], height=height, width=width, downsample=half))
    size = {} if base.mpp is None else {f"PhysicalSize{axis}": base.mpp for axis in "XY"}
    with tifffile.TiffWriter(path, ome=True, bigtiff=True) as file:
        for number, level in enumerate(levels):
            file.write(
                tiles(labels, level),
                subifds=None if number else len(levels) - 1,
                subfiletype=1 if number else 0,
                metadata=None if number else {"axes": "YX", "Name": "labels", **size},
                **layout(level),
            )
