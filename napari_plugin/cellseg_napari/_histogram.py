"""A histogram of one measurement, and handles that part it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QRectF, QSignalBlocker, Qt, QTimer, Signal
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent
from qtpy.QtWidgets import QVBoxLayout, QWidget
from superqt import QLabeledDoubleRangeSlider

BINS = 64
WAIT_MS = 150

SLIDER_PX = 52
"""Its height with the numbers above the handles, which it does not ask for itself."""

RGB = tuple[int, int, int]

BRIGHT, DIM = (76, 155, 232), (90, 98, 108)


class _Bars(QWidget):  # type: ignore[misc]
    """Bars in the colours of the parts they lie in. (matplotlib takes a second to load.)"""

    dragged = Signal(float)

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumHeight(64)
        self.setCursor(Qt.CursorShape.SizeHorCursor)
        self.heights: NDArray[np.float64] = np.zeros(0)
        self.colours: list[RGB] = []

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        if not self.heights.size or not self.heights.max():
            return
        painter = QPainter(self)
        wide, high = self.width() / len(self.heights), float(self.height() - 1)
        tall = self.heights / self.heights.max() * high
        for place, colour in enumerate(self.colours):
            bar = QRectF(place * wide, high - tall[place], max(1.0, wide - 1), tall[place])
            painter.fillRect(bar, QColor(*colour))
        painter.fillRect(QRectF(0, high, self.width(), 1), QColor(*DIM))
        painter.end()

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        self.mouseMoveEvent(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        self.dragged.emit(event.position().x() / max(1, self.width()))


class Histogram(QWidget):  # type: ignore[misc]
    """Bars, and a slider under them; the handles can be dragged in either.

    Attributes
    ----------
    moved, settled : Signal(tuple)
        Where the handles are: at once, and when they have rested for a moment.
    bounds : (float, float)
    """

    moved = Signal(tuple)
    settled = Signal(tuple)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._bars = _Bars()
        self._bars.dragged.connect(self._drag)
        self.slider = QLabeledDoubleRangeSlider(Qt.Orientation.Horizontal)
        self.slider.setMinimumHeight(SLIDER_PX)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._bars)
        layout.addWidget(self.slider)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(WAIT_MS)
        self._timer.timeout.connect(lambda: self.settled.emit(self.handles))
        self.slider.valueChanged.connect(self._moved)
        self.bounds = (0.0, 1.0)
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
        """Show a distribution.

        Parameters
        ----------
        counts : ndarray, int64, (B,)
            Bars grow with their root, so that a few cells are seen beside many.
        edges : ndarray, float64, (B + 1,)
        parts : sequence of (int, int, int)
            Colours below the first handle, between two, above the last one.
        """
        self.bounds = low, high = float(edges[0]), float(edges[-1])
        self._bars.heights = np.sqrt(counts)
        self._bars.setToolTip(f"{low:.4g} … {high:.4g}")
        self._middles, self._parts = (edges[1:] + edges[:-1]) / 2, parts
        with QSignalBlocker(self.slider):
            decimals = max(0, int(np.ceil(2 - np.log10(high - low))))
            self.slider.setDecimals(decimals)
            self.slider.setRange(low, high)
            self.slider.setValue(tuple(min(max(one, low), high) for one in handles))
            self.slider.setDecimals(decimals)  # of handles that are new, too
        self._shade()

    @property
    def handles(self) -> tuple[float, ...]:
        """Where they are, ascending."""
        return tuple(float(one) for one in self.slider.value())

    def _shade(self) -> None:
        place = np.searchsorted(self.handles, self._middles, side="right")
        self._bars.colours = [self._parts[n] for n in place.tolist()]
        self._bars.update()

    def _drag(self, share: float) -> None:
        """The nearest handle follows the pointer."""
        low, high = self.bounds
        value = float(np.clip(low + share * (high - low), low, high))
        handles = list(self.handles)
        handles[int(np.argmin(np.abs(np.array(handles) - value)))] = value
        self.slider.setValue(tuple(sorted(handles)))

    def _moved(self, _: object) -> None:
        self._shade()
        self.moved.emit(self.handles)
        self._timer.start()


class HistogramRange(Histogram):
    """Two handles; at its end, each of them lets everything through."""

    def __init__(self) -> None:
        super().__init__()
        self.slider.setToolTip("Only cells between the two handles are shown")

    def set_values(self, values: NDArray[np.float64]) -> None:
        """Draw the histogram; the slider spans all values."""
        finite = values[np.isfinite(values)].astype(np.float64)
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        if high <= low:
            low, high = low - 0.5, low + 0.5
        counts, edges = np.histogram(finite, BINS, (low, high))
        self.draw(counts, edges, handles=(low, high), parts=(DIM, BRIGHT, DIM))

    @property
    def range(self) -> tuple[float, float]:
        """What the handles say; at the ends, everything."""
        low, high = self.handles
        step = (self.bounds[1] - self.bounds[0]) * 1e-3
        return (
            -np.inf if low <= self.bounds[0] + step else low,
            np.inf if high >= self.bounds[1] - step else high,
        )
