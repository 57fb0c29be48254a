"""Correcting one result: edits, undo and redo, and the masks of splitting and merging.

scikit-image's heavier parts are loaded when they are needed: a viewer opens results with this.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.derive.corrections.cells import CorrectedCells
from cellseg.derive.corrections.edit import CellChange, Edit, EditedCell, Kind, LogFile
from cellseg.errors import InputError, SettingsError
from cellseg.geometry import Box
from cellseg.result import Result, load_result

Mask = NDArray[np.bool_]
SMALLEST_PART_PX = 4
GAP_PX = 3
"""Cells this far from one another, or nearer, can be merged."""


class Corrections(CorrectedCells):
    """A finished result, and the corrections of it that a person makes.

    Automatic cells keep their labels; a new cell gets the next free one, and no label is ever
    used twice. All geometry is in lattice pixels, (y, x).

    An InputError if the result has no label image, was changed, or its log is damaged.
    """

    def __init__(self, result: Result) -> None:
        if "corrected_from" in result.run:
            raise InputError(
                f"{result.path}: holds corrected cells; open the automatic result beside it, "
                "its corrections go on where they were left"
            )
        result.check_table()
        self._log = LogFile(result)
        edits, added = self._log.read()
        super().__init__(result, list(dict.fromkeys([*result.class_names, *added])))
        self._undone: list[Edit] = []
        self._is_saving = False
        self._listeners: list[Callable[[Edit], None]] = []
        for edit in edits:
            self._perform(edit)
        self._take(edits)
        self._next = 1 + max(len(self.rows), *self.touched, 0)

    @classmethod
    def open(cls, folder: str | Path) -> Corrections:
        """The corrections of a result folder."""
        return cls(load_result(folder))

    @property
    def edits(self) -> tuple[Edit, ...]:
        """In the order in which they were made, undone ones left out."""
        return tuple(self._edits)

    def on_change(self, listener: Callable[[Edit], None]) -> Callable[[], None]:
        """Call ``listener`` after each edit, undone and redone ones too; returns what ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def delete(self, labels: Sequence[int]) -> Edit:
        """Take cells away."""
        if not labels:
            raise SettingsError("no cell is selected")
        cells = {label: self.cell(label) for label in labels}
        return self._make("delete", [CellChange(n, cell, None) for n, cell in cells.items()])

    def redraw(
        self, origin: tuple[int, int], painted: NDArray[np.integer[Any]], name: str | None = None
    ) -> Edit | None:
        """Take over a copy of the label image that was painted on: new, changed, erased cells.

        None where nothing differs. ``origin`` is the lattice (y, x) of the copy's corner;
        ``painted``, (h, w), are the labels as they should be. Those that had no pixel there are new
        cells, of the class ``name``, or of the first one.
        """
        (y, x), (height, width) = origin, painted.shape
        whole = Box(y, x, y + height, x + width)
        window = whole.intersection(self.pyramid.extent)
        wanted = np.asarray(painted[window.inside(whole)], np.int64)
        now = self.pyramid.levels[0].read(window).astype(np.int64)
        differs = wanted != now
        changes, fresh = [], self._next
        for label in np.setdiff1d(np.union1d(wanted[differs], now[differs]), [0]).tolist():
            # A number that has no pixel here is a new cell, whoever bears it elsewhere.
            before = self.cell(label) if (now == label).any() else None
            after = self._repainted(before, window, wanted == label, name)
            changes.append(CellChange(fresh if before is None else label, before, after))
            fresh += before is None
        new = all(change.before is None for change in changes)
        return self._make("add" if new else "redraw", changes) if changes else None

    def split(self, label: int, *, line: NDArray[np.float64] | None = None) -> Edit:
        """Cut a cell along a line, (P, 2), lattice (y, x); the largest part keeps the label.

        Without a line a watershed on the distance map makes two parts.
        """
        cell = self.cell(label)
        if line is None:
            masks = split_in_two(cell.mask)
        else:
            masks = split_along(cell.mask, np.asarray(line, np.float64) - cell.box.corners[:2])
        first, *others = [EditedCell.cut(cell.box, mask, cell.name) for mask in masks]
        new = [CellChange(n, None, part) for n, part in enumerate(others, start=self._next)]
        return self._make("split", [CellChange(label, cell, first), *new])

    def merge(self, labels: Sequence[int]) -> Edit:
        """Make one cell of several that touch, or nearly; the largest keeps its label and class."""
        cells = {label: self.cell(label) for label in labels}
        if len(cells) < 2:
            raise SettingsError("select at least two cells to merge")
        boxes = [cell.box for cell in cells.values()]
        for box in boxes:  # before anything between them is read
            near = box.widened(GAP_PX + 1)
            if not any(near.intersects(other) for other in boxes if other is not box):
                raise SettingsError(f"cells that lie more than {GAP_PX} px apart cannot be merged")
        frame = Box.around(boxes)
        now = self.pyramid.levels[0].read(frame)
        mask = joined([now == label for label in cells], now == 0)
        kept = max(cells, key=lambda label: (np.count_nonzero(cells[label].mask), -label))
        whole = EditedCell.cut(frame, mask, cells[kept].name)
        changes = [CellChange(kept, cells.pop(kept), whole)]
        changes += [CellChange(label, cell, None) for label, cell in cells.items()]
        return self._make("merge", changes)

    def classify(self, labels: Sequence[int], name: str) -> Edit | None:
        """Change cells' class; a name that is new joins :attr:`classes`. None: nothing changes."""
        clean = self._class(name)
        cells = {label: self.cell(label) for label in labels}
        changes = [
            CellChange(label, cell, EditedCell(cell.box, cell.mask, clean, cell.score))
            for label, cell in cells.items()
            if cell.name != clean
        ]
        return self._make("class", changes) if changes else None

    def undo(self) -> Edit | None:
        """Take the last edit back; returns it, or None where there is none."""
        self._refuse_while_saving()
        if not self._edits:
            return None
        *others, edit = self._edits
        self._undone.append(edit)
        back = tuple(CellChange(c.label, c.after, c.before) for c in edit.changes)
        self._do(Edit(edit.kind, back, edit.who, edit.when), others)
        return edit

    def redo(self) -> Edit | None:
        """Make an edit again that was undone; None where there is none."""
        self._refuse_while_saving()
        if not self._undone:
            return None
        edit = self._undone.pop()
        self._do(edit, [*self._edits, edit])
        return edit

    @contextmanager
    def saving(self) -> Iterator[None]:
        """While the corrected result is written, edits are refused, and so is another save."""
        self._refuse_while_saving()
        self._is_saving = True
        try:
            yield
        finally:
            self._is_saving = False

    def _refuse_while_saving(self) -> None:
        if self._is_saving:
            raise SettingsError("the corrections are being saved: a moment, please")

    def _make(self, kind: Kind, changes: Sequence[CellChange]) -> Edit:
        self._refuse_while_saving()
        self._undone.clear()
        self._next = max(self._next, *(change.label + 1 for change in changes))
        when = datetime.now(UTC).isoformat(timespec="seconds")
        edit = Edit(kind, tuple(changes), _login(), when)
        self._do(edit, [*self._edits, edit])
        return edit

    def _do(self, edit: Edit, edits: list[Edit]) -> None:
        """Perform an edit, after which these stand.

        It is told before it is written: a full disk does not take it away.
        """
        self._perform(edit)
        self._take(edits)
        for listener in list(self._listeners):
            listener(edit)
        self._log.write(self._edits, self.classes[len(self.result.class_names) :])

    def _class(self, name: str | None) -> str:
        if name is None:
            return self.classes[0] if self.classes else "cell"
        clean = " ".join(name.split())
        if not clean or not clean.isprintable():
            raise SettingsError(f"expected a class name, got {name!r}")
        if clean not in self.classes:
            self.classes.append(clean)
        return clean

    def _repainted(
        self, before: EditedCell | None, window: Box, wanted: NDArray[np.bool_], name: str | None
    ) -> EditedCell | None:
        """A cell whose pixels inside a window were painted anew; outside they stay."""
        if before is None:
            return EditedCell.cut(window, wanted, self._class(name))
        frame = Box.around((before.box, window))
        whole = np.zeros(frame.shape, np.bool_)
        whole[before.box.inside(frame)] = before.mask
        whole[window.inside(frame)] = wanted
        return EditedCell.cut(frame, whole, before.name) if whole.any() else None


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


