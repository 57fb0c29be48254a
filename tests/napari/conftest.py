"""A slide and a result folder that the plugin's tests look at."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from finished import copied, counted, frame_of, measured
from synthetic import PyramidLayout, draw_discs, write_pyramid
from window import SETTINGS, inspecting

from cellseg.cli.view import require_display
from cellseg.counting.request import CountRequest
from cellseg.errors import SettingsError
from cellseg.instances import Instances

# Warnings are errors here, but what napari's own modules say while they are imported is theirs.
with warnings.catch_warnings(), suppress(ImportError):
    warnings.simplefilter("ignore")
    for name in ("napari.components", "napari.layers", "napari.utils.notifications", "npe2"):
        importlib.import_module(name)

PLUGIN = ("napari", "cellseg_napari")
if not all(map(importlib.util.find_spec, PLUGIN)):  # pip install ".[napari]"
    collect_ignore_glob = ["test_[!v]*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What napari, Qt and vispy say about themselves while a window is open is theirs."""
    for item in items:
        if "display" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.window)
            item.add_marker(pytest.mark.filterwarnings("ignore"))


MPP = 0.25
CORNERS = ((10, 20), (300, 400))
"""Corner (y, x) of each cell on the lattice, whose pixels are 2 level-0 px wide."""
CELL = (8, 12)


def _write_slide(path: Path, *, mpp: float | None = MPP) -> Path:
    """A tiled RGB TIFF, 1200 × 1600 px in two levels; a pixel of level 0 tells its place."""
    y, x = np.indices((1200, 1600))
    pixels = np.stack([y % 251, x % 241, (y + x) % 239], axis=-1).astype(np.uint8)
    half = pixels.reshape(600, 2, 800, 2, 3).mean(axis=(1, 3)).astype(np.uint8)
    options = {"tile": (256, 256), "photometric": "rgb"}
    tags = {} if mpp is None else {"resolution": (1e4 / mpp,) * 2, "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, subifds=1, **options, **tags)
        tiff.write(half, subfiletype=1, **options)
    return path


def _write_result(folder: Path, slide: Path, *, mpp: float | None = MPP) -> Path:
    """Two cells of two classes, finished."""
    boxes = [(y, x, y + CELL[0], x + CELL[1]) for y, x in CORNERS]
    cells = Instances.build(boxes, [0.9, 0.8], [0, 1], [np.ones(CELL, bool)] * 2)
    frame = frame_of(1200, 1600, downsample=2.0, mpp=mpp)
    about = {"image": {"path": slide.name}, "settings": {"z": None, "t": None}}
    return measured(folder, cells, frame, ["tumour", "other"], **about).path


@pytest.fixture
def write_slide():
    """For another pixel size."""
    return _write_slide


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Two slides with their results; a result waits for the disk, so they are made once."""
    home = tmp_path_factory.mktemp("made")
    for name, mpp in (("slide", MPP), ("plain", None)):
        slide = _write_slide(home / f"{name}.tif", mpp=mpp)
        _write_result(home / f"{name}.cellseg", slide, mpp=mpp)
    return home


@pytest.fixture
def slide(tmp_path, made_once):
    """1200 × 1600 px RGB, 0.25 µm/px; pixel (y, x) is (y % 251, x % 241, (y + x) % 239)."""
    return Path(shutil.copy(made_once / "slide.tif", tmp_path))


@pytest.fixture
def result(tmp_path, made_once):
    """Cells of 8 × 12 lattice px at (10, 20) and (300, 400); a lattice px is 0.5 µm wide."""
    return copied(made_once / "slide.cellseg", tmp_path)


@pytest.fixture
def result_in_px(tmp_path, made_once):
    """The same without pixel size."""
    return copied(made_once / "plain.cellseg", tmp_path)


@pytest.fixture
def messages(monkeypatch):
    """What napari was told to show."""
    from napari.utils import notifications

    found: list[str] = []
    monkeypatch.setattr(notifications, "show_warning", found.append)
    return found


@pytest.fixture
def viewer():
    """A viewer without a window."""
    from napari.components import ViewerModel

    model = ViewerModel()
    yield model
    model.layers.clear()


@pytest.fixture(scope="session")
def display():
    """Skips what needs a window where none can open."""
    if sys.platform == "linux":
        try:
            require_display()
        except SettingsError as error:
            pytest.skip(f"{error} (tools/with-display.sh starts one)")


@pytest.fixture
def picture():
    """A window's pixels; kept where CELLSEG_SCREENSHOTS says, for people to look at."""

    def take(viewer: Any, name: str) -> np.ndarray:
        pixels = np.asarray(viewer.screenshot(canvas_only=False, flash=False))
        if folder := os.environ.get("CELLSEG_SCREENSHOTS"):
            from skimage.io import imsave

            Path(folder).mkdir(parents=True, exist_ok=True)
            imsave(Path(folder) / f"{name}.png", pixels[..., :3], check_contrast=False)
        return pixels

    return take


@pytest.fixture
def window(display, tmp_path, monkeypatch):
    """A viewer with a real window."""
    import napari

    monkeypatch.setenv("NAPARI_CONFIG", str(tmp_path / "napari.yaml"))
    found = napari.Viewer()
    found.window.resize(1500, 1000)
    yield found
    found.close()


@pytest.fixture
def panel(window, counted_discs):
    """The panel beside the counted discs."""
    return inspecting(window, counted_discs)


@pytest.fixture
def shown(panel):
    """Its tabs for the result."""
    return panel.shown


@pytest.fixture
def told():
    """What went to napari's notification area."""
    from napari.utils.notifications import notification_manager

    found: list[str] = []

    def hear(notification: Any) -> None:
        found.append(str(notification.message))

    notification_manager.notification_ready.connect(hear)
    yield found
    notification_manager.notification_ready.disconnect(hear)


@pytest.fixture(scope="session")
def discs_once(tmp_path_factory):
    """A slide of 374 discs, every other one more strongly stained, and its result."""
    path = tmp_path_factory.mktemp("discs") / "discs.tif"
    drawn = draw_discs((700, 900), np.random.default_rng(7))
    drawn.image[drawn.labels % 2 == 1] = (72, 45, 105)
    write_pyramid(path, drawn.image, layout=PyramidLayout(mpp=0.5, tile_px=128))
    counted(CountRequest(image=path, **SETTINGS))
    return path


@pytest.fixture
def discs(tmp_path, discs_once):
    """The slide alone."""
    return Path(shutil.copy(discs_once, tmp_path))


@pytest.fixture
def counted_discs(tmp_path, discs_once):
    """Its result, the slide beside it."""
    return copied(discs_once.with_suffix(".cellseg"), tmp_path)
