"""The cells as corrected: where each is, its row, and the totals of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.derive.classes import NEEDED, Classification
from cellseg.derive.corrections._edit import Edit, EditedCell
from cellseg.derive.corrections._log import check_token
from cellseg.derive.corrections._pyramid import CHUNK_PX, PatchedPyramid
from cellseg.derive.corrections._slide import Measurer
from cellseg.derive.derive import BY_HAND
from cellseg.errors import InputError, SettingsError
from cellseg.geometry import Box
from cellseg.result import Result
from cellseg.table import REGION, Scale
from cellseg.table.doubts import Expected, doubts
from cellseg.table.summary import Summary, SummaryBuilder

_CENTROID = ("centroid_y_px", "centroid_x_px")
_PLACE = ("bbox_y0_px", "bbox_x0_px", "bbox_y1_px", "bbox_x1_px")


class CorrectedCells:
    """The automatic cells of a result, and over them those that edits touched.

    Attributes
    ----------
    rows : Rows
        The automatic table.
    regions : Regions or None
        What was counted in.
    pyramid : PatchedPyramid
        The label image as corrected.
    classes : list of str
        The model's, then those that a person added.
    """

    def __init__(self, result: Result, classes: Sequence[str]) -> None:
        self.result = result
        self.rows = result.table
        self.regions = result.regions()
        self.pyramid = PatchedPyramid(result.labels())
        self.classes = list(classes)
        self._made = Classification.of(result.run)
        self._cells: dict[int, EditedCell | None] = {}
        self._measured: dict[int, tuple[EditedCell, pd.Series[Any]]] = {}

    def __len__(self) -> int:
        """Cells as corrected."""
        automatic = len(self.rows)
        gone = sum(1 for label, cell in self._cells.items() if label <= automatic and cell is None)
        new = sum(1 for label, cell in self._cells.items() if label > automatic and cell)
        return automatic - gone + new

    def __contains__(self, label: int) -> bool:
        if label in self._cells:
            return self._cells[label] is not None
        return 1 <= label <= len(self.rows)

    @property
    def touched(self) -> Mapping[int, EditedCell | None]:
        """Every label that an edit touched, and the cell it is now; None: gone."""
        return dict(self._cells)

    def labels(self) -> NDArray[np.int64]:
        """All labels as corrected, ascending."""
        automatic = np.arange(1, len(self.rows) + 1)
        touched = np.array(sorted(self._cells), np.int64)
        kept = automatic[~np.isin(automatic, touched)]
        alive = [label for label, cell in self._cells.items() if cell is not None]
        return np.sort(np.concatenate([kept, np.array(alive, np.int64)]))

    def cell(self, label: int) -> EditedCell:
        """A cell's mask, class and score.

        Raises
        ------
        SettingsError
            If there is no such cell.
        """
        if (found := self._cells.get(label)) is not None:
            return found
        if label not in self:
            raise SettingsError(f"there is no cell {label}")
        row = self.rows.take([label - 1]).iloc[0]
        return self._automatic(label, row)

    def row(self, label: int) -> pd.Series[Any]:
        """A cell's row of the table; an edited cell is measured if it was not yet.

        Raises
        ------
        SettingsError
            If there is no such cell.
        """
        if label not in self:
            raise SettingsError(f"there is no cell {label}")
        if label in self._cells:
            if not self._is_measured(label):
                self._measure([label])
            return self._measured[label][1]
        return self.rows.take([label - 1]).iloc[0]

    def recount(self) -> Summary:
        """Measure the cells that changed, and only those; the totals as corrected."""
        return self.judged()[0]

    def judged(self) -> tuple[Summary, list[str]]:
        """The same, and why these totals may be wrong; nothing where one cannot know."""
        self._measure(
            [n for n, cell in self._cells.items() if cell is not None and not self._is_measured(n)]
        )
        scale = Scale(self.result.frame.downsample, self.result.frame.mpp)
        name = str(self.result.run.get("object", "cell"))
        frame, before = self.result.frame, self.result.section("summary")
        regions = None if self.regions is None else self.regions.on(frame.height, frame.width)
        builder = SummaryBuilder(self.classes, object=name, scale=scale, regions=regions)
        columns = ["class", *NEEDED, REGION, "touches_border", "stitched"]
        kept = self.rows.load([column for column in columns if column in self.rows])
        untouched = np.ones(len(kept), np.bool_)
        gone = [label - 1 for label in self._cells if label <= len(kept)]
        untouched[gone] = False
        for column in ("touches_border", "stitched"):
            if column not in kept:
                kept[column] = False
        builder.add(kept[untouched])
        edited = self.edited_table()
        if len(edited):
            builder.add(edited.reindex(columns=kept.columns, fill_value=False))
        summary = builder.build(
            tissue_mm2=before.get("tissue_mm2"),
            skipped_share=before.get("skipped_share"),
            tissue_mm2_in_regions=[one["tissue_mm2"] for one in before.get("regions", ())],
        )
        expected = Expected.of(self.result.run)
        found = []
        if expected is not None and summary.cells:  # of none, a person took them away
            found = doubts(summary, builder.most_common_area_px(), expected)
        if self._made is None:
            return summary, found
        cells = pd.concat([kept[untouched], edited.reindex(columns=kept.columns)])
        types = np.array([self._made.type_of(str(name)) for name in cells["class"]], dtype=object)
        scores = tuple(self._made.scores(cells, types, self.result.frame.mpp))
        return replace(summary, labelling=scores), found

    def edited_table(self) -> pd.DataFrame:
        """Rows of the edited cells that are there, measured; columns as in the result's table."""
        alive = sorted(label for label, cell in self._cells.items() if cell is not None)
        self._measure([label for label in alive if not self._is_measured(label)])
        rows = [self.row(label) for label in alive]
        return pd.DataFrame(rows, columns=self.rows.names).reset_index(drop=True)

    def table(self) -> pd.DataFrame:
        """All cells as corrected, with the result's columns, in the order of their labels."""
        table = self.rows.load()
        untouched = table[~table["label"].isin(list(self._cells))]
        parts = [part for part in (untouched, self.edited_table()) if len(part)]
        if not parts:
            return untouched
        return pd.concat(parts, ignore_index=True).sort_values("label", ignore_index=True)

    def batches(self) -> Iterator[tuple[pd.DataFrame, list[EditedCell]]]:
        """All cells as corrected: measured rows with classes by the model or a person, and masks.

        Yields
        ------
        table : DataFrame
            Columns as in ``measured.parquet``, and ``by_hand``: a person gave the class.
        cells : list of EditedCell
        """
        for table in self.result.measured.batches():
            keep = [label not in self._cells for label in table["label"].tolist()]
            table = table[keep].reset_index(drop=True)
            if len(table):
                yield table.assign(**{BY_HAND: False}), self._masks(table)
        edited = self.edited_table()
        if len(edited):
            found = [(label, self._cells[label]) for label in edited["label"].tolist()]
            cells = [(label, cell) for label, cell in found if cell is not None]
            by_hand = np.array([self.is_named_by_hand(label, cell) for label, cell in cells])
            edited = edited[[name for name in self.result.measured.names if name in edited]]
            edited = edited.copy()
            edited["class"] = [
                cell.name if told or self._made is None else self._made.type_of(cell.name)
                for told, (_, cell) in zip(by_hand, cells, strict=True)
            ]
            edited[BY_HAND] = by_hand
            yield edited, [cell for _, cell in cells]

    def _masks(self, table: pd.DataFrame) -> list[EditedCell]:
        """The cells of a table's rows; chunk by chunk, so that each is decoded once."""
        order = np.arange(len(table))
        if "bbox_x0_px" in table.columns:
            side = CHUNK_PX * self.result.frame.downsample
            order = np.argsort(table["bbox_x0_px"].to_numpy() // side, kind="stable")
        found: dict[int, EditedCell] = {}
        records = table.iloc[order]
        for place, (_, row) in zip(order.tolist(), records.iterrows(), strict=True):
            found[place] = self._automatic(int(row["label"]), row)
        return [found[place] for place in range(len(table))]

    def _perform(self, edit: Edit) -> None:
        """Erase what was, then paint what is; each change by its own box, however far apart."""
        redrawn = [c for c in edit.changes if not _same_outline(c.before, c.after)]
        for change in redrawn:
            if change.before is not None:
                self._paint(change.before, old=change.label, new=0)
        for change in redrawn:
            if change.after is not None:
                self._paint(change.after, old=None, new=change.label)
        for change in edit.changes:
            self._cells[change.label] = change.after

    def _paint(self, cell: EditedCell, *, old: int | None, new: int) -> None:
        """Give a cell's pixels another number; with ``old``, only those that have this one."""
        box, mask = self._clipped((cell.box.y0, cell.box.x0), cell.mask)
        labels = self.pyramid.levels[0].read(box)
        labels[mask if old is None else mask & (labels == old)] = new
        self.pyramid.write(box.y0, box.x0, labels)

    def _automatic(self, label: int, row: pd.Series[Any]) -> EditedCell:
        """A cell that nobody edited, its mask cut from the label image."""
        frame = self.result.frame
        if all(name in row.index for name in _PLACE):
            y0, x0, y1, x1 = (float(row[name]) / frame.downsample for name in _PLACE)
            around = Box(int(y0) - 1, int(x0) - 1, int(y1) + 2, int(x1) + 2)
            around = around.intersection(Box(0, 0, *self.pyramid.shape))
        else:
            around = Box(0, 0, *self.pyramid.shape)
        found = self.pyramid.mask_of(label, around)
        if found is None:
            raise InputError(f"{self.result.path}: cell {label} is not where its row says")
        return EditedCell(*found, str(row["class"]), float(row["score"]))

    def _by_measurement(
        self, cells: Sequence[tuple[int, EditedCell]], table: pd.DataFrame
    ) -> list[str]:
        """Classes of cells just measured: what a person said, else what the thresholds say."""
        named = np.array([cell.name for _, cell in cells], dtype=object)
        if self._made is None or any(m.measure not in table for m in self._made.markers):
            return [str(name) for name in named]
        by_hand = np.array([self.is_named_by_hand(label, cell) for label, cell in cells])
        types = np.array([self._made.type_of(str(name)) for name in named], dtype=object)
        found = self._made.classes(table, np.where(by_hand, named, types), by_hand)
        return [str(name) for name in found]

    def named_by_hand(self) -> set[int]:
        """Labels of cells whose class a person gave."""
        return set()

    def is_named_by_hand(self, label: int, cell: EditedCell) -> bool:
        """Whether a person gave a cell's class, or it has one that only persons give."""
        known = {*self.result.class_names, *self.result.section("found").get("class_names", ())}
        return label in self.named_by_hand() or cell.name not in known

    def _is_measured(self, label: int) -> bool:
        return label in self._measured and self._measured[label][0] is self._cells[label]

    def _measure(self, labels: Sequence[int]) -> None:
        cells = [(label, cell) for label in labels if (cell := self._cells[label]) is not None]
        if not cells:
            return
        check_token(self.result)
        fresh = []
        for label, cell in cells:
            if (row := self._renamed(label, cell)) is None:
                fresh.append((label, cell))
            else:
                self._measured[label] = (cell, row)
        if not fresh:
            return
        cells = fresh
        measurer = Measurer(self.result)
        try:
            table = measurer.measure([cell for _, cell in cells])
        finally:
            measurer.close()
        table["label"] = [label for label, _ in cells]
        table["class"] = self._by_measurement(cells, table)
        table["image"] = self.result.image_name
        table["object"] = str(self.result.run.get("object", "cell"))
        if self.regions is not None:
            table[REGION] = self.regions.names_at(*(table[name] for name in _CENTROID))
        table = table.reindex(columns=self.rows.names)
        for (label, cell), (_, row) in zip(cells, table.iterrows(), strict=True):
            self._measured[label] = (cell, row)

    def _clipped(self, origin: tuple[int, int], pixels: NDArray[Any]) -> tuple[Box, NDArray[Any]]:
        """The part of a picture, (h, w), that lies on the slide."""
        y, x = origin
        whole = Box(y, x, y + pixels.shape[0], x + pixels.shape[1])
        box = whole.intersection(Box(0, 0, *self.pyramid.shape))
        return box, pixels[box.inside(whole)]

    def _renamed(self, label: int, cell: EditedCell) -> pd.Series[Any] | None:
        """The automatic row with another class, where the outline is still the automatic one."""
        if label > len(self.rows):
            return None
        row = self.rows.take([label - 1]).iloc[0]
        box = cell.box.widened(1).intersection(Box(0, 0, *self.pyramid.shape))
        before = self.pyramid.levels[0].read_base(box) == label
        whole = round(float(row["area_px"]) / self.result.frame.downsample**2)
        inner = before[cell.box.y0 - box.y0 :, cell.box.x0 - box.x0 :]
        same = np.array_equal(inner[: cell.box.height, : cell.box.width], cell.mask)
        if not same or np.count_nonzero(cell.mask) != whole:
            return None
        renamed = row.copy()
        if self._made is None or label in self.named_by_hand():
            renamed["class"] = cell.name
        return renamed


def _same_outline(before: EditedCell | None, after: EditedCell | None) -> bool:
    if before is None or after is None:
        return False
    return before.box == after.box and np.array_equal(before.mask, after.mask)
