"""The dock widget that counts: settings, progress, pause and cancel."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import napari
from magicgui.widgets import Container, Label, ProgressBar, PushButton
from napari.utils.notifications import show_info

from cellseg.errors import CellsegError, Notice
from cellseg.events import CountResult, Started, TileDone
from cellseg_napari._attempt import tell
from cellseg_napari._background import Background
from cellseg_napari._count import request_of
from cellseg_napari._count_form import CountForm
from cellseg_napari._docked import WhenClosed
from cellseg_napari._pipeline import Counting
from cellseg_napari._preview import Preview
from cellseg_napari._words import in_fields

if TYPE_CHECKING:
    from cellseg.counting.request import CountRequest
    from cellseg.events import Event
    from cellseg.network.detector import Detector


class CountWidget(CountForm):
    """Count the cells of a layer or a file."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        self.counting: Counting | None = None
        self._job: Background[Event] | None = None
        self._preview: Preview | None = None
        self._closed = False
        self.start: Any = PushButton(text="Count", tooltip="Start, or go on where it stopped")
        self.pause: Any = PushButton(
            text="Pause", enabled=False, tooltip="Rest after the tile that is under way"
        )
        self.cancel: Any = PushButton(
            text="Cancel", enabled=False, tooltip="Stop; what is done is kept for the next start"
        )
        self.progress: Any = ProgressBar(value=0, max=1, visible=False)
        self.said: Any = Label(value="")
        row = Container(
            widgets=[self.start, self.pause, self.cancel], layout="horizontal", labels=False
        )
        self.extend([row, self.progress, self.said])
        self.said.native.setWordWrap(True)
        self.start.changed.connect(self.begin)
        self.pause.changed.connect(self.pause_or_go_on)
        self.cancel.changed.connect(self.stop)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self._layers_changed)
        self.native.destroyed.connect(self._close)
        self._when_closed = WhenClosed(self.native, self._taken_out)
        self._layers_changed()

    def _layers_changed(self, _: object = None) -> None:
        if not self._closed and (why := self.offer()) and self.counting is None:
            self.said.value = why

    def begin(self) -> None:
        """Start counting; a message where the form does not make sense."""
        if self.counting is not None:
            return
        try:
            self.run(request_of(self.form()))
        except CellsegError as error:
            self.said.value = tell(error)

    def run(self, request: CountRequest, detector: Detector | None = None) -> None:
        """Count in a thread."""
        self.counting = Counting(request, detector)
        form = self.form()
        self._preview = Preview(self.viewer, None if form.file else form.layer)
        self._busy(True)
        self.said.value = "loading the network …"
        self._job = Background(
            self.native, self.counting.events(), each=self._show, ended=self._ended
        )
        self._job.start()

    def pause_or_go_on(self) -> None:
        """Rest between two tiles, or go on."""
        if self.counting is None:
            return
        if self.counting.is_paused:
            self.counting.go_on()
            self.pause.text = "Pause"
        else:
            self.counting.pause()
            self.pause.text = "Go on"

    def stop(self) -> None:
        """End after the tile that is under way; what is done is kept."""
        if self.counting is None:
            return
        self.counting.stop()
        self.said.value = "stopping after this tile …"
        self.pause.enabled = self.cancel.enabled = False

    def _show(self, event: Event) -> None:
        if self._closed or self._preview is None:
            return
        if isinstance(event, Notice):
            show_info(in_fields(event))
        elif isinstance(event, Started):
            self.progress.max = max(1, event.tiles)
            self.said.value = in_fields(event.text)
        elif isinstance(event, TileDone):
            self.progress.value = event.done
            self.said.value = event.line
        elif isinstance(event, CountResult):
            warnings = [in_fields(warning) for warning in event.warnings]
            self.said.value = "\n\n".join([str(event.summary), *warnings])
        try:
            self._preview.show(event)
        except CellsegError as error:
            tell(error)

    def _ended(self, error: Exception | None) -> None:
        said = None if error is None else tell(error)
        stopped = self.counting is not None and self.counting.is_stopped
        self.counting = self._job = None
        if self._closed:
            return
        if self._preview is not None:
            self._preview.end()
        if said or stopped:
            self.said.value = said or "stopped; Count goes on where it was"
        self._busy(False)

    def _busy(self, busy: bool) -> None:
        self.start.enabled = not busy
        self.pause.enabled = self.cancel.enabled = self.progress.visible = busy
        self.pause.text = "Pause"
        self.progress.value = 0

    def _taken_out(self) -> None:
        """The panel was closed, and with it the only way to stop a run: it stops."""
        if self._closed:
            return
        if self.counting is not None:
            show_info("the count stops after this tile; what is done is kept for the next start")
        if self._preview is not None:
            self._preview.end()
        self._close()

    def _close(self, _: object = None) -> None:
        """The window goes: end after the tile under way, touch no widget any more."""
        self._closed = True
        for event in (self.viewer.layers.events.inserted, self.viewer.layers.events.removed):
            with suppress(ValueError, RuntimeError):
                event.disconnect(self._layers_changed)
        if self.counting is not None:
            self.counting.stop()
