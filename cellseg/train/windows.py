"""Windows of a counted slide: the ones most worth correcting, and what a person made of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cellseg.annotations.coco import read_coco
from cellseg.annotations.geojson import read_regions
from cellseg.annotations.region import Region
from cellseg.derive.corrections import Corrections
from cellseg.errors import InputError, SettingsError
from cellseg.geometry import STRIDE_PX, Box
from cellseg.result import Result
from cellseg.result.files import replacing
from cellseg.train.crops import MIN_AREA_PX, Crop, cut

SIDE_PX = 256
"""Side of a window, lattice pixels: about what a person corrects in a minute or two."""

WINDOWS, DONE = "windows.geojson", "done"

_SOFT = 0.15
"""A score so far above the threshold is half as doubtful as one at it."""

_ODD = 2.5
"""Sizes and intensities so many robust deviations from the median are unlikely."""

_APART = 3.0
"""Windows nearer than so many sides are taken to show the same place in part."""


@dataclass(frozen=True)
class Window:
    """A window to be corrected.

    Attributes
    ----------
    box : Box
        Lattice pixels.
    name : str
        ``1``, ``2``, …, the one most worth correcting first.
    reason : str
        Why it was chosen, for a person.
    """

    box: Box
    name: str
    reason: str


def choose_windows(result: Result, count: int = 10) -> list[Window]:
    """The windows of a result that are most worth correcting, best first.

    Worth is the number of doubtful cells (a score near the threshold, an unlikely size or
    intensity) over the root of all cells. It shrinks with the likeness to windows that are chosen
    already, in place and in what the cells look like.

    Raises
    ------
    SettingsError
        If fewer than one window is wanted, or nothing was counted.
    """
    if count < 1:
        raise SettingsError(f"expected one window or more, got {count}", hint="windows")
    if not len(result.table):
        raise SettingsError(f"{result.path}: no cell was counted, so nothing tells where to look")
    frame, table = result.frame, result.table.load()
    places = table[["centroid_y_px", "centroid_x_px"]].to_numpy(float) / frame.downsample
    near, size, shade, looks = _doubts(result, table)
    doubt = near + size + shade
    boxes = _grid(frame.lattice_height, frame.lattice_width)
    rows = [_inside(box, places) for box in boxes]
    boxes = [box for box, inside in zip(boxes, rows, strict=True) if len(inside)]
    rows = [inside for inside in rows if len(inside)]
    worth = np.array([doubt[inside].sum() / np.sqrt(len(inside) + 4) for inside in rows]) + 1e-6
    kinds = np.array([[*looks[one].mean(0), np.log(len(one))] for one in rows])
    kinds = (kinds - kinds.mean(0)) / np.maximum(kinds.std(0), 1e-6)
    centres = np.array([[box.y0 + box.height / 2, box.x0 + box.width / 2] for box in boxes])
    chosen: list[int] = []
    left = worth.copy()
    while len(chosen) < count and left.max() > 0:
        chosen.append(best := int(left.argmax()))
        away = np.abs(centres - centres[best]).max(1) / SIDE_PX
        unlike = ((kinds - kinds[best]) ** 2).mean(1)
        left *= np.minimum(1, away / _APART) * (1 - 0.7 * np.exp(-unlike))
        left[away < 1] = 0  # no pixel is corrected twice
    said = (("with a score near the threshold", near > 0.5), ("of unlikely size", size > 0),
            ("of unlikely brightness", shade > 0))  # fmt: skip
    return [
        Window(boxes[one], str(number), _reason(rows[one], said))
        for number, one in enumerate(chosen, start=1)
    ]


def _doubts(result: Result, table: pd.DataFrame) -> tuple[NDArray[np.float64], ...]:
    """Of each cell how near its score is, whether size and brightness are odd, and its looks."""
    least = float(result.section("protocol").get("score", 0.5))
    near = 0.5 ** ((table["score"].to_numpy(float) - least).clip(0) / _SOFT)
    channels = [name for name in table if name.endswith("_mean") and not name.startswith("cell")]
    columns = [np.log(table["area_px"].to_numpy(float).clip(1))]
    columns += [table[name].to_numpy(float) for name in channels[:3]]
    columns.append(table["eccentricity"].to_numpy(float))
    looks = np.nan_to_num(np.stack([_standard(one) for one in columns], 1))
    odd = np.abs(looks) > _ODD
    return near, 0.5 * odd[:, 0], 0.5 * odd[:, 1:-1].any(1), looks.clip(-4, 4)


def _standard(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Robust deviations from the median."""
    middle = np.nanmedian(values)
    spread = 1.4826 * np.nanmedian(np.abs(values - middle))
    return (values - middle) / max(float(spread), 1e-6)


