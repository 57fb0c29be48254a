"""Tabs that sort cells: by thresholds in a histogram, or like cells that were clicked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from napari.utils.notifications import show_info
from numpy.typing import NDArray
from qtpy.QtCore import QSignalBlocker
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QColorDialog, QDoubleSpinBox, QFileDialog, QFormLayout, QHBoxLayout

from cellseg.derive import Recipe
from cellseg.derive.classes import Classification, classes_of, classify, limits_of, named
from cellseg.derive.clicks import click_on, made_of, read_classes, to_look_at, write_classes
from cellseg.derive.scores import Blocks, labelling, spatial_blocks
from cellseg.derive.threshold import propose
from cellseg.errors import CellsegError, SettingsError
from cellseg.palette import OTHER, PALETTE, RGB, as_hex
from cellseg.protocol import Marker
from cellseg.table.summary import labelled
from cellseg.table.taught import Click, TaughtClasses, looks, measurements_of
from cellseg_napari._inspect import Inspector
from cellseg_napari._panel import Tab, attempt, button, choice, fill, wrapped
from cellseg_napari._views import HistogramSlider
from cellseg_napari._words import legend, measurement, menu

KINDS = (("positive, negative", 1), ("1+, 2+, 3+", 3))

DRAWN = 40
"""Cells that are drawn for Next, which shows the one that is in most doubt among them: the most
doubtful ones of all are alike, and teach less (docs/lab/teach.md)."""

HOW = (
    "type a class, and click ten or twenty of its cells, spread over the slide; then another class"
)


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

    def begin(self) -> None:
        """Colour the cells: by what was chosen here, or by the thresholds that were saved."""
        made = Classification.of(self.opened.result.run)
        if self.marker is not None:
            self.edited()
        elif made is not None and len(made.markers) == 1:
            (marker,) = made.markers
            self._take(marker.measure, limits_of(marker))
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
        values = opened.column(measure).astype(np.float64)
        self._values = np.where(opened.cells.by_hand(), np.nan, values)
        for box, data in ((self.measure, measure), (self.kind, len(handles))):
            with QSignalBlocker(box):
                box.setCurrentIndex(box.findData(data))
        names = classes_of([marker_of(measure, handles)])
        parts = opened.result.colours(names)
        self.histogram.draw(self._values, parts, handles)
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
        if self.marker is not None:
            self.state.setText(said(self._codes, self.marker, self._blocks))

    def edited(self) -> None:
        if self.marker is not None:
            self._take(self.marker.measure, limits_of(self.marker))

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


def said(codes: NDArray[np.int16], marker: Marker, blocks: Blocks | None = None) -> str:
    """Scores and counts of cells by their classes for a person; the interval with ``blocks``."""
    names = classes_of([marker])
    scored = labelling(codes, len(names), blocks)
    classes = zip(names, scored["grades"], strict=True)
    counts = ", ".join(f"{number:,} {name}" for name, number in classes)
    return f"{labelled({'name': named(marker), **scored})}\n{counts}"


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
        tip = "The class of the cells that you click now; type a new one"
        self.name = choice(tip, editable=True)
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
        """What all cells, as corrected, look like: (cells, measurements)."""
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
        assert self.taught is not None
        scores, counts, lines = self.taught.scores(), self.taught.counts(self._found), []
        for place, name in enumerate(self.taught.names):
            said = f"{legend([name], [self.colours.get(name, OTHER)])}: {(codes == place).sum():,}"
            if name in scores:
                said += " (95 %: {1:,} … {2:,}); ".format(*counts[name])
                said += "{} clicks, precision {:.2f}, recall {:.2f}".format(*scores[name])
            lines.append(said)
        return "<br>".join(lines)

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
        self.save_classes(taught=self._known() if self.clicks else None)

    def export(self, path: Path | None) -> None:
        taught = self._known()
        asked = str(path or QFileDialog.getSaveFileName(self, "Classes", "classes.json")[0])
        if asked:
            write_classes(taught, Path(asked))
            show_info(f"classes: {asked}")

    def load(self, path: Path | None) -> None:
        asked = str(path or QFileDialog.getOpenFileName(self, "Classes", "", "*.json")[0])
        if asked:
            self._take(read_classes(Path(asked)))
            self._learn()
