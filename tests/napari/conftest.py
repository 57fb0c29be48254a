"""A slide and a result folder that the plugin's tests look at."""

import importlib.util
import os
import shutil
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from finished import copied, counted, frame_of, measured
from squares import squares
from synthetic import PyramidLayout, draw_discs, write_pyramid
from window import SETTINGS, inspecting

from cellseg.cli.view import require_display
from cellseg.counting.request import CountRequest
from cellseg.errors import SettingsError

# Warnings are errors here, but what napari's own modules say while they are imported is theirs.
with warnings.catch_warnings(), suppress(ImportError):
    warnings.simplefilter("ignore")
    for name in ("napari.components", "napari.layers", "napari.utils.notifications", "npe2"):
        importlib.import_module(name)

PLUGIN = ("napari", "cellseg_napari")
if not all(map(importlib.util.find_spec, PLUGIN)):  # pip install ".[napari]"
    collect_ignore_glob = ["test_[!v]*.py"]


def pytest_collection_modifyitems(items):
    """What napari, Qt and vispy say about themselves while a window is open is theirs."""
    for item in items:
        if "display" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.window)
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Two slides with results of two cells; a result waits for the disk, so they are made once."""
    home = tmp_path_factory.mktemp("made")
    cells = squares((10, 20, 18, 32), (300, 400, 308, 412), classes=[0, 1])
    y, x = np.indices((1200, 1600))
    pixels = np.stack([y % 251, x % 241, (y + x) % 239], axis=-1).astype(np.uint8)
    for name, mpp in (("slide", 0.25), ("plain", None)):
        write_pyramid(home / f"{name}.tif", pixels, layout=PyramidLayout(mpp=mpp, levels=2))
        about = {"image": {"path": f"{name}.tif"}, "settings": {"z": None, "t": None}}
        frame = frame_of(1200, 1600, downsample=2.0, mpp=mpp)
        measured(home / f"{name}.cellseg", cells, frame, ["tumour", "other"], **about)
    return home


@pytest.fixture
def slide(tmp_path, made_once):
    """1200 × 1600 px RGB in two levels, 0.25 µm/px; each pixel has a colour of its own."""
    return Path(shutil.copy(made_once / "slide.tif", tmp_path))


@pytest.fixture
def result(tmp_path, made_once):
    """Cells of 8 × 12 lattice px at (10, 20) and (300, 400); a lattice px is 0.5 µm wide."""
    return copied(made_once / "slide.cellseg", tmp_path)


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
    folder = os.environ.get("CELLSEG_SCREENSHOTS")

    def take(viewer, name):
        path = folder and Path(folder) / f"{name}.png"
        return np.asarray(viewer.screenshot(path, canvas_only=False, flash=False))

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

    found = []

    def hear(notification):
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
