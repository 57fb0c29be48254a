"""The cells as corrected: where each is, its row, the totals of all, and their label image.

The label pyramid can be painted on: painted chunks stay in memory, compressed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd
from numcodecs import Blosc
from numpy.typing import NDArray

from cellseg.derive.classes import NEEDED, Classification
from cellseg.derive.corrections.edit import Edit, EditedCell
from cellseg.derive.derive import BY_HAND, summed_up
from cellseg.derive.expand import pixels_of
from cellseg.errors import CellsegError, InputError, SettingsError
from cellseg.geometry import Box, LazyArray, box_of
from cellseg.instances import Instances
from cellseg.result import Result
from cellseg.result.labels import CHUNK_PX, level_shapes
from cellseg.slide import Slide
from cellseg.table import REGION, measure
from cellseg.table.summary import Summary

BORDER_PX = 2
"""A cell this near to the slide's edge touches it, as the seam rule has it."""

_PLACE = ("bbox_y0_px", "bbox_x0_px", "bbox_y1_px", "bbox_x1_px")

DECODED = 24
"""Chunks of a level that stay decoded, for cells are read one by one: about 100 MB at most."""

_PACKER = Blosc(cname="lz4", clevel=1)


class CorrectedCells:
    """The automatic cells of a result, and over them those that edits touched.

    ``rows`` is the automatic table; ``classes`` are the model's, then those that a person added.
    ``touched`` has every label that an edit touched, with the cell that it is now; None: gone.
    """

    def __init__(self, result: Result, classes: Sequence[str]) -> None:
        self.result = result
        self.rows = result.table
        if missing := {*_PLACE, *NEEDED, "score", "class"} - {*self.rows.names}:
            raise InputError(f"{result.path}: its table has no column {', '.join(sorted(missing))}")
        self.pyramid = PatchedPyramid(result.labels())
        self.classes = list(classes)
        self.touched: dict[int, EditedCell | None] = {}
        self._edits: list[Edit] = []
        self._regions = result.regions()
        self._made = Classification.of(result.run)
        self._known: dict[EditedCell, pd.DataFrame] = {}
        """Rows of edited cells that were asked for, but for their classes."""

    def __contains__(self, label: int) -> bool:
        if label in self.touched:
            return self.touched[label] is not None
        return 1 <= label <= len(self.rows)

    def __len__(self) -> int:
        """Cells as corrected."""
        return len(self.labels())

    def labels(self) -> NDArray[np.int64]:
        """All labels as corrected, ascending."""
        automatic = np.arange(1, len(self.rows) + 1)
        if not self.touched:
            return automatic
        return np.union1d(np.setdiff1d(automatic, [*self.touched]), [*self._alive()]).astype(int)

    def by_hand(self) -> NDArray[np.bool_]:
        """Of which of :meth:`labels` a person gave the class, (N,)."""
        edited = self._alive()
        return np.isin(self.labels(), np.array([*edited], np.int64)[self._by_hand(edited)])

    def cell(self, label: int) -> EditedCell:
        """A cell's mask, class and score; a SettingsError if there is no such cell."""
        self._check(label)
        found = self.touched.get(label)
        return found or self._automatic(self.rows.take([label - 1]).iloc[0])

    def row(self, label: int) -> pd.Series[Any]:
        """A cell's row of the table."""
        return self.take([label]).iloc[0]

    def take(self, labels: Sequence[int]) -> pd.DataFrame:
        """Rows of some cells, by label; an edited cell is measured if it was not yet."""
        for label in labels:
            self._check(label)
        edited = {n: cell for n in labels if (cell := self.touched.get(n)) is not None}
        kept = self.rows.take([n - 1 for n in labels if n not in edited])
        kept.index = pd.Index(kept["label"].to_numpy())
        parts = [part for part in (kept, self._edited(edited)) if len(part)]
        return pd.concat(parts).loc[[*labels]]

    def table(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """Some columns, or all, of the cells as corrected, in the order of their labels."""
        kept = self.rows.load(names)
        kept.index = pd.RangeIndex(1, len(kept) + 1)
        kept = kept.drop(index=[label for label in self.touched if label <= len(self.rows)])
        edited = self._edited(self._alive())
        parts = [part for part in (kept, edited[kept.columns]) if len(part)]
        return pd.concat(parts or [kept]).sort_index().reset_index(drop=True)

    def recount(self) -> Summary:
        """The totals as corrected; cells that changed are measured, and only those."""
        wanted = ("class", *NEEDED, REGION, "touches_border", "stitched")
        table = self.table([name for name in wanted if name in self.rows])
        types = self._types(table["class"])
        return summed_up(self.result, table, self.classes, self._made, types)

    def batches(self) -> Iterator[tuple[pd.DataFrame, list[EditedCell]]]:
        """All cells as corrected: measured rows with classes by the model or a person, and masks.

        The rows are those of ``measured.parquet`` with ``by_hand``: a person gave the class.
        """
        level, frame = self.result.labels()[0], self.result.frame
        for rows, masks in self.result.measured.blocks(level, frame):
            kept = np.flatnonzero(~rows["label"].isin([*self.touched]))
            table = rows.iloc[kept]
            cells = []
            for i, name, score in zip(kept, table["class"], table["score"], strict=True):
                cells.append(EditedCell.cut(*masks[i], name, score=float(score)))
            if cells:
                yield table.assign(**{BY_HAND: False}), cells
        if edited := self._alive():
            table, by_hand = self._edited(edited), self._by_hand(edited)
            names = [cell.name for cell in edited.values()]
            types = np.where(by_hand, names, self._types(names))
            table = table[[name for name in self.result.measured.names if name in table]]
            table = table.assign(**{BY_HAND: by_hand, "class": types})
            yield table, [*edited.values()]

    # The label image

    def _perform(self, edit: Edit) -> None:
        """Erase what was, then paint what is; each change by its own box, however far apart."""
        redrawn = [change for change in edit.changes if change.is_redrawn]
        for change in redrawn:
            if change.before is not None:
                self._paint(change.before, old=change.label, new=0)
        for change in redrawn:
            if change.after is not None:
                self._paint(change.after, old=None, new=change.label)

    def _take(self, edits: list[Edit]) -> None:
        """The cells that edits, which were performed, make of the automatic ones."""
        self._edits = edits
        self.touched = {change.label: change.after for edit in edits for change in edit.changes}

    def _paint(self, cell: EditedCell, *, old: int | None, new: int) -> None:
        """Give a cell's pixels another number; with ``old``, only those that have this one."""
        labels = self.pyramid.levels[0].read(cell.box)
        labels[cell.mask if old is None else cell.mask & (labels == old)] = new
        self.pyramid.write(cell.box.y0, cell.box.x0, labels)

    def _automatic(self, row: pd.Series[Any]) -> EditedCell:
        """A cell that nobody edited, its mask cut from the label image."""
        y0, x0, y1, x1 = (int(float(row[name]) / self.result.frame.downsample) for name in _PLACE)
        found = self.pyramid.mask_of(int(row["label"]), Box(y0 - 1, x0 - 1, y1 + 2, x1 + 2))
        if found is None:
            raise InputError(f"{self.result.path}: cell {row['label']} is not where its row says")
        return EditedCell(*found, str(row["class"]), float(row["score"]))

    # The table

    def _check(self, label: int) -> None:
        if label not in self:
            raise SettingsError(f"there is no cell {label}")

    def _alive(self) -> dict[int, EditedCell]:
        """Edited cells that are there, by label, ascending."""
        return {n: cell for n, cell in sorted(self.touched.items()) if cell is not None}

    def _edited(self, cells: Mapping[int, EditedCell]) -> pd.DataFrame:
        """Rows of edited cells, by label; only those that were not yet are measured."""
        if not cells:
            return pd.DataFrame(columns=self.rows.names)
        changes = [change for edit in self._edits for change in edit.changes]
        redrawn = {change.label for change in changes if change.is_redrawn}
        new = {n: cell for n, cell in cells.items() if cell not in self._known}
        for drawn in (False, True):  # another class alone needs no measuring
            if part := {n: cell for n, cell in new.items() if (n in redrawn) is drawn}:
                found = self._measured(part) if drawn else self.rows.take(np.array([*part]) - 1)
                self._known |= {cell: found[i : i + 1] for i, cell in enumerate(part.values())}
        table = pd.concat([self._known[cell] for cell in cells.values()])
        table.index = pd.Index([*cells])
        table["label"], table["class"] = [*cells], self._classes(cells, table)
        return table

    def _measured(self, cells: Mapping[int, EditedCell]) -> pd.DataFrame:
        """Rows of single cells; without the slide intensities are missing."""
        result, frame, slide = self.result, self.result.frame, None
        result.check_current()
        if result.section("protocol").get("intensity"):
            with suppress(CellsegError):
                slide = result.slide()
        seen = pixels_of(result, () if slide is None else tuple(slide.channels))
        extent, parts = Box(0, 0, frame.lattice_height, frame.lattice_width), []
        with slide or nullcontext():
            for cell in cells.values():
                found = pd.DataFrame(
                    measure(
                        instances_of([cell]),
                        None if slide is None else _pixels(slide, cell.box, frame.downsample),
                        (cell.box.y0, cell.box.x0),
                        frame=frame,
                        channels=seen.channels,
                        stain=seen.stain,
                        white=seen.white,
                    )
                )
                near = cell.box.widened(BORDER_PX)
                parts.append(found.assign(touches_border=near.intersection(extent) != near))
        about: dict[str, Any] = {"image": result.file_name, "t": result.time_point}
        table = pd.concat(parts, ignore_index=True)
        table = table.assign(object=result.object_name, stitched=False, label=0, **about)
        table["class"] = ""
        if self._regions is not None:
            table[REGION] = self._regions.names_at(table["centroid_y_px"], table["centroid_x_px"])
        return table.reindex(columns=self.rows.names)

    def _classes(self, cells: Mapping[int, EditedCell], table: pd.DataFrame) -> NDArray[np.object_]:
        """Classes of edited cells: what a person said, else what the thresholds say."""
        names = np.array([cell.name for cell in cells.values()], dtype=object)
        if self._made is None:
            return names
        by_hand = self._by_hand(cells)
        measures = dict.fromkeys(marker.measure for marker in self._made.markers)
        values = table.reindex(columns=[*measures])
        kept = by_hand | ~np.isfinite(values.to_numpy(np.float64)).all(axis=1)
        return self._made.classes(values, np.where(kept, names, self._types(names)), kept)

    def _types(self, names: Iterable[str]) -> NDArray[np.object_]:
        """Classes by the model, of classes by measurement."""
        found = [name if self._made is None else self._made.type_of(name) for name in names]
        return np.array(found, dtype=object)

    def _by_hand(self, cells: Mapping[int, EditedCell]) -> NDArray[np.bool_]:
        """Which cells have a class that a person gave, or one that only persons give."""
        named = {label for edit in self._edits if edit.kind == "class" for label in edit.labels}
        known = {*self.result.class_names, *self.result.section("found").get("class_names", ())}
        found = [label in named or cell.name not in known for label, cell in cells.items()]
        return np.array(found, np.bool_)


def instances_of(cells: Sequence[EditedCell], classes: Sequence[int] = ()) -> Instances:
    """Cells as detectors give them; ``classes`` are indices, all 0 where left out."""
    return Instances.build(
        [cell.box.corners for cell in cells],
        [cell.score for cell in cells],
        classes or [0] * len(cells),
        [cell.mask for cell in cells],
    )


def _pixels(slide: Slide, box: Box, downsample: float) -> NDArray[Any]:
    try:
        return slide.read(box, downsample=downsample)
    except CellsegError:
        return np.full((*box.shape, len(slide.channels)), np.nan, np.float32)


class PatchedLevel(LazyArray):
    """One level: the painted chunks over a label image on the disk, uint32 (Y, X)."""

    def __init__(self, shape: tuple[int, ...], base: LazyArray | None) -> None:
        chunks = [min(CHUNK_PX, side) for side in shape]
        super().__init__(shape, np.uint32, self._patched, chunks)
        self._base = base
        self._decode = lru_cache(DECODED)(self._unpacked)
        self._painted: dict[Box, bytes] = {}
        self._lock = Lock()

    def _patched(self, box: Box) -> NDArray[np.uint32]:
        """The labels of a box inside the image, (h, w)."""
        out = np.zeros(box.shape, np.uint32)
        with self._lock:
            for chunk, part in self._parts(box):
                out[part.inside(box)] = self._decode(chunk)[part.inside(chunk)]
        return out

    def write(self, y0: int, x0: int, labels: NDArray[np.uint32]) -> None:
        """Paint over a part."""
        box = Box(y0, x0, y0 + labels.shape[0], x0 + labels.shape[1])
        with self._lock:
            for chunk, part in self._parts(box):
                pixels = self._decode(chunk)
                pixels[part.inside(chunk)] = labels[part.inside(box)]
                self._painted[chunk] = _PACKER.encode(pixels)

    def _parts(self, box: Box) -> Iterator[tuple[Box, Box]]:
        """The chunks that a box has pixels of, and what it has of each."""
        height, width = self.chunks
        for row, column in box.chunks(height, width):
            whole = Box(0, 0, height, width).shifted(row * height, column * width)
            chunk = whole.intersection(Box(0, 0, *self.shape))
            yield chunk, chunk.intersection(box)

    def _unpacked(self, chunk: Box) -> NDArray[np.uint32]:
        """The labels of a chunk, which may be painted on."""
        if chunk in self._painted:
            packed = np.frombuffer(_PACKER.decode(self._painted[chunk]), np.uint32)
            return packed.reshape(chunk.shape).copy()
        if self._base is None:
            return np.zeros(chunk.shape, np.uint32)
        return np.array(self._base[chunk.pixels], np.uint32)


class PatchedPyramid:
    """A label pyramid by two, as :mod:`cellseg.result` writes it, with paint over it.

    Its levels, finest first, do not decode more than is read of them.
    """

    def __init__(self, levels: Sequence[LazyArray]) -> None:
        self.levels = [PatchedLevel(level.shape, level) for level in levels]

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> PatchedPyramid:
        """Nothing painted yet, for a slide that is being counted."""
        found = cls([])
        found.levels = [PatchedLevel(side, None) for side in level_shapes(shape)]
        return found

    @property
    def extent(self) -> Box:
        """The whole image, pixels of the finest level."""
        return Box(0, 0, *self.levels[0].shape)

    def write(self, y0: int, x0: int, labels: NDArray[np.uint32]) -> None:
        """Paint a part of the finest level, and the coarser ones to match."""
        y1, x1 = y0 + labels.shape[0], x0 + labels.shape[1]
        for number, level in enumerate(self.levels):
            step = 2**number
            top, left = -(-y0 // step), -(-x0 // step)
            part = labels[top * step - y0 : y1 - y0 : step, left * step - x0 : x1 - x0 : step]
            level.write(top, left, part)

    def label_at(self, y: int, x: int) -> int:
        """The cell at a lattice pixel; 0 where there is none, also outside of the slide."""
        inside = Box(y, x, y + 1, x + 1).intersection(self.extent)
        return int(self.levels[0].read(inside).max(initial=0))

    def mask_of(self, label: int, around: Box) -> tuple[Box, NDArray[np.bool_]] | None:
        """A cell's tight box and mask, looked for in ``around``; None where it is not there."""
        inside = around.intersection(self.extent)
        mask = self.levels[0].read(inside) == label
        box = box_of(mask)
        return None if box is None else (box.shifted(inside.y0, inside.x0), mask[box.pixels])
