"""``cellseg view``."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import click

from cellseg.cli._options import Place
from cellseg.errors import InputError, SettingsError
from cellseg.storage import Location

_PROBE = """
from qtpy.QtGui import QGuiApplication, QOpenGLContext
app = QGuiApplication([])
raise SystemExit(0 if QOpenGLContext().create() else "the display has no OpenGL")
"""
"""Run in a process of its own, because Qt aborts the process that it cannot serve."""

_PROBE_SECONDS = 60


@click.command(
    epilog="""\b
Examples:
  cellseg view slide.cellseg
  cellseg view slide.svs"""
)
@click.argument("path", metavar="RESULT_OR_IMAGE", type=Place())
def view(path: Location) -> None:
    """Show a result folder, or a slide alone, in napari.

    The slide is read as you zoom, in µm. Over a result lie its masks, and a panel beside them
    shows, colours, filters and corrects the cells; beside a slide alone, a panel counts it.
    """
    if not isinstance(path, Path) or not path.exists():
        raise InputError(f"{path}: no such file or folder")
    require_napari()
    require_display()
    import napari
    from npe2 import PluginManager

    plugins = PluginManager.instance()
    plugins.discover()
    plugins.commands.execute("cellseg-slides.view", args=(path,))
    napari.run()


def require_napari() -> None:
    """Say in one line what to install.

    Raises
    ------
    SettingsError
        If napari, or the Qt binding that its window needs, is not installed.
    """
    bindings = ("PySide6", "PyQt6")
    if importlib.util.find_spec("napari") is None or not any(
        importlib.util.find_spec(name) for name in bindings
    ):
        raise SettingsError('cellseg view needs napari: pip install ".[napari]"')


def has_display() -> bool:
    """Whether windows can open at all; on Linux a display must be named."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def require_display() -> None:
    """Say in one line why no window can open, before Qt ends the process.

    Raises
    ------
    SettingsError
        If there is no display, or Qt or OpenGL do not work on it.
    """
    if not has_display():
        raise SettingsError(
            "cellseg view needs a display: neither DISPLAY nor WAYLAND_DISPLAY is set "
            "(cellseg serve shows results in a web browser, over ssh too)"
        )
    if sys.platform in ("darwin", "win32"):
        return
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SettingsError("cellseg view: the display does not answer") from None
    if probe.returncode:
        lines = [line.strip() for line in probe.stderr.splitlines() if line.strip()]
        why = lines[0] if lines else f"Qt ended with {probe.returncode}"
        raise SettingsError(f"cellseg view cannot open a window: {why}")
