"""Classes by clicking: name some cells, and all cells take the colours of those they are like."""

from __future__ import annotations

from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from napari.utils.notifications import show_info
from numpy.typing import NDArray
from qtpy.QtCore import QSignalBlocker
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QColorDialog,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
)

from cellseg.derive import Recipe
from cellseg.derive.clicks import click_on, made_of, read_classes, to_look_at, write_classes
from cellseg.errors import CellsegError, SettingsError
from cellseg.palette import OTHER, PALETTE, RGB, as_hex
from cellseg.table.taught import Click, TaughtClasses, looks, measurements_of
from cellseg_napari._inspect import Inspector
from cellseg_napari._panel import attempt, button
from cellseg_napari._tab import Tab
from cellseg_napari._words import legend

DRAWN = 40
"""Cells that are drawn for Next, which shows the one that is in most doubt among them: the most
doubtful ones of all are alike, and teach less (docs/lab/teach.md)."""

HOW = (
    "type a class, and click ten or twenty of its cells, spread over the slide; then another class"
)


class TeachBox(Tab):
    """Choose a class, click cells of it; save what follows with the result, or as a file."""

    def __init__(self, inspector: Inspector) -> None:
        actions = (
            ("Next", "Fly to a cell that is in doubt, and click it if you know it", self.next),
            ("Take back", "Forget the last click", self.undo),
            ("Save classes", "Write the classes into the result's table and record", self.save),
            ("To file …", "Write the classes as a file, for other results",
             partial(self.export, None)),
            ("From file …", "Go on with the classes of another result", partial(self.load, None)),
        )  # fmt: skip
        super().__init__(inspector, actions)
        self.keys = {"Next": self.next, "Undo": self.undo}
        self.clicks: list[Click] = []
        self.colours: dict[str, RGB] = {}
        self.taught: TaughtClasses | None = None
        self._base: dict[str, Any] = {}
        self._looks: NDArray[np.float32] | None = None
        self._found: NDArray[np.float64] = np.zeros((0, 0))
        self._rng = np.random.default_rng(0)
        self.name = QComboBox()
        self.name.setEditable(True)
        self.name.setToolTip("The class of the cells that you click now; type a new one")
        self.name.currentTextChanged.connect(lambda _: self._tell_colour())
        self.colour = button("", "The colour of this class", self.choose_colour)
        self.unsure = QDoubleSpinBox()
        self.unsure.setRange(0, 0.95)
        self.unsure.setSingleStep(0.05)
        self.unsure.setToolTip("Cells that no class has with this probability become 'unsure'")
        self.unsure.valueChanged.connect(lambda _: attempt(self._learn))
        self.state.setText(HOW)
        form = QFormLayout(self)
        row = QHBoxLayout()
        row.addWidget(self.name, stretch=1)
        row.addWidget(self.colour)
        form.addRow("class", row)
        form.addRow("unsure below", self.unsure)
        form.addRow(self.state)
        form.addRow(self.grid)

    def begin(self) -> None:
        """Look at all cells; go on with the clicks that were saved."""
        opened = self.opened
        if not self._base and (known := Recipe.of(opened.result).taught) is not None:
            self._take(known)
        elif not self._base:
            known_columns = measurements_of(opened.rows.dtypes.items())
            self._base = {"measurements": known_columns, "made_of": made_of(opened.result)}
        self.edited()

    def edited(self) -> None:
        """The cells are others."""
        self._looks = None
        self._learn()

    def _take(self, taught: TaughtClasses) -> None:
        to_look_at(self.opened.result, self.opened.rows.names,
                   taught.measurements)  # fmt: skip
        self._base = {"measurements": taught.measurements, "made_of": taught.made_of}
        self.clicks, self.colours = [*taught.clicks], dict(taught.colours)
        self.unsure.setValue(taught.unsure)
        self._looks = None

    def _tell_colour(self) -> None:
        rgb = self.colours.get(self.name.currentText().strip(), OTHER)
        self.colour.setStyleSheet(f"background: {as_hex(rgb)}")

    def choose_colour(self) -> None:
        name = self._named()
        chosen = QColorDialog.getColor(QColor(*self.colours.get(name, OTHER)), self)
        if chosen.isValid():
            self.colours[name] = chosen.getRgb()[:3]
            self._learn()

    def _named(self) -> str:
        if name := str(self.name.currentText()).strip()[:60]:
            return name
        raise SettingsError("type the name of a class first")

    def clicked(self, label: int) -> None:
        """A person says of what class a cell is."""
        opened, name = self.opened, self._named()
        row = int(np.searchsorted(opened.cells.labels(), label))
        at = opened.cells.row(label)
        place = (float(at["centroid_y_px"]), float(at["centroid_x_px"]))
        click = click_on(opened.result, label, name, place, self._seen()[row])
        self.clicks = [c for c in self.clicks if (c.result, c.label) != (click.result, label)]
        self.clicks.append(click)
        free = (one for one in PALETTE if one not in self.colours.values())
        self.colours.setdefault(name, next(free, OTHER))
        self._learn()

    def _seen(self) -> NDArray[np.float32]:
        """What all cells, as corrected, look like."""
        if self._looks is None:
            opened, known = self.opened, self._base["measurements"]
            columns = to_look_at(opened.result, opened.rows.names, known)
            self._looks = looks(opened.cells.table(columns), known)
        return self._looks

    def _learn(self) -> None:
        """All cells take the colours that follow from the clicks; counts are told."""
        opened, text = self.opened, self.name.currentText()
        counts = {name: sum(c.name == name for c in self.clicks) for name in self.colours}
        labels, names = opened.cells.labels(), [name for name, number in counts.items() if number]
        try:
            self.taught = TaughtClasses.of(
                **self._base,
                colours={name: self.colours[name] for name in names},
                unsure=self.unsure.value(),
                clicks=tuple(self.clicks),
            )
            names = self.taught.names
            self._found = self.taught.probabilities(self._seen())
            codes = self.taught.codes(self._found, labels, opened.result.token)
            said = self._told(codes)
        except SettingsError as error:
            self.taught, codes = None, np.full(len(labels), len(names))
            for one in (c for c in self.clicks if c.result == opened.result.token):
                codes[labels == one.label] = names.index(one.name)
            few = ", ".join(f"{number} {name}" for name, number in counts.items() if number)
            said = escape(f"{few}: {error}") if few else HOW
        palette = [*(self.colours.get(name, OTHER) for name in names), OTHER]
        self.inspector.show_codes(codes, palette, "clicked classes")
        self.state.setText(said)
        with QSignalBlocker(self.name):
            self.name.clear()
            self.name.addItems([*self.colours])
            self.name.setCurrentText(text)
        self._tell_colour()

    def _told(self, codes: NDArray[np.int64]) -> str:
        """A line a class."""
        assert self.taught is not None
        scores, counts, lines = self.taught.scores(), self.taught.counts(self._found), []
        for place, name in enumerate(self.taught.names):
            said = f"{legend([name], [self.colours.get(name, OTHER)])}: {(codes == place).sum():,}"
            if name in scores:
                said += " (95 %: {1:,} … {2:,}); ".format(*counts[name])
                said += "{} clicks, precision {:.2f}, recall {:.2f}".format(*scores[name])
            lines.append(said)
        return "<br>".join(lines)

    # What the buttons do

    def _known(self) -> TaughtClasses:
        if self.taught is None:
            raise CellsegError("click two cells of each of two classes first")
        return self.taught

    def next(self) -> None:
        """A cell in doubt: whose two best classes are nearly alike."""
        self._known()
        opened, found = self.opened, np.sort(self._found, axis=1)
        labels = opened.cells.labels()
        some = self._rng.choice(len(labels), min(DRAWN, len(labels)), replace=False)
        doubt = found[some, -1] - found[some, -2]
        here = [click.label for click in self.clicks if click.result == opened.result.token]
        doubt[np.isin(labels[some], here)] = np.inf
        self.inspector.fly_to(int(labels[some[doubt.argmin()]]))

    def undo(self) -> None:
        if not self.clicks:
            raise CellsegError("nothing was clicked")
        self.clicks.pop()
        self._learn()

    def save(self) -> None:
        """Write the classes into the result, or none where nothing is clicked any more."""
        taught = self._known() if self.clicks else None
        self.save_classes(taught=taught)

    def export(self, path: Path | None) -> None:
        taught = self._known()
        asked = str(path or QFileDialog.getSaveFileName(self, "Classes", "classes.json")[0])
        if asked:
            write_classes(taught, Path(asked))
            show_info(f"classes: {asked}")

    def load(self, path: Path | None) -> None:
        """Take the classes of a file, and its clicks."""
        asked = str(path or QFileDialog.getOpenFileName(self, "Classes", "", "*.json")[0])
        if asked:
            self._take(read_classes(Path(asked)))
            self._learn()
