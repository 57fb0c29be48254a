"""Windows of a counted slide: the ones most worth correcting, and what a person made of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count as counting
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cellseg.annotations.coco import judgeable, read_coco
from cellseg.annotations.geojson import read_regions
from cellseg.annotations.image import AnnotatedImage
from cellseg.annotations.region import Region
from cellseg.derive.corrections import Corrections
from cellseg.errors import InputError, SettingsError, writing
from cellseg.geometry import Box, box_of
from cellseg.result import Result, load_result
from cellseg.result.files import read_json
from cellseg.result.publish import WINDOWS

SIDE_PX = 256
"""Side of a window, lattice pixels: about what a person corrects in a minute or two."""

LEAST_PX = 128
"""Smaller windows teach nothing."""

CONTEXT_PX = 192
"""What the network needs to see around a window, lattice pixels."""

DONE = "done"
"""Class of the windows that are corrected."""

_SOFT = 0.15
"""A score so far above the threshold is half as doubtful as one at it."""

_ODD = 2.5
"""Sizes and brightness so many robust deviations from the median are unlikely."""

_WHY = ("cells", "with a score near the threshold", "of unlikely size", "of unlikely brightness")

_DRAWN, _FITTING = 2000, 0.2
"""Windows that are looked at, and the share of them among which doubtful cells decide."""


class Window(NamedTuple):
    """A window to be corrected: lattice pixels, name, why it was chosen, and whether it is done."""

    box: Box
    name: str
    reason: str = ""
    done: bool = False


def teach_windows(
    result: str | Path, count: int = 10, *, output: str | Path | None = None
) -> list[Window]:
    """Choose the windows of a result that are most worth correcting, and write them.

    Together they stand for the slide: in place, number and looks of cells, and in how doubtful
    they are (a score near the threshold, an unlikely size or brightness). Of the fifth that does
    so best the one with the most doubtful cells is next. Windows that are done stay, and count.

    Parameters
    ----------
    result : str or Path
        ``NAME.cellseg``.
    count : int
        How many at most, beside those that are done.
    output : str or Path, optional
        GeoJSON of rectangles; ``windows.geojson`` in the result folder otherwise.

    Returns
    -------
    list of Window
        Those that are done, then the others, best first.

    Raises
    ------
    SettingsError
        If fewer than one window is wanted, or nothing was counted.
    InputError, OutputError
        If the folder is no result, or the file cannot be written.
    """
    opened = load_result(result)
    if count < 1:
        raise SettingsError(f"expected one window or more, got {count}", hint="windows")
    if not len(opened.table):
        raise SettingsError(f"{result}: no cell was counted, so nothing tells where to look")
    path, kept = Path(output or opened.path / WINDOWS), list[Window]()
    with suppress(InputError):  # there are none, or they are of another count
        kept = [one for one in read_windows(opened, path) if one.done]
    windows = [*kept, *_chosen(opened, count, kept)]
    write_windows(opened, windows, path)
    return windows


def _chosen(result: Result, count: int, kept: Sequence[Window]) -> list[Window]:
    """Windows lie on a lattice of half their side: each is four bins, whose sums are taken."""
    lattice = (result.frame.lattice_height, result.frame.lattice_width)
    half, extent = SIDE_PX // 2, Box(0, 0, *lattice)
    places, doubts, looks = _cells_of(result)
    values = np.column_stack([np.ones(len(places)), doubts >= 0.5, doubts.sum(1), looks])
    bins = np.zeros((*(max(2, -(-side // half)) for side in lattice), values.shape[1]))
    np.add.at(bins, tuple((places // half).astype(int).T), values)
    sums = bins[1:, 1:] + bins[1:, :-1] + bins[:-1, 1:] + bins[:-1, :-1]
    corners = np.random.default_rng(0).permutation(np.argwhere(sums[..., 0] > 0))[:_DRAWN]
    found, corners = sums[*corners.T], corners * half
    cells, counts = found[:, 0], found[:, :4].astype(int)
    kinds = np.column_stack([found[:, 4:] / cells[:, None], np.log(cells), corners])
    kinds = (kinds - kinds.mean(0)) / np.maximum(kinds.std(0), 1e-6)
    alike = np.exp(-cdist(kinds, kinds, "sqeuclidean") / kinds.shape[1])
    doubtful, known = found[:, 4] / np.sqrt(cells + 4), np.zeros(len(cells))
    names = (name for name in map(str, counting(1)) if name not in {one.name for one in kept})

    def take(corner: Sequence[int]) -> None:
        """No pixel is corrected twice, and what is like this window is known."""
        away = np.abs(corners - corner).max(1)
        known[:] += alike[away.argmin()]
        known[away < SIDE_PX] = np.inf

    for one in kept:
        take(one.box.corners[:2])
    windows: list[Window] = []
    while len(windows) < count and np.isfinite(known).any():
        # Kernel herding (Chen, Welling, Smola 2010): the means over these and over all are near.
        fit = alike.mean(1) - known / (len(kept) + len(windows) + 1)
        least = np.quantile(fit[np.isfinite(fit)], 1 - _FITTING)
        best = int(np.where(fit >= least, doubtful, -1).argmax())
        said = zip(counts[best], _WHY, strict=True)
        why = ", ".join(f"{number} {what}" for number, what in said if number)
        y, x = corners[best].tolist()
        box = Box(y, x, y + SIDE_PX, x + SIDE_PX).intersection(extent)
        windows.append(Window(box, next(names), why))
        take(corners[best])
    return windows


def _cells_of(result: Result) -> tuple[NDArray[np.float64], ...]:
    """Of each cell: (y, x) from the lattice's corner; how doubtful it is, thrice; its looks."""
    table, least = result.table, float(result.section("protocol").get("score") or 0.5)
    shades = [name for name in table.names if name.endswith("_mean")][:3]
    places = ("centroid_y_px", "centroid_x_px")
    cells = table.load([*places, "score", "area_px", "eccentricity", *shades]).astype(float)
    near = 0.5 ** ((cells["score"].to_numpy() - least).clip(0) / _SOFT)
    cells["area_px"] = np.log(cells["area_px"].clip(1))
    looks = cells[["area_px", "eccentricity", *shades]].to_numpy()
    middle = np.nanmedian(looks, 0)
    spread = 1.4826 * np.nanmedian(np.abs(looks - middle), 0)
    looks = np.nan_to_num((looks - middle) / np.maximum(spread, 1e-6))
    odd = np.abs(looks) > _ODD
    doubts = np.column_stack([near, odd[:, 0] / 2, odd[:, 2:].any(1) / 2])
    return (cells[[*places]].to_numpy() + 0.5) / result.frame.downsample, doubts, looks.clip(-4, 4)


