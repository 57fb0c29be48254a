"""``labels.ome.zarr``: the label image as OME-NGFF 0.4, written chunk by chunk.

zarr v2 with ``/`` between chunk indices, uint32, chunks of 1024 px, empty chunks left out, a
pyramid by nearest neighbour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr
from numcodecs import Blosc
from numpy.typing import NDArray

from cellseg.errors import InputError, line_of
from cellseg.geometry import Box, Frame
from cellseg.result.cellstore import CHUNK_PX, CellStore
from cellseg.result.files import read_json, sync_tree
from cellseg.slide.limits import MAX_LEVELS
from cellseg.slide.zarrstore import open_array

SMALLEST_SIDE_PX = 512


class LabelImage(Protocol):
    """A level of the label image: (Y, X) integers, read where it is sliced."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: tuple[slice, slice]) -> Any: ...  # noqa: ANN401


class LabelLevel:
    """One level of the label image, (Y, X) uint32; a part is decoded when it is asked for.

    Parameters
    ----------
    path : Path
        Of the whole label image, for messages.
    """

    ndim = 2
    dtype = np.dtype(np.uint32)

    def __init__(self, path: Path, array: Any) -> None:  # noqa: ANN401
        self._path, self._array = path, array
        self.shape: tuple[int, int] = array.shape
        self.chunks: tuple[int, int] = array.chunks

    def __getitem__(self, key: Any) -> NDArray[np.uint32]:  # noqa: ANN401 - as zarr indexes
        """Pixels of a part.

        Raises
        ------
        InputError
            If they do not decode.
        """
        try:
            return np.asarray(self._array[key], np.uint32)
        except IndexError:
            raise
        except Exception as error:  # whatever codecs raise
            raise InputError(f"{self._path}: cannot be read: {line_of(error)}") from error

    def __array__(
        self, dtype: np.dtype[np.generic] | None = None, copy: bool | None = None
    ) -> NDArray[np.generic]:
        return np.asarray(self[...], dtype)


def write_labels(
    path: Path, cells: CellStore, frame: Frame, *, token: str, on_progress: Callable[[float], None]
) -> None:
    """Paint the cells, one chunk in memory at a time.

    Parameters
    ----------
    path : Path
        Must not exist.
    cells : CellStore
        With labels given.
    frame : Frame
        The image is as large as its lattice.
    token : str
        Names the result that the image belongs to.
    on_progress : callable
        Gets the share that is done, 0 … 1.
    """
    levels = _new(path, frame, token)
    written = _paint(levels[0], cells, on_progress)
    _finish(path, levels, written)
    on_progress(1.0)