def _grid(height: int, width: int) -> list[Box]:
    """Overlapping windows that cover the lattice; one of a slide that is smaller."""
    ys, xs = (
        sorted({*range(0, max(1, side - SIDE_PX + 1), SIDE_PX // 2), max(0, side - SIDE_PX)})
        for side in (height, width)
    )
    extent = Box(0, 0, height, width)
    return [Box(y, x, y + SIDE_PX, x + SIDE_PX).intersection(extent) for y in ys for x in xs]


def _inside(box: Box, places: NDArray[np.float64]) -> NDArray[np.int64]:
    low, high = np.array([box.y0, box.x0]), np.array([box.y1, box.x1])
    return np.flatnonzero(((places >= low) & (places < high)).all(1))


def _reason(rows: NDArray[np.int64], said: Sequence[tuple[str, NDArray[np.bool_]]]) -> str:
    counts = [(int(of[rows].sum()), words) for words, of in said]
    parts = [f"{number} {words}" for number, words in counts if number]
    return f"{len(rows)} cells" + "".join(f", {part}" for part in parts)


def write_windows(result: Result, windows: Sequence[Window], path: Path | None = None) -> Path:
    """Write windows as GeoJSON rectangles, as other region files; in the result folder otherwise.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    path, pixel = path or result.path / WINDOWS, result.frame.downsample
    features = []
    for one in windows:
        corners = (np.array(one.box.corners) * pixel).tolist()
        region = Region.box(*(corner - 0.5 for corner in corners), name=one.name)
        features.append(region.as_geojson(reason=one.reason))
    data = {"type": "FeatureCollection", "cellseg_result": result.token, "features": features}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(data) + "\n", encoding="utf-8")
    return path


def done_windows(result: Result, path: Path, done: Collection[str] = ()) -> list[Box]:
    """Boxes, lattice pixels, of the windows that a person has corrected.

    Parameters
    ----------
    path : Path
        GeoJSON of rectangles.
    done : collection of str
        Their names, or ``all``; otherwise those of the class ``done``.

    Raises
    ------
    InputError
        If the file cannot be read, or is of another count.
    SettingsError
        If no window is done, a name is unknown, or a window lies outside the slide.
    """
    regions = read_regions(path)
    of = json.loads(path.read_bytes()).get("cellseg_result", result.token)
    if of != result.token:
        raise InputError(f"{path}: these windows are of another count than {result.path.name}")
    if unknown := sorted({*done} - {"all"} - {one.name for one in regions}):
        raise SettingsError(f"{path}: has no window {', '.join(unknown)}", hint="done")
    chosen = [one for one in regions if "all" in done or one.name in done]
    chosen = chosen or [one for one in regions if one.kind.lower() == DONE]
    if not chosen:
        raise SettingsError(f"{path}: no window is done: name those that are corrected", hint=DONE)
    frame, boxes = result.frame, []
    for one in chosen:
        x0, y0, x1, y1 = (round(side / frame.downsample) for side in one.shape.bounds)
        box = Box(y0, x0, y1, x1).intersection(Box(0, 0, *_lattice(result)))
        if min(box.shape) < STRIDE_PX:
            raise SettingsError(f"{path}: window {one.name} lies outside of the slide")
        boxes.append(box)
    return boxes


def _lattice(result: Result) -> tuple[int, int]:
    return result.frame.lattice_height, result.frame.lattice_width


def corrected_crops(
    result: Result, boxes: Sequence[Box], classes: tuple[str, ...]
) -> list[list[Crop]]:
    """Windows of a slide as the network sees them, with the cells as corrected: a list a window.

    Parameters
    ----------
    classes : tuple of str
        Of the model; every cell is of the one class where it has one.

    Raises
    ------
    InputError
        If the slide is gone, or does not decode there.
    SettingsError
        If a cell has a class that the model lacks.
    """
    corrections, found = Corrections(result, only_look=True), []
    with result.slide() as slide:
        ground = result.ground(slide)
        for box in boxes:
            raw = slide.read(box, downsample=result.frame.downsample, channels=ground.channels)
            pixels = torch.from_numpy(ground.normaliser.apply(raw)).permute(2, 0, 1)
            labels = corrections.pyramid.levels[0].read(box)
            names = [int(one) for one in np.unique(labels) if one]
            kinds = [_kind(corrections.cell(one).name, classes) for one in names]
            found.append(_pieces(pixels, labels, names, kinds))
    return found


def _pieces(
    pixels: torch.Tensor, labels: NDArray[np.uint32], names: list[int], kinds: list[int]
) -> list[Crop]:
    """Squares of at most :data:`SIDE_PX`, their sides multiples of 32: windows may be larger."""
    masks = torch.from_numpy(np.stack([labels == one for one in names]) if names else
                             np.zeros((0, *labels.shape), bool))  # fmt: skip
    kind, crops = torch.tensor(kinds, dtype=torch.int64), []
    for box in _tiles(labels.shape):
        part = masks[:, *box.pixels].to(torch.uint8)
        kept = part.sum((1, 2)) >= MIN_AREA_PX
        crops.append(Crop.of(pixels[:, *box.pixels].float(), part[kept], kind[kept]))
    return crops


def _tiles(shape: tuple[int, ...]) -> list[Box]:
    side = min(SIDE_PX, *(length // STRIDE_PX * STRIDE_PX for length in shape))
    height, width = shape
    return [
        Box(y, x, y + side, x + side)
        for y in range(0, height - side + 1, side)
        for x in range(0, width - side + 1, side)
    ]


def _kind(name: str, classes: tuple[str, ...]) -> int:
    if len(classes) > 1 and name not in classes:
        known = ", ".join(classes)
        raise SettingsError(f"a cell is of class {name!r}; the model knows {known}")
    return 1 + (classes.index(name) if len(classes) > 1 else 0)


def annotated_crops(path: Path, mpp: float | None, classes: tuple[str, ...]) -> list[list[Crop]]:
    """Images of a COCO file, or of the folder that holds one, as the network sees them.

    Parameters
    ----------
    mpp : float or None
        µm per pixel of the network; None: images are taken at their own scale.

    Raises
    ------
    InputError
        If the file cannot be read, or is at fault.
    """
    data = read_coco(path / "annotations.json" if path.is_dir() else path)
    kinds = np.array([_kind(name, classes) - 1 for name in data.classes], np.int64)
    found = []
    for image in data.images:
        zoom = image.mpp / mpp if image.mpp and mpp else 1.0
        image = image.changed(zoom=zoom, classes=kinds[image.classes])
        height, width = (int(side * zoom) for side in image.pixels.shape[:2])
        tiles = _tiles((max(height, STRIDE_PX), max(width, STRIDE_PX)))
        found.append(
            [
                cut(image, origin=(round(box.y0 / zoom), round(box.x0 / zoom)),
                    sides=(round(box.height / zoom), round(box.width / zoom)), size=box.height)
                for box in tiles
            ]
        )  # fmt: skip
    return found