def write_windows(result: Result, windows: Sequence[Window], path: Path | None = None) -> None:
    """Write windows as GeoJSON rectangles, as other region files; the class says what is done."""
    features = []
    for one in windows:
        corners = (side * result.frame.downsample - 0.5 for side in one.box.corners)
        region = replace(Region.box(*corners, name=one.name), kind=DONE if one.done else "")
        features.append(region.as_geojson())
    about = {"cellseg_result": result.token, "reasons": {one.name: one.reason for one in windows}}
    data = {"type": "FeatureCollection", **about, "features": features}
    with writing(path or result.path / WINDOWS) as temporary:
        temporary.write_text(json.dumps(data) + "\n", encoding="utf-8")


def read_windows(result: Result, path: Path | None = None) -> list[Window]:
    """Windows as they are written, ``windows.geojson`` of the result or another GeoJSON.

    InputError if they cannot be read, or are of another count.
    """
    path = path or result.file(WINDOWS)
    regions, about = read_regions(path), read_json(path)
    if about.get("cellseg_result", result.token) != result.token:
        raise InputError(f"{path}: these windows are of another count than {result.path.name}")
    reasons = about.get("reasons")
    reasons = reasons if isinstance(reasons, dict) else {}
    extent, found = Box(0, 0, result.frame.lattice_height, result.frame.lattice_width), []
    for one in regions:
        x0, y0, x1, y1 = (round(at / result.frame.downsample) for at in one.shape.bounds)
        box, why = Box(y0, x0, y1, x1).intersection(extent), str(reasons.get(one.name, ""))
        found.append(Window(box, one.name, why, one.kind.lower() == DONE))
    return found


