"""What the colours of the cells mean: a bar with numbers, or a list of classes."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from cellseg.text import visible

HEIGHT_PX = 12


class ColourBar(QWidget):  # type: ignore[misc]
    """Empty until something is coloured.

    Attributes
    ----------
    numbers : list of QLabel
        Under the bar: at its left end, its middle and its right end.
    classes : QLabel
    """

    def __init__(self) -> None:
        super().__init__()
        self._bar = QLabel()
        self._bar.setScaledContents(True)
        self._bar.setFixedHeight(HEIGHT_PX)
        self.numbers = [QLabel() for _ in range(3)]
        self.classes = QLabel()
        self.classes.setWordWrap(True)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.addWidget(self._bar, 0, 0, 1, 3)
        sides = (Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignHCenter,
                 Qt.AlignmentFlag.AlignRight)  # fmt: skip
        for place, (number, side) in enumerate(zip(self.numbers, sides, strict=True)):
            grid.addWidget(number, 1, place, side)
        grid.addWidget(self.classes, 2, 0, 1, 3)
        self.clear()

    def clear(self) -> None:
        """Nothing is coloured."""
        for part in (self._bar, *self.numbers, self.classes):
            part.setVisible(False)

    def show_span(self, low: float, high: float) -> None:
        """A gradient from one value to another."""
        from napari.utils.colormaps import ensure_colormap

        self.clear()
        colours = ensure_colormap("viridis").map(np.linspace(0, 1, 256))
        self._bar.setPixmap(_pixmap(colours))
        self._bar.setVisible(True)
        for label, value in zip(self.numbers, (low, (low + high) / 2, high), strict=True):
            label.setText(f"{value:.4g}")
            label.setVisible(True)

    def show_classes(self, entries: Sequence[tuple[str, tuple[int, int, int]]]) -> None:
        """A square of its colour beside each name."""
        self.clear()
        self.classes.setText(
            "  ".join(
                f'<span style="color:rgb{colour}">■</span> {escape(visible(name), quote=False)}'
                for name, colour in entries
            )
        )
        self.classes.setVisible(True)


def _pixmap(colours: NDArray[np.floating]) -> QPixmap:
    """One row of pixels from (N, 4) colours, 0 … 1."""
    row = np.ascontiguousarray(np.rint(colours * 255).astype(np.uint8)[None])
    width = row.shape[1]
    image = QImage(row.data, width, 1, 4 * width, QImage.Format.Format_RGBA8888)
    return QPixmap.fromImage(image.copy())
