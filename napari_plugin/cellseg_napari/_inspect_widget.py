"""The dock widget that shows a result's cells and corrects them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import napari
from napari.layers import Labels
from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QTabWidget, QVBoxLayout, QWidget

from cellseg.derive.corrections import Edit
from cellseg_napari._attempt import attempt
from cellseg_napari._cell_table import CellTableView
from cellseg_napari._classify_box import ClassifyBox
from cellseg_napari._columns import ColumnReader
from cellseg_napari._correct_box import CorrectBox
from cellseg_napari._docked import WhenClosed
from cellseg_napari._inspect import Inspector
from cellseg_napari._look_box import LookBox
from cellseg_napari._opened import FEATURES_LIMIT, refresh, results_in
from cellseg_napari._preview import Preview
from cellseg_napari._shortcuts import add_shortcuts
from cellseg_napari._words import counted

NOTHING = "no result is open"
READING = "reading the table …"


class InspectWidget(QWidget):  # type: ignore[misc]
    """Cells of a result: table, colours, filter, totals in shapes, corrections."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.inspector: Inspector | None = None
        self._end_listening: Callable[[], None] = lambda: None
        self._closed = self._switching = False
        self._lost: Path | None = None
        self.columns = ColumnReader(self)
        self.columns.reading.connect(self._tell_reading)
        self.look = LookBox(viewer, self.columns)
        self.look.filtered.connect(self._filtered)
        self.look.moved.connect(self._tell_totals)
        self.classify = ClassifyBox(self.columns)
        self.classify.saved.connect(self._read_again)
        self.correct = CorrectBox(viewer, self.look)
        self.correct.measured.connect(self._tell_totals)
        self.table = CellTableView(self.columns)
        self._build()
        self._when_closed = WhenClosed(self, self._taken_out)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self._layers_changed)
        viewer.layers.selection.events.active.connect(self._follow)
        viewer.mouse_drag_callbacks.append(self._clicked)
        self.destroyed.connect(self._close)
        self._layers_changed()

    def _build(self) -> None:
        self.results = QComboBox()
        self.results.setToolTip("The result whose cells are shown here")
        self.results.currentIndexChanged.connect(self._chosen)
        self.totals = QLabel(NOTHING)
        self.totals.setWordWrap(True)
        self.keys = QLabel("keys")
        self.keys.setToolTip(
            add_shortcuts(
                self,
                {
                    **self.correct.actions,
                    "Undo": partial(self._back, "undo"),
                    "Redo": partial(self._back, "redo"),
                    "Next": partial(self.table.step, 1),
                    "Previous": partial(self.table.step, -1),
                },
            )
        )
        self.tabs = QTabWidget()
        self.tabs.addTab(self.look, "Look")
        self.tabs.addTab(self.classify, "Positive cells")
        self.tabs.addTab(self.correct, "Correct")
        self.tabs.currentChanged.connect(self._tab_changed)
        self.tabs.setCornerWidget(self.keys)
        form = QFormLayout()
        form.addRow("result", self.results)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addWidget(self.totals)
        layout.addWidget(self.tabs)
        layout.addWidget(self.table, stretch=1)

    # Which result

    def _layers_changed(self, _: object = None) -> None:
        if self._closed or self._switching:
            return
        current = self.inspector.opened if self.inspector is not None else None
        with QSignalBlocker(self.results):
            self.results.clear()
            for layer, opened in results_in(self.viewer):
                if layer.metadata.get("cellseg_role") == "cells":
                    self.results.addItem(layer.name, (layer, opened))
        places = [self.results.itemData(n)[1] for n in range(self.results.count())]
        # Counted again, a result goes and comes back: the panel follows it.
        back = [n for n, opened in enumerate(places) if opened.result.path == self._lost]
        if current in places and not back:
            self._show_choice(places.index(current))
        else:
            if current is not None and current not in places:
                self._lost = current.result.path
            if back:
                self._show_choice(back[0])
                self._lost = None
            self._chosen(self.results.currentIndex())
        self.look.list_shapes()

    def _show_choice(self, place: int) -> None:
        with QSignalBlocker(self.results):
            self.results.setCurrentIndex(place)

    def _follow(self, event: Any) -> None:  # noqa: ANN401
        """The result whose masks were clicked in the list of layers."""
        if self._closed:
            return
        for place in range(self.results.count()):
            if self.results.itemData(place)[0] is event.value:
                self.results.setCurrentIndex(place)

    def _chosen(self, place: int) -> None:
        """Another result."""
        self._end_listening()
        self._end_listening = lambda: None
        self._leave()
        data = self.results.itemData(place) if place >= 0 else None
        if data is None:
            others = [layer.name for layer in self.viewer.layers if isinstance(layer, Labels)]
            foreign = f" ({others[-1]} is no result of cellseg)" if others else ""
            self.totals.setText(NOTHING + foreign)
            self.correct.enable()
            return
        layer, opened = data
        self.inspector = Inspector(self.viewer, layer, opened)
        self.inspector.on_select(self._show_selection)
        self.columns.opened = opened
        if opened.corrections is not None:
            self._end_listening = opened.corrections.on_change(self._edited)
        for box in (self.table, self.correct, self.look, self.classify):
            box.show_result(self.inspector)
        self._tell_totals()

    def _leave(self) -> None:
        """Take marks, colours, filter and paint of the result away."""
        self._switching = True
        try:
            for box in (self.table, self.correct, self.look, self.classify):
                box.leave()
            if self.inspector is not None:
                self.inspector.close()
        finally:
            self._switching = False
        self.inspector = self.columns.opened = None

    def _tab_changed(self, _: int) -> None:
        """Cells are coloured by the thresholds while these are in sight."""
        shown = self.classify if self.tabs.currentWidget() is self.classify else self.look
        attempt(shown.begin)

    def _read_again(self, folder: Path) -> None:
        """A result whose table was written anew."""
        Preview(self.viewer).show_result(folder)

    def _back(self, what: str) -> None:
        """Undo and redo are those of the thresholds while these are in sight."""
        classifies = self.tabs.currentWidget() is self.classify
        getattr(self.classify if classifies else self.correct, what)()

    # Selecting

    def _clicked(self, viewer: object, event: Any) -> Any:  # noqa: ANN401
        """A click that is no drag picks the cell under it."""
        dragged = False
        yield
        while event.type == "mouse_move":
            dragged = True
            yield
        active = self.viewer.layers.selection.active
        drawing = getattr(active, "mode", "pan_zoom") not in ("pan_zoom", "transform")
        if dragged or drawing or self._closed or self.inspector is None or not self.isVisible():
            return
        if self.inspector.is_visible():
            more = "Shift" in event.modifiers
            attempt(partial(self.inspector.click, event.position, more=more))

    def _show_selection(self) -> None:
        """The selected cells' rows, and their numbers."""
        if self.inspector is None:
            return
        self.table.show_selection()
        selected = self.inspector.selected
        if selected:
            said = ", ".join(str(label) for label in selected[:8])
            self.correct.say(
                f"selected: {said}" + (f" … ({len(selected):,})" if len(selected) > 8 else "")
            )

    # What is shown

    def _filtered(self) -> None:
        self.table.refill()
        self._tell_totals()

    def _tell_reading(self, busy: bool) -> None:
        if busy:
            self.totals.setText(READING)
        elif self.totals.text() == READING:
            self._tell_totals()

    def _tell_totals(self) -> None:
        if self._closed or self.inspector is None:
            return
        opened, drawn = self.inspector.opened, self.look.drawn
        if len(opened.rows) > FEATURES_LIMIT and drawn is None:
            thing = str(opened.result.run.get("object", "cell"))
            self.totals.setText(counted(int(self.inspector.shown_mask().sum()), thing))
            return
        needed = ["area_um2", "area_px"]
        if drawn is not None:
            needed += ["centroid_y_px", "centroid_x_px"]
        self.columns.then(needed, self._tell_totals_now)

    def _tell_totals_now(self) -> None:
        if self.inspector is not None:
            self.totals.setText(str(self.inspector.totals(self.look.drawn)))

    def _edited(self, edit: Edit) -> None:
        """After any edit: masks, colours, table and totals."""
        if self._closed or self.inspector is None:
            return
        refresh(self.viewer, self.inspector.opened, edit)
        self.inspector.edited()
        self.look.tell_colours()
        self._filtered()
        if self.tabs.currentWidget() is self.classify:
            self.classify.edited()
        self.correct.tell_edit(edit)

    def _taken_out(self) -> None:
        if not self._closed:
            self._leave()
            self._close()

    def _close(self, _: object = None) -> None:
        self._closed = True
        self.columns.opened = None
        self.correct.close_box()
        self._end_listening()
        for event in (self.viewer.layers.events.inserted, self.viewer.layers.events.removed):
            with suppress(ValueError, RuntimeError):
                event.disconnect(self._layers_changed)
        if self._clicked in self.viewer.mouse_drag_callbacks:
            self.viewer.mouse_drag_callbacks.remove(self._clicked)
