"""Positive cells: thresholds dragged in a histogram, cells and counts that follow at once."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
from napari.utils.notifications import show_info
from numpy.typing import NDArray
from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QFormLayout, QGridLayout, QWidget

from cellseg.derive.classes import Classification, classes_of, classify, named
from cellseg.derive.scores import Blocks, Labelling, spatial_blocks
from cellseg.derive.threshold import histogram, propose
from cellseg.errors import CellsegError
from cellseg.protocol import Marker
from cellseg.table.summary import labelled
from cellseg_napari._histogram import BINS, HistogramSlider
from cellseg_napari._inspect import Inspector
from cellseg_napari._panel import attempt, button, choice, fill, save_classes, wrapped
from cellseg_napari._words import legend, measurement, menu

KINDS = (("positive, negative", 1), ("1+, 2+, 3+", 3))


class ClassifyBox(QWidget):  # type: ignore[misc]
    """Choose a measurement, drag its thresholds, save the classes with the result.

    ``saved`` tells the result folder, whose table and record are new.
    """

    saved = Signal(object)

    def __init__(self, inspector: Inspector) -> None:
        super().__init__()
        self.inspector = inspector
        self.cells: Thresholded | None = None
        self._blocks: Blocks | None = None
        self.measure = choice("The measurement that says whether a cell is positive")
        measurements = menu(inspector.opened.rows.dtypes.items())
        names = [column for _, column in measurements]
        fill(self.measure, measurements, names.index(first_measure(names)) if names else -1)
        self.kind = choice("One threshold, or three for grades and the H-score")
        fill(self.kind, KINDS)
        for box in (self.measure, self.kind):
            box.currentIndexChanged.connect(lambda _: attempt(self._start))
        self.histogram = HistogramSlider("Drag the threshold: cells at or above it are positive")
        self.histogram.moved.connect(self._dragged)
        self.histogram.settled.connect(self._settled)
        self.legend, self.counts = wrapped(), wrapped()
        actions = (
            ("Propose", "A threshold, where the histogram shows two kinds of cells", self.propose),
            ("Save classes", "Write the classes into the result's table and record", self.save),
        )
        self.buttons = {name: button(name, tip, action) for name, tip, action in actions}
        grid = QGridLayout()
        for number, one in enumerate(self.buttons.values()):
            grid.addWidget(one, 0, number)
        form = QFormLayout(self)
        form.addRow("measurement", self.measure)
        form.addRow("classes", self.kind)
        form.addRow(self.histogram)
        form.addRow(self.legend)
        form.addRow(self.counts)
        form.addRow(grid)

    # Thresholds

    def begin(self) -> None:
        """Colour the cells: by what was chosen here, or by the thresholds that were saved."""
        made = Classification.of(self.inspector.opened.result.run)
        if self.cells is not None:
            self.edited()
        elif made is not None and len(made.markers) == 1:
            (marker,) = made.markers
            self._take(marker.measure, np.atleast_1d(np.asarray(marker.threshold, np.float64)))
        else:
            self._start()

    def _start(self) -> None:
        """Another measurement, or another number of thresholds: begin anew."""
        if name := self.measure.currentData():
            values = self.inspector.opened.column(name)
            self._take(name, starting(values, self.kind.currentData()))

    def _take(self, measure: str, thresholds: Iterable[float]) -> None:
        """Show these thresholds, on their measurement."""
        opened = self.inspector.opened
        if measure not in opened.rows:
            return
        y, x, area = (opened.column(f"{name}_px") for name in ("centroid_y", "centroid_x", "area"))
        mpp = opened.result.frame.mpp
        self._blocks = spatial_blocks(np.stack([y, x], axis=1), area, mpp=mpp)
        values = opened.column(measure).astype(np.float64)
        cells = Thresholded(measure, thresholds, values)
        for box, data in ((self.measure, measure), (self.kind, len(cells.thresholds))):
            with QSignalBlocker(box):
                box.setCurrentIndex(box.findData(data))
        seen, parts = histogram(values, BINS), opened.result.colours(cells.names)
        self.histogram.draw(seen.counts, seen.edges, handles=cells.thresholds, parts=parts)
        self.legend.setText(legend(cells.names, parts))
        self._show(cells)
        self._settled()

    def _dragged(self, handles: tuple[float, ...]) -> None:
        if self.cells is not None:
            self._show(Thresholded(self.cells.marker.measure, handles, self.cells.values))

    def _show(self, cells: Thresholded) -> None:
        """Cells and counts follow the handles."""
        self.cells = cells
        title = f"{measurement(cells.marker.measure)}, classes"
        self.inspector.show_codes(
            cells.codes, self.inspector.opened.result.colours(cells.names), title
        )
        self._tell(cells.labelling)

    def _tell(self, scored: Labelling) -> None:
        self.counts.setText(said(scored, self._chosen().marker))

    def _settled(self, _: object = None) -> None:
        """The handles rest: the interval, which takes longer."""
        if self.cells is not None and self._blocks is not None:
            self._tell(Labelling.of(self.cells.codes, len(self.cells.names), self._blocks))

    def edited(self) -> None:
        """After a correction: the cells are others."""
        if self.cells is not None:
            self._take(self.cells.marker.measure, self.cells.thresholds)

    # What the buttons do

    def _chosen(self) -> Thresholded:
        if self.cells is None:
            raise CellsegError("there is no measurement to tell cells apart by")
        return self.cells

    def propose(self) -> None:
        """A threshold from the histogram, or the reason why there is none."""
        cells = self._chosen()
        measure = cells.marker.measure
        found = propose(cells.values, measurement(measure))
        self._take(measure, (found.threshold,))
        show_info(f"threshold {found.threshold:g}: {found.method}")

    def save(self) -> None:
        """Write the classes into the result."""
        markers = (self._chosen().marker,)
        save_classes(self, self.inspector.opened.result, markers=markers)


def first_measure(names: list[str]) -> str:
    """What a person most probably asks about: DAB, another stain, or a channel's mean."""
    for wanted in ("dab_od_mean", "_od_mean", "intensity_mean_", ""):
        if found := [name for name in names if wanted in name]:
            return found[0]
    return ""


