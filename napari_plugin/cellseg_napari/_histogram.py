"""A histogram of one measurement with a range slider under it."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget
from superqt import QLabeledDoubleRangeSlider

BINS = 64
WAIT_MS = 150


class HistogramRange(QWidget):  # type: ignore[misc]
    """Emits ``range_changed(low, high)`` when the slider has rested for a moment."""

    range_changed = Signal(float, float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._figure = Figure(figsize=(3, 1.1), facecolor="none", layout="constrained")
        self._canvas = FigureCanvasQTAgg(self._figure)
        self._canvas.setMinimumHeight(90)
        self._canvas.setStyleSheet("background: transparent")
        self._axes = self._figure.subplots()
        self.slider = QLabeledDoubleRangeSlider()
        self.slider.setToolTip("Only cells between the two handles are shown")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._canvas)
        layout.addWidget(self.slider)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(WAIT_MS)
        self._timer.timeout.connect(self._tell)
        self.slider.valueChanged.connect(lambda _: self._timer.start())
        self.bounds = (0.0, 1.0)

    def set_values(self, values: NDArray[np.float64], name: str) -> None:
        """Draw the histogram; the slider spans all values."""
        finite = values[np.isfinite(values)].astype(np.float64)
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        if high <= low:
            low, high = low - 0.5, low + 0.5
        self.bounds = (low, high)
        axes = self._axes
        axes.clear()
        if finite.size:
            axes.hist(finite, bins=BINS, range=(low, high), color="#4c9be8")
        axes.set_xlim(low, high)
        axes.set_yticks([])
        axes.set_xlabel(name, fontsize=7, color="#909090")
        axes.tick_params(axis="x", labelsize=7, colors="#909090")
        axes.set_facecolor("none")
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color("#909090")
        self._canvas.draw_idle()
        self.slider.blockSignals(True)
        self.slider.setDecimals(max(0, int(np.ceil(2 - np.log10(high - low)))))
        self.slider.setRange(low, high)
        self.slider.setValue((low, high))
        self.slider.blockSignals(False)

    @property
    def range(self) -> tuple[float, float]:
        """What the handles say; at the ends, everything."""
        low, high = (float(v) for v in self.slider.value())
        step = (self.bounds[1] - self.bounds[0]) * 1e-3
        return (
            -np.inf if low <= self.bounds[0] + step else low,
            np.inf if high >= self.bounds[1] - step else high,
        )

    def _tell(self) -> None:
        self.range_changed.emit(*self.range)
