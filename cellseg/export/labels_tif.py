"""``labels.tif``: the label image at the slide's own size, as a tiled TIFF.

uint32, tiles of 512 px, zlib; each level-0 pixel has the label of the lattice pixel that it lies
in. Memory does not grow with the slide.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

import cellseg
from cellseg.errors import InputError
from cellseg.geometry import Frame, LazyArray
from cellseg.result.result import Result

TILE_PX = 512
_BIGTIFF_FROM_BYTES = 3 * 2**30  # classic TIFF ends at 4 GiB; zlib may add a little
_CHUNKS_IN_MEMORY = 8


def write(result: Result, path: Path) -> None:
    """Write the labels of a result."""
    write_levels(result.labels()[0], result.frame, path)


def write_levels(labels: LazyArray, frame: Frame, path: Path) -> None:
    """Write any label image on a result's lattice, uint32 (Y, X)."""
    if labels.shape != (frame.lattice_height, frame.lattice_width):
        raise InputError(
            f"labels: expected {frame.lattice_height} × {frame.lattice_width} px, "
            f"got {' × '.join(map(str, labels.shape))}"
        )
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
    height, width = labels.chunks

    @lru_cache(maxsize=_CHUNKS_IN_MEMORY)
    def chunk(row: int, column: int) -> NDArray[np.uint32]:
        """Neighbouring tiles share chunks."""
        y, x = row * height, column * width
        return np.asarray(labels[y : y + height, x : x + width], dtype=np.uint32)

    for y in range(0, frame.height, TILE_PX):
        rows = _lattice(y, frame.height, frame.downsample, frame.lattice_height)
        for x in range(0, frame.width, TILE_PX):
            columns = _lattice(x, frame.width, frame.downsample, frame.lattice_width)
            tile = np.zeros((TILE_PX, TILE_PX), dtype=np.uint32)
            for row in np.unique(rows // height).tolist():
                for column in np.unique(columns // width).tolist():
                    inside = [np.flatnonzero(rows // height == row),
                              np.flatnonzero(columns // width == column)]  # fmt: skip
                    at = np.ix_(rows[inside[0]] % height, columns[inside[1]] % width)
                    tile[np.ix_(*inside)] = chunk(row, column)[at]
            yield tile


def _lattice(start: int, length: int, downsample: float, size: int) -> NDArray[np.int64]:
    """Lattice index of each level-0 pixel of one tile along one axis."""
    pixels = np.arange(start, min(start + TILE_PX, length))
    return np.minimum(((pixels + 0.5) / downsample).astype(np.int64), size - 1)
