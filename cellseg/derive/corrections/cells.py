"""The cells as corrected: where each is, its row, and the totals of all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.derive.classes import NEEDED, Classification
from cellseg.derive.corrections.edit import Edit, EditedCell
from cellseg.derive.corrections.log import check_token
from cellseg.derive.corrections.measure import measured
from cellseg.derive.corrections.pyramid import CHUNK_PX, PatchedPyramid
from cellseg.derive.derive import BY_HAND, summed_up
from cellseg.errors import InputError, SettingsError
from cellseg.geometry import Box
from cellseg.result import Result
from cellseg.table import REGION
from cellseg.table.summary import Summary

_PLACE = ("bbox_y0_px", "bbox_x0_px", "bbox_y1_px", "bbox_x1_px")


class CorrectedCells:
    """The automatic cells of a result, and over them those that edits touched.

    Attributes
    ----------
    rows : Table
        The automatic table.
    pyramid : PatchedPyramid
        The label image as corrected.
    classes : list of str
        The model's, then those that a person added.

    Raises
    ------
    InputError
        If the table does not say where its cells are.
    """

    def __init__(self, result: Result, classes: Sequence[str]) -> None:
        self.result = result
        self.rows = result.table
        if missing := {*_PLACE, *NEEDED, "score", "class"} - {*self.rows.names}:
            raise InputError(f"{result.path}: its table has no column {', '.join(sorted(missing))}")
        self.pyramid = PatchedPyramid(result.labels())
        self.classes = list(classes)
        self._regions = result.regions()
        self._made = Classification.of(result.run)
        self._edits: list[Edit] = []
        self._cells: dict[int, EditedCell | None] = {}
        self._redrawn: set[int] = set()
        self._measured = pd.DataFrame()
        """Rows of edited cells, by label; those that are out of date are dropped."""

    def __contains__(self, label: int) -> bool:
        if label in self._cells:
            return self._cells[label] is not None
        return 1 <= label <= len(self.rows)

    def __len__(self) -> int:
        """Cells as corrected."""
        return len(self.labels())

    @property
    def touched(self) -> Mapping[int, EditedCell | None]:
        """Every label that an edit touched, and the cell it is now; None: gone."""
        return self._cells

    def labels(self) -> NDArray[np.int64]:
        """All labels as corrected, ascending."""
        automatic = np.arange(1, len(self.rows) + 1)
        alive = [label for label, cell in self._cells.items() if cell is not None]
        return np.union1d(np.setdiff1d(automatic, list(self._cells)), np.array(alive, np.int64))

    def cell(self, label: int) -> EditedCell:
        """A cell's mask, class and score.

        Raises
        ------
        SettingsError
            If there is no such cell.
        """
        self._check(label)
        if (found := self._cells.get(label)) is not None:
            return found
        return self._automatic(self.rows.take([label - 1]).iloc[0])

    def row(self, label: int) -> pd.Series[Any]:
        """A cell's row of the table; an edited cell is measured if it was not yet.

        Raises
        ------
        SettingsError
            If there is no such cell.
        """
        self._check(label)
        if label not in self._cells:
            return self.rows.take([label - 1]).iloc[0]
        self._measure([label])
        return self._measured.loc[[label]].iloc[0]

    def table(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """All cells as corrected, in the order of their labels; edited ones are measured.

        Parameters
        ----------
        names : sequence of str, optional
            Of the columns; all by default.
        """
        kept = self.rows.load(names)
        kept.index = pd.RangeIndex(1, len(kept) + 1)
        kept = kept.drop(index=[label for label in self._cells if label <= len(self.rows)])
        edited = self._edited()
        parts = [part for part in (kept, edited[kept.columns]) if len(part)]
        return pd.concat(parts or [kept]).sort_index().reset_index(drop=True)

    def recount(self) -> Summary:
        """The totals as corrected; cells that changed are measured, and only those."""
        wanted = ("class", *NEEDED, REGION, "touches_border", "stitched")
        table = self.table([name for name in wanted if name in self.rows])
        types = [self._type_of(str(name)) for name in table["class"]]
        summary, _ = summed_up(
            self.result, table, self.classes, self._made, np.array(types, dtype=object)
        )
        return summary

    def batches(self) -> Iterator[tuple[pd.DataFrame, list[EditedCell]]]:
        """All cells as corrected: measured rows with classes by the model or a person, and masks.

        Yields
        ------
        table : DataFrame
            Columns as in ``measured.parquet``, and ``by_hand``: a person gave the class.
        cells : list of EditedCell
        """
        touched = list(self._cells)
        for table in self.result.measured.batches():
            table = table[~table["label"].isin(touched)].reset_index(drop=True)
            if len(table):
                yield table.assign(**{BY_HAND: False}), self._masks(table)
        edited = self._edited()
        if len(edited):
            cells = {n: cell for n in edited.index if (cell := self._cells[n]) is not None}
            by_hand = self._by_hand(cells)
            table = edited[[name for name in self.result.measured.names if name in edited]]
            classes = [
                cell.name if told else self._type_of(cell.name)
                for told, cell in zip(by_hand, cells.values(), strict=True)
            ]
            table = table.assign(**{BY_HAND: by_hand})
            table["class"] = classes
            yield table, [*cells.values()]

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
        self._redrawn.update(change.label for change in redrawn)
        for change in edit.changes:
            self._cells[change.label] = change.after
        self._forget(edit.labels)

    def _forget(self, labels: Collection[int]) -> None:
        if len(self._measured):
            self._measured = self._measured.drop(index=list(labels), errors="ignore")

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

    def _masks(self, table: pd.DataFrame) -> list[EditedCell]:
        """The cells of a table's rows; chunk by chunk, so that each is decoded once."""
        side = CHUNK_PX * self.result.frame.downsample
        order = np.argsort(table["bbox_x0_px"].to_numpy() // side, kind="stable")
        found = [self._automatic(row) for _, row in table.iloc[order].iterrows()]
        return [found[place] for place in np.argsort(order)]

    # The table

    def _check(self, label: int) -> None:
        if label not in self:
            raise SettingsError(f"there is no cell {label}")

    def _edited(self) -> pd.DataFrame:
        """Rows of the edited cells that are there, by label."""
        alive = sorted(label for label, cell in self._cells.items() if cell is not None)
        self._measure(alive)
        return self._measured.loc[alive] if alive else pd.DataFrame(columns=self.rows.names)

    def _measure(self, labels: Sequence[int]) -> None:
        """Measure edited cells that were not yet; another class alone needs no measuring."""
        found = {n: cell for n in labels if (cell := self._cells[n]) is not None}
        cells = {n: cell for n, cell in found.items() if n not in self._measured.index}
        if not cells:
            return
        check_token(self.result)
        is_old = {n: n <= len(self.rows) and n not in self._redrawn for n in cells}
        parts = [self._measured] if len(self._measured) else []
        if old := {n: cell for n, cell in cells.items() if is_old[n]}:
            table = self.rows.take(np.array(list(old)) - 1)
            renamed = self._by_hand(old) if self._made is not None else np.True_
            names = np.array([cell.name for cell in old.values()], dtype=object)
            parts.append(table.assign(**{"class": np.where(renamed, names, table["class"])}))
            parts[-1].index = pd.Index(list(old))
        if new := {n: cell for n, cell in cells.items() if not is_old[n]}:
            table = measured(self.result, list(new.values()))
            about = {"image": self.result.image_name, "object": self.result.object_name}
            table = table.assign(label=list(new), **about)
            table["class"] = self._classes(new, table)
            if self._regions is not None:
                place = table["centroid_y_px"], table["centroid_x_px"]
                table[REGION] = self._regions.names_at(*place)
            parts.append(table.reindex(columns=self.rows.names))
            parts[-1].index = pd.Index(list(new))
        self._measured = pd.concat(parts)

    def _classes(self, cells: Mapping[int, EditedCell], table: pd.DataFrame) -> NDArray[np.object_]:
        """Classes of cells just measured: what a person said, else what the thresholds say."""
        names = np.array([cell.name for cell in cells.values()], dtype=object)
        if self._made is None or any(m.measure not in table for m in self._made.markers):
            return names
        by_hand = self._by_hand(cells)
        types = np.array([self._type_of(name) for name in names], dtype=object)
        return self._made.classes(table, np.where(by_hand, names, types), by_hand)

    def _type_of(self, name: str) -> str:
        return name if self._made is None else self._made.type_of(name)

    def _by_hand(self, cells: Mapping[int, EditedCell]) -> NDArray[np.bool_]:
        """Which cells have a class that a person gave, or one that only persons give."""
        named = {label for edit in self._edits if edit.kind == "class" for label in edit.labels}
        known = {*self.result.class_names, *self.result.section("found").get("class_names", ())}
        found = [label in named or cell.name not in known for label, cell in cells.items()]
        return np.array(found, np.bool_)
