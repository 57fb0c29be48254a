"""A real napari window: what a person sees. Needs a display with OpenGL, or Xvfb and Mesa."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from cellseg_napari._reader import open_viewer

if TYPE_CHECKING:
    import napari


@pytest.fixture
def opened(display, tmp_path, monkeypatch):
    """Opens windows and closes them; napari's settings go to a scratch folder."""
    monkeypatch.setenv("NAPARI_CONFIG", str(tmp_path / "napari.yaml"))
    viewers: list[napari.Viewer] = []

    def open_(path: Path) -> napari.Viewer:
        viewers.append(open_viewer(path))
        return viewers[-1]

    yield open_
    for viewer in viewers:
        viewer.close()


Picture = Callable[..., np.ndarray]


def canvas(viewer: napari.Viewer) -> np.ndarray:
    """The canvas alone, (H, W, 3), int."""
    return np.asarray(viewer.screenshot(canvas_only=True, flash=False))[..., :3].astype(int)


def test_result_folder_in_a_window(opened, result, picture):
    viewer = opened(result)
    cells = viewer.layers["slide: class"]
    assert viewer.title == "slide.cellseg"
    assert picture(viewer, "result").std() > 10
    cells.visible = False
    plain = canvas(viewer)
    assert plain.std() > 10, "the slide should be drawn"
    cells.visible = True
    changed = np.abs(canvas(viewer) - plain).sum(axis=2) > 0
    assert changed.any(), "the masks should be drawn"
    assert changed.mean() < 0.05, "over the slide, not instead of it"


def test_zooming_in_loads_the_fine_level(opened, result, picture):
    viewer = opened(result)
    image, cells = viewer.layers["slide"], viewer.layers["slide: class"]
    viewer.camera.center = (3.5, 6.5)
    viewer.camera.zoom = 100
    picture(viewer, "zoomed")
    assert image.data_level == 0
    assert cells.data_level == 0
    # The first cell, 4 × 6 µm, is in the middle of the canvas now.
    cells.visible = False
    plain = canvas(viewer)
    cells.visible = True
    y, x = np.nonzero(np.abs(canvas(viewer) - plain).sum(axis=2))
    height, width = plain.shape[:2]
    # Its centre: lattice (13.5, 25.5), that is (7, 13) µm from the corner, minus half a pixel.
    expected = np.array([6.875 - 3.5, 12.875 - 6.5]) * 100 + [height / 2, width / 2]
    visible = (y.min(), x.min())
    assert visible == pytest.approx((expected[0] - 200, expected[1] - 300), abs=3)


def test_lost_slide_opens_with_a_notification(opened, slide, result, picture):
    from qtpy.QtWidgets import QApplication

    slide.unlink()
    viewer = opened(result)
    assert viewer.layers[0].name == "slide nucleus"
    assert "NapariQtNotification" in {type(w).__name__ for w in QApplication.allWidgets()}
    picture(viewer, "lost-slide")
