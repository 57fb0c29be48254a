"""The dock widget that counts: settings, progress, pause and cancel."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
from magicgui.types import FileDialogMode
from magicgui.widgets import (
    CheckBox,
    ComboBox,
    Container,
    FileEdit,
    FloatSpinBox,
    Label,
    ProgressBar,
    PushButton,
)
from napari.layers import Image, Shapes
from napari.utils.notifications import show_error, show_info, show_warning

from cellseg.counting.remaining import in_words
from cellseg.errors import CellsegError, unexpected_text
from cellseg.protocol import shipped_protocols
from cellseg.slide.formats import ENDINGS
from cellseg.text import visible_lines
from cellseg_napari._background import Background
from cellseg_napari._count import (
    AUTOMATIC,
    REGIONS,
    Counting,
    Form,
    Preview,
    offered,
    settings_of,
)
from cellseg_napari._docked import WhenClosed
from cellseg_napari._opened import opened_of
from cellseg_napari._pipeline import pipeline

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cellseg.counting.request import CountRequest
    from cellseg.pipeline.run import Event, TileDone

logger = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda", "mps")

SUFFIXES = f"Slides ({' '.join(f'*{ending}' for ending in ENDINGS)})"


class CountWidget(Container):  # type: ignore[misc]
    """Count the cells of a layer or a file.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        self.viewer = viewer
        self.counting: Counting | None = None
        self._job: Background[Event] | None = None
        self._preview: Preview | None = None
        self._closed = False
        self._offered: Image | None = None
        self.layer: Any = ComboBox(
            label="image", nullable=True, choices=self._images, tooltip="A layer to count"
        )
        self.file: Any = FileEdit(
            label="or a file", mode=FileDialogMode.EXISTING_FILE, filter=SUFFIXES, nullable=True,
            tooltip="A slide that is not open yet; takes the place of the layer",
        )  # fmt: skip
        self.protocol: Any = ComboBox(
            label="protocol", choices=[AUTOMATIC, *shipped_protocols()],
            tooltip="The assay: scale, score and size limits that belong to it",
        )  # fmt: skip
        self.mpp: Any = FloatSpinBox(
            label="µm per pixel", min=0.0, max=100.0, step=0.05, value=0.0,
            tooltip="Pixel size at full resolution; 0 takes what the file says",
        )  # fmt: skip
        self.diameter: Any = FloatSpinBox(
            label="diameter, px", min=0.0, max=10_000.0, step=1.0, value=0.0,
            tooltip="Where the pixel size is unknown: how many pixels a usual nucleus measures "
            "across; 0 leaves it open",
        )  # fmt: skip
        self.device: Any = ComboBox(
            label="device", choices=list(DEVICES), tooltip="Where the network runs"
        )
        self.where: Any = ComboBox(
            label="region", choices=list(REGIONS),
            tooltip="Everything, what is in sight, or what you drew in a shapes layer",
        )  # fmt: skip
        self.shapes: Any = ComboBox(
            label="shapes", nullable=True, choices=self._shapes, visible=False,
            tooltip="The layer with the rectangles, ellipses or polygons",
        )  # fmt: skip
        self.output: Any = FileEdit(
            label="results in", mode=FileDialogMode.EXISTING_DIRECTORY, nullable=True,
            tooltip="Folder for the result; beside the slide if left empty",
        )  # fmt: skip
        self.overwrite: Any = CheckBox(
            text="overwrite", value=False,
            tooltip="Replace a result of other settings (--overwrite); otherwise it is refused",
        )  # fmt: skip
        self.start: Any = PushButton(text="Count", tooltip="Start, or go on where it stopped")
        self.pause: Any = PushButton(
            text="Pause", enabled=False, tooltip="Rest after the tile that is under way"
        )
        self.cancel: Any = PushButton(
            text="Cancel", enabled=False, tooltip="Stop; what is done is kept for the next start"
        )
        self.progress: Any = ProgressBar(value=0, max=1, visible=False)
        self.said: Any = Label(value="")
        buttons = Container(
            widgets=[self.start, self.pause, self.cancel], layout="horizontal", labels=False
        )
        super().__init__(
            widgets=[
                self.layer, self.file, self.protocol, self.mpp, self.diameter, self.device,
                self.where, self.shapes, self.output, self.overwrite,
                buttons, self.progress, self.said,
            ]
        )  # fmt: skip
        self.said.native.setWordWrap(True)
        self.start.changed.connect(self.begin)
        self.pause.changed.connect(self.pause_or_go_on)
        self.cancel.changed.connect(self.stop)
        self.where.changed.connect(self._show_shapes)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self._layers_changed)
        self.native.destroyed.connect(self._close)
        self._when_closed = WhenClosed(self.native, self._taken_out)
        self._layers_changed()

    # The form

    def _images(self, _: object) -> list[Image]:
        layers = self.viewer.layers
        return [layer for layer in layers if isinstance(layer, Image) and not opened_of(layer)]

    def _shapes(self, _: object) -> list[Shapes]:
        return [
            layer
            for layer in self.viewer.layers
            if isinstance(layer, Shapes) and not layer.metadata.get("cellseg_role")
        ]

    def _layers_changed(self, _: object = None) -> None:
        if self._closed:
            return
        self.layer.reset_choices()
        self.shapes.reset_choices()
        images = self._images(None)
        if images and self.layer.value in (None, self._offered):
            # A slide's channels come one by one; what a person chose stays.
            self._offered, why = offered(images, self.layer.value)
            self.layer.value = self._offered
            if self.counting is None and why:
                self.said.value = why
        if self.shapes.value is None and (drawn := self._shapes(None)):
            self.shapes.value = drawn[-1]

    def _show_shapes(self, where: str) -> None:
        self.shapes.visible = where == "drawn shapes"

    def form(self) -> Form:
        """What is filled in."""
        return Form(
            file=_path(self.file.value),
            layer=self.layer.value,
            protocol=self.protocol.value,
            mpp=self.mpp.value,
            diameter_px=self.diameter.value,
            device=self.device.value,
            where=self.where.value,
            shapes=self.shapes.value,
            output=_path(self.output.value),
            overwrite=self.overwrite.value,
        )

    # The run

    def begin(self) -> None:
        """Start counting; a message where the form does not make sense."""
        if self.counting is not None:
            return
        try:
            settings = settings_of(self.form())
        except CellsegError as error:
            show_warning(visible_lines(str(error)))
            return
        self.run(settings)

    def run(self, request: CountRequest | Mapping[str, Any], **options: Any) -> None:  # noqa: ANN401
        """Count in a thread; ``options`` go to :func:`cellseg.pipeline.run.run`."""
        self.counting = Counting(request, **options)
        self._preview = Preview(self.viewer)
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
        made = pipeline()
        if isinstance(event, made.Note):
            show_info(visible_lines(event.text))
        elif isinstance(event, made.Started):
            self.progress.max = max(1, event.tiles)
            self.said.value = visible_lines(event.text)
        elif isinstance(event, made.TileDone):
            self.progress.value = event.done
            self.said.value = _so_far(event)
        elif isinstance(event, made.CountResult):
            self.said.value = str(event.cells.summary)
            for warning in event.cells.warnings:
                logger.info("%s", warning)
        try:
            self._preview.show(event)
        except CellsegError as error:
            show_error(visible_lines(str(error)))

    def _failed(self, error: Exception) -> None:
        """What went wrong, in one line; finished tiles are in the journal."""
        if not isinstance(error, CellsegError):
            logger.error("counting failed", exc_info=error)
        text = visible_lines(
            str(error) if isinstance(error, CellsegError) else unexpected_text(error)
        )
        if not self._closed:
            self.said.value = text
        show_error(text)

    def _ended(self, error: Exception | None) -> None:
        if error is not None:
            self._failed(error)
        stopped = self.counting is not None and self.counting.is_stopped
        self.counting = self._job = None
        if self._closed:
            return
        if self._preview is not None:
            self._preview.end()
        if stopped:
            self.said.value = "stopped; Count goes on where it was"
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


def _so_far(event: TileDone) -> str:
    said = f"{event.cells:,} cells so far, tile {event.done:,} of {event.total:,}"
    left = event.seconds_left
    return said if left is None else f"{said}, {in_words(left)}"


def _path(value: object) -> Path | None:
    """A file edit's value; an empty one is the current folder, or None."""
    text = str(value) if value is not None else ""
    return Path(text) if text not in ("", ".") else None