def starting(values: NDArray[np.float64], number: int) -> tuple[float, ...]:
    """Where one or three thresholds begin: equal parts of the usual span."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [1, 99]) if finite.size else (0.0, 1.0)
    steps = np.linspace(low, high, number + 2)[1:-1]
    return tuple(float(f"{one:.4g}") for one in steps)


class Thresholded:
    """All cells' values of one measurement (NaN where a cell has none), and thresholds on it.

    There are one or three, ascending; three of the same value are moved apart a little.
    """

    def __init__(
        self, measure: str, thresholds: Iterable[float], values: NDArray[np.float64]
    ) -> None:
        first, *others = (float(one) for one in thresholds)
        self.thresholds: tuple[float, ...] = (first,)
        for one in others:
            self.thresholds += (max(one, float(np.nextafter(self.thresholds[-1], np.inf))),)
        self.values = values
        chosen: Any = self.thresholds if others else first
        self.marker = Marker(measure=measure, threshold=chosen)
        self.names = classes_of([self.marker])

    @cached_property
    def codes(self) -> NDArray[np.int16]:
        """Place of each cell's class in ``names``; -1 without a value."""
        return classify({self.marker.measure: self.values}, [self.marker])[0]

    @property
    def labelling(self) -> Labelling:
        """Cells of each class."""
        known = self.codes[self.codes >= 0]
        return Labelling(grades=tuple(np.bincount(known, minlength=len(self.names)).tolist()))


def said(scored: Labelling, marker: Marker) -> str:
    """Scores and counts for a person."""
    classes = zip(classes_of([marker]), scored.grades, strict=True)
    counts = ", ".join(f"{number:,} {name}" for name, number in classes)
    return f"{labelled({'name': named(marker), **scored.as_dict()})}\n{counts}"
