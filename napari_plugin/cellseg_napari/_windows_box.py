"""Windows to correct, one after the other, and a model that learns from those that are done."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QFileDialog, QGridLayout, QListWidget, QVBoxLayout, QWidget

from cellseg.errors import CellsegError
from cellseg.result.publish import WINDOWS
from cellseg_napari._inspect import Inspector
from cellseg_napari._opened import camera_of
from cellseg_napari._panel import attempt, button, in_thread, wrapped

if TYPE_CHECKING:
    from cellseg.train.windows import Window

COUNT, SHOWN_PX = 10, 500
"""Windows that are looked for, and how large one is shown, pixels of the screen."""

HOW = (
    "Find windows tells where to look. Correct all cells in some of them (tab Correct), and set "
    "each Done: what is not outlined in it is background. Then Learn, three minutes."
)


class WindowsBox(QWidget):  # type: ignore[misc]
    """The windows of a result; ``changed``: they are others, or others of them are done."""

    changed = Signal()

    def __init__(self, inspector: Inspector) -> None:
        super().__init__()
        self.inspector = inspector
        self.windows: list[Window] = []
        self.list = QListWidget()
        self.list.setToolTip("✓: done. A click flies there")
        self.list.setWordWrap(True)
        self.list.currentRowChanged.connect(partial(attempt, self.look))
        self.state = wrapped(HOW)
        actions = (
            ("Find windows", "The ten windows that are worth most to correct; those that are done "
             "stay", self.find),
            ("Next", "Fly to the next window that is not done", self.next),
            ("Done", "All cells of this window are right now; once more takes it back", self.done),
            ("Learn …", "Teach the model by the windows that are done, and judge it; it is written "
             "to a file only if it counts better", partial(self.learn, None)),
        )  # fmt: skip
        self.buttons = {name: button(name, tip, action) for name, tip, action in actions}
        grid = QGridLayout()
        for number, one in enumerate(self.buttons.values()):
            grid.addWidget(one, *divmod(number, 2))
        layout = QVBoxLayout(self)
        layout.addWidget(self.list, stretch=1)
        layout.addLayout(grid)
        layout.addWidget(self.state)

    def begin(self) -> None:
        """List the windows that lie in the result folder."""
        # Imported late, here and below: its libraries take a while to load.
        from cellseg.train.windows import read_windows

        result = self.inspector.opened.result
        self._show(read_windows(result) if result.file(WINDOWS).exists() else [])

    def _show(self, windows: list[Window]) -> None:
        self.windows, row = windows, self.list.currentRow()
        with QSignalBlocker(self.list):
            self.list.clear()
            for one in windows:
                self.list.addItem(f"{'✓' if one.done else '  '} {one.name}  {one.reason}")
            self.list.setCurrentRow(min(row, len(windows) - 1))

    def find(self) -> None:
        """Choose windows."""
        from cellseg.train.windows import teach_windows

        def found(windows: list[Window]) -> None:
            self._show(windows)
            self.changed.emit()
            self.next()

        work = partial(teach_windows, self.inspector.opened.result.path, COUNT)
        in_thread(self, work, done=found, buttons=self.buttons.values())

    def look(self) -> None:
        """Show the window that is chosen in the list."""
        box, frame = self._chosen().box, self.inspector.opened.result.frame
        pixel, camera = frame.downsample * (frame.mpp or 1.0), camera_of(self.inspector.viewer)
        camera.center = (0.0, (box.y0 + box.y1) / 2 * pixel, (box.x0 + box.x1) / 2 * pixel)
        camera.zoom = SHOWN_PX / (max(box.shape) * pixel)

    def _chosen(self) -> Window:
        row: int = self.list.currentRow()
        if row < 0:
            raise CellsegError("find windows first, and choose one")
        return self.windows[row]

    def next(self) -> None:
        """Fly to the next window that is not done."""
        left = [row for row, one in enumerate(self.windows) if not one.done]
        if not left:
            raise CellsegError("all windows are done" if self.windows else "find windows first")
        here = self.list.currentRow()
        self.list.setCurrentRow(next((row for row in left if row > here), left[0]))

    def done(self) -> None:
        """The chosen window is corrected, or is not."""
        from cellseg.train.windows import write_windows

        chosen = self._chosen()
        windows = [
            one._replace(done=not one.done) if one is chosen else one for one in self.windows
        ]
        write_windows(self.inspector.opened.result, windows)
        self._show(windows)
        self.changed.emit()

    def learn(self, path: Path | None) -> None:
        """Teach the model; the state tells how it counts before and after."""
        asked = str(path or QFileDialog.getSaveFileName(self, "Model", "taught.safetensors")[0])
        if not asked:
            return
        self.state.setText("learning, up to three minutes …")
        work = partial(_taught, self.inspector.opened.result.path, asked)
        say = self.state.setText
        in_thread(self, work, done=say, failed=say, buttons=self.buttons.values())


def _taught(result: Path, model: str) -> str:
    """What ``cellseg teach`` says; in a process of its own, as torch and OpenGL may not get along.

    Raises
    ------
    CellsegError
        If it does not teach.
    """
    command = [sys.executable, "-m", "cellseg", "teach", str(result), "-o", model]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise CellsegError(ended.stderr.strip().rpartition("\n")[2].removeprefix("cellseg: "))
    return ended.stdout.strip()
