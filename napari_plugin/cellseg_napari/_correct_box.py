"""The buttons that correct the cells of the result that is shown."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
import numpy as np
from napari.utils.notifications import show_info
from numpy.typing import NDArray
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QGridLayout, QLabel, QPushButton, QWidget

from cellseg.derive.corrections import Corrections, Edit, export_training
from cellseg.errors import CellsegError
from cellseg.geometry import Box
from cellseg_napari._attempt import attempt, tell
from cellseg_napari._background import in_background
from cellseg_napari._inspect import Inspector
from cellseg_napari._look_box import LookBox
from cellseg_napari._opened import Opened, camera_of
from cellseg_napari._outlines import world_outlines
from cellseg_napari._paint import Painter
from cellseg_napari._shortcuts import KEYS
from cellseg_napari._words import counted, in_fields

if TYPE_CHECKING:
    from cellseg.result.result import Result


class CorrectBox(QWidget):  # type: ignore[misc]
    """Delete, merge, split, paint, rename, undo; measure again, save, export.

    Parameters
    ----------
    look : LookBox
        Lines in the shapes that it names cut cells; its shapes say what was looked at.

    Attributes
    ----------
    inspector : Inspector or None
        Of the result that is shown; its selected cells are corrected.
    measured : Signal
        Something that took long is done; totals may differ now.
    """

    measured = Signal()

    def __init__(self, viewer: napari.viewer.Viewer, look: LookBox) -> None:
        super().__init__()
        self.viewer, self._look = viewer, look
        self.inspector: Inspector | None = None
        self.painter: Painter | None = None
        self._busy = self._closed = False
        # Kept: PySide holds a timer's bound method weakly, and with it all that would answer.
        self._jobs: list[object] = []
        self._build()

    def _build(self) -> None:
        grid = QGridLayout(self)
        self.buttons: dict[str, QPushButton] = {}
        rows: tuple[tuple[tuple[str, str, Callable[[], object]], ...], ...] = (
            (
                ("Delete", "Take the selected cells away", self.delete),
                ("Merge", "Make one cell of the selected ones (shift-click selects more)",
                 self.merge),
                ("Split", "Cut the selected cell in two, or along a line drawn in the shapes "
                 "that Look names", self.split),
            ),
            (
                ("Paint", "Draw a new cell, or change the selected one's outline, with napari's "
                 "brush", self.paint),
                ("Undo", "Take the last correction back", self.undo),
                ("Redo", "Make it again", self.redo),
            ),
            (
                ("Measure again", "Measure the cells that you changed (area, shape, intensities), "
                 "and only those, and tell the totals; the network does not look again",
                 self.measure_again),
                ("Save", "Write the corrected cells into a folder of their own, beside the "
                 "automatic result", self.save),
                ("Training data", "Write what was corrected as COCO JSON for cellseg train",
                 self.export),
            ),
        )  # fmt: skip
        for row, buttons in enumerate(rows):
            for column, (name, tip, action) in enumerate(buttons):
                grid.addWidget(self._button(name, tip, action), row, column)
        self.classes = QComboBox()
        self.classes.setEditable(True)
        self.classes.setToolTip("Class of new cells; type another name for a new class")
        grid.addWidget(self.classes, 3, 0, 1, 2)
        set_class = self._button("Set class", "Give the selected cells this class", self.set_class)
        grid.addWidget(set_class, 3, 2)
        self.state = QLabel()
        self.state.setWordWrap(True)
        grid.addWidget(self.state, 4, 0, 1, 3)
        grid.setRowStretch(5, 1)

    @property
    def actions(self) -> dict[str, Callable[[], object]]:
        """What the buttons do, by their first names; nothing where they are grey."""
        return {name: button.click for name, button in self.buttons.items()}

    def _button(self, name: str, tip: str, action: Callable[[], object]) -> QPushButton:
        button = QPushButton(name)
        key = f" ({KEYS[name][0]})" if name in KEYS else ""
        button.setToolTip(f"{tip}{key}")
        button.clicked.connect(partial(attempt, action))
        self.buttons[name] = button
        return button

    # Which result

    def show_result(self, inspector: Inspector) -> None:
        """Correct this one from now on."""
        self.inspector = inspector
        self.painter = Painter(self.viewer, inspector.opened)
        self.list_classes()
        self.enable()

    def leave(self) -> None:
        """Let go of the result, and of what was painted and not taken over."""
        if self.painter is not None:
            self.painter.leave()
            self.buttons["Paint"].setText("Paint")
        self.inspector = self.painter = None

    def close_box(self) -> None:
        """Nothing that still runs may touch it from now on."""
        self._closed = True

    def enable(self) -> None:
        """The buttons, where the result can be corrected and nothing is under way."""
        opened = self.inspector.opened if self.inspector is not None else None
        can = opened is not None and opened.corrections is not None and not self._busy
        for button in self.buttons.values():
            button.setEnabled(can)
        self.say(in_fields(opened.note) if opened is not None and opened.note else "")

    def say(self, text: str) -> None:
        """One line under the buttons."""
        self.state.setText(text)

    def list_classes(self) -> None:
        """Those of the result; the name that was typed stays."""
        if self.inspector is None:
            return
        text = self.classes.currentText()
        names = self.inspector.classes()
        self.classes.clear()
        self.classes.addItems(names)
        self.classes.setCurrentText(text or (names[0] if names else ""))

    def tell_edit(self, edit: Edit) -> None:
        """What was just corrected, and how many corrections there are."""
        self.list_classes()
        count = len(self.corrections.edits)
        self.say(f"{edit}; {count} correction{'s' * (count != 1)} so far")

    @property
    def corrections(self) -> Corrections:
        """Of the result that is shown.

        Raises
        ------
        CellsegError
            If it cannot be corrected.
        """
        opened = self._opened()
        if opened.corrections is None:
            raise CellsegError(opened.note or "this result cannot be corrected")
        return opened.corrections

    def _opened(self) -> Opened:
        if self.inspector is None:
            raise CellsegError("open a result first")
        return self.inspector.opened

    @property
    def selected(self) -> list[int]:
        """Labels of the selected cells; those of several table rows too."""
        return [] if self.inspector is None else list(self.inspector.selected)

    # What the buttons do

    def delete(self) -> None:
        self.corrections.delete(self.selected)

    def merge(self) -> None:
        self.corrections.merge(self.selected)

    def split(self) -> None:
        """Along a line of the chosen shapes layer that crosses the cell, else in two."""
        if len(self.selected) != 1:
            raise CellsegError("select the one cell to split")
        label = self.selected[0]
        box = self.corrections.cell(label).box
        for line in self._lines():
            low, high = line.min(axis=0), line.max(axis=0)
            if (low < (box.y1, box.x1)).all() and (high >= (box.y0, box.x0)).all():
                self.corrections.split(label, line=line)
                return
        self.corrections.split(label)

    def _lines(self) -> list[NDArray[np.float64]]:
        """Drawn lines, lattice (y, x), the newest first."""
        if self._look.drawn is None or self.inspector is None:
            return []
        found = []
        for corners, kind in zip(self._look.drawn.data, self._look.drawn.shape_type, strict=True):
            if kind in ("line", "path"):
                world = np.array([self._look.drawn.data_to_world(tuple(p))[-2:] for p in corners])
                found.append(self.inspector.opened.to_lattice(world))
        return found[::-1]

    def paint(self) -> None:
        """Start painting, or take what was painted."""
        assert self.painter is not None
        if self.painter.layer is None or self.painter.layer not in self.viewer.layers:
            _ = self.corrections
            assert self.inspector is not None
            chosen = self.inspector.selected[-1] if self.inspector.selected else None
            centre = camera_of(self.viewer).center[-2:]
            if chosen is not None:
                centre = self.inspector.opened.place_of(chosen)[0]
            self.painter.begin((float(centre[0]), float(centre[1])), label=chosen)
            self.buttons["Paint"].setText("Apply")
            self.say(
                "paint with napari's brush, erase with its eraser; the number M gives is a new "
                "cell. Apply takes it over"
            )
            return
        edit = self.painter.apply(self.classes.currentText() or None)
        self.buttons["Paint"].setText("Paint")
        if edit is None:
            self.say("nothing was painted")

    def set_class(self) -> None:
        if not self.selected:
            raise CellsegError("no cell is selected")
        self.corrections.classify(self.selected, self.classes.currentText())
        self.list_classes()

    def undo(self) -> None:
        """The last stroke of the brush while something is painted, else the last correction."""
        if self.painter is not None and self.painter.layer is not None:
            self.painter.layer.undo()
        elif self.corrections.undo() is None:
            show_info("nothing to take back")

    def redo(self) -> None:
        """What was undone last."""
        if self.painter is not None and self.painter.layer is not None:
            self.painter.layer.redo()
        elif self.corrections.redo() is None:
            show_info("nothing to make again")

    def measure_again(self) -> None:
        """Measure what changed, in a thread where the table is long."""
        corrections = self.corrections
        changed = sum(cell is not None for cell in corrections.touched.values())
        said = f"measured {counted(changed, 'changed cell')} again: "
        self._long(corrections.recount, lambda summary: self.say(f"{said}{summary}"))

    def save(self) -> None:
        """Write the corrected result."""

        def saved(result: Result) -> None:
            self.say(f"saved in {result.path.name}")
            show_info(f"saved in {result.path}")

        self.say("saving …")
        # Imported late: counting and its libraries come with it.
        from cellseg.run import save

        self._long(partial(save, self.corrections), saved)

    def export(self, folder: Path | None = None) -> None:
        """Write training data: the shapes that were looked at, or the windows with edits."""
        corrections = self.corrections
        if not isinstance(folder, Path):
            start = str(corrections.result.path.parent)
            chosen = QFileDialog.getExistingDirectory(self, "Folder for training data", start)
            if not chosen:
                return
            folder = Path(chosen)
        regions = self._looked_at()
        path = export_training(corrections, folder, regions=regions or None)
        self.say(f"for cellseg train: {path.parent.name}/{path.name}")
        show_info(f"cellseg train {path}")

    def _looked_at(self) -> list[Box]:
        if self._look.drawn is None or self.inspector is None:
            return []
        boxes = []
        for outline in world_outlines(self._look.drawn):
            corners = self.inspector.opened.to_lattice(outline)
            (y0, x0), (y1, x1) = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
            boxes.append(Box(max(0, int(y0)), max(0, int(x0)), max(0, int(y1)), max(0, int(x1))))
        return [box for box in boxes if box.area]

    def _long(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """In a thread: the window stays alive. Corrections wait until it is done."""
        self._busy = True
        self.enable()

        def ended() -> bool:
            self._busy = False
            if not self._closed:
                self.enable()
            return not self._closed

        def done(found: object) -> None:
            if ended():
                self.measured.emit()
                then(found)

        def failed(error: Exception) -> None:
            ended()
            tell(error)

        self._jobs.append(in_background(self, work, done=done, failed=failed))
