"""Colours, outlines, a filter, and the shapes in which cells are counted."""

from __future__ import annotations

from functools import partial

import napari
import numpy as np
from napari.layers import Shapes
from qtpy.QtCore import QSignalBlocker, QTimer, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QWidget

from cellseg.draw import colours
from cellseg_napari._colour_bar import ColourBar
from cellseg_napari._columns import ColumnReader
from cellseg_napari._histogram import HistogramRange
from cellseg_napari._inspect import BY_CLASS, BY_LABEL, BY_THRESHOLD, Inspector, limits
from cellseg_napari._opened import FEATURES_LIMIT
from cellseg_napari._words import menu

EVERYWHERE = "the whole slide"

_WAIT_MS = 200


class LookBox(QWidget):  # type: ignore[misc]
    """How the cells of a result are shown, and which.

    Attributes
    ----------
    filtered, moved : Signal
        Other cells are shown; the shapes in which they are counted changed.
    """

    filtered = Signal()
    moved = Signal()

    def __init__(self, viewer: napari.viewer.Viewer, columns: ColumnReader) -> None:
        super().__init__()
        self.viewer, self._columns = viewer, columns
        self.inspector: Inspector | None = None
        self._watched: Shapes | None = None
        self._known: list[Shapes] = []
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(_WAIT_MS)
        self._soon.timeout.connect(self.moved.emit)
        self.outlines = QCheckBox("outlines")
        self.outlines.setToolTip("Outlines, or filled masks")
        self.outlines.toggled.connect(self._outline)
        self.colour = QComboBox()
        self.colour.setToolTip("Colour the masks by class or by a measurement")
        self.colour.currentIndexChanged.connect(self._colour)
        self.bar = ColourBar()
        self.measure = QComboBox()
        self.measure.setToolTip("Histogram and filter of this measurement")
        self.measure.currentIndexChanged.connect(self._histogram_of)
        self.histogram = HistogramRange()
        self.histogram.settled.connect(self._filter)
        self.shapes = QComboBox()
        self.shapes.setToolTip("Totals of the cells whose centre lies in these shapes")
        self.shapes.currentIndexChanged.connect(self._shapes_chosen)
        form = QFormLayout(self)
        for text, field in (
            ("show", self.outlines),
            ("colour by", self.colour),
            ("", self.bar),
            ("filter by", self.measure),
        ):
            form.addRow(text, field)
        form.addRow(self.histogram)
        form.addRow("inside of", self.shapes)

    # Which result

    def show_result(self, inspector: Inspector) -> None:
        """Look at this one from now on."""
        self.inspector = inspector
        with QSignalBlocker(self.outlines):
            self.outlines.setChecked(inspector.outlines)
        measurements = menu(inspector.opened.rows.dtypes.items())
        for box, first in (
            (self.colour, [(BY_LABEL, BY_LABEL), (BY_CLASS, BY_CLASS)]),
            (self.measure, [("", "")]),
        ):
            with QSignalBlocker(box):
                box.clear()
                for text, column in (*first, *measurements):
                    box.addItem(text, column)
        self.bar.clear()
        if measurements and len(inspector.opened.rows) <= FEATURES_LIMIT:
            self.measure.setCurrentIndex(1)

    def leave(self) -> None:
        """Let go of the result."""
        self.inspector = None
        self.bar.clear()

    @property
    def drawn(self) -> Shapes | None:
        """The layer in whose shapes cells are counted; None: everywhere."""
        return self._watched

    # Colours

    def _outline(self, outlines: bool) -> None:
        if self.inspector is not None:
            self.inspector.show_outlines(outlines)

    def begin(self) -> None:
        """Colour the cells by what is chosen here."""
        if self.inspector is not None and self.inspector.coloured_by == BY_THRESHOLD:
            self._colour()

    def _colour(self, _: int = 0) -> None:
        what = self.colour.currentData()
        if self.inspector is None or what is None:
            return
        needed = [] if what == BY_LABEL else ["class" if what == BY_CLASS else what]
        self._columns.then(needed, partial(self._colour_now, what))

    def _colour_now(self, what: str) -> None:
        if self.inspector is not None:
            self.inspector.colour_by(what)
            self.tell_colours()

    def tell_colours(self) -> None:
        """What the colours mean, as they are now."""
        if (inspector := self.inspector) is None:
            return
        what = inspector.coloured_by
        if what == BY_CLASS:
            names = inspector.classes()
            palette = colours(names, inspector.opened.result.stain)
            self.bar.show_classes(list(zip(names, palette, strict=True)))
        elif what in (BY_LABEL, BY_THRESHOLD):
            self.bar.clear()
        else:
            self.bar.show_span(*limits(inspector.opened.column(what).astype(np.float32)))

    # Filter

    def _histogram_of(self, _: int) -> None:
        if self.inspector is None:
            return
        if name := self.measure.currentData():
            self._columns.then([name], partial(self._histogram_now, name))
        else:
            self.inspector.show_range(None)
            self.filtered.emit()

    def _histogram_now(self, name: str) -> None:
        if self.inspector is None:
            return
        self.histogram.set_values(self.inspector.opened.column(name))
        if self.inspector.range is not None:
            self.inspector.show_range(None)
            self.filtered.emit()

    def _filter(self, _: object) -> None:
        name = self.measure.currentData()
        if self.inspector is None or not name:
            return
        low, high = self.histogram.range
        everything = not (np.isfinite(low) or np.isfinite(high))
        self.inspector.show_range(None if everything else name, low, high)
        self.filtered.emit()

    # Shapes

    def list_shapes(self) -> None:
        """Those that a person drew, as the viewer has them now."""
        drawn = [
            layer
            for layer in self.viewer.layers
            if isinstance(layer, Shapes) and not layer.metadata.get("cellseg_role")
        ]
        chosen = self.shapes.currentData()
        with QSignalBlocker(self.shapes):
            self.shapes.clear()
            self.shapes.addItem(EVERYWHERE, None)
            for layer in drawn:
                self.shapes.addItem(layer.name, layer)
            # A layer that was just drawn is what the person wants to know about.
            fresh = [layer for layer in drawn if layer not in self._known]
            self._known = drawn
            wanted = fresh[-1] if fresh else (chosen if chosen in drawn else None)
            self.shapes.setCurrentIndex(drawn.index(wanted) + 1 if wanted is not None else 0)
        self._shapes_chosen()

    def _shapes_chosen(self, _: object = None) -> None:
        if self._watched is not None:
            self._watched.events.data.disconnect(self._later)
        self._watched = self.shapes.currentData()
        if self._watched is not None:
            self._watched.events.data.connect(self._later)
        self._later()

    def _later(self, _: object = None) -> None:
        self._soon.start()
