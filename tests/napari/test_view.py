"""`cellseg view`: a real window and what a person sees, or one clear line."""

import importlib.util
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from cellseg.cli.view import require_display, require_napari, view
from cellseg.errors import InputError, SettingsError

linux = pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="a display is always there")


@pytest.mark.parametrize("missing", [{"napari"}, {"PySide6", "PyQt6"}])
def test_napari_that_is_not_installed(missing, monkeypatch):
    found = {"napari", "PySide6", "PyQt6"} - missing
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: object() if name in found else None
    )
    with pytest.raises(SettingsError, match=r'pip install "\.\[napari\]"') as error:
        require_napari()
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)


@linux
def test_no_display(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingsError, match="DISPLAY"):
        require_display()


@linux
def test_display_that_does_not_answer(monkeypatch):
    pytest.importorskip("qtpy", reason='napari is not installed: pip install ".[napari]"')
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("QT_QPA_PLATFORM", raising=False)
    monkeypatch.setenv("DISPLAY", ":987")
    with pytest.raises(SettingsError, match="cannot open a window: ") as error:
        require_display()
    assert "\n" not in str(error.value)
    if "libxcb" in str(error.value):
        pytest.skip(f"{error.value} (tools/install-display.sh)")
    assert ":987" in str(error.value)


def test_path_that_does_not_exist(tmp_path):
    outcome = CliRunner().invoke(view, [str(tmp_path / "none.cellseg")])
    assert isinstance(outcome.exception, InputError)
    assert "none.cellseg" in str(outcome.exception)


@pytest.fixture
def opened(display, result, tmp_path, monkeypatch):
    from cellseg_napari._reader import open_viewer

    monkeypatch.setenv("NAPARI_CONFIG", str(tmp_path / "napari.yaml"))
    viewer = open_viewer(result)
    yield viewer
    viewer.close()


def without_and_with_masks(viewer):
    """The canvas without masks, (H, W, 3), and where masks change it."""
    cells = viewer.layers["slide: class"]
    seen = []
    for cells.visible in (False, True):
        pixels = viewer.screenshot(canvas_only=True, flash=False)
        seen.append(np.asarray(pixels)[..., :3].astype(int))
    return seen[0], (seen[0] != seen[1]).any(axis=2)


def test_result_folder_in_a_window(opened, picture):
    assert opened.title == "slide.cellseg"
    assert picture(opened, "result").std() > 10
    plain, changed = without_and_with_masks(opened)
    assert plain.std() > 10, "the slide should be drawn"
    assert changed.any(), "the masks should be drawn"
    assert changed.mean() < 0.05, "over the slide, not instead of it"


def test_zooming_in_loads_the_fine_level(opened, picture):
    opened.camera.center = (3.5, 6.5)
    opened.camera.zoom = 100
    picture(opened, "zoomed")
    assert [opened.layers[name].data_level for name in ("slide", "slide: class")] == [0, 0]
    # The first cell, 4 × 6 µm, is in the middle of the canvas now.
    plain, changed = without_and_with_masks(opened)
    y, x = np.nonzero(changed)
    height, width = plain.shape[:2]
    # Its centre: lattice (13.5, 25.5), that is (7, 13) µm from the corner, minus half a pixel.
    expected = np.array([6.875 - 3.5, 12.875 - 6.5]) * 100 + [height / 2, width / 2]
    visible = (y.min(), x.min())
    assert visible == pytest.approx((expected[0] - 200, expected[1] - 300), abs=3)