def split_in_two(mask: Mask) -> list[Mask]:
    """Parts of a mask, (h, w), by a watershed on its distance map, the largest first."""
    from scipy.cluster.vq import kmeans2
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    if np.count_nonzero(mask) < 2 * SMALLEST_PART_PX:
        raise SettingsError(f"a cell of {np.count_nonzero(mask)} px cannot be split")
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    smooth = np.where(mask, ndimage.gaussian_filter(distance, 1.0), 0)
    near = max(1, round(float(distance.max()) / 2))
    seeds = peak_local_max(  # type: ignore[no-untyped-call]
        smooth, min_distance=near, num_peaks=2, exclude_border=False, labels=mask.astype(int)
    )
    found = np.zeros(mask.shape, np.int64)
    if len(seeds) < 2:
        # One peak only: parts of equal size, by the place of their pixels.
        places = np.argwhere(mask).astype(np.float64)
        _, owner = kmeans2(places, 2, minit="++", rng=np.random.default_rng(0))
        found[mask] = owner + 1
    else:
        found[tuple(seeds.T)] = (1, 2)
        found = watershed(-smooth, found, mask=mask)  # type: ignore[no-untyped-call]
    return _parts(found, mask)


def split_along(mask: Mask, line: NDArray[np.float64]) -> list[Mask]:
    """Parts of a mask, (h, w), that a drawn line makes, wherever it crosses; the largest first.

    The line's points, (P, 2), are (y, x) in pixels of the mask.
    """
    from skimage.draw import line as pixels_of_line

    drawn = np.zeros(mask.shape, np.bool_)
    for (y0, x0), (y1, x1) in pairwise(np.rint(line).astype(int)):
        ys, xs = pixels_of_line(y0, x0, y1, x1)  # type: ignore[no-untyped-call]
        inside = (ys >= 0) & (xs >= 0) & (ys < mask.shape[0]) & (xs < mask.shape[1])
        drawn[ys[inside], xs[inside]] = True
    found, _ = ndimage.label(mask & ~drawn)
    found[np.bincount(found.ravel())[found] < SMALLEST_PART_PX] = 0
    if len(np.unique(found[found > 0])) < 2:
        raise SettingsError("the line does not cut the cell in two: draw it right across")
    return _parts(found, mask)


def joined(masks: Sequence[Mask], free: Mask) -> Mask:
    """Several masks as one, (h, w) each; a narrow gap of ``free`` pixels between them is filled."""
    union = np.logical_or.reduce(list(masks))
    whole = union
    if ndimage.label(union)[1] > 1:
        near = np.pad(union, GAP_PX + 1)
        closed = ndimage.binary_closing(near, ndimage.generate_binary_structure(2, 1), GAP_PX)
        whole = union | (closed[GAP_PX + 1 : -GAP_PX - 1, GAP_PX + 1 : -GAP_PX - 1] & free)
    if ndimage.label(whole, np.ones((3, 3)))[1] > 1:
        raise SettingsError(f"cells that lie more than {GAP_PX} px apart cannot be merged")
    return np.asarray(whole, np.bool_)


def _parts(found: NDArray[np.int64], mask: Mask) -> list[Mask]:
    """One mask a number, the largest first; pixels without number go to the nearest."""
    from skimage.segmentation import expand_labels

    owner = expand_labels(found, max(found.shape)) * mask  # type: ignore[no-untyped-call]
    parts = [owner == number for number in np.unique(owner[owner > 0]).tolist()]
    return sorted(parts, key=lambda part: -int(np.count_nonzero(part)))