def write_label_blocks(
    path: Path, blocks: Iterable[tuple[Box, NDArray[np.uint32]]], frame: Frame, *, token: str
) -> None:
    """Write an image that comes in blocks, each inside one chunk; the rest is background.

    Parameters
    ----------
    path : Path
        Must not exist.
    blocks : iterable of (Box, ndarray)
        Place and labels, lattice pixels.
    token : str
        Names the result that the image belongs to.
    """
    levels = _new(path, frame, token)
    written = set()
    for box, labels in blocks:
        levels[0][box.pixels] = labels
        written.add((box.y0 // CHUNK_PX, box.x0 // CHUNK_PX))
    _finish(path, levels, written)


def _new(path: Path, frame: Frame, token: str) -> list[zarr.Array[Any]]:
    shapes = _pyramid(frame.lattice_height, frame.lattice_width)
    # Zarr takes a string for an address, in which "#" and "?" end the path.
    root = zarr.open_group(path, mode="w-", zarr_format=2)
    levels = [_create(root, str(number), shape) for number, shape in enumerate(shapes)]
    root.attrs.update(_attributes(frame, len(levels), token))
    return levels


def _finish(path: Path, levels: list[zarr.Array[Any]], written: set[tuple[int, int]]) -> None:
    """The coarser levels, and onto the disk."""
    for finer, coarser in pairwise(levels):
        written = _halve(finer, coarser, written)
    sync_tree(path)


def label_token(path: Path) -> str | None:
    """The ``token`` of a label image; None where there is none."""
    try:
        own = read_json(path / ".zattrs").get("cellseg")
    except InputError:
        return None
    token = own.get("result") if isinstance(own, dict) else None
    return token if isinstance(token, str) else None


def open_labels(path: Path) -> list[LabelLevel]:
    """The pyramid's levels, (Y, X) uint32, finest first, nothing decoded yet.

    Raises
    ------
    InputError
        If there is no readable label image.
    """
    try:
        count = len(read_json(path / ".zattrs")["multiscales"][0]["datasets"])
        # Results are given away, too: nothing is unpickled or followed out of the folder.
        arrays = [open_array(path / str(number), path) for number in range(min(count, MAX_LEVELS))]
    except Exception as error:  # whatever zarr raises of what somebody else wrote
        raise InputError(f"{path}: is no label image: {line_of(error)}") from error
    if not arrays or any(array.ndim != 2 or array.dtype != np.uint32 for array in arrays):
        raise InputError(f"{path}: is no label image: expected (y, x) of 32 bits in each level")
    return [LabelLevel(path, array) for array in arrays]


def labels_at(
    levels: Sequence[LabelImage], frame: Frame, box: Box, pixel: float
) -> NDArray[np.uint32]:
    """The label at the centre of each pixel of a picture.

    Parameters
    ----------
    levels : sequence of LabelImage
        Finest first; the coarsest that is fine enough is read.
    frame : Frame
    box : Box
        Of the picture, on the slide's lattice of ``pixel``; not empty.
    pixel : float
        Level-0 pixels along a side of the picture's pixels.

    Returns
    -------
    ndarray, uint32, box.shape
    """
    level = 0
    while level + 1 < len(levels) and frame.downsample * 2 ** (level + 1) <= pixel:
        level += 1
    image = levels[level]
    step = pixel / (frame.downsample * 2**level)
    rows, columns = (
        np.minimum(((np.arange(first, last) + 0.5) * step).astype(np.int64), size - 1)
        for first, last, size in zip((box.y0, box.x0), (box.y1, box.x1), image.shape, strict=True)
    )
    part = np.asarray(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], np.uint32)
    return part[np.ix_(rows - rows[0], columns - columns[0])]


def _pyramid(height: int, width: int) -> list[tuple[int, int]]:
    shapes = [(height, width)]
    while max(shapes[-1]) > SMALLEST_SIDE_PX:
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    return shapes


def _create(root: zarr.Group, name: str, shape: tuple[int, int]) -> zarr.Array[Any]:
    return root.create_array(
        name,
        shape=shape,
        chunks=(min(CHUNK_PX, shape[0]), min(CHUNK_PX, shape[1])),
        dtype="uint32",
        fill_value=0,
        compressors=Blosc(cname="zstd", clevel=5, shuffle=Blosc.SHUFFLE),
        chunk_key_encoding={"name": "v2", "separator": "/"},
        config={"write_empty_chunks": False},
    )


def _attributes(frame: Frame, levels: int, token: str) -> dict[str, Any]:
    unit = frame.mpp or 1.0
    axes: list[dict[str, str]] = [{"name": axis, "type": "space"} for axis in "yx"]
    if frame.mpp is not None:
        axes = [{**axis, "unit": "micrometer"} for axis in axes]
    datasets = []
    for level in range(levels):
        # Level-0 pixel centres of the slide are at integers times mpp: a pixel that is wider
        # has its centre further from the corner that both share.
        side = frame.downsample * 2**level
        scale, shift = side * unit, (side - 1) / 2 * unit
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [scale, scale]},
                    {"type": "translation", "translation": [shift, shift]},
                ],
            }
        )
    return {
        "multiscales": [
            {
                "version": "0.4",
                "name": "labels",
                "axes": axes,
                "datasets": datasets,
                "type": "nearest",
            }
        ],
        "image-label": {"version": "0.4"},
        "cellseg": {"result": token},
    }


def _paint(
    level: zarr.Array[Any], cells: CellStore, on_progress: Callable[[float], None]
) -> set[tuple[int, int]]:
    height, width = level.shape
    rows = -(-height // CHUNK_PX)
    written = set()
    for row, column in cells.chunks():
        y, x = row * CHUNK_PX, column * CHUNK_PX
        if y >= height or x >= width:
            raise ValueError(f"a cell at {(y, x)} lies outside the lattice of {level.shape}")
        chunk = cells.paint(row, column)
        level[y : y + CHUNK_PX, x : x + CHUNK_PX] = chunk[: height - y, : width - x]
        written.add((row, column))
        on_progress(row / rows)
    return written


def _halve(
    finer: zarr.Array[Any], coarser: zarr.Array[Any], written: set[tuple[int, int]]
) -> set[tuple[int, int]]:
    """Fill the next level from the chunks that hold cells; returns its own such chunks."""
    targets = {(row // 2, column // 2) for row, column in written}
    for row, column in sorted(targets):
        y, x = row * CHUNK_PX, column * CHUNK_PX
        block = np.asarray(
            finer[2 * y : 2 * (y + CHUNK_PX), 2 * x : 2 * (x + CHUNK_PX)], dtype=np.uint32
        )
        coarser[y : y + CHUNK_PX, x : x + CHUNK_PX] = block[::2, ::2]
    return targets
