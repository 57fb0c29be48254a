"""``labels.ome.zarr``, the label image, and ``quality.png``: what is wrong where on the slide.

Labels are OME-NGFF 0.4, uint32, a pyramid by nearest neighbour, written chunk by chunk. That is
zarr v2 with ``/`` between chunk indices, chunks of 1024 px, empty chunks left out. ``quality.png``
has a pixel for each unit of the lattice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cellseg.errors import InputError, input_errors
from cellseg.geometry import Box, Frame, LazyArray
from cellseg.result.files import own_file, read_json
from cellseg.slide.limits import MAX_LEVELS
from cellseg.stain.quality import BUBBLE, FOLDED, NAMES, OUT_OF_FOCUS, PEN, UNIT_PX, UNKNOWN

CHUNK_PX = 1024
"""Side of the label image's chunks, lattice pixels."""

BLOCKS_AT_ONCE = 4
"""Chunks that are compressed side by side."""

SMALLEST_SIDE_PX = 512

FAULT_COLOURS = {
    OUT_OF_FOCUS: (255, 150, 0),
    FOLDED: (0, 170, 255),
    PEN: (230, 0, 200),
    BUBBLE: (0, 190, 120),
}
"""By code; the others are transparent."""

OPACITY = 110


def level_shapes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Height and width of a pyramid's levels, each half of the one before, finest first."""
    shapes = [shape]
    while max(shapes[-1]) > SMALLEST_SIDE_PX:
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    return shapes


