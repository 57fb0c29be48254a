"""A histogram of one measurement with a range slider under it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QRectF, QTimer, Signal
from qtpy.QtGui import QColor, QPainter, QPaintEvent
from qtpy.QtWidgets import QVBoxLayout, QWidget
from superqt import QLabeledDoubleRangeSlider

BINS = 64
WAIT_MS = 150

BRIGHT, DIM = "#4c9be8", "#5a626c"


class _Bars(QWidget):  # type: ignore[misc]
    """Bars, and those between the handles brighter. (matplotlib would take a second to load.)"""

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumHeight(64)
        self.counts: NDArray[np.int64] = np.zeros(0, np.int64)
        self.kept: NDArray[np.bool_] = np.zeros(0, np.bool_)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        if not self.counts.size or not self.counts.max():
            return
        painter = QPainter(self)
        wide, high = self.width() / len(self.counts), float(self.height() - 1)
        for place, (count, kept) in enumerate(zip(self.counts, self.kept, strict=True)):
            tall = high * float(count) / float(self.counts.max())
            colour = QColor(BRIGHT if kept else DIM)
            painter.fillRect(QRectF(place * wide, high - tall, max(1.0, wide - 1), tall), colour)
        painter.fillRect(QRectF(0, high, self.width(), 1), QColor(DIM))
        painter.end()


class HistogramRange(QWidget):  # type: ignore[misc]
    """Emits ``range_changed(low, high)`` when the slider has rested for a moment."""

    range_changed = Signal(float, float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._bars = _Bars()
        self.slider = QLabeledDoubleRangeSlider()
        self.slider.setToolTip("Only cells between the two handles are shown")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._bars)
        layout.addWidget(self.slider)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(WAIT_MS)
        self._timer.timeout.connect(self._tell)
        self.slider.valueChanged.connect(self._moved)
        self.bounds = (0.0, 1.0)
        self._edges: NDArray[np.float64] = np.linspace(0, 1, BINS + 1)

    def set_values(self, values: NDArray[np.float64], name: str) -> None:
        """Draw the histogram; the slider spans all values."""
        finite = values[np.isfinite(values)].astype(np.float64)
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        if high <= low:
            low, high = low - 0.5, low + 0.5
        self.bounds = (low, high)
        self._bars.counts, self._edges = np.histogram(finite, BINS, (low, high))
        self._bars.setToolTip(f"{name}: {low:.4g} … {high:.4g}")
        self.slider.blockSignals(True)
        self.slider.setDecimals(max(0, int(np.ceil(2 - np.log10(high - low)))))
        self.slider.setRange(low, high)
        self.slider.setValue((low, high))
        self.slider.blockSignals(False)
        self._shade()

    def _shade(self) -> None:
        low, high = self.range
        middles = (self._edges[1:] + self._edges[:-1]) / 2
        self._bars.kept = (middles >= low) & (middles <= high)
        self._bars.update()

    @property
    def range(self) -> tuple[float, float]:
        """What the handles say; at the ends, everything."""
        low, high = (float(v) for v in self.slider.value())
        step = (self.bounds[1] - self.bounds[0]) * 1e-3
        return (
            -np.inf if low <= self.bounds[0] + step else low,
            np.inf if high >= self.bounds[1] - step else high,
        )

    def _moved(self, _: object) -> None:
        self._shade()
        self._timer.start()

    def _tell(self) -> None:
        self.range_changed.emit(*self.range)
