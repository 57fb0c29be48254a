"""The dock widget that shows a result's cells and corrects them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels, Shapes
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QCheckBox, QFormLayout, QShortcut, QTabWidget, QVBoxLayout, QWidget

from cellseg.derive.corrections import Edit
from cellseg.errors import SettingsError
from cellseg_napari._classify_box import ClassifyBox, TeachBox
from cellseg_napari._correct_box import CorrectBox
from cellseg_napari._count import Preview
from cellseg_napari._inspect import BY_CLASS, BY_LABEL, ONE_COLOUR, Inspector
from cellseg_napari._opened import Opened, drawn_layers, refresh, results_in
from cellseg_napari._panel import DockPanel, Tab, attempt, button, choice, fill, wrapped
from cellseg_napari._reader import KEPT, show_windows
from cellseg_napari._views import BRIGHT, DIM, CellTable, HistogramSlider
from cellseg_napari._windows_box import WindowsBox
from cellseg_napari._words import ACTIONS, legend, menu

NOTHING = "no result is open"
TABS = ("Look", "Positive cells", "Cell types", "Correct", "Windows")
EVERYWHERE = "the whole slide"

_WAIT_MS = 200


class LookBox(Tab):
    """How the cells of a result are shown, and which; ``filtered``: other ones are."""

    filtered = Signal()

    def __init__(self, inspector: Inspector) -> None:
        super().__init__(inspector)
        self.outlines = QCheckBox("outlines")
        self.outlines.setToolTip("Outlines, or filled masks")
        self.outlines.setChecked(inspector.outlines)
        self.outlines.toggled.connect(inspector.show_outlines)
        self.colour = choice("Colour the masks by class or by a measurement")
        self.legend = wrapped()
        self.measure = choice("Histogram and filter of this measurement")
        self.histogram = HistogramSlider("Only cells between the two handles are shown")
        form = QFormLayout(self)
        form.addRow("show", self.outlines)
        form.addRow("colour by", self.colour)
        form.addRow(self.legend)
        form.addRow("filter by", self.measure)
        form.addRow(self.histogram)
        measurements = menu(self.opened.rows.dtypes.items())
        fixed = [(name, name) for name in (ONE_COLOUR, BY_CLASS, BY_LABEL)]
        fill(self.colour, [*fixed, *measurements], int(len(self.opened.cells.classes) > 1))
        fill(self.measure, [("", ""), *measurements], min(1, len(measurements)))
        self.colour.currentIndexChanged.connect(lambda _: attempt(self._colour))
        self.measure.currentIndexChanged.connect(lambda _: attempt(self._draw_histogram))
        self.histogram.settled.connect(self._filter)
        self.tell_classes()
        attempt(self._draw_histogram)

    def begin(self) -> None:
        if self.inspector.coloured_by != self.colour.currentData():
            self._colour()

    def _colour(self) -> None:
        self.inspector.colour_by(self.colour.currentData())
        self.tell_classes()

    def tell_classes(self) -> None:
        """What the colours mean, as they are now; napari's colour bar tells measurements."""
        names = self.opened.cells.classes
        self.legend.setText(legend(names, self.opened.result.colours(names)))
        self.legend.setVisible(self.inspector.coloured_by == BY_CLASS)

    def _draw_histogram(self) -> None:
        if name := self.measure.currentData():
            self.histogram.draw(self.opened.column(name), (DIM, BRIGHT, DIM))
        if self.inspector.range is not None:
            self.inspector.show_range(None)
            self.filtered.emit()

    def _filter(self, _: object) -> None:
        if name := self.measure.currentData():
            low, high = self.histogram.range
            everything = not (np.isfinite(low) or np.isfinite(high))
            self.inspector.show_range(None if everything else name, low, high)
            self.filtered.emit()