def write_labels(
    path: Path, blocks: Iterable[tuple[Box, NDArray[np.uint32]]], frame: Frame, *, token: str
) -> None:
    """Write an image that comes in blocks, each inside one chunk; the rest is background.

    Blocks are places, lattice pixels, and their labels. ``path`` must not exist; ``token`` names
    the result that the image belongs to.
    """
    import zarr  # late, as where it is read: it takes 0.3 s, and a table needs none of it
    from numcodecs import Blosc

    # Zarr takes a string for an address, in which "#" and "?" end the path.
    root = zarr.open_group(path, mode="w-", zarr_format=2)
    levels = [
        root.create_array(
            str(number),
            shape=shape,
            chunks=(min(CHUNK_PX, shape[0]), min(CHUNK_PX, shape[1])),
            dtype="uint32",
            fill_value=0,
            compressors=Blosc(cname="zstd", clevel=3, shuffle=Blosc.SHUFFLE),
            chunk_key_encoding={"name": "v2", "separator": "/"},
            config={"write_empty_chunks": False},
        )
        for number, shape in enumerate(level_shapes((frame.lattice_height, frame.lattice_width)))
    ]
    root.attrs.update(_attributes(frame, len(levels), token))

    written: defaultdict[tuple[int, int], Lock] = defaultdict(Lock)

    def write(block: tuple[Box, NDArray[np.uint32]]) -> None:
        box, labels = block
        with written[box.y0 // CHUNK_PX, box.x0 // CHUNK_PX]:
            levels[0][box.pixels] = labels

    def halve(finer: Any, coarser: Any, place: tuple[int, int]) -> None:  # noqa: ANN401
        y, x = place[0] * CHUNK_PX, place[1] * CHUNK_PX
        block = finer[2 * y : 2 * (y + CHUNK_PX), 2 * x : 2 * (x + CHUNK_PX)]
        coarser[y : y + CHUNK_PX, x : x + CHUNK_PX] = np.asarray(block)[::2, ::2]

    left = iter(blocks)
    with ThreadPoolExecutor(BLOCKS_AT_ONCE) as threads:
        while some := list(islice(left, BLOCKS_AT_ONCE)):
            list(threads.map(write, some))
        places = set(written)
        for finer, coarser in pairwise(levels):
            places = {(row // 2, column // 2) for row, column in places}
            list(threads.map(partial(halve, finer, coarser), sorted(places)))


def _attributes(frame: Frame, levels: int, token: str) -> dict[str, Any]:
    unit = frame.mpp or 1.0
    about = {"type": "space"} if frame.mpp is None else {"type": "space", "unit": "micrometer"}
    datasets = []
    for level in range(levels):
        # Level-0 pixel centres of the slide are at integers times mpp: a pixel that is wider
        # has its centre further from the corner that both share.
        side = frame.downsample * 2**level
        scale, shift = side * unit, (side - 1) / 2 * unit
        changes = [
            {"type": "scale", "scale": [scale, scale]},
            {"type": "translation", "translation": [shift, shift]},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": changes})
    image = {
        "version": "0.4",
        "name": "labels",
        "axes": [{"name": axis, **about} for axis in "yx"],
        "datasets": datasets,
        "type": "nearest",
    }
    return {"multiscales": [image], "image-label": {"version": "0.4"}, "cellseg": {"result": token}}


def label_token(folder: Path, name: str) -> str | None:
    """The ``token`` of a result's label image; None where there is none."""
    path = own_file(folder, f"{name}/.zattrs")
    own = read_json(path).get("cellseg") if path.exists() else None
    token = own.get("result") if isinstance(own, dict) else None
    return token if isinstance(token, str) else None


def open_labels(folder: Path, name: str) -> list[LazyArray]:
    """The pyramid's levels, (Y, X) uint32, finest first, nothing decoded yet."""
    from cellseg.slide.zarrstore import open_array

    path = folder / name
    # Exception: whatever zarr raises of what somebody else wrote.
    with input_errors(path, Exception, what="is no label image"):
        count = len(read_json(own_file(folder, f"{name}/.zattrs"))["multiscales"][0]["datasets"])
        # Results are given away, too: nothing is unpickled or followed out of the folder.
        arrays = [open_array(path / str(number), path) for number in range(min(count, MAX_LEVELS))]
    if not arrays or any(array.ndim != 2 or array.dtype != np.uint32 for array in arrays):
        raise InputError(f"{path}: is no label image: expected (y, x) of 32 bits in each level")
    return [
        LazyArray(array.shape, np.uint32, partial(_decoded, path, array), array.chunks)
        for array in arrays
    ]


def _decoded(path: Path, array: Any, box: Box) -> NDArray[np.uint32]:  # noqa: ANN401
    with input_errors(path, Exception):  # whatever codecs raise
        return np.asarray(array[box.pixels], np.uint32)


def labels_at(
    levels: Sequence[LazyArray | NDArray[np.uint32]], frame: Frame, box: Box, pixel: float
) -> NDArray[np.uint32]:
    """The label at the centre of each pixel of a picture.

    Of the levels, finest first, the coarsest that is fine enough is read. ``box`` is the picture's,
    not empty, on the slide's lattice of ``pixel`` level-0 px.
    """
    level = 0
    while level + 1 < len(levels) and frame.downsample * 2 ** (level + 1) <= pixel:
        level += 1
    image = levels[level]
    side = frame.downsample * 2**level
    rows, columns = (
        np.minimum(((np.arange(first, last) + 0.5) * pixel / side).astype(np.int64), size - 1)
        for first, last, size in zip((box.y0, box.x0), (box.y1, box.x1), image.shape, strict=True)
    )
    part = np.asarray(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], np.uint32)
    return part[np.ix_(rows - rows[0], columns - columns[0])]


def write_quality(path: Path, codes: NDArray[np.uint8]) -> None:
    """Write the codes of :func:`cellseg.stain.quality.judged` as a PNG with a palette."""
    image = Image.frombytes("P", codes.shape[::-1], codes.tobytes())
    palette = [FAULT_COLOURS.get(code, (255, 255, 255)) for code in range(BUBBLE + 1)]
    image.putpalette([value for colour in palette for value in colour])
    alpha = bytes(OPACITY if code in NAMES else 0 for code in range(BUBBLE + 1))
    image.save(path, "PNG", transparency=alpha)


def read_quality(path: Path, frame: Frame) -> NDArray[np.uint8]:
    """The codes that :func:`write_quality` wrote; an InputError for any other file."""
    shape = tuple(-(-side // UNIT_PX) for side in (frame.lattice_height, frame.lattice_width))
    kinds = (SyntaxError, ValueError, Image.DecompressionBombError)
    with input_errors(path, *kinds), Image.open(path, formats=("PNG",)) as image:
        if (image.height, image.width, image.mode) != (*shape, "P"):
            raise InputError(f"{path}: does not belong to a slide of this size")
        codes = np.asarray(image, dtype=np.uint8)
    if codes.max(initial=UNKNOWN) > BUBBLE:
        raise InputError(f"{path}: holds codes that are none of cellseg's")
    return codes
