"""What a viewer holds: slides, masks, results as corrected and filtered, and drawn shapes.

napari's save dialog calls :func:`write_labels`.
"""

from __future__ import annotations

import logging
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cellseg.annotations.region import Region
from cellseg.derive.corrections import Corrections, Edit, PatchedLevel, PatchedPyramid
from cellseg.derive.corrections.cells import CorrectedCells
from cellseg.errors import CellsegError, SettingsError
from cellseg.geometry import Box, LazyArray
from cellseg.result import Result
from cellseg.result.table import Table, table_writer
from cellseg.slide import ChunkCache, Slide
from cellseg_napari._words import warn

if TYPE_CHECKING:
    import pandas as pd
    from napari.components import ViewerModel
    from napari.layers import Layer, Shapes

logger = logging.getLogger(__name__)

BLOCK_PX = 512  # Side of what is read of a slide and kept at once.
CACHE_BYTES = 512 * 2**20  # Decoded blocks kept for one slide.

COARSEST_PX = 1024
"""The coarsest level's longer side is at most this: it is what opening reads."""

DAMAGE_PX = 64
"""Side of the smallest box that is shown black for a damaged chunk."""

KEY = "cellseg"  # Of a layer's ``metadata``: what belongs to it.

ROLE = "cellseg_role"
"""Of the ``metadata`` of layers that are not a person's own: what they show."""

FEATURES_LIMIT = 50_000
"""Tables longer than this stay on the disk; napari's Features table shows the shorter ones."""

Numbers = float | NDArray[np.float64]

_ELLIPSE_POINTS = 64

_UNNAMED = re.compile(r"Shapes( \[\d+\])?")
"""What napari calls a layer that nobody named."""


