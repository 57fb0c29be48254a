"""`cellseg view` where it cannot open a window: one clear line."""

from __future__ import annotations

import importlib.util
import sys

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
