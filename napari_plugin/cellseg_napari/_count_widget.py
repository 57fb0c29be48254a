"""The dock widget that counts: settings, progress, pause and cancel."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import napari
from magicgui.widgets import Container, create_widget
from napari.layers import Image
from napari.utils.notifications import show_info
from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QVBoxLayout

from cellseg.counting.request import CountRequest
from cellseg.errors import CellsegError, Notice
from cellseg.events import CountResult, Event, Started, TileDone
from cellseg.network.detector import Detector
from cellseg.slide import open_slide
from cellseg.text import visible
from cellseg_napari._count import Preview, count, how_to_keep, request_of
from cellseg_napari._opened import drawn_layers, opened_of
from cellseg_napari._panel import DockPanel, Job, button, tell, wrapped
from cellseg_napari._reader import COUNTED_KEY, SLIDE_KEY
from cellseg_napari._words import DRAWN, WIDGETS, in_fields


class CountForm(Container):  # type: ignore[misc]
    """The fields of :data:`WIDGETS`, each a widget of its name."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        self._viewer = viewer
        self._offered: Image | None = None
        made = [_widget(name) for name in WIDGETS]
        self._further = made[[*WIDGETS].index("more") + 1 :]
        super().__init__(widgets=made)
        self.layer.choices = self._images
        self.shapes.choices = lambda _: drawn_layers(viewer)
        for changed in (self.where, self.more, self.layer, self.file):
            changed.changed.connect(self._show_fields)
        self._show_fields()

    def _images(self, _: object) -> list[Image]:
        layers = self._viewer.layers
        return [layer for layer in layers if isinstance(layer, Image) and not opened_of(layer)]

    def _slide(self) -> tuple[int, list[str]]:
        """Planes and channels of the slide that is chosen; no channels of a picture in colour."""
        about = self.layer.value.metadata.get(SLIDE_KEY, {}) if self.layer.value else {}
        file = _path(self.file.value) or _path(about.get("path"))
        with suppress(CellsegError):
            if file is not None:
                with open_slide(file, series=about.get("series") or 0) as slide:
                    return slide.size_z, [] if slide.is_rgb else [*slide.channels]
        return 1, []

    def offer(self) -> str:
        """Choices as the viewer's layers are now; says why a layer was filled in."""
        self.layer.reset_choices()
        self.shapes.reset_choices()
        if self.shapes.value is None and (drawn := drawn_layers(self._viewer)):
            self.shapes.value = drawn[-1]
        images = self._images(None)
        if not images or self.layer.value not in (None, self._offered):
            return ""  # what a person chose stays
        one, why = self.layer.value or images[-1], ""
        slide = one.metadata.get(SLIDE_KEY, {}).get("path")
        for layer in images:  # a slide's channels come one by one
            about = layer.metadata.get(SLIDE_KEY, {})
            if COUNTED_KEY in about and about["path"] == slide:
                first, _, _ = about[COUNTED_KEY].partition(";")
                one, why = layer, f"{first}; choose another layer to take another channel"
        self._offered = self.layer.value = one
        return why

    def _show_fields(self, _: object = None) -> None:
        """Those that matter for what is chosen."""
        planes, channels = self._slide()
        self.z.visible, self.cells_from.visible = planes > 1, len(channels) > 1
        self.z.choices = ["max", "mean", *range(planes)] if planes > 1 else []
        several = channels if len(channels) > 1 else ()
        self.cells_from.choices = [(visible(one), str(n)) for n, one in enumerate(several)]
        self.shapes.visible = self.where.value == DRAWN
        for field in self._further:
            field.visible = self.more.value

    def filled(self) -> dict[str, Any]:
        """What :func:`request_of` takes; None where something is left open."""
        given = {name: getattr(self, name).value for name in WIDGETS if name != "more"}
        given |= {name: _path(given[name]) for name in ("file", "output", "model")}
        numbers = [name for name, (kind, *_) in WIDGETS.items() if kind == "FloatSpinBox"]
        return given | {name: given[name] or None for name in numbers} | {"viewer": self._viewer}


