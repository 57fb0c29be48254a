"""A histogram of one measurement, and handles that part it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QRectF, QSignalBlocker, Qt, QTimer, Signal
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent
from qtpy.QtWidgets import QVBoxLayout, QWidget
from superqt import QLabeledDoubleRangeSlider

from cellseg.palette import RGB

BINS = 64
WAIT_MS = 150

BARS_PX, SLIDER_PX = 64, 44
"""Heights; the slider does not ask itself for what the numbers above its handles need."""

MARGIN_PX, INSET_PX = 12, 21
"""Room for a handle's number beside the slider; where the middle of the first handle can be."""

BRIGHT, DIM = (76, 155, 232), (90, 98, 108)


class HistogramSlider(QWidget):  # type: ignore[misc]
    """Bars, and a slider under them; the handles can be dragged in either.

    The bars are painted here: matplotlib takes a second to load, and too long for a drag.
    ``moved`` tells at once where the handles are, ``settled`` when they have rested for a moment.
    """

    moved = Signal(tuple)
    settled = Signal(tuple)

    def __init__(self, tip: str) -> None:
        super().__init__()
        self.setToolTip(tip)
        self.slider = QLabeledDoubleRangeSlider(Qt.Orientation.Horizontal)
        self.slider.setEdgeLabelMode(self.slider.EdgeLabelMode.NoLabel)
        room = self.slider.layout().contentsMargins()
        self.slider.layout().setContentsMargins(MARGIN_PX, room.top(), MARGIN_PX, room.bottom())
        self.slider.setMinimumHeight(SLIDER_PX)
        self.slider.valueChanged.connect(self._moved)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, BARS_PX, 0, 0)
        layout.addWidget(self.slider)
        self._timer = QTimer(self, singleShot=True, interval=WAIT_MS)
        self._timer.timeout.connect(lambda: self.settled.emit(self.handles))
        self.bounds = (0.0, 1.0)
        self._heights: NDArray[np.float64] = np.zeros(0)
        self._middles: NDArray[np.float64] = np.zeros(0)
        self._parts: Sequence[RGB] = ()

    def draw(
        self,
        counts: NDArray[np.int64],
        edges: NDArray[np.float64],
        *,
        handles: Sequence[float],
        parts: Sequence[RGB],
    ) -> None:
        """Show a distribution; ``parts`` are colours below, between and above the handles.

        Bars grow with the root of the counts, so that a few cells are seen beside many.
        """
        self.bounds = low, high = float(edges[0]), float(edges[-1])
        self._heights = np.sqrt(counts / max(1, counts.max()))
        self._middles, self._parts = (edges[1:] + edges[:-1]) / 2, parts
        with QSignalBlocker(self.slider):
            decimals = max(0, int(np.ceil(2 - np.log10(high - low))))
            self.slider.setDecimals(decimals)
            self.slider.setRange(low, high)
            self.slider.setValue(tuple(np.clip(handles, low, high).tolist()))
            self.slider.setDecimals(decimals)  # of handles that are new, too
        self.update()

    @property
    def handles(self) -> tuple[float, ...]:
        """Where they are, ascending."""
        return tuple(map(float, self.slider.value()))

    @property
    def range(self) -> tuple[float, float]:
        """Between which values two handles lie; at an end, a handle lets everything through."""
        low, high = self.handles
        step = (self.bounds[1] - self.bounds[0]) * 1e-3
        return (
            -np.inf if low <= self.bounds[0] + step else low,
            np.inf if high >= self.bounds[1] - step else high,
        )

    def _moved(self, _: object) -> None:
        self.update()
        self.moved.emit(self.handles)
        self._timer.start()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's
        painter = QPainter(self)
        wide = (self.width() - 2 * INSET_PX) / max(1, len(self._heights))
        places = np.searchsorted(self.handles, self._middles, side="right").tolist()
        for number, (height, place) in enumerate(zip(self._heights, places, strict=True)):
            high = float(height) * (BARS_PX - 1)
            left = INSET_PX + number * wide
            bar = QRectF(left, BARS_PX - 1 - high, max(1.0, wide - 1), high)
            painter.fillRect(bar, QColor(*self._parts[place]))
        painter.fillRect(QRectF(0, BARS_PX - 1, self.width(), 1), QColor(*DIM))
        painter.end()

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's
        """The nearest handle follows the pointer."""
        low, high = self.bounds
        share = (event.position().x() - INSET_PX) / max(1, self.width() - 2 * INSET_PX)
        value = float(np.clip(low + share * (high - low), low, high))
        handles = list(self.handles)
        handles[int(np.argmin(np.abs(np.array(handles) - value)))] = value
        self.slider.setValue(tuple(sorted(handles)))

    mouseMoveEvent = mousePressEvent  # noqa: N815 - Qt's
