"""Positive cells: thresholds dragged in a histogram, cells and counts that follow at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.utils.notifications import show_info
from numpy.typing import NDArray
from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QFormLayout

from cellseg.derive.classes import Classification, classes_of, classify, named
from cellseg.derive.scores import Blocks, labelling, spatial_blocks
from cellseg.derive.threshold import histogram, propose
from cellseg.errors import CellsegError
from cellseg.protocol import Marker
from cellseg.table.summary import labelled
from cellseg_napari._histogram import BINS, HistogramSlider
from cellseg_napari._inspect import Inspector
from cellseg_napari._panel import attempt, choice, fill, wrapped
from cellseg_napari._tab import Tab
from cellseg_napari._words import legend, measurement, menu

KINDS = (("positive, negative", 1), ("1+, 2+, 3+", 3))


class ClassifyBox(Tab):
    """Choose a measurement, drag its thresholds, save the classes with the result."""

    def __init__(self, inspector: Inspector) -> None:
        actions = (
            ("Propose", "A threshold, where the histogram shows two kinds of cells", self.propose),
            ("Save classes", "Write the classes into the result's table and record", self.save),
        )
        super().__init__(inspector, actions)
        self.marker: Marker | None = None
        self._values: NDArray[np.float64] = np.empty(0)
        self._codes: NDArray[np.int16] = np.empty(0, np.int16)
        self._blocks: Blocks | None = None
        self.measure = choice("The measurement that says whether a cell is positive")
        measurements = menu(self.opened.rows.dtypes.items())
        names = [column for _, column in measurements]
        fill(self.measure, measurements, names.index(first_measure(names)) if names else -1)
        self.kind = choice("One threshold, or three for grades and the H-score")
        fill(self.kind, KINDS)
        for box in (self.measure, self.kind):
            box.currentIndexChanged.connect(lambda _: attempt(self._start))
        self.histogram = HistogramSlider("Drag the threshold: cells at or above it are positive")
        self.histogram.moved.connect(self._dragged)
        self.histogram.settled.connect(self._settled)
        self.legend = wrapped()
        form = QFormLayout(self)
        form.addRow("measurement", self.measure)
        form.addRow("classes", self.kind)
        form.addRow(self.histogram)
        form.addRow(self.legend)
        form.addRow(self.state)
        form.addRow(self.grid)

    # Thresholds

    def begin(self) -> None:
        """Colour the cells: by what was chosen here, or by the thresholds that were saved."""
        made = Classification.of(self.opened.result.run)
        if self.marker is not None:
            self.edited()
        elif made is not None and len(made.markers) == 1:
            (marker,) = made.markers
            self._take(marker.measure, thresholds(marker))
        else:
            self._start()

    def _start(self) -> None:
        """Another measurement, or another number of thresholds: begin anew."""
        if name := self.measure.currentData():
            self._take(name, starting(self.opened.column(name), self.kind.currentData()))

    def _take(self, measure: str, handles: Sequence[float]) -> None:
        """Show these thresholds, on their measurement."""
        opened = self.opened
        if measure not in opened.rows:
            return
        y, x, area = (opened.column(f"{name}_px") for name in ("centroid_y", "centroid_x", "area"))
        mpp = opened.result.frame.mpp
        self._blocks = spatial_blocks(np.stack([y, x], axis=1), area, mpp=mpp)
        self._values = opened.column(measure).astype(np.float64)
        for box, data in ((self.measure, measure), (self.kind, len(handles))):
            with QSignalBlocker(box):
                box.setCurrentIndex(box.findData(data))
        names = classes_of([marker_of(measure, handles)])
        seen, parts = histogram(self._values, BINS), opened.result.colours(names)
        self.histogram.draw(seen.counts, seen.edges, handles=handles, parts=parts)
        self.legend.setText(legend(names, parts))
        self._show(measure, handles)
        self._settled()

    def _dragged(self, handles: tuple[float, ...]) -> None:
        if self.marker is not None:
            self._show(self.marker.measure, handles)

    def _show(self, measure: str, handles: Sequence[float]) -> None:
        """Cells and counts follow the handles."""
        self.marker = marker_of(measure, handles)
        self._codes = classify({measure: self._values}, [self.marker])[0]
        colours = self.opened.result.colours(classes_of([self.marker]))
        self.inspector.show_codes(self._codes, colours, f"{measurement(measure)}, classes")
        self.state.setText(said(self._codes, self.marker))

    def _settled(self, _: object = None) -> None:
        """The handles rest: the interval, which takes longer."""
        if self.marker is not None and self._blocks is not None:
            self.state.setText(said(self._codes, self.marker, self._blocks))

    def edited(self) -> None:
        """The cells are others."""
        if self.marker is not None:
            self._take(self.marker.measure, thresholds(self.marker))

    # What the buttons do

    def _chosen(self) -> Marker:
        if self.marker is None:
            raise CellsegError("there is no measurement to tell cells apart by")
        return self.marker

    def propose(self) -> None:
        """A threshold from the histogram, or the reason why there is none."""
        measure = self._chosen().measure
        found = propose(self._values, measurement(measure))
        self._take(measure, (found.threshold,))
        show_info(f"threshold {found.threshold:g}: {found.method}")

    def save(self) -> None:
        """Write the classes into the result."""
        self.save_classes(markers=(self._chosen(),))


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


def marker_of(measure: str, handles: Sequence[float]) -> Marker:
    """One threshold, or three, ascending; of the same value they are moved apart a little."""
    found = [float(handles[0])]
    for one in handles[1:]:
        found.append(max(float(one), float(np.nextafter(found[-1], np.inf))))
    chosen: Any = tuple(found) if len(found) > 1 else found[0]
    return Marker(measure=measure, threshold=chosen)


def thresholds(marker: Marker) -> list[float]:
    """One or three, ascending."""
    found: list[float] = np.atleast_1d(np.asarray(marker.threshold, np.float64)).tolist()
    return found


def said(codes: NDArray[np.int16], marker: Marker, blocks: Blocks | None = None) -> str:
    """Scores and counts of cells by their classes for a person; the interval with ``blocks``."""
    names = classes_of([marker])
    scored = labelling(codes, len(names), blocks)
    classes = zip(names, scored["grades"], strict=True)
    counts = ", ".join(f"{number:,} {name}" for name, number in classes)
    return f"{labelled({'name': named(marker), **scored})}\n{counts}"