def _widget(name: str) -> Any:  # noqa: ANN401 - magicgui's
    kind, label, tooltip, value, given = WIDGETS[name]
    options = {"tooltip": tooltip, **given}
    nothing = options.pop("nothing", "")
    if kind == "CheckBox":
        options["text"] = label
    options["nullable"] = kind == "FileEdit" or (kind == "ComboBox" and nothing)
    made = create_widget(value, name=name, label=label, widget_type=kind, options=options)
    if kind == "ComboBox":
        made.null_string = nothing
        made.reset_choices()
    elif nothing:
        made.native.setSpecialValueText(nothing)
        made.native.setDecimals(4 if made.step < 1 else 0)  # pixel sizes have four digits
    return made


def _path(value: object) -> Path | None:
    """A file edit's value; an empty one is the current folder, or None."""
    text = str(value) if value is not None else ""
    return Path(text) if text not in ("", ".") else None


class CountWidget(DockPanel):
    """Count the cells of a layer or a file."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        self.form = CountForm(viewer)
        self.job: Job | None = None
        self._preview = Preview(viewer)
        self.start = button("Count", "Start, or go on where it stopped", self.begin)
        self.pause = button("Pause", "Rest after the tile that is under way", self.toggle_pause)
        self.cancel = button("Cancel", "Stop; what is done is kept for the next start", self.stop)
        self.progress = QProgressBar()
        self.said = wrapped()
        row = QHBoxLayout()
        for one in (self.start, self.pause, self.cancel):
            row.addWidget(one)
        layout = QVBoxLayout(self.content)
        layout.addWidget(self.form.native)
        layout.addLayout(row)
        layout.addWidget(self.progress)
        layout.addWidget(self.said)
        layout.addStretch()
        self._busy(False)
        self.layers_changed()

    def layers_changed(self) -> None:
        if (why := self.form.offer()) and self.job is None:
            self.said.setText(why)

    def begin(self) -> None:
        """Start counting; a message where the form does not make sense."""
        if self.job is None:
            try:
                self.run(request_of(**self.form.filled()))
            except CellsegError as error:
                self.said.setText(tell(error))

    def run(self, request: CountRequest, detector: Detector | None = None) -> None:
        form = self.form.filled()
        counted = None if form["file"] else form["layer"]
        self._preview = Preview(self.viewer, counted)
        self._busy(True)
        self.said.setText("loading the network …")
        self.job = Job(self, count(request, detector), each=self._show, ended=self._ended)
        self.job.start()

    def toggle_pause(self) -> None:
        if self.job is not None:
            self.job.toggle_pause()
            self.pause.setText("Go on" if self.job.is_paused else "Pause")

    def stop(self) -> None:
        """End after the tile that is under way; what is done is kept."""
        if self.job is not None:
            self.job.quit()
            self.said.setText("stopping after this tile …")
            self.pause.setEnabled(False)
            self.cancel.setEnabled(False)

    def _show(self, event: Event) -> None:
        if self.closed:
            return
        if isinstance(event, Notice):
            show_info(in_fields(event))
        elif isinstance(event, Started):
            self.progress.setMaximum(max(1, event.tiles))
            self.said.setText(in_fields(event.text))
        elif isinstance(event, TileDone):
            self.progress.setValue(event.done)
            self.said.setText(event.line)
        elif isinstance(event, CountResult):
            warnings = [in_fields(warning) for warning in event.warnings]
            told = [str(event.summary), how_to_keep(event.folder), *warnings]
            self.said.setText("\n\n".join(filter(None, told)))
        try:
            self._preview.show(event)
        except CellsegError as error:
            tell(error)

    def _ended(self, error: Exception | None) -> None:
        stopped = self.job is not None and self.job.abort_requested
        self.job = None
        said = "stopped; Count goes on where it was" if stopped else ""
        if error is not None:
            said = tell(error)
        if not self.closed:
            self._preview.end()
            self.said.setText(said or self.said.text())
            self._busy(False)

    def _busy(self, busy: bool) -> None:
        self.start.setEnabled(not busy)
        for one in (self.pause, self.cancel):
            one.setEnabled(busy)
        self.pause.setText("Pause")
        self.progress.setValue(0)
        self.progress.setVisible(busy)

    def leave(self) -> None:
        """The panel was closed, and with it the only way to stop a run: it stops."""
        if self.job is not None:
            show_info("the count stops after this tile; what is done is kept for the next start")
        self._preview.end()

    def let_go(self) -> None:
        """The window goes: end after the tile under way, touch no widget any more."""
        super().let_go()
        if self.job is not None:
            self.job.quit()
