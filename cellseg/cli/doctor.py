"""``cellseg doctor``: whether everything that a count needs is there and sound."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal, NamedTuple

import click
import psutil
from packaging.requirements import Requirement

import cellseg
from cellseg.cli._shared import say, shared
from cellseg.cli.view import fault_of, has_display
from cellseg.errors import CellsegError, PartialResultError, line_of

SIGNS = {"ok": "ok  ", "note": "–   ", "fault": "FAIL"}

NETWORK_GIB = 2.0
"""Free memory under which a count may not end: torch, the network, and a tile's features."""

OPENS = (
    "import napari; viewer = napari.Viewer(show=True); viewer.window._qt_window.repaint(); "
    "viewer.close()"
)
WAIT_S = 120


class Check(NamedTuple):
    """One thing that was looked at, in one line; a ``note`` is missing and need not be there."""

    name: str
    state: Literal["ok", "note", "fault"]
    text: str


def checks(*, window: bool) -> Iterator[Check]:
    """Look at everything, one after the other; with ``window`` also whether napari opens one."""
    yield Check("cellseg", "ok", f"{cellseg.__version__} in {Path(cellseg.__file__).parent}")
    python, cores = platform.python_version(), os.cpu_count()
    yield Check("system", "ok", f"Python {python}, {platform.platform()}, {cores} cores")
    yield from _packages()
    free, total = (size / 2**30 for size in psutil.virtual_memory()[1::-1])
    text = f"{free:.1f} of {total:.1f} GiB free; a count wants {NETWORK_GIB:g} GiB"
    yield Check("memory", "ok" if free >= NETWORK_GIB else "fault", text)
    yield from _network()
    yield _napari(window=window)


def _packages() -> Iterator[Check]:
    """What the distribution asks for, and which of its extras are complete."""
    extras: dict[str, list[str]] = {}
    for line in requires("cellseg-slides") or ():
        wanted = Requirement(line)
        names = wanted.marker.evaluate({"extra": ""}) if wanted.marker else True
        extra = "" if names else str(wanted.marker).partition('extra == "')[2].rstrip('"')
        extras.setdefault(extra, []).append(_fault(wanted))
    for extra, faults in extras.items():
        wrong = ", ".join(filter(None, faults))
        if not extra:
            main = ("torch", "torchvision", "numpy", "pandas", "scikit-image", "tifffile", "zarr")
            versions = ", ".join(f"{name} {version(name)}" for name in main)
            yield Check("packages", "fault" if wrong else "ok", wrong or versions)
        elif extra not in ("test", "lint", "bench"):
            text = f"not complete ({wrong}): pip install 'cellseg-slides[{extra}]'"
            yield Check(f"[{extra}]", "note" if wrong else "ok", text if wrong else "installed")


def _fault(wanted: Requirement) -> str:
    """What is wrong with an installed package; empty if nothing is."""
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        return f"{wanted.name} is missing"
    fits = wanted.specifier.contains(found, prereleases=True)
    return "" if fits else f"{wanted.name} {found} is not {wanted.specifier}"


def _network() -> Iterator[Check]:
    """The models' checksums, the device they would run on, and a tile through the network."""
    try:
        import numpy as np

        from cellseg.network.detect import load_detector
        from cellseg.network.tissue import TissueFinder
        from cellseg.network.torch_inference import gpu_count
        from cellseg.protocol import SHIPPED_MODELS

        detector, *others = map(load_detector, SHIPPED_MODELS)
    except (CellsegError, ImportError, OSError, RuntimeError) as error:
        yield Check("model", "fault", line_of(error))
        return
    info = detector.info
    infos = (info, *(one.info for one in others))
    said = (f"{one.name}, checksum {one.checksum[:12]}… holds" for one in infos)
    yield Check("model", "ok", "; ".join(said))
    text = f"{info.device} ({info.inference}); CUDA GPUs: {gpu_count() or 'none'}"
    try:
        detector.detect(np.ones((256, 256, 3), np.float32), fill=1.0)
        yield Check("device", "ok", text)
    except (CellsegError, RuntimeError) as error:
        yield Check("device", "fault", f"{text}: {line_of(error)}")
    try:
        TissueFinder()
        yield Check("tissue", "ok", "the U-Net's checksum holds")
    except (CellsegError, OSError, RuntimeError) as error:
        yield Check("tissue", "fault", line_of(error))


def _napari(*, window: bool) -> Check:
    try:
        found = version("napari")
    except PackageNotFoundError:
        return Check("napari", "note", "not installed: pip install 'cellseg-slides[napari]'")
    if not window:
        return Check("napari", "ok", f"{found}; no window was tried")
    if not has_display():
        return Check("napari", "note", f"{found}; no window can open: there is no display")
    if why := fault_of(OPENS, WAIT_S):
        return Check("napari", "fault", f"{found} opens no window: {why}")
    return Check("napari", "ok", f"{found} opens a window")


@click.command()
@click.option("--window/--no-window", default=True, help="Try whether napari opens a window.")
@shared("json")
def doctor(*, window: bool, as_json: bool) -> None:
    """Say what is installed, where a count would run, and what is not well.

    Exit code 3 if something is not well. Paste the whole output into a report of a fault.
    """
    found = []
    for check in checks(window=window):
        found.append(check)
        if not as_json:
            say(f"{SIGNS[check.state]}  {check.name:<12} {check.text}")
    if as_json:
        say(json.dumps([check._asdict() for check in found], indent=2, ensure_ascii=False))
    faults = [check.name for check in found if check.state == "fault"]
    if faults:
        raise PartialResultError(f"not well: {', '.join(faults)}")
