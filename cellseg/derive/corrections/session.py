"""Correcting one result: edits, undo and redo, kept in ``corrections.json`` as they are made."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from cellseg.derive.corrections.cells import CorrectedCells
from cellseg.derive.corrections.edit import CellChange, ClassName, Edit, EditedCell, Kind
from cellseg.derive.corrections.shapes import joined, refuse_apart, split_along, split_in_two
from cellseg.errors import InputError, OutputError, SettingsError, output_errors, writing
from cellseg.geometry import Box
from cellseg.result import Result, load_result
from cellseg.result.files import fault_of, own_file, read_json, sha256_of
from cellseg.result.publish import CORRECTIONS


class Corrections(CorrectedCells):
    """A finished result, and the corrections of it that a person makes.

    Automatic cells keep their labels; a new cell gets the next free one, and no label is ever
    used twice. All geometry is in lattice pixels, (y, x).

    An InputError if the result has no label image, its table was changed, or its log is damaged.
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
        self._model_classes = result.class_names
        super().__init__(result, list(dict.fromkeys([*self._model_classes, *added])))
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
        refuse_apart([cell.box for cell in cells.values()])
        frame = Box.around(cell.box for cell in cells.values())
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
        self._do(edit.undone, others)
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
        self._log.write(self._edits, self.classes[len(self._model_classes) :])

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


class _LogRecord(BaseModel):
    """``corrections.json``, whoever wrote it."""

    model_config = ConfigDict(strict=True)

    format: Literal["cellseg corrections"]
    result: str
    classes: list[ClassName]
    edits: list[Edit]


class LogFile:
    """The log of one result, read once and written by one hand."""

    def __init__(self, result: Result) -> None:
        self._result = result
        self._path = own_file(result.path, CORRECTIONS)
        self._seen = self._digest()
        self._of: str | None = None  # the earlier count whose edits are there

    def read(self) -> tuple[list[Edit], list[str]]:
        """The edits made so far, and class names that a person added; none without a log.

        A damaged log is left as it is.
        """
        if not self._path.exists():
            return [], []
        earlier = read_json(self._path).get("result")
        if isinstance(earlier, str) and earlier != self._result.token:
            self._of = earlier
            return [], []
        try:
            record = _LogRecord.model_validate_json(self._path.read_bytes())
            self._check(record.edits, record.classes)
        except ValueError as error:
            why = fault_of(error) if isinstance(error, ValidationError) else str(error)
            raise InputError(
                f"{self._path}: is damaged: {why}; mend it, or move it away to start anew"
            ) from error
        return record.edits, record.classes

    def _check(self, edits: Sequence[Edit], added: Sequence[str]) -> None:
        """Check that edits fit the slide; they may be older than its classes by measurement."""
        frame, result = self._result.frame, self._result
        extent = Box(0, 0, frame.lattice_height, frame.lattice_width)
        classes = {*result.class_names, *map(str, result.section("found")["class_names"]), *added}
        changes = [change for edit in edits for change in edit.changes]
        for cell in (c for change in changes for c in (change.before, change.after) if c):
            if cell.box.intersection(extent) != cell.box:
                raise ValueError(f"a cell outside of the slide: {cell.box}")
            if cell.name not in classes:
                raise ValueError(f"a cell of an unknown class {cell.name!r}")

    def write(self, edits: Sequence[Edit], classes: Sequence[str]) -> None:
        """Write all edits in one step; edits of an earlier count are kept under another name.

        An OutputError if the disk refuses, if the slide was counted again meanwhile, or if
        somebody else corrected it: then theirs stay on the disk.
        """
        self._result.check_current()
        path = self._path
        about = {
            "format": "cellseg corrections",
            "result": self._result.token,
            "classes": list(classes),
        }
        lines = ",\n".join(edit.text for edit in edits)
        content = f'{json.dumps(about)[:-1]}, "edits": [\n{lines}\n]}}\n'.encode()
        with output_errors(path):
            if self._digest() != self._seen:
                raise OutputError(
                    f"{path}: was changed elsewhere, in another window or by somebody else; "
                    "open the result again to go on"
                )
            if self._of is not None:
                safe = "".join(letter for letter in self._of[:8] if letter.isalnum()) or "earlier"
                path.rename(path.with_name(f"corrections-{safe}.json"))
                self._of, self._seen = None, None
            with writing(path) as temporary:
                temporary.write_bytes(content)
            self._seen = sha256(content).hexdigest()

    def _digest(self) -> str | None:
        try:
            return sha256_of(self._path)
        except OSError:
            return None
