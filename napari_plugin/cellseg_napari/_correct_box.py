"""Correcting the cells of the result that is shown: buttons, and a window for the brush."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels, Layer, Shapes
from napari.utils.notifications import show_info
from numpy.typing import NDArray
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QVBoxLayout

from cellseg.derive.corrections import Corrections, Edit, export_training
from cellseg.errors import CellsegError, SettingsError
from cellseg.geometry import Box
from cellseg.result import Result
from cellseg.table.summary import Summary, counted
from cellseg_napari._inspect import Inspector
from cellseg_napari._opened import KEY, ROLE, Opened, camera_of, drawn_in, lines_in
from cellseg_napari._panel import Tab, choice
from cellseg_napari._reader import placed
from cellseg_napari._words import ACTIONS, in_fields

SIDE_PX = 256
"""Of the window that is painted in, lattice pixels; wider around a wide cell."""

NAME = "paint here"  # Of its layer.

PAINTING = (
    "paint with napari's brush, erase with its eraser; the number M gives is a new cell. "
    "Apply takes it over"
)


class CorrectBox(Tab):
    """Delete, merge, split, paint, rename, undo; measure again, save, export.

    ``drawn`` gives the shapes layer in which cells are counted, or None: its lines cut cells, its
    shapes say what was looked at. ``measured``: totals may differ now.
    """

    measured = Signal()

    def __init__(self, inspector: Inspector, drawn: Callable[[], Shapes | None]) -> None:
        actions: dict[str, Callable[[], object]] = {
            "Delete": lambda: self.corrections.delete(self.selected),
            "Merge": lambda: self.corrections.merge(self.selected),
            "Split": self.split,
            "Paint": self.paint,
            "Undo": partial(self.step, "undo", "nothing to take back"),
            "Redo": partial(self.step, "redo", "nothing to make again"),
            "Measure again": self.measure_again,
            "Save": self.save,
            "Training data": self.export,
            "Set class": self.set_class,
        }
        super().__init__(
            inspector, [(name, _tip(*ACTIONS[name]), actions[name]) for name in actions]
        )
        self._drawn = drawn
        self.undo_newer: Callable[[], bool] = lambda: False  # of what is no correction
        self.painter = Painter(inspector.viewer, self.opened)
        tip = "Class of new cells; type another name for a new class"
        self.classes = choice(tip, editable=True)
        self.grid.addWidget(self.classes, 3, 1, 1, 2)
        layout = QVBoxLayout(self)
        layout.addLayout(self.grid)
        layout.addWidget(self.state)
        layout.addStretch()
        self._list_classes()
        note = self.opened.note
        self.busy(note is not None)
        self.state.setText(in_fields(note) if note else "")

    @property
    def corrections(self) -> Corrections:
        """Of the result that is shown; an error where it cannot be corrected."""
        return self.opened.corrections

    @property
    def selected(self) -> list[int]:
        return list(self.inspector.selected)

    def _list_classes(self) -> None:
        """Those of the result; the name that was typed stays."""
        text, names = self.classes.currentText(), self.opened.cells.classes
        self.classes.clear()
        self.classes.addItems(names)
        self.classes.setCurrentText(text or (names[0] if names else ""))

    def tell_edit(self, edit: Edit) -> None:
        self._list_classes()
        self.state.setText(f"{edit}; {counted(len(self.corrections.edits), 'correction')} so far")

    def tell_selection(self) -> None:
        said = ", ".join(str(label) for label in self.selected[:8])
        more = f" … ({len(self.selected):,})" if len(self.selected) > 8 else ""
        if said:
            self.state.setText(f"selected: {said}{more}")

    def split(self) -> None:
        """Along a line of the chosen shapes layer that crosses the cell, else in two."""
        if len(self.selected) != 1:
            raise CellsegError("select the one cell to split")
        label = self.selected[0]
        box = self.corrections.cell(label).box
        for drawn in lines_in(self._drawn()):
            line = self.opened.to_lattice(drawn)
            low, high = line.min(axis=0), line.max(axis=0)
            if (low < (box.y1, box.x1)).all() and (high >= (box.y0, box.x0)).all():
                self.corrections.split(label, line=line)
                return
        self.corrections.split(label)

    def paint(self) -> None:
        """Start painting, or take what was painted."""
        if self.painter.is_painting:
            edit = self.painter.apply(self.classes.currentText() or None)
            self.buttons["Paint"].setText("Paint")
            if edit is None:
                self.state.setText("nothing was painted")
            return
        chosen = self.selected[-1] if self.selected else None
        centre = camera_of(self.inspector.viewer).center[-2:]
        if chosen is not None:
            centre = self.opened.place_of(chosen)[0]
        self.painter.begin((float(centre[0]), float(centre[1])), label=chosen)
        self.buttons["Paint"].setText("Apply")
        self.state.setText(PAINTING)

    def set_class(self) -> None:
        if not self.selected:
            raise CellsegError("no cell is selected")
        self.corrections.classify(self.selected, self.classes.currentText())
        self._list_classes()

    def step(self, which: Literal["undo", "redo"], nothing: str) -> None:
        """The last stroke of the brush while something is painted, else the last correction."""
        if self.painter.layer is not None:
            getattr(self.painter.layer, which)()
        elif (which == "redo" or not self.undo_newer()) and not getattr(self.corrections, which)():
            show_info(nothing)

    def measure_again(self) -> None:
        corrections = self.corrections
        changed = sum(cell is not None for cell in corrections.touched.values())
        said = f"measured {counted(changed, 'changed cell')} again: "

        def done(summary: Summary) -> None:
            self.measured.emit()
            self.state.setText(f"{said}{summary}")

        self.in_thread(corrections.recount, done)

    def save(self) -> None:
        # Imported late: counting and its libraries come with it.
        from cellseg.run import save

        def done(result: Result) -> None:
            self.state.setText(f"saved in {result.path.name}")
            show_info(f"saved in {result.path}")

        self.in_thread(partial(save, self.corrections), done)
        self.state.setText("saving …")

    def export(self, folder: Path | None = None) -> None:
        """Write training data: the shapes that were looked at, or the windows with edits."""
        corrections, what = self.corrections, "Folder for training data"
        start = str(corrections.result.path.parent)
        asked = folder or QFileDialog.getExistingDirectory(self, what, start)
        if not asked:
            return
        path = export_training(corrections, Path(asked), regions=self._looked_at() or None)
        self.state.setText(f"to train a model with: {path.parent.name}/{path.name}")
        show_info(f"training data: {path}")

    def _looked_at(self) -> list[Box]:
        """Boxes around the shapes in which cells are counted, lattice pixels."""
        frame = self.opened.result.frame
        boxes = []
        for region in drawn_in(self._drawn(), frame.mpp or 1.0):
            x0, y0, x1, y1 = np.maximum(0, region.shape.bounds) / frame.downsample
            boxes.append(Box(int(y0), int(x0), math.ceil(y1), math.ceil(x1)))
        return [box for box in boxes if box.area]


def _tip(key: str, what: str) -> str:
    return what[0].upper() + what[1:] + (f" ({key})" if key else "")


class Painter:
    """Lends a window of the label image to napari's brush, and takes it back as one edit.

    Napari's multiscale labels are read-only, so the window is a small layer of its own.
    """

    def __init__(self, viewer: ViewerModel, opened: Opened) -> None:
        self.viewer, self.opened = viewer, opened
        self.layer: Labels | None = None
        self._active: Layer | None = None
        self._window = Box(0, 0, 0, 0)
        self._before: NDArray[np.int32] = np.empty(0, np.int32)

    @property
    def is_painting(self) -> bool:
        """Whether the window is there; a person may have deleted its layer."""
        return self.layer is not None and self.layer in self.viewer.layers

    def begin(self, world: tuple[float, float], *, label: int | None = None) -> Labels:
        """Open a window around a point of the world, (y, x), to paint on a cell or on a new one."""
        corrections, frame = self.opened.corrections, self.opened.result.frame
        self.leave()
        self._active = self.viewer.layers.selection.active
        y, x = np.rint(self.opened.to_lattice(np.array(world))).astype(int).tolist()
        half = SIDE_PX // 2
        if label is not None:
            half = max(half, max(corrections.cell(label).box.shape) // 2 + 32)
        around = Box(y, x, y, x).widened(half)
        self._window = around.intersection(corrections.pyramid.extent)
        if not self._window.area:
            raise SettingsError("this spot lies outside of the slide")
        pixels = corrections.pyramid.levels[0].read(self._window).astype(np.int32)
        corner = (self._window.y0, self._window.x0)
        where = placed(frame.mpp, downsample=frame.downsample, corner=corner)
        about = {KEY: self.opened, ROLE: "paint"}
        self.layer = layer = Labels(pixels, name=NAME, opacity=0.4, metadata=about, **where)
        self._before = pixels.copy()
        self._new_cell(layer)
        if label is not None:
            layer.selected_label = label
        layer.bind_key("m", self._new_cell, overwrite=True)
        layer.brush_size = 6
        layer.mode = "paint"
        self.viewer.add_layer(layer)
        self.viewer.layers.selection.active = layer
        return layer

    def _new_cell(self, layer: Labels) -> None:
        """Napari's M takes the largest number in the window, which may live elsewhere."""
        corrections = self.opened.corrections
        used = (int(np.asarray(layer.data).max(initial=0)), len(corrections.rows))
        layer.selected_label = max(*used, *corrections.touched) + 1

    def apply(self, name: str | None = None) -> Edit | None:
        """Take what was painted as one edit; None where nothing was."""
        if self.layer is None:
            raise SettingsError("nothing is being painted")
        corrections, window = self.opened.corrections, self._window
        painted = np.asarray(self.layer.data)
        now = corrections.pyramid.levels[0].read(window).astype(painted.dtype)
        # Only what the brush touched: other edits made meanwhile stand.
        wanted = np.where(painted != self._before, painted, now)
        edit = corrections.redraw((window.y0, window.x0), wanted, name)
        self.leave()
        return edit

    def leave(self) -> None:
        """Take the window away; what was painted and not applied is dropped."""
        if self.is_painting:
            self.viewer.layers.remove(self.layer)
            if self._active in self.viewer.layers:
                self.viewer.layers.selection.active = self._active
        self.layer = None
