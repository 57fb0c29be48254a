"""Commands that show: ``info`` of an image, ``view`` in napari, ``serve`` in the web browser."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import click

from cellseg.cli._shared import PLACE, RESULT, say, shared
from cellseg.errors import CellsegError, InputError, PartialResultError, SettingsError
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


@click.command(
    epilog="""\b
Examples:
  cellseg serve slide.cellseg
  cellseg serve results/*.cellseg --no-browser
  cellseg serve slide.cellseg --edit
  cellseg serve slide.cellseg --port 8765     then, on your own computer:
  ssh -L 8765:127.0.0.1:8765 that-machine     and open the address here"""
)
@click.argument("paths", metavar="RESULT...", nargs=-1, required=True, type=RESULT)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Listen on this port of 127.0.0.1; on any that is free otherwise.",
)
@click.option("--browser/--no-browser", default=True, help="Open the address in a browser.")
@click.option(
    "--edit", is_flag=True, help="Let whoever looks draw regions; they are kept as drawn.geojson."
)
@shared("image")
def serve(
    paths: tuple[Path, ...], port: int | None, browser: bool, edit: bool, image: Location | None
) -> None:
    """Show results in the web browser: slide, outlines, measurements.

    Zoom to full resolution, outlines by class, a cell's measurements under the pointer, counts in
    a rectangle that you draw. Nothing is changed; with --edit regions can be drawn and are kept.
    Whoever has the address that is printed, with the token in it, can look, from this machine
    alone. Ctrl-C ends it.
    """
    if image is not None and len(paths) > 1:
        raise SettingsError("--image says where one slide is; give one RESULT")
    # Imported late: it takes seconds, and --help needs none of it.
    from cellseg.serve import Server, Viewer

    server = Server(Viewer(paths, image, say if edit else None), port or 0)
    try:
        say(f"{server.url}\nCtrl-C ends it.")
        sys.stdout.flush()
        if browser and has_display():
            with suppress(webbrowser.Error, OSError):
                webbrowser.open(server.url)
        Thread(target=server.viewer.read_ahead).start()
        with suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.2)
    finally:
        server.server_close()


@click.command()
@click.argument("files", nargs=-1, required=True, type=PLACE, metavar="FILE...")
@shared("json mpp z t series")
def info(files: tuple[Location, ...], *, as_json: bool, **options: Any) -> None:  # noqa: ANN401
    """Say what an image is: size, channels, pixel size, pyramid, and what to watch for."""
    from cellseg.slide import open_slide

    said: list[dict[str, object]] = []
    failed: list[CellsegError] = []
    for number, file in enumerate(files):
        try:
            with open_slide(file, **options) as slide:
                said.append(slide.describe())
        except CellsegError as error:
            failed.append(error)
            said.append({"path": str(file), "error": str(error)})
            if not as_json and len(files) > 1:
                say(f"cellseg: {error}", err=True)
            continue
        if not as_json:
            rows = [f"  {label:<12}{text}" for label, text in _info_rows(said[-1])]
            notes = [f"  ! {note}" for note in slide.notes]
            say("\n".join(["", str(file), *rows, *notes][number == 0 :]))
    if as_json:
        say(json.dumps(said, indent=2, ensure_ascii=False))
    if failed:
        if len(files) == 1:
            raise failed[0]
        text = f"{len(failed)} of {len(files)} files could not be read"
        raise InputError(text) if len(failed) == len(files) else PartialResultError(text)


def _info_rows(described: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What :meth:`Slide.describe` returns, in words."""
    from cellseg.slide import numbered

    sides = described["width_px"], described["height_px"]
    height, width = described["chunk_px"]
    chunks = f"{'tiles' if described['tiled'] else 'strips'} of {width:,} × {height:,} px"
    chunks = "in one piece" if (width, height) == sides else chunks
    yield "format", ", ".join(filter(None, (described["format"], described["compression"], chunks)))
    size, mpp = f"{sides[0]:,} × {sides[1]:,} px (width × height)", described["mpp"]
    if mpp is None:
        yield "size", size
        yield "pixel size", "unknown: areas will be in pixels; pass --mpp to get µm²"
    else:
        width_mm, height_mm = (side * mpp / 1000 for side in sides)
        yield "size", f"{size}, {width_mm:.3g} × {height_mm:.3g} mm"
        yield "pixel size", f"{mpp:.4g} µm ({described['mpp_source']})"
    names = tuple(described["channels"])
    names = names if len(names) == 1 or described["rgb"] else numbered(names)
    yield "channels", f"{', '.join(names)} ({described['dtype']})"
    if len(levels := described["levels"]) > 1:
        steps = ", ".join(f"{level['downsample']:.4g}" for level in levels)
        yield "levels", f"{len(levels)}, downsampled by {steps}"
    for label, count in (("z planes", described["size_z"]), ("time points", described["size_t"])):
        if count > 1:
            yield label, str(count)
    pictures = described["pictures"]
    if (images := described["series"] - len(pictures)) > 1:
        yield "series", f"{images}, choose with --series"
    if pictures:
        named = ", ".join(f"{name} (--series {number})" for number, name in pictures.items())
        yield "beside it", named
