"""The docs' pictures of napari, from the real window: ``python docs/napari_pictures.py FOLDER``.

Opens the immunohistochemistry field of napari's sample menu, counts it with the panel's own
button, selects and colours cells, and saves the window twice. Needs a display:
``tools/with-display.sh .venv/bin/python docs/napari_pictures.py docs/images``.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
from qtpy.QtWidgets import QApplication
from skimage.io import imsave

SECONDS = 600.0


def wait(until: Callable[[], bool] = lambda: False, seconds: float = SECONDS) -> None:
    """Let Qt work until something holds."""
    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.005)


def save(viewer: napari.Viewer, path: Path) -> None:
    """The whole window, as it is drawn now."""
    wait(seconds=1.0)
    pixels = viewer.screenshot(canvas_only=False, flash=False)[..., :3]
    imsave(path, pixels, check_contrast=False)
    sys.stdout.write(f"{path}\n")


def main(folder: Path, results: Path) -> None:
    """Count, classify, inspect; a picture of each."""
    viewer = napari.Viewer()
    viewer.window.resize(1400, 900)
    viewer.open_sample("cellseg-slides", "ihc")
    _, count = viewer.window.add_plugin_dock_widget("cellseg-slides", "Count cells")
    count.diameter_px.value = 10.0
    count.output.value = str(results)
    count.start.native.click()
    wait(lambda: count.counting is None)
    save(viewer, folder / "napari-count.png")
    viewer.window.remove_dock_widget("all")
    _, cells = viewer.window.add_plugin_dock_widget("cellseg-slides", "Inspect and correct cells")
    cells.tabs.setCurrentWidget(cells.classify)
    wait(lambda: cells.classify.parted is not None)
    cells.classify.histogram.slider.setValue((0.3,))
    save(viewer, folder / "napari-positive.png")
    cells.tabs.setCurrentWidget(cells.look)
    viewer.add_shapes(
        [np.array([[60.0, 60.0], [240.0, 330.0]])],
        shape_type="rectangle",
        face_color="transparent",
        edge_color="white",
        edge_width=2,
        name="my region",
    )
    cells.look.outlines.setChecked(False)
    cells.look.colour.setCurrentText("eccentricity")
    cells.inspector.select([120])
    save(viewer, folder / "napari-inspect.png")
    viewer.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(sys.argv[1]), Path(scratch))
