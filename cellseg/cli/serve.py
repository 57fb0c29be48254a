"""``cellseg serve``."""

from __future__ import annotations

import sys
import webbrowser
from contextlib import suppress
from pathlib import Path
from threading import Thread

import click

from cellseg.cli._shared import RESULT, say, shared
from cellseg.cli.view import has_display
from cellseg.errors import SettingsError
from cellseg.storage import Location


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
    from cellseg.serve import Server, Viewer, read_results

    server = Server(Viewer(read_results(paths), image, say if edit else None), port or 0)
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
