"""``cells.coco.json``: annotations to train on, or to correct in an annotation program.

One image, the slide at its own size, and a run-length mask for each cell: at each level-0 pixel
what ``labels.tif`` has there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from cellseg.annotations.coco import modality_of
from cellseg.annotations.masks import Outline, annotation
from cellseg.errors import SettingsError
from cellseg.geometry import Box, Frame, box_of
from cellseg.result import Result, class_codes
from cellseg.result.files import readable

LARGEST_PX = 2**32 - 1  # COCO's run lengths go no further.


def write(result: Result, path: Path) -> None:
    """Write the cells of a result, if the slide is not too large for COCO's run lengths."""
    frame = result.frame
    if frame.height * frame.width > LARGEST_PX:
        raise SettingsError(
            f"{path.parent}: COCO JSON is for images of at most {LARGEST_PX:,} px, this slide has "
            f"{frame.height * frame.width:,}; cells.geojson holds its outlines"
        )
    with path.open("w", encoding="utf-8", newline="") as file:
        head = {"description": f"{readable(result.path.name)}, counted by cellseg"}
        file.write(f'{{"info":{_json(head)},"images":[{_json(_image(result))}],"annotations":[')
        for number, one in enumerate(_annotations(result)):
            file.write(f"{',' * (number > 0)}\n{_json(one)}")
        categories = [
            {"id": place, "name": readable(name)}
            for place, name in enumerate(result.class_names or ["cell"], start=1)
        ]
        file.write(f'\n],"categories":{_json(categories)}}}\n')


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _image(result: Result) -> dict[str, object]:
    """The entry that ``cellseg train`` reads."""
    frame = result.frame
    path = str(result.section("image").get("path") or result.path.stem)
    stain = str(result.section("protocol").get("stain") or "unknown")
    return {
        "id": 1,
        "file_name": readable(PurePosixPath(path.replace("\\", "/")).name),
        "height": frame.height,
        "width": frame.width,
        "modality": modality_of(stain),
        **({} if frame.mpp is None else {"mpp": frame.mpp}),
    }


def _annotations(result: Result) -> Iterator[dict[str, object]]:
    extent = (result.frame.height, result.frame.width)
    for table, masks in result.table.blocks(result.labels()[0], result.frame):
        codes = class_codes(table["class"], result.class_names).tolist()
        for label, code, mask in zip(table["label"].tolist(), codes, masks, strict=True):
            about = {"id": label, "image_id": 1, "category_id": code + 1}
            yield about | annotation(*_at_level_0(mask, result.frame), extent)


def _at_level_0(mask: Outline, frame: Frame) -> Outline:
    """Tight, and of one pixel at least, where the lattice is the finer one."""
    box, pixels = mask
    ys, rows = _level_0(box.y0, box.height, frame.downsample, frame.height)
    xs, columns = _level_0(box.x0, box.width, frame.downsample, frame.width)
    inside = pixels[np.ix_(rows, columns)]
    if (found := box_of(inside)) is not None:
        return found.shifted(int(ys[0]), int(xs[0])), inside[found.pixels]
    y, x = np.argwhere(pixels).mean(axis=0) + np.array([box.y0, box.x0]) + 0.5
    at = int(y * frame.downsample), int(x * frame.downsample)
    y0, x0 = min(at[0], frame.height - 1), min(at[1], frame.width - 1)
    return Box(y0, x0, y0 + 1, x0 + 1), np.ones((1, 1), bool)


def _level_0(
    start: int, length: int, downsample: float, size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Level-0 pixels along one axis, and in which pixel of the mask each lies."""
    first = max(0, int(start * downsample) - 1)
    pixels = np.arange(first, min(size, int((start + length) * downsample) + 2))
    inside = ((pixels + 0.5) / downsample).astype(np.int64) - start
    kept = (inside >= 0) & (inside < length)
    return pixels[kept], inside[kept]
