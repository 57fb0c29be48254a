"""Colours, outlines and a filter."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QFormLayout, QWidget

from cellseg_napari._histogram import HistogramSlider
from cellseg_napari._inspect import BY_CLASS, BY_LABEL, BY_THRESHOLD, Inspector
from cellseg_napari._panel import attempt, choice, fill, wrapped
from cellseg_napari._words import legend, menu


class LookBox(QWidget):  # type: ignore[misc]
    """How the cells of a result are shown, and which.

    Attributes
    ----------
    filtered : Signal
        Other cells are shown.
    """

    filtered = Signal()

    def __init__(self, inspector: Inspector) -> None:
        super().__init__()
        self.inspector = inspector
        self.outlines = QCheckBox("outlines")
        self.outlines.setToolTip("Outlines, or filled masks")
        self.outlines.setChecked(inspector.outlines)
        self.outlines.toggled.connect(inspector.show_outlines)
        self.colour = choice("Colour the masks by class or by a measurement")
        self.legend = wrapped()
        self.legend.hide()
        self.measure = choice("Histogram and filter of this measurement")
        self.histogram = HistogramSlider("Only cells between the two handles are shown")
        form = QFormLayout(self)
        form.addRow("show", self.outlines)
        form.addRow("colour by", self.colour)
        form.addRow(self.legend)
        form.addRow("filter by", self.measure)
        form.addRow(self.histogram)
        measurements = menu(inspector.opened.rows.dtypes.items())
        fill(self.colour, [(BY_LABEL, BY_LABEL), (BY_CLASS, BY_CLASS), *measurements])
        fill(self.measure, [("", ""), *measurements], min(1, len(measurements)))
        self.colour.currentIndexChanged.connect(lambda _: attempt(self._colour))
        self.measure.currentIndexChanged.connect(lambda _: attempt(self._draw_histogram))
        self.histogram.settled.connect(self._filter)
        attempt(self._draw_histogram)

    def begin(self) -> None:
        """Colour the cells by what is chosen here."""
        if self.inspector.coloured_by == BY_THRESHOLD:
            self._colour()

    def _colour(self) -> None:
        self.inspector.colour_by(self.colour.currentData())
        self.tell_classes()

    def tell_classes(self) -> None:
        """What the colours mean, as they are now; napari's colour bar tells measurements."""
        names = self.inspector.opened.cells.classes
        by_class = self.inspector.coloured_by == BY_CLASS
        self.legend.setText(legend(names, self.inspector.opened.colours(names)))
        self.legend.setVisible(by_class)

    def _draw_histogram(self) -> None:
        if name := self.measure.currentData():
            self.histogram.draw_values(self.inspector.opened.column(name))
        if self.inspector.range is not None:
            self.inspector.show_range(None)
            self.filtered.emit()

    def _filter(self, _: object) -> None:
        if not (name := self.measure.currentData()):
            return
        low, high = self.histogram.range
        everything = not (np.isfinite(low) or np.isfinite(high))
        self.inspector.show_range(None if everything else name, low, high)
        self.filtered.emit()
