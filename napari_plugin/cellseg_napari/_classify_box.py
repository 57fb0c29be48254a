"""Positive cells: thresholds dragged in a histogram, cells and counts that follow at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from napari.utils.notifications import show_info
from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QHBoxLayout, QLabel, QPushButton, QWidget

from cellseg.derive.classes import Classification
from cellseg.derive.scores import Blocks
from cellseg.derive.threshold import histogram, propose
from cellseg.draw import colours
from cellseg.errors import CellsegError
from cellseg.protocol import Marker
from cellseg.result import Result
from cellseg.result.publish import TABLE
from cellseg_napari._attempt import attempt, tell
from cellseg_napari._background import in_background
from cellseg_napari._colour_bar import ColourBar
from cellseg_napari._columns import ColumnReader
from cellseg_napari._histogram import BINS, Histogram
from cellseg_napari._inspect import Inspector
from cellseg_napari._threshold import (
    PLACES,
    History,
    Parted,
    blocks_of,
    first_measure,
    said,
    starting,
)
from cellseg_napari._words import measurement, menu

KINDS = (("positive, negative", 1), ("1+, 2+, 3+", 3))


class ClassifyBox(QWidget):  # type: ignore[misc]
    """Choose a measurement, drag its thresholds, save the classes with the result.

    Attributes
    ----------
    parted : Parted or None
        What is shown.
    saved : Signal(object)
        The result folder, whose table and record are new.
    """

    saved = Signal(object)

    def __init__(self, columns: ColumnReader) -> None:
        super().__init__()
        self._columns = columns
        self.inspector: Inspector | None = None
        self.parted: Parted | None = None
        self._blocks: Blocks | None = None
        self._history = History()
        self._jobs: list[object] = []
        self._build()

    def _build(self) -> None:
        self.measure = QComboBox()
        self.measure.setToolTip("The measurement that says whether a cell is positive")
        self.measure.currentIndexChanged.connect(self._another)
        self.kind = QComboBox()
        self.kind.setToolTip("One threshold, or three for grades and the H-score")
        for text, number in KINDS:
            self.kind.addItem(text, number)
        self.kind.currentIndexChanged.connect(self._another)
        self.histogram = Histogram()
        self.histogram.setToolTip("Drag the threshold: cells at or above it are positive")
        self.histogram.moved.connect(self._dragged)
        self.histogram.settled.connect(self._settled)
        self.counts = QLabel()
        self.counts.setWordWrap(True)
        self.bar = ColourBar()
        self.buttons: dict[str, QPushButton] = {}
        row = QHBoxLayout()
        for name, tip, action in (
            ("Propose", "A threshold from the histogram, where it shows two kinds of cells",
             self.propose),
            ("Back", "The thresholds before (Ctrl+Z)", self.undo),
            ("Forth", "Those that were taken back (Ctrl+Shift+Z)", self.redo),
            ("Save classes", "Write the classes into the result's table and record", self.save),
        ):  # fmt: skip
            button = QPushButton(name)
            button.setToolTip(tip)
            button.clicked.connect(partial(attempt, action))
            self.buttons[name] = button
            row.addWidget(button)
        form = QFormLayout(self)
        form.addRow("measurement", self.measure)
        form.addRow("classes", self.kind)
        form.addRow(self.histogram)
        form.addRow("", self.bar)
        form.addRow(self.counts)
        form.addRow(row)

    # Which result

    def show_result(self, inspector: Inspector) -> None:
        """Classify its cells from now on."""
        self.inspector, self._history = inspector, History()
        with QSignalBlocker(self.measure):
            self.measure.clear()
            for text, column in menu(inspector.opened.rows.dtypes.items()):
                self.measure.addItem(text, column)
            names = [self.measure.itemData(n) for n in range(self.measure.count())]
            self.measure.setCurrentIndex(self.measure.findData(first_measure(names)))

    def leave(self) -> None:
        """Let go of the result."""
        self.inspector = self.parted = self._blocks = None
        self.bar.clear()
        self.counts.setText("")

    # Thresholds

    def begin(self) -> None:
        """Colour the cells: by what was chosen here, or by the thresholds that were saved."""
        if self.inspector is None:
            return
        made = Classification.of(self.inspector.opened.result.run)
        if self.parted is not None:
            self._take(self.parted.marker)
        elif made is not None and len(made.markers) == 1:
            self._take(made.markers[0])
        else:
            self._another()

    def _another(self, _: object = None) -> None:
        """Another measurement, or another number of thresholds: begin anew."""
        name, number = self.measure.currentData(), self.kind.currentData()
        if self.inspector is None or not name:
            return

        def start() -> None:
            assert self.inspector is not None
            first = starting(self.inspector.opened.column(name), number)
            self._take(_marker(name, first))

        self._columns.then([name, *PLACES], start)

    def _take(self, marker: Marker) -> None:
        """Show these thresholds, on their measurement."""
        if self.inspector is None:
            return
        names = {*self.inspector.opened.rows.names}
        if marker.measure in names:
            self._columns.then([marker.measure, *PLACES], partial(self._show, marker))

    def _show(self, marker: Marker) -> None:
        assert self.inspector is not None
        opened = self.inspector.opened
        values = opened.column(marker.measure).astype(np.float64)
        self.parted = parted = Parted(opened, marker, values)
        self._blocks = blocks_of(opened)
        number = len(parted.thresholds)
        for box, data in ((self.measure, marker.measure), (self.kind, number)):
            with QSignalBlocker(box):
                box.setCurrentIndex(box.findData(data))
        seen = histogram(values, BINS)
        parts = colours(parted.names, opened.result.stain)
        self.histogram.draw(seen.counts, seen.edges, handles=parted.thresholds, parts=parts)
        self.bar.show_classes(list(zip(parted.names, parts, strict=True)))
        self._dragged(parted.thresholds)
        self._settled(parted.thresholds)

    def _dragged(self, handles: tuple[float, ...]) -> None:
        """Cells and counts follow the handles."""
        if self.inspector is None or self.parted is None:
            return
        before = self.parted
        marker = _marker(before.marker.measure, handles)
        self.parted = parted = Parted(before.opened, marker, before.values)
        title = f"{measurement(marker.measure)}, classes"
        parts = colours(parted.names, before.opened.result.stain)
        self.inspector.show_codes(parted.codes, parts, title)
        self.counts.setText(said(parted.scored, parted.names, self._thing))

    def _settled(self, _: tuple[float, ...]) -> None:
        """The handles rest: the interval, which takes longer, and a step to go back to."""
        if self.parted is None or self._blocks is None:
            return
        self._history.add(self.parted.marker)
        scored = self.parted.with_interval(self._blocks)
        self.counts.setText(said(scored, self.parted.names, self._thing))

    @property
    def _thing(self) -> str:
        assert self.inspector is not None
        return str(self.inspector.opened.result.run.get("object", "cell"))

    def edited(self) -> None:
        """After a correction: the cells are others."""
        if self.parted is not None:
            self._take(self.parted.marker)

    # What the buttons do

    def propose(self) -> None:
        """A threshold from the histogram, or the reason why there is none."""
        if self.parted is None:
            raise CellsegError("open a result first")
        measure = self.parted.marker.measure
        found = propose(self.parted.values, measurement(measure))
        self._take(_marker(measure, (found.threshold,)))
        show_info(f"threshold {found.threshold:g}: {found.method}")

    def undo(self) -> None:
        """The thresholds before."""
        self._step(-1, "nothing to take back")

    def redo(self) -> None:
        """Those that were taken back."""
        self._step(1, "nothing to make again")

    def _step(self, by: int, nothing: str) -> None:
        if (marker := self._history.step(by)) is None:
            show_info(nothing)
        else:
            self._take(marker)

    def save(self) -> None:
        """Write the classes into the result, in a thread; the result is read again then."""
        if self.parted is None:
            raise CellsegError("open a result first")
        # Imported late: counting and its libraries come with it.
        from cellseg.run import change

        folder, marker = self.parted.opened.result.path, self.parted.marker
        self._enable(False)

        notices: list[str] = []

        def done(result: Result) -> None:
            self._enable(True)
            show_info("\n".join([f"classes saved in {result.file(TABLE)}", *notices]))
            self.saved.emit(result.path)

        def failed(error: Exception) -> None:
            self._enable(True)
            tell(error)

        work: Callable[[], Result] = partial(
            change, folder, on_notice=notices.append, markers=(marker,)
        )
        self._jobs.append(in_background(self, work, done=done, failed=failed))

    def _enable(self, can: bool) -> None:
        for button in self.buttons.values():
            button.setEnabled(can)


def _marker(measure: str, thresholds: tuple[float, ...]) -> Marker:
    """Of one or three thresholds; three of the same value are moved apart a little."""
    if len(thresholds) == 1:
        return Marker(measure=measure, threshold=thresholds[0])
    first, second, third = thresholds
    second = max(second, float(np.nextafter(first, np.inf)))
    third = max(third, float(np.nextafter(second, np.inf)))
    return Marker(measure=measure, threshold=(first, second, third))
