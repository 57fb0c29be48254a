"""``labels.tif``: the label image at the slide's own size, as a tiled TIFF.

uint32, tiles of 512 px, zlib; each level-0 pixel has the label of the lattice pixel that it lies
in. Memory does not grow with the slide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tifffile
from numpy.typing import NDArray

import cellseg
from cellseg.errors import InputError
from cellseg.geometry import Frame
from cellseg.result.result import Result

TILE_PX = 512
_BIGTIFF_FROM_BYTES = 3 * 2**30  # classic TIFF ends at 4 GiB; zlib may add a little
_CHUNKS_IN_MEMORY = 8


class Labels(Protocol):
    """As much of an array's interface as this needs."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def chunks(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: Any, /) -> Any: ...  # noqa: ANN401 - zarr's or our own


_Chunk = Callable[[int, int], NDArray[np.uint32]]


def write(result: Result, path: Path) -> None:
    """Write the labels of a result."""
    write_levels(result.labels()[0], result.frame, path)


def write_levels(labels: Labels, frame: Frame, path: Path) -> None:
    """The same from any label image on a result's lattice, uint32 (Y, X).

    Raises
    ------
    InputError
        If it is not as large as the lattice.
    """
    if labels.shape != (frame.lattice_height, frame.lattice_width):
        raise InputError(
            f"labels: expected {frame.lattice_height} × {frame.lattice_width} px, "
            f"got {' × '.join(map(str, labels.shape))}"
        )
    resolution = None if frame.mpp is None else (1e4 / frame.mpp, 1e4 / frame.mpp)
    tifffile.imwrite(
        path,
        _tiles(labels, frame),
        shape=(frame.height, frame.width),
        dtype=np.uint32,
        tile=(TILE_PX, TILE_PX),
        compression="zlib",
        compressionargs={"level": 4},
        photometric="minisblack",
        bigtiff=frame.height * frame.width * 4 >= _BIGTIFF_FROM_BYTES,
        resolution=resolution,
        resolutionunit=None if resolution is None else "CENTIMETER",
        software=f"cellseg {cellseg.__version__}",
        metadata=None,
        maxworkers=1,
    )


def _tiles(labels: Labels, frame: Frame) -> Iterator[NDArray[np.uint32]]:
    """Tiles in the file's order; those at the far edges are filled up with 0."""
    chunk = _chunk_reader(labels)
    for y in range(0, frame.height, TILE_PX):
        rows = _lattice(y, frame.height, frame.downsample, frame.lattice_height)
        for x in range(0, frame.width, TILE_PX):
            columns = _lattice(x, frame.width, frame.downsample, frame.lattice_width)
            tile = np.zeros((TILE_PX, TILE_PX), dtype=np.uint32)
            tile[: len(rows), : len(columns)] = _gather(chunk, labels.chunks, rows, columns)
            yield tile


def _lattice(start: int, length: int, downsample: float, size: int) -> NDArray[np.int64]:
    """Lattice index of each level-0 pixel of one tile along one axis."""
    pixels = np.arange(start, min(start + TILE_PX, length))
    return np.minimum(((pixels + 0.5) / downsample).astype(np.int64), size - 1)


def _chunk_reader(labels: Labels) -> _Chunk:
    """Reads chunks; the last few stay in memory, as neighbouring tiles share them."""
    height, width = labels.chunks

    @lru_cache(maxsize=_CHUNKS_IN_MEMORY)
    def read(row: int, column: int) -> NDArray[np.uint32]:
        y, x = row * height, column * width
        return np.asarray(labels[y : y + height, x : x + width], dtype=np.uint32)

    return read


def _gather(
    chunk: _Chunk,
    shape: tuple[int, ...],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> NDArray[np.uint32]:
    """The label image at ``rows`` × ``columns`` (both ascending)."""
    found = np.zeros((len(rows), len(columns)), dtype=np.uint32)
    for row in range(rows[0] // shape[0], rows[-1] // shape[0] + 1):
        inside_y = slice(*np.searchsorted(rows, [row * shape[0], (row + 1) * shape[0]]))
        for column in range(columns[0] // shape[1], columns[-1] // shape[1] + 1):
            inside_x = slice(
                *np.searchsorted(columns, [column * shape[1], (column + 1) * shape[1]])
            )
            found[inside_y, inside_x] = chunk(row, column)[
                np.ix_(rows[inside_y] - row * shape[0], columns[inside_x] - column * shape[1])
            ]
    return found
