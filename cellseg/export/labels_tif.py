"""``labels.tif``: the label image at the slide's own size, as a tiled TIFF.

uint32, tiles of 512 px, zlib; each level-0 pixel has the label of the lattice pixel that it lies
in. Memory does not grow with the slide.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

import cellseg
from cellseg.derive.corrections import PatchedPyramid
from cellseg.geometry import Box, Frame, LazyArray
from cellseg.result import Result, labels_at

TILE_PX = 512
_BIGTIFF_FROM_BYTES = 3 * 2**30  # classic TIFF ends at 4 GiB; zlib may add a little


def write(result: Result, path: Path) -> None:
    """Write the labels of a result."""
    # Neighbouring tiles share chunks, which stay decoded here.
    write_levels(PatchedPyramid(result.labels()).levels[0], result.frame, path)


def write_levels(labels: LazyArray, frame: Frame, path: Path) -> None:
    """Write any label image on a result's lattice, uint32 (Y, X)."""
    resolution = None if frame.mpp is None else (1e4 / frame.mpp, 1e4 / frame.mpp)
    tifffile.imwrite(
        path,
        tiles(labels, frame),
        bigtiff=frame.height * frame.width * 4 >= _BIGTIFF_FROM_BYTES,
        resolution=resolution,
        resolutionunit=None if resolution is None else "CENTIMETER",
        software=f"cellseg {cellseg.__version__}",
        metadata=None,
        **layout(frame),
    )


def layout(frame: Frame) -> dict[str, Any]:
    """How a level of labels is stored, as tifffile takes it."""
    return {
        "shape": (frame.height, frame.width),
        "dtype": np.uint32,
        "tile": (TILE_PX, TILE_PX),
        "compression": "zlib",
        "compressionargs": {"level": 4},
        "photometric": "minisblack",
        "maxworkers": 1,
    }


def tiles(labels: LazyArray, frame: Frame) -> Iterator[NDArray[np.uint32]]:
    """Tiles in the file's order; those at the far edges are filled up with 0."""
    for box in Box(0, 0, frame.height, frame.width).parts(TILE_PX):
        tile = np.zeros((TILE_PX, TILE_PX), dtype=np.uint32)
        tile[: box.height, : box.width] = labels_at([labels], frame, box, 1.0)
        yield tile
