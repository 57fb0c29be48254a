"""Windows to correct, one after the other, and a model that learns from those that are done."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QProcess, QSignalBlocker, Signal
from qtpy.QtWidgets import QFileDialog, QListWidget, QVBoxLayout

from cellseg.annotations.region import Regions
from cellseg.counting.request import CountRequest
from cellseg.errors import CellsegError
from cellseg.events import CountResult, Event, TileDone
from cellseg.result.publish import WINDOWS
from cellseg_napari._count import Preview, count, scratch
from cellseg_napari._inspect import Inspector
from cellseg_napari._opened import camera_of, canvas_of, in_sight
from cellseg_napari._panel import Job, Tab, attempt, tell
from cellseg_napari._reader import one_colour
from cellseg_napari._words import legend

if TYPE_CHECKING:
    from cellseg.train.windows import Window

COUNT, MINUTES, SHOWN = 10, 3.0, 0.9
"""Windows that are looked for; how long learning may take; of the canvas what a window fills."""

HOW = (
    "Find windows tells where to look. Correct all cells in some of them (tab Correct), and set "
    "each Done: what is not outlined in it is background. Then Learn, three minutes, and Recount."
)


class WindowsBox(Tab):
    """The windows of a result; ``changed``: they are others, or others of them are done."""

    changed = Signal()

    def __init__(self, inspector: Inspector) -> None:
        actions = (
            ("Find windows", "The ten to correct first; those that are done stay", self.find),
            ("Next", "Fly to the next window that is not done", self.next),
            ("Done", "All cells of this window are right now; once more takes it back", self.done),
            ("Learn …", "Teach the model by the windows that are done, and judge it; it is written "
             "to a file only if it counts better", partial(self.learn, None)),
            ("Recount in sight", "Count what the canvas shows with the taught model; the first "
             "count stays", self.recount),
            ("Recount slide", "Count all of it with the taught model, as a result beside the "
             "first one", partial(self.recount, whole=True)),
            ("Stop", "End learning or counting", self.stop),
        )  # fmt: skip
        super().__init__(inspector, actions, columns=2)
        self.keys = {"Next": self.next}
        self.windows: list[Window] = []
        self.process = QProcess(self)  # torch and OpenGL may not get along in one
        self.process.finished.connect(self._learned)
        self.preview = Preview(inspector.viewer)
        self.job: Job | None = None  # a count, whose layers are no other result to be shown
        self._before: list[tuple[int, list[Window]]] = []
        self.list = QListWidget()
        self.list.setToolTip("✓: done. A click flies there")
        self.list.setWordWrap(True)
        self.list.currentRowChanged.connect(partial(attempt, self.look))
        self.state.setText(HOW)
        layout = QVBoxLayout(self)
        layout.addWidget(self.list, stretch=1)
        layout.addLayout(self.grid)
        layout.addWidget(self.state)
        self.busy(False)

    def busy(self, busy: bool) -> None:
        """To count again needs a taught model; what is under way can be stopped."""
        for name, one in self.buttons.items():
            can = self.opened.taught is not None or not name.startswith("Recount")
            one.setEnabled(busy == (name == "Stop") and can)

    def begin(self) -> None:
        # Imported late, here and below: its libraries take a while to load.
        from cellseg.train.windows import read_windows

        result = self.opened.result
        self._show(read_windows(result) if result.file(WINDOWS).exists() else [])

    def _show(self, windows: list[Window]) -> None:
        self.windows, row = windows, self.list.currentRow()
        with QSignalBlocker(self.list):
            self.list.clear()
            for one in windows:
                self.list.addItem(f"{'✓' if one.done else '  '} {one.name}  {one.reason}")
            self.list.setCurrentRow(min(row, len(windows) - 1))

    def find(self) -> None:
        from cellseg.train.windows import teach_windows

        def found(windows: list[Window]) -> None:
            self._before.clear()
            self._write(windows)
            self.next()

        self.in_thread(partial(teach_windows, self.opened.result.path, COUNT), found)
        self.buttons["Stop"].setEnabled(False)

    def look(self) -> None:
        box, frame = self._chosen().box, self.opened.result.frame
        pixel, camera = frame.downsample * (frame.mpp or 1.0), camera_of(self.inspector.viewer)
        camera.center = (0.0, (box.y0 + box.y1) / 2 * pixel, (box.x0 + box.x1) / 2 * pixel)
        camera.zoom = SHOWN * canvas_of(self.inspector.viewer).min() / (max(box.shape) * pixel)

    def _chosen(self) -> Window:
        row: int = self.list.currentRow()
        if row < 0:
            raise CellsegError("find windows first, and choose one")
        return self.windows[row]

    def next(self) -> None:
        left = [row for row, one in enumerate(self.windows) if not one.done]
        if not left:
            raise CellsegError("all windows are done" if self.windows else "find windows first")
        here = self.list.currentRow()
        self.list.setCurrentRow(next((row for row in left if row > here), left[0]))

    def done(self) -> None:
        chosen, edits = self._chosen(), self.opened.corrections.edits
        self._before.append((len(edits), self.windows))
        self._write([o._replace(done=not o.done) if o is chosen else o for o in self.windows])

    def undo(self) -> bool:
        """Take the last Done back; False where there is none, or a correction is newer."""
        corrections = self.opened.corrections
        if not self._before or self._before[-1][0] != len(corrections.edits):
            return False
        self._write(self._before.pop()[1])
        return True

    def _write(self, windows: list[Window]) -> None:
        from cellseg.train.windows import write_windows

        write_windows(self.opened.result, windows)
        self._show(windows)
        self.changed.emit()

    def stop(self) -> None:
        self.process.kill()
        self.preview.end()
        if self.job is not None:
            self.job.quit()

    def learn(self, path: Path | None) -> None:
        """Teach the model; the state tells how it counts before and after."""
        asked = str(path or QFileDialog.getSaveFileName(self, "Model", "taught.safetensors")[0])
        if asked:
            self.busy(True)
            self.state.setText("learning, up to three minutes …")
            given = (str(self.opened.result.path), "-o", asked, "-m", str(MINUTES))
            self.process.start(sys.executable, ["-m", "cellseg", "teach", *given])

    def _learned(self, code: int) -> None:
        told = bytes(self.process.readAllStandardOutput()).decode().strip()
        if "taught model: " in told:
            self.opened.taught = Path(self.process.arguments()[5]).absolute()
        if code:
            said = bytes(self.process.readAllStandardError()).decode().strip().rpartition("\n")[2]
            told = tell(CellsegError(said.removeprefix("cellseg: "))) if said else "stopped"
        self.state.setText(told)
        self.busy(False)

    def recount(self, *, whole: bool = False) -> None:
        """Count with the taught model; the state tells both counts, the first one stays."""
        viewer, opened, cells = self.inspector.viewer, self.opened, self.inspector.layer
        if (model := opened.taught) is None:
            raise CellsegError("learn first: there is no taught model")
        result, settings = opened.result, opened.result.section("settings")
        view = None if whole else in_sight(viewer, cells, result.frame.mpp or 1.0, 0.0)
        request = CountRequest(
            image=result.find_slide(),
            output=result.path.parent if whole else scratch(),
            folder_name=f"{result.path.stem} {model.stem}.cellseg",
            model=model,
            channel=settings.get("channel"),
            diameter_px=settings.get("diameter_px"),
            regions=Regions.of([view]) if view else result.regions(),
            overwrite=not whole,
            **result.slide_options,
        )
        places = opened.cells.table(["centroid_y_px", "centroid_x_px"]).to_numpy()
        before = view.contains(*places.T).sum() if view else len(places)

        def show(event: Event) -> None:
            self.preview.show(event)
            if isinstance(event, TileDone):
                self.state.setText(event.line)
            elif isinstance(event, CountResult):
                colour = event.result.colours(("cells", "around"))[1]
                viewer.layers[-1].colormap = one_colour(colour)
                now = legend([f"{event.summary.cells:,} now"], [colour])
                where = f"in {event.folder.name}" if whole else "in sight"
                self.state.setText(f"{where}: {before:,} before, {now}")

        def ended(error: Exception | None) -> None:
            self.preview.end()
            self.busy(False)
            if error is not None or job.abort_requested:
                self.state.setText("stopped" if error is None else tell(error))
            self.job = None

        self.busy(True)
        job = self.job = Job(self, count(request), each=show, ended=ended)
        job.start()