def label_levels(
    pyramid: PatchedPyramid, show: Callable[[NDArray[np.uint32]], NDArray[Any]], dtype: DTypeLike
) -> list[LazyArray]:
    """A label image, finest level first; ``show`` gives what is shown in place of labels."""

    def read(level: PatchedLevel, step: int, box: Box) -> NDArray[Any]:
        rows, columns = (slice(step * p.start, step * p.stop, step) for p in box.pixels)
        return show(level[rows, columns])

    steps = [(level, 1) for level in pyramid.levels]
    if len(steps) == 1:
        # napari takes a list of one for one array with another axis.
        steps.append((pyramid.levels[0], 2))
    return [
        LazyArray([-(-side // n) for side in level.shape], dtype, partial(read, level, n),
                  level.chunks)
        for level, n in steps
    ]  # fmt: skip


class SlideSource:
    """A slide, which is closed when the last level is gone, and the blocks read from it last.

    A region that does not decode is black; ``on_damage`` hears of the first one, in a line.
    """

    def __init__(self, slide: Slide, *, on_damage: Callable[[str], None]) -> None:
        self.slide = slide
        self._on_damage = on_damage
        self._told = False
        self._blocks = ChunkCache(CACHE_BYTES)
        weakref.finalize(self, slide.close)

    def levels(self, channels: tuple[int, ...]) -> list[LazyArray]:
        """The slide's own levels, and coarser ones by 2 until one is small enough to open with.

        One channel makes (y, x) levels; three make (y, x, rgb), 8 bits.
        """
        downsamples = sorted({1.0, *(level.downsample for level in self.slide.levels)})
        while max(self.slide.lattice_shape(downsamples[-1])) > COARSEST_PX:
            downsamples.append(downsamples[-1] * 2)
        colours = (len(channels),) if len(channels) > 1 else ()
        dtype = np.dtype(np.uint8) if colours else self.slide.dtype
        levels = []
        for downsample in downsamples:
            extent = self.slide.lattice_shape(downsample)
            chunks = (*(min(BLOCK_PX, side) for side in extent), *colours)
            read = partial(self._pixels, Box(0, 0, *extent), downsample, channels)
            levels.append(LazyArray((*extent, *colours), dtype, read, chunks))
        return levels

    def _pixels(
        self, extent: Box, downsample: float, channels: tuple[int, ...], wanted: Box
    ) -> NDArray[Any]:
        """(h, w) or (h, w, 3) of a box, put together from blocks that are kept."""
        out = np.zeros((*wanted.shape, len(channels)), self.slide.dtype)
        for row, column in wanted.chunks(BLOCK_PX, BLOCK_PX):
            block = Box(0, 0, BLOCK_PX, BLOCK_PX).shifted(row * BLOCK_PX, column * BLOCK_PX)
            block = block.intersection(extent)
            read = partial(self._read, block, downsample, channels)
            pixels = self._blocks.get((downsample, channels, block), read)
            common = block.intersection(wanted)
            out[common.inside(wanted)] = pixels[common.inside(block)]
        if len(channels) == 1:
            return out[..., 0]
        if out.dtype == np.uint16:  # colours of more bits as 8 bits
            out = np.right_shift(out, 8)
        elif out.dtype.kind == "f":
            out = np.rint(np.clip(out, 0, 1) * 255)
        return out.astype(np.uint8)

    def _read(self, box: Box, downsample: float, channels: tuple[int, ...]) -> NDArray[np.generic]:
        """A box; where it does not decode, small parts of it, so that little is lost."""
        read = partial(self.slide.read, downsample=downsample, channels=channels)
        with suppress(CellsegError):
            return read(box)
        out = np.zeros((*box.shape, len(channels)), self.slide.dtype)
        for part in box.parts(DAMAGE_PX):
            try:
                out[part.inside(box)] = read(part)
            except CellsegError as error:
                logger.warning("%s", error)
                if not self._told:
                    self._told = True
                    self._on_damage(f"{error} (shown black)")
        return out


class Opened:
    """A result in a viewer.

    ``cells`` are the cells as corrected, or as counted if the result cannot be corrected. ``note``
    says why it cannot be corrected; None if it can.
    """

    def __init__(self, result: Result) -> None:
        self.result = result
        self.note: CellsegError | None = None
        self.taught: Path | None = None  # the model that learned from its windows last
        try:
            self.cells: CorrectedCells = Corrections(result)
        except CellsegError as error:
            self.note = error
            self.cells = CorrectedCells(result, result.class_names)
        self.rows = self.cells.rows
        self.hide(None)

    @property
    def corrections(self) -> Corrections:
        """What a person changed; an error where the result cannot be corrected."""
        if not isinstance(self.cells, Corrections):
            raise self.note or SettingsError("this result cannot be corrected")
        return self.cells

    def to_lattice(self, world: NDArray[np.float64]) -> NDArray[np.float64]:
        """(…, 2) world (y, x) to lattice pixels, centres at integers."""
        downsample, pixel = self.result.frame.downsample, self.result.frame.mpp or 1.0
        shift = (downsample - 1.0) / 2 * pixel
        return (np.asarray(world, np.float64)[..., -2:] - shift) / (downsample * pixel)

    def label_at(self, world: Sequence[float]) -> int:
        """The cell that is shown at a point of the world; 0 where there is none."""
        y, x = np.rint(self.to_lattice(np.array(world))).astype(int).tolist()
        label = np.array([self.cells.pyramid.label_at(y, x)], np.uint32)
        return int(self.shown(label)[0])

    def place_of(self, label: int) -> tuple[tuple[float, float], float]:
        """World (y, x) of a cell's centre, and its extent."""
        row, mpp = self.cells.row(label), self.result.frame.mpp or 1.0
        y, x = (float(row[f"centroid_{axis}_px"]) for axis in "yx")
        extent = max(float(row[f"bbox_{axis}1_px"] - row[f"bbox_{axis}0_px"]) for axis in "yx")
        return (y * mpp, x * mpp), extent * mpp

    def column(self, name: str) -> NDArray[Any]:
        """One column of all cells as corrected, in the order of their labels."""
        kept = None if self.cells.touched else self.rows.column(name)
        return (self.cells.table([name])[name] if kept is None else kept).to_numpy()

    def features(self) -> pd.DataFrame | None:
        """The whole table for napari's own views; None where it is too long."""
        if len(self.rows) > FEATURES_LIMIT:
            return None
        return self.cells.table().rename(columns={"label": "index"})

    def shown(self, labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Hidden cells become background."""
        if not self._hidden.any():
            return labels
        return np.where(self._hidden.take(labels, mode="clip"), np.uint32(0), labels)

    def hide(self, hidden: NDArray[np.bool_] | None) -> None:
        """Hide cells, in the order of their labels; None: show all of them."""
        none = np.zeros(1, np.bool_)
        self._hidden = none if hidden is None else self.by_label(hidden, False, np.bool_)

    def by_label(self, values: NDArray[Any], other: float, dtype: DTypeLike) -> NDArray[Any]:
        """Values of the cells, in the order of their labels, as an array indexed by label.

        Its last element is for all labels beyond.
        """
        labels = self.cells.labels()
        found = np.full(int(labels.max(initial=0)) + 2, other, dtype)
        found[labels] = values
        return found

    def is_shown(self) -> NDArray[np.bool_]:
        """Which cells are not hidden, in the order of their labels."""
        return ~self._hidden.take(self.cells.labels(), mode="clip")


_alive: weakref.WeakValueDictionary[str, Opened] = weakref.WeakValueDictionary()


def opened_result(result: Result) -> Opened:
    """One for each result, however often it is shown: two would write over each other's edits."""
    key = str(result.path.resolve())
    found = _alive.get(key)
    if found is None or found.note is not None or found.result.run != result.run:
        found = _alive[key] = Opened(result)
    return found


def opened_of(layer: Layer | None) -> Opened | None:
    """What belongs to a layer; None where it is not cellseg's."""
    found = None if layer is None else layer.metadata.get(KEY)
    return found if isinstance(found, Opened) else None


def results_in(viewer: ViewerModel) -> Iterator[tuple[Layer, Opened]]:
    """The layers with the cells of results, in the viewer's order."""
    for layer in viewer.layers:
        opened = opened_of(layer)
        if opened is not None and layer.metadata.get(ROLE) == "cells":
            yield layer, opened


def refresh(viewer: ViewerModel, opened: Opened, edit: Edit | None = None) -> None:
    """Show edits and filters: slice the layers of a result again, and renew its features."""
    for layer in viewer.layers:
        role = layer.metadata.get(ROLE)
        if opened_of(layer) is not opened or role == "paint":
            continue
        if edit is not None and role == "cells" and (table := opened.features()) is not None:
            layer.features = table
        layer.refresh()


def camera_of(viewer: ViewerModel) -> Any:  # noqa: ANN401 - napari's
    """The viewer's camera, which moved in napari 0.9."""
    return getattr(viewer, "scene", viewer).camera


def canvas_of(viewer: ViewerModel) -> NDArray[np.int64]:
    """Height and width of the viewer's canvas, pixels; it moved in napari 0.9."""
    return np.array(viewer.canvas.size if hasattr(viewer, "canvas") else viewer._canvas_size)


def write_labels(path: str, data: object, meta: dict[str, Any]) -> list[str]:
    """Write a result as it is now, corrections included: its table (``.csv``), or its masks.

    Returns what was written; nothing where the layer is not cellseg's.
    """
    opened = meta.get("metadata", {}).get(KEY)
    if not isinstance(opened, Opened):
        warn("this layer is no result of cellseg: napari's own writers can save it")
        return []
    target = Path(path)
    try:
        if target.suffix.lower() == ".csv":
            if not opened.cells.touched:
                opened.result.table.write_csv(target)
                return [path]
            table, columns = opened.cells.table(), opened.result.columns
            with TemporaryDirectory() as folder:
                corrected = Path(folder) / "corrected.parquet"
                with table_writer(corrected, columns) as add:
                    add({str(name): values for name, values in table.items()})
                Table(columns, [corrected]).write_csv(target)
        else:
            from cellseg.export.labels_tif import write_levels

            write_levels(opened.cells.pyramid.levels[0], opened.result.frame, target)
    except (CellsegError, OSError) as error:
        warn(f"{path}: cannot be written: {error}")
        return []
    return [path]


def drawn_layers(viewer: ViewerModel) -> list[Shapes]:
    """The shapes layers that a person drew."""
    from napari.layers import Shapes

    return [
        layer
        for layer in viewer.layers
        if isinstance(layer, Shapes) and not layer.metadata.get(ROLE)
    ]


def drawn_in(shapes: Shapes | None, pixel: Numbers = 1.0, origin: Numbers = 0.0) -> list[Region]:
    """What polygons, rectangles and ellipses of a layer enclose, level-0 pixels.

    A pixel is ``pixel`` wide in the world, the centre of the first one at ``origin``. Name and
    class are from the columns ``name`` and ``class`` of the layer's features; without a name the
    layer's, if a person gave it one. Regions may share a name; what encloses nothing is left out.
    """
    if shapes is None:
        return []
    layer = "" if _UNNAMED.fullmatch(shapes.name) else shapes.name
    found = []
    for number, (corners, shape) in enumerate(zip(shapes.data, shapes.shape_type, strict=True)):
        points = np.asarray(corners, np.float64)[:, -2:]
        if shape == "ellipse":
            middle = points.mean(axis=0)
            first, second = (points[1] - points[0]) / 2, (points[3] - points[0]) / 2
            turn = np.linspace(0, 2 * np.pi, _ELLIPSE_POINTS, endpoint=False)[:, None]
            points = middle + np.cos(turn) * first + np.sin(turn) * second
        elif shape not in ("polygon", "rectangle"):
            continue
        outline = (_in_world(shapes, points) - origin) / pixel
        name, kind = (_feature(shapes, column, number) for column in ("name", "class"))
        with suppress(SettingsError):
            found.append(Region.of([outline], name=name or layer, kind=kind))
    return found


def in_sight(viewer: ViewerModel, layer: Layer, pixel: Numbers, origin: Numbers) -> Region:
    """What of a layer the canvas shows, level-0 pixels; ``pixel`` and ``origin`` as above."""
    centre, half = camera_of(viewer).center[-2:], canvas_of(viewer) / camera_of(viewer).zoom / 2
    low, high = np.clip([centre - half, centre + half], *layer.extent.world[:, -2:])
    if (high <= low).any():
        raise SettingsError("the image is out of sight: move it into view first")
    return Region.box(*((low - origin) / pixel), *((high - origin) / pixel), name="view")


def lines_in(shapes: Shapes | None) -> list[NDArray[np.float64]]:
    """Lines and paths of a layer, world (y, x), the newest first."""
    if shapes is None:
        return []
    each = zip(shapes.data, shapes.shape_type, strict=True)
    return [_in_world(shapes, data) for data, shape in each if shape in ("line", "path")][::-1]


def _in_world(shapes: Shapes, points: Any) -> NDArray[np.float64]:  # noqa: ANN401 - as napari has it
    return np.array([shapes.data_to_world(tuple(point))[-2:] for point in points])


def _feature(shapes: Shapes, column: str, number: int) -> str:
    """A text of the features; empty where there is none, which napari may have as a text."""
    text = str(shapes.features[column].iloc[number]).strip() if column in shapes.features else ""
    return "" if text in ("nan", "None", "<NA>") else text
