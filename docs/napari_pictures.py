"""The docs' pictures of napari, from the real window.

    napari_pictures.py SLIDE FOLDER [FIELD POINTS]

Opens an immunohistochemistry field, counts it with the panel's own button, colours cells,
proposes a threshold, teaches by windows, and saves the window each time. Needs a display:
``tools/with-display.sh .venv/bin/python docs/napari_pictures.py ki67_crop.tif docs/images``. With
a field of BRCA-M2C and its ``points.csv`` the cell types of that field are clicked besides.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
import pandas as pd
from cellseg_napari import _windows_box
from PIL import Image
from qtpy.QtWidgets import QApplication

import cellseg

SECONDS, UNSURE, WIDTH = 900.0, 0.75, 1280

# The picture shows the panel, not how much is learned.
_windows_box.MINUTES = 0.3


def wait(until: Callable[[], bool] = lambda: False, seconds: float = SECONDS) -> None:
    """Let Qt work until something holds."""
    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.005)


def save(viewer: napari.Viewer, path: Path) -> None:
    """The whole window, as it is drawn now."""
    wait(seconds=1.5)
    pixels = viewer.screenshot(canvas_only=False, flash=False)[..., :3]
    small = Image.fromarray(pixels).quantize(256, method=Image.Quantize.FASTOCTREE)
    small.save(path, optimize=True)
    sys.stdout.write(f"{path}\n")


def main(slide: Path, folder: Path, results: Path) -> None:
    """Count, inspect, classify, windows, teach; a picture of each."""
    viewer = napari.Viewer()
    viewer.window.resize(WIDTH, 800 * WIDTH // 1280)
    viewer.open(slide, plugin="cellseg-slides")
    _, count = viewer.window.add_plugin_dock_widget("cellseg-slides", "Count cells")
    count.form.protocol.value = "ihc"
    count.form.output.value = str(results)
    count.start.click()
    wait(lambda: count.job is None)
    viewer.reset_view()
    save(viewer, folder / "napari-count.png")
    viewer.window.remove_dock_widget("all")
    _, panel = viewer.window.add_plugin_dock_widget("cellseg-slides", "Inspect and correct cells")
    cells = panel.shown
    cells.look.colour.setCurrentText("area (µm²)")
    cells.inspector.fly_to(len(cells.inspector.opened.rows) // 2)
    viewer.camera.zoom *= 0.6
    save(viewer, folder / "napari-inspect.png")
    viewer.reset_view()
    cells.tabs.setCurrentWidget(cells.classify)
    wait(lambda: cells.classify.marker is not None)
    cells.classify.buttons["Propose"].click()
    save(viewer, folder / "napari-positive.png")
    box = cells.windows
    cells.look.colour.setCurrentText("one colour")
    cells.tabs.setCurrentWidget(cells.look)
    cells.inspector.select([])
    cells.tabs.setCurrentWidget(box)
    box.buttons["Find windows"].click()
    wait(lambda: bool(box.windows))
    # In place of a person: what the network was not sure of is taken for wrong.
    opened = cells.inspector.opened
    opened.corrections.delete((np.flatnonzero(opened.column("score") < UNSURE) + 1).tolist())
    for _ in range(4):
        box.buttons["Done"].click()
        box.buttons["Next"].click()
    save(viewer, folder / "napari-windows.png")
    box.learn(results / "taught.safetensors")
    wait(box.buttons["Done"].isEnabled)
    viewer.reset_view()
    viewer.scene.camera.zoom *= 1.6
    wait(seconds=1)
    box.buttons["Recount in sight"].click()
    wait(lambda: box.job is None)
    save(viewer, folder / "napari-recount.png")
    viewer.close()


def types(field: Path, points: Path, folder: Path, results: Path) -> None:
    """Up to seven cells of each annotated class are clicked; a picture of the colours."""
    cellseg.count(field, output=results, mpp=0.5, protocol="he_20x")
    viewer = napari.Viewer()
    viewer.window.resize(WIDTH, 800 * WIDTH // 1280)
    viewer.open(results / f"{field.stem}.cellseg", plugin="cellseg-slides")
    _, panel = viewer.window.add_plugin_dock_widget("cellseg-slides", "Inspect and correct cells")
    cells = panel.shown
    cells.tabs.setCurrentWidget(cells.teach)
    wait(seconds=2)
    rows = pd.read_csv(results / f"{field.stem}.cellseg" / "cells.csv")
    place = rows[["centroid_x_px", "centroid_y_px"]].to_numpy()
    known = pd.read_csv(points).query("image == @field.name")
    for name, group in known.groupby("class"):
        cells.teach.name.setCurrentText(name)
        for x, y in group[["x", "y"]].to_numpy()[:: max(1, len(group) // 7)][:7]:
            near = np.hypot(*(place - (x, y)).T)
            if near.min() < 6:
                cells.teach.clicked(int(rows["label"][near.argmin()]))
    viewer.reset_view()
    viewer.scene.camera.zoom *= 1.4
    save(viewer, folder / "napari-types.png")
    viewer.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(sys.argv[1]), Path(sys.argv[2]), Path(scratch))
        if len(sys.argv) > 3:
            types(Path(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[2]), Path(scratch))
