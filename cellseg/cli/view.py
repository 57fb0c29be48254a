"""``cellseg view``."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import click

from cellseg.cli._shared import PLACE
from cellseg.errors import InputError, SettingsError
from cellseg.storage import Location

_PROBE = """
from qtpy.QtGui import QGuiApplication, QOpenGLContext
app = QGuiApplication([])
raise SystemExit(0 if QOpenGLContext().create() else "the display has no OpenGL")
"""


@click.command(
    epilog="""\b
Examples:
  cellseg view slide.cellseg
  cellseg view slide.svs"""
)
@click.argument("path", metavar="RESULT_OR_IMAGE", type=PLACE)
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
    """Refuse where napari, or the Qt binding that its window needs, is not installed."""
    napari, *bindings = (importlib.util.find_spec(n) for n in ("napari", "PySide6", "PyQt6"))
    if napari is None or not any(bindings):
        raise SettingsError('cellseg view needs napari: pip install ".[napari]"')


def has_display() -> bool:
    """Whether windows can open at all; on Linux a display must be named."""
    named = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.platform in ("darwin", "win32") or bool(named)


def require_display() -> None:
    """Refuse where there is no display, or Qt or OpenGL do not work on it."""
    if not has_display():
        raise SettingsError(
            "cellseg view needs a display: neither DISPLAY nor WAYLAND_DISPLAY is set "
            "(cellseg serve shows results in a web browser, over ssh too)"
        )
    if sys.platform not in ("darwin", "win32") and (why := fault_of(_PROBE)):
        raise SettingsError(f"cellseg view cannot open a window: {why}")


def fault_of(code: str, wait_s: int = 60) -> str:
    """Why Python code ends badly, one line; empty where it ends well.

    In a process of its own, because Qt aborts the process that it cannot serve.
    """
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=wait_s, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {wait_s} s"
    if not done.returncode:
        return ""
    first, *others = [line.strip() for line in done.stderr.splitlines() if line.strip()] or [""]
    said = others[-1] if others and first.startswith("Traceback") else first
    return said[:200] or f"it crashed ({done.returncode})"