class ResultPanel(QWidget):  # type: ignore[misc]
    """Everything that belongs to one result: totals, tabs and table.

    ``drawn`` gives the shapes layer in which cells are counted, or None: everywhere.
    """

    def __init__(
        self, viewer: ViewerModel, layer: Labels, opened: Opened, drawn: Callable[[], Shapes | None]
    ) -> None:
        super().__init__()
        self.viewer, self._drawn = viewer, drawn
        self.inspector = Inspector(viewer, layer, opened, self._show_selection)
        self.totals = wrapped()
        self.doubts = wrapped()
        self.doubts.setTextFormat(Qt.TextFormat.PlainText)
        self.doubts.setText("\n".join(f"! {doubt}" for doubt in opened.result.doubts))
        self.doubts.setVisible(bool(opened.result.doubts))
        self.look = LookBox(self.inspector)
        self.classify = ClassifyBox(self.inspector)
        self.teach = TeachBox(self.inspector)
        self.correct = CorrectBox(self.inspector, drawn)
        self.windows = WindowsBox(self.inspector)
        self.correct.undo_newer = self.windows.undo
        self.table = CellTable(self.inspector)
        self.tabs = QTabWidget()
        self.tabs.setStyleSheet("QTabBar::tab { padding: 4px 5px; }")  # all of them in sight
        tabs = (self.look, self.classify, self.teach, self.correct, self.windows)
        for name, box in zip(TABS, tabs, strict=True):
            self.tabs.addTab(box, name)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.totals)
        layout.addWidget(self.doubts)
        layout.addWidget(self.tabs)
        layout.addWidget(self.table, stretch=1)
        self.tabs.currentChanged.connect(self._tab_changed)
        self.look.filtered.connect(self._filtered)
        for box in (self.classify, self.teach):
            box.saved.connect(lambda folder: Preview(viewer).show_result(folder))
        self.correct.measured.connect(self.tell_totals)
        self.windows.changed.connect(partial(show_windows, viewer, opened.result))
        self._end_listening = (
            opened.corrections.on_change(self._edited) if opened.note is None else lambda: None
        )
        self.tell_totals()

    def leave(self) -> None:
        """Take marks, colours, filter and paint of the result away."""
        self._end_listening()
        self.correct.painter.leave()
        self.windows.stop()
        self.inspector.close()

    @property
    def _tab(self) -> Tab:
        shown: Tab = self.tabs.currentWidget()
        return shown

    def _tab_changed(self, _: int) -> None:
        """Cells are coloured by thresholds, or by clicks, while these are in sight."""
        attempt((self.look if self._tab is self.correct else self._tab).begin)

    def click(self, world: Sequence[float], *, more: bool) -> None:
        """Select the cell at a point of the world, and let the tab in sight know."""
        if label := self.inspector.click(world, more=more):
            self._tab.clicked(label)

    def act(self, name: str) -> None:
        if name in self._tab.keys:
            self._tab.keys[name]()
        elif name in ("Next", "Previous"):
            self.table.step(1 if name == "Next" else -1)
        else:
            self.correct.buttons[name].click()

    def _show_selection(self) -> None:
        self.table.show_selection()
        self.correct.tell_selection()

    def tell_totals(self) -> None:
        """Of the cells that are shown, in the chosen shapes."""
        totals, ground = self.inspector.totals(self._drawn())
        self.totals.setText(totals.said(ground))

    def _filtered(self) -> None:
        self.table.refill()
        self.tell_totals()

    def _edited(self, edit: Edit) -> None:
        """After any edit: masks, colours, table and totals."""
        refresh(self.viewer, self.inspector.opened, edit)
        self.inspector.edited()
        self.look.tell_classes()
        self._filtered()
        self._tab.edited()
        self.correct.tell_edit(edit)


