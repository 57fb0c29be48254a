"""The dock widget that shows a result's cells and corrects them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.layers import Labels, Shapes
from qtpy.QtCore import QItemSelection, QItemSelectionModel, QTimer
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFormLayout,
    QLabel,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from cellseg.results.corrections import Edit
from cellseg.text import visible
from cellseg_napari._attempt import attempt, tell
from cellseg_napari._background import in_background
from cellseg_napari._correct_box import CorrectBox
from cellseg_napari._docked import WhenClosed
from cellseg_napari._histogram import HistogramRange
from cellseg_napari._inspect import BY_CLASS, BY_LABEL, CLASS_COLOURS, MARKED, Inspector
from cellseg_napari._opened import FEATURES_LIMIT, refresh, results_in
from cellseg_napari._table import CellTable

NOTHING = "no result is open"
EVERYWHERE = "the whole slide"
READING = "reading the table …"

_WAIT_MS = 200


class InspectWidget(QWidget):  # type: ignore[misc]
    """Cells of a result: table, colours, filter, totals in shapes, corrections.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.inspector: Inspector | None = None
        self._end_listening: Callable[[], None] = lambda: None
        self._watched: Shapes | None = None
        self._closed = False
        # Kept: PySide holds a timer's bound method weakly, and with it all that would answer.
        self._jobs: list[object] = []
        self._switching = False
        self._known_shapes: list[Shapes] = []
        self._sorted = ("label", False)
        self._lost: Path | None = None
        self.correct = CorrectBox(viewer)
        self.correct.measured.connect(self._tell_totals)
        self._build()
        self._when_closed = WhenClosed(self, self._taken_out)
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(_WAIT_MS)
        self._soon.timeout.connect(self._tell_totals)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self._layers_changed)
        viewer.layers.selection.events.active.connect(self._follow)
        viewer.mouse_drag_callbacks.append(self._clicked)
        self.destroyed.connect(self._close)
        self._layers_changed()

    # What it looks like

    def _build(self) -> None:
        self.results = QComboBox()
        self.results.setToolTip("The result whose cells are shown here")
        self.results.currentIndexChanged.connect(self._chosen)
        self.colour = QComboBox()
        self.colour.setToolTip("Colour the masks by class or by a measurement")
        self.colour.currentTextChanged.connect(self._colour)
        self.legend = QLabel()
        self.measure = QComboBox()
        self.measure.setToolTip("Histogram and filter of this measurement")
        self.measure.currentTextChanged.connect(self._histogram_of)
        self.histogram = HistogramRange()
        self.histogram.range_changed.connect(self._filter)
        self.shapes = QComboBox()
        self.shapes.setToolTip("Totals of the cells whose centre lies in these shapes")
        self.shapes.currentIndexChanged.connect(self._shapes_chosen)
        self.totals = QLabel(NOTHING)
        self.totals.setWordWrap(True)
        self.table = QTableView()
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setToolTip("Click a row to fly to its cell; click a column's name to sort by it")
        self.table.horizontalHeader().sectionClicked.connect(self._sort)
        self.table.verticalHeader().setVisible(False)
        self.table.verticalHeader().setDefaultSectionSize(20)
        self.table.setMinimumHeight(120)
        form = QFormLayout()
        for text, field in (
            ("result", self.results),
            ("colour by", self.colour),
            ("", self.legend),
            ("filter by", self.measure),
        ):
            form.addRow(text, field)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addWidget(self.histogram)
        inside = QFormLayout()
        inside.addRow("inside of", self.shapes)
        layout.addLayout(inside)
        layout.addWidget(self.totals)
        layout.addWidget(self.table, stretch=1)
        layout.addWidget(self.correct)

    # Which result

    def _layers_changed(self, _: object = None) -> None:
        if self._closed or self._switching:
            return
        found = list(results_in(self.viewer))
        current = self.inspector.opened if self.inspector is not None else None
        self.results.blockSignals(True)
        self.results.clear()
        for layer, opened in found:
            if layer.metadata.get("cellseg_role") == "cells":
                self.results.addItem(layer.name, (layer, opened))
        self.results.blockSignals(False)
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
        self._list_shapes()

    def _show_choice(self, place: int) -> None:
        self.results.blockSignals(True)
        self.results.setCurrentIndex(place)
        self.results.blockSignals(False)

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
            self.table.setModel(None)
            others = [layer.name for layer in self.viewer.layers if isinstance(layer, Labels)]
            foreign = f" ({others[-1]} is no result of cellseg)" if others else ""
            self.totals.setText(NOTHING + foreign)
            self.correct.enable()
            return
        layer, opened = data
        self.inspector = Inspector(self.viewer, layer, opened)
        self.inspector.on_select(self._show_selection)
        self.correct.show_result(self.inspector)
        if opened.corrections is not None:
            self._end_listening = opened.corrections.on_change(self._edited)
        self.model = CellTable(opened, self)
        self.table.setModel(self.model)
        self.table.selectionModel().selectionChanged.connect(self._row_clicked)
        numeric = opened.numeric_columns()
        for box, entries in (
            (self.colour, [BY_LABEL, BY_CLASS, *numeric]),
            (self.measure, ["", *numeric]),
        ):
            box.blockSignals(True)
            box.clear()
            box.addItems(entries)
            box.blockSignals(False)
        self._rows()
        self._tell_totals()
        usual = next((name for name in ("area_um2", "area_px") if name in numeric), "")
        if len(opened.rows) <= FEATURES_LIMIT:
            self.measure.setCurrentText(usual)

    def _leave(self) -> None:
        """Take marks, colours, filter and paint of the result away."""
        self._switching = True
        try:
            self.correct.leave()
            if self.inspector is not None:
                self.inspector.close()
        finally:
            self._switching = False
        self.inspector = None
        self._sorted = ("label", False)
        self.legend.setText("")

    # Reading columns

    def _with(self, names: list[str], then: Callable[[], None]) -> None:
        """Go on when columns are read: at once, or for long tables in a thread."""
        assert self.inspector is not None
        opened = self.inspector.opened
        rows = opened.rows
        names = [name for name in names if name in {known for known, _ in rows.columns}]
        if len(rows) <= FEATURES_LIMIT or rows.has(names):

            def now() -> None:
                rows.load(names)
                then()

            attempt(now)
            return
        self.totals.setText(READING)

        def arrived(_: object) -> None:
            if not self._closed and self.inspector is not None and self.inspector.opened is opened:
                attempt(then)
                if self.totals.text() == READING:
                    self._tell_totals()

        self._jobs.append(in_background(self, partial(rows.load, names), done=arrived, failed=tell))

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
        if not self.inspector.is_visible():
            return
        more = "Shift" in event.modifiers
        attempt(partial(self.inspector.click, event.position, more=more))

    def _show_selection(self) -> None:
        """The selected cell's row."""
        if self.inspector is None or not self.inspector.selected:
            self.table.clearSelection()
            return
        selection = self.table.selectionModel()
        chosen = QItemSelection()
        wide = self.model.columnCount() - 1
        rows = [self.model.place_of(label) for label in self.inspector.selected[:MARKED]]
        for row in rows:
            if row is not None:
                chosen.select(self.model.index(row, 0), self.model.index(row, wide))
        if len(self.inspector.selected) <= MARKED:
            selection.blockSignals(True)
            selection.select(chosen, QItemSelectionModel.SelectionFlag.ClearAndSelect)
            selection.blockSignals(False)
        if rows[-1] is not None and len(rows) == 1:
            self.table.scrollTo(self.model.index(rows[-1], 0))
        self.table.viewport().update()
        said = ", ".join(str(label) for label in self.inspector.selected[:8])
        count = len(self.inspector.selected)
        self.correct.state.setText(f"selected: {said}" + (f" … ({count:,})" if count > 8 else ""))

    def _row_clicked(self, *_: object) -> None:
        """One row flies to its cell; several are selected where they are."""
        if self.inspector is None:
            return
        labels = self._row_labels()
        if len(labels) == 1:
            attempt(partial(self.inspector.fly_to, labels[0]))
        elif labels:
            attempt(partial(self.inspector.select, labels))

    def _row_labels(self) -> list[int]:
        """Of the selected rows, by ranges: asking row by row takes minutes for a million."""
        found: list[int] = []
        for part in self.table.selectionModel().selection():
            found += self.model.labels[part.top() : part.bottom() + 1].tolist()
        return list(dict.fromkeys(found))

    def _sort(self, section: int) -> None:
        """By a column; by the same one again, the other way round."""
        if self.inspector is None:
            return
        name = self.model.columns[section]
        falling = self._sorted == (name, False)
        self._with([name], partial(self._sort_by, name, falling))

    def _sort_by(self, name: str, falling: bool) -> None:
        assert self.inspector is not None
        opened, shown = self.inspector.opened, self.inspector.shown_mask()
        order = np.argsort(opened.column(name)[shown], kind="stable")
        labels = opened.labels()[shown][order]
        self._sorted = (name, falling)
        self.model.set_labels(labels[::-1] if falling else labels)

    def _rows(self) -> None:
        """The rows that are shown, in the order that was asked for."""
        if self.inspector is None:
            return
        name, falling = self._sorted
        place = self.table.verticalScrollBar().value()
        if name != "label" and self.inspector.opened.rows.has([name]):
            self._sort_by(name, falling)
        else:
            labels = self.inspector.opened.labels()[self.inspector.shown_mask()]
            self.model.set_labels(labels[::-1] if falling else labels)
        self.table.verticalScrollBar().setValue(place)

    # Colours, filter, totals

    def _colour(self, what: str) -> None:
        if self.inspector is None or not what:
            return
        needed = [] if what == BY_LABEL else ["class" if what == BY_CLASS else what]
        self._with(needed, partial(self._colour_now, what))

    def _colour_now(self, what: str) -> None:
        assert self.inspector is not None
        self.inspector.colour_by(what)
        self.legend.setText(self._legend(what))

    def _legend(self, what: str) -> str:
        assert self.inspector is not None
        if what == BY_LABEL:
            return ""
        if what == BY_CLASS:
            names = enumerate(self.inspector.classes())
            return "  ".join(
                f'<span style="color:{CLASS_COLOURS[n % len(CLASS_COLOURS)]}">■</span> '
                f"{escape(visible(name), quote=False)}"
                for n, name in names
            )
        values = self.inspector.opened.column(what).astype(np.float32)
        low, high = self.inspector.limits(values)
        return f"dark {low:.4g} … bright {high:.4g}"

    def _histogram_of(self, name: str) -> None:
        if self.inspector is None:
            return
        if not name:
            self.inspector.show_range(None)
            self._rows()
            self._tell_totals()
            return
        self._with([name], partial(self._histogram_now, name))

    def _histogram_now(self, name: str) -> None:
        assert self.inspector is not None
        self.histogram.set_values(self.inspector.opened.column(name), name)
        if self.inspector.range is not None:
            self.inspector.show_range(None)
            self._rows()
        self._tell_totals()

    def _filter(self, low: float, high: float) -> None:
        name = self.measure.currentText()
        if self.inspector is None or not name:
            return
        everything = not (np.isfinite(low) or np.isfinite(high))
        self.inspector.show_range(None if everything else name, low, high)
        self._rows()
        self._tell_totals()

    def _list_shapes(self) -> None:
        drawn = [
            layer
            for layer in self.viewer.layers
            if isinstance(layer, Shapes) and not layer.metadata.get("cellseg_role")
        ]
        chosen = self.shapes.currentData()
        self.shapes.blockSignals(True)
        self.shapes.clear()
        self.shapes.addItem(EVERYWHERE, None)
        for layer in drawn:
            self.shapes.addItem(layer.name, layer)
        self.shapes.blockSignals(False)
        # A layer that was just drawn is what the person wants to know about.
        fresh = [layer for layer in drawn if layer not in self._known_shapes]
        self._known_shapes = drawn
        wanted = fresh[-1] if fresh else (chosen if chosen in drawn else None)
        self.shapes.setCurrentIndex(drawn.index(wanted) + 1 if wanted is not None else 0)
        self._shapes_chosen()

    def _shapes_chosen(self, _: object = None) -> None:
        if self._watched is not None:
            self._watched.events.data.disconnect(self._later)
        self._watched = self.shapes.currentData()
        self.correct.drawn = self._watched
        if self._watched is not None:
            self._watched.events.data.connect(self._later)
        self._later()

    def _later(self, _: object = None) -> None:
        if not self._closed:
            self._soon.start()

    def _tell_totals(self) -> None:
        if self.inspector is None:
            return
        needed = ["area_um2", "area_px"]
        if self._watched is not None:
            needed += ["centroid_y_px", "centroid_x_px"]
        if len(self.inspector.opened.rows) > FEATURES_LIMIT and self._watched is None:
            self.totals.setText(f"{self.inspector.shown_mask().sum():,} cells")
            return
        self._with(needed, self._tell_totals_now)

    def _tell_totals_now(self) -> None:
        assert self.inspector is not None
        self.totals.setText(str(self.inspector.totals(self._watched)))

    def _edited(self, edit: Edit) -> None:
        """After any edit: masks, colours, table and totals."""
        if self._closed or self.inspector is None:
            return
        refresh(self.viewer, self.inspector.opened, edit)
        self.inspector.edited()
        self.legend.setText(self._legend(self.inspector.coloured_by))
        self._rows()
        self._tell_totals()
        self.correct.tell_edit(edit)

    def _taken_out(self) -> None:
        if not self._closed:
            self._leave()
            self._close()

    def _close(self, _: object = None) -> None:
        self._closed = True
        self.correct.close_box()
        self._end_listening()
        for event in (self.viewer.layers.events.inserted, self.viewer.layers.events.removed):
            with suppress(ValueError, RuntimeError):
                event.disconnect(self._layers_changed)
        if self._clicked in self.viewer.mouse_drag_callbacks:
            self.viewer.mouse_drag_callbacks.remove(self._clicked)