class Lesson(NamedTuple):
    """A window that is done, inside of an image that shows what lies around it besides."""

    image: AnnotatedImage
    window: Box


def lessons_of(
    result: Result, learn_from: str | Path | None, done: Collection[str], classes: tuple[str, ...]
) -> list[Lesson]:
    """Windows as the network sees them, with the cells as corrected; see :func:`cellseg.teach`."""
    path, frame = Path(learn_from or result.path / WINDOWS), result.frame
    if path.is_dir() or path.suffix == ".json":
        found = _annotated(path, frame.lattice_mpp, classes)
    else:
        found = _corrected(result, _done(result, path, done), classes)
    share = float(result.section("protocol").get("dab_share", 1.0))
    return [
        Lesson(replace(image, scale=replace(image.normaliser, dab=share)), window)
        for image, window in found
    ]


def _done(result: Result, path: Path, done: Collection[str]) -> list[Box]:
    windows = read_windows(result, path)
    if unknown := sorted({*done} - {"all"} - {one.name for one in windows}):
        raise SettingsError(f"{path}: has no window {', '.join(unknown)}", hint=DONE)
    if done:
        chosen = [one for one in windows if "all" in done or one.name in done]
    else:
        chosen = [one for one in windows if one.done]
    if not chosen:
        raise SettingsError(f"{path}: no window is done: correct some, and say which", hint=DONE)
    least = min(LEAST_PX, result.frame.lattice_height, result.frame.lattice_width)
    if small := [one.name for one in chosen if min(one.box.shape) < least]:
        raise SettingsError(f"{path}: window {', '.join(small)}: less than {LEAST_PX} px wide")
    return [one.box for one in chosen]


def _corrected(result: Result, boxes: list[Box], classes: tuple[str, ...]) -> list[Lesson]:
    corrections, found = Corrections(result), []
    places = [change.box for edit in corrections.edits for change in edit.changes]
    if not any(place.intersects(box) for place in places for box in boxes):
        raise SettingsError("no cell was corrected in the windows that are done: nothing to learn")
    with result.slide() as slide:
        ground, pixel = result.ground(slide), result.frame.downsample
        for box in boxes:
            around = box.widened(CONTEXT_PX).intersection(corrections.pyramid.extent)
            window, labels = box.shifted(-around.y0, -around.x0), corrections.pyramid.levels[0]
            seen = labels.read(around)
            names = [int(one) for one in np.unique(seen[window.pixels]) if one]
            places = [box_of(seen == one) or window for one in names]
            kinds = [_kind(corrections.cell(one).name, classes) for one in names]
            image = AnnotatedImage(
                name=f"{box.y0}, {box.x0}",
                pixels=slide.read(around, downsample=pixel, channels=ground.channels),
                boxes=np.array([one.corners for one in places], np.int32).reshape(-1, 4),
                masks=[seen[at.pixels] == one for one, at in zip(names, places, strict=True)],
                classes=np.array(kinds, np.int64),
                light=ground.normaliser.light,
                mpp=None,
                group="",
                scale=ground.normaliser,
            )
            found.append(Lesson(image, window))
    return found


def _annotated(path: Path, mpp: float | None, classes: tuple[str, ...]) -> list[Lesson]:
    """Images of a COCO file; at their own scale where that, or the network's, is not known."""
    data = judgeable(read_coco(path / "annotations.json" if path.is_dir() else path))
    kinds = np.array([_kind(name, classes) for name in data.classes], np.int64)
    return [
        Lesson(
            replace(
                one, classes=kinds[one.classes], zoom=one.mpp / mpp if one.mpp and mpp else 1.0
            ),
            Box(0, 0, *one.pixels.shape[:2]),
        )
        for one in data.images
    ]


def _kind(name: str, classes: tuple[str, ...]) -> int:
    if len(classes) > 1 and name not in classes:
        raise SettingsError(f"a cell is of class {name!r}; the model knows {', '.join(classes)}")
    return classes.index(name) if len(classes) > 1 else 0