class InspectWidget(DockPanel):
    """Chooses among the results of the viewer, and the shapes in which cells are counted."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        self.shown: ResultPanel | None = None
        self._known: list[Shapes] = []
        self._switching, self._tab = False, 0
        self._wanted: Path | None = None
        self.results = choice("The result whose cells are shown here")
        self.results.currentIndexChanged.connect(self._chosen)
        self.shapes = choice("Totals of the cells whose centre lies in these shapes")
        self.shapes.currentIndexChanged.connect(self._later)
        self._soon = QTimer(self, singleShot=True, interval=_WAIT_MS)
        self._soon.timeout.connect(self._tell_totals)
        self.nothing = wrapped(NOTHING)
        form = QFormLayout()
        form.addRow("result", self.results)
        form.addRow("inside of", self.shapes)
        keep = button("Keep regions", "Keep these shapes, each a region of its own", self._keep)
        keys = wrapped("keys")
        keys.setToolTip("\n".join(f"{key}: {what}" for key, what in ACTIONS.values() if key))
        form.addRow(keys, keep)
        self._layout = QVBoxLayout(self.content)
        self._layout.addLayout(form)
        self._layout.addWidget(self.nothing, stretch=1, alignment=Qt.AlignmentFlag.AlignTop)
        for name, (key, _) in ACTIONS.items():
            if key:
                shortcut = QShortcut(QKeySequence(key), self)
                shortcut.activated.connect(partial(attempt, partial(self._act, name)))
        viewer.layers.selection.events.active.connect(self._follow)
        viewer.mouse_drag_callbacks.append(self._clicked)
        self.layers_changed()

    def _act(self, name: str) -> None:
        if self.shown is not None:
            self.shown.act(name)

    def layers_changed(self) -> None:
        if self._switching:
            return
        self._list_shapes()
        found = list(results_in(self.viewer))
        # Counted again, a result goes and comes back: the panel follows it.
        paths = [opened.result.path for _, opened in found]
        place = paths.index(self._wanted) if self._wanted in paths else min(0, len(found) - 1)
        fill(self.results, ((one[0].name, one) for one in found), place)
        self._show(place)

    def _follow(self, event: Any) -> None:  # noqa: ANN401 - napari's
        """The result whose masks were clicked in the list of layers."""
        adding = self.closed or (self.shown is not None and self.shown.windows.job is not None)
        for place in range(0 if adding else self.results.count()):
            if self.results.itemData(place)[0] is event.value:
                self.results.setCurrentIndex(place)

    def _chosen(self, place: int) -> None:
        """A person wants another result."""
        self._wanted = self.results.itemData(place)[1].result.path
        self._show(place)

    def _show(self, place: int) -> None:
        """One of the results that are there; -1: none."""
        layer, opened = self.results.itemData(place) if place >= 0 else (None, None)
        if self.shown is None or self.shown.inspector.opened is not opened:
            self.leave()
            if opened is not None:
                self._wanted = self._wanted or opened.result.path
                self.shown = ResultPanel(self.viewer, layer, opened, lambda: self.drawn)
                self._layout.insertWidget(1, self.shown, stretch=1)
                attempt(self.shown.look.begin)
                self.shown.tabs.setCurrentIndex(self._tab)
        others = [layer.name for layer in self.viewer.layers if isinstance(layer, Labels)]
        foreign = f" ({others[-1]} is no result of cellseg)" if others else ""
        self.nothing.setText(NOTHING + foreign)
        self.nothing.setVisible(self.shown is None)

    def leave(self) -> None:
        if self.shown is None:
            return
        self._switching, self._tab = True, self.shown.tabs.currentIndex()
        try:
            self.shown.leave()
        finally:
            self._switching = False
        self.shown.hide()
        self.shown.deleteLater()
        self.shown = None

    def _list_shapes(self) -> None:
        """Those that a person drew, as the viewer has them now."""
        drawn = drawn_layers(self.viewer)
        # A layer that was just drawn is what the person wants to know about.
        fresh = [one for one in drawn if one not in self._known and KEPT not in one.metadata]
        wanted = fresh[-1] if fresh else self.drawn
        place = drawn.index(wanted) + 1 if wanted in drawn else 0
        self._known = drawn
        for one in drawn:
            one.events.data.connect(self._later)
        fill(self.shapes, [(EVERYWHERE, None), *((one.name, one) for one in drawn)], place)
        self._later()

    @property
    def drawn(self) -> Shapes | None:
        """The shapes in which cells are counted; None: everywhere."""
        return self.shapes.currentData()

    def _keep(self) -> None:
        """Shapes become regions of the result, and their counts are told."""
        if self.shown is None or self.drawn is None:
            raise SettingsError("draw shapes in a shapes layer, and choose it at 'inside of'")
        self.shown.totals.setText("\n".join(self.shown.inspector.keep(self.drawn)))

    def _later(self, _: object = None) -> None:
        self._soon.start()

    def _tell_totals(self) -> None:
        if self.shown is not None:
            self.shown.tell_totals()

    def _clicked(self, viewer: object, event: Any) -> Any:  # noqa: ANN401 - napari's
        """A click that is no drag picks the cell under it."""
        dragged = False
        yield
        while event.type == "mouse_move":
            dragged = True
            yield
        active = self.viewer.layers.selection.active
        drawing = getattr(active, "mode", "pan_zoom") not in ("pan_zoom", "transform")
        if dragged or drawing or self.closed or self.shown is None or not self.isVisible():
            return
        inspector = self.shown.inspector
        if inspector.is_visible():
            more = "Shift" in event.modifiers
            attempt(partial(self.shown.click, event.position, more=more))

    def let_go(self) -> None:
        super().let_go()
        self.shown = None
        for one in self._known:
            one.events.data.disconnect(self._later)
        if self._clicked in self.viewer.mouse_drag_callbacks:
            self.viewer.mouse_drag_callbacks.remove(self._clicked)
