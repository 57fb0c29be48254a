"""A large slide and a million cells in napari: how long until they are there, in how much memory.

    tools/with-display.sh python benchmarks/viewer.py [--side 50000] [--cells 1000000]
        [--folder viewer/]

Writes a generated pyramid and a result of so many cells (kept in ``--folder`` for the next time),
then opens both in a real napari window in a fresh process, with the panel beside them, and picks
cells at random places. Opening ends when the window has drawn; a pick when the cell is marked
and its row is shown (drawing both is OpenGL's affair). Limits: 3 s, 1.5 GB, 100 ms.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import pandas as pd
from large import LargeScene, write_large

from cellseg.derive import Recipe, derive
from cellseg.geometry import Frame
from cellseg.instances import Instances
from cellseg.result.folder import Findings, ResultFolder
from cellseg.table import columns

MPP = 0.5
RADIUS_PX = 6
CHANNELS = ("red", "green", "blue")
LIMITS = {"open_s": 3.0, "peak_mb": 1500.0, "pick_ms": 100.0}
PEAK_BYTES = 1 if sys.platform == "darwin" else 1024


def write_result(folder: Path, slide: Path, side: int, cells: int) -> None:
    """Discs on a grid, measured by nobody: the table holds random numbers of its usual columns."""
    rng = np.random.default_rng(0)
    per_side = round(cells**0.5)
    pitch = side / per_side
    wanted = columns(CHANNELS, stain="he", has_mpp=True)
    y, x = np.mgrid[-RADIUS_PX : RADIUS_PX + 1, -RADIUS_PX : RADIUS_PX + 1]
    disc = np.hypot(y, x) <= RADIUS_PX
    area = float(disc.sum())
    frame = Frame(
        height=side, width=side, lattice_height=side, lattice_width=side, downsample=1.0, mpp=MPP
    )
    given = [c for c in wanted if c.name not in ("label", "image", "class", "object", "score")]
    with ResultFolder.open(folder, key=f"viewer {side} {cells}") as out:
        for row in range(per_side):
            middle_y = int((row + 0.5) * pitch)
            middles = ((np.arange(per_side) + 0.5) * pitch).astype(int)
            values = {c.name: rng.random(per_side) * 100 for c in given}
            values |= {"centroid_y_px": np.full(per_side, float(middle_y))}
            values |= {
                "centroid_x_px": middles.astype(float),
                "area_px": area + rng.random(per_side),
            }
            values |= {"bbox_y0_px": np.full(per_side, middle_y - RADIUS_PX)}
            values |= {"bbox_y1_px": np.full(per_side, middle_y + RADIUS_PX + 1)}
            values |= {"bbox_x0_px": middles - RADIUS_PX, "bbox_x1_px": middles + RADIUS_PX + 1}
            values |= {name: np.zeros(per_side) for name in ("touches_border", "stitched")}
            values["score"] = rng.random(per_side)
            boxes = [
                (middle_y - RADIUS_PX, m - RADIUS_PX, middle_y + RADIUS_PX + 1, m + RADIUS_PX + 1)
                for m in middles.tolist()
            ]
            count = per_side
            instances = Instances.build(boxes, values["score"], [0] * count, [disc] * count)
            out.journal.add_cells(pd.DataFrame(values), instances)
        findings = Findings(
            frame=frame,
            columns=wanted,
            class_names=["nucleus"],
            object_name="nucleus",
            record={
                "image": {"path": slide.name},
                "settings": {},
                "protocol": {"stain": "he", "intensity": True},
            },
        )
        out.finish(findings, lambda changed: derive(changed, Recipe()))


def opened(result: Path) -> dict[str, float]:
    """Open, draw, pick; in this process."""
    import napari
    from cellseg_napari import read_result
    from napari.layers import Layer
    from qtpy.QtWidgets import QApplication

    def draw() -> None:
        for _ in range(5):
            QApplication.processEvents()

    viewer = napari.Viewer()
    viewer.window.resize(1500, 1000)
    draw()
    start = time.perf_counter()
    for data in read_result(result):
        viewer.add_layer(Layer.create(*data))
    panel = viewer.window.add_plugin_dock_widget("cellseg-slides", "Inspect and correct cells")[1]
    viewer.reset_view()
    draw()
    viewer.screenshot(canvas_only=True, flash=False)
    took = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_BYTES / 1e6
    inspector, table = panel.shown.inspector, panel.shown.table
    total = len(inspector.opened.rows)
    picks = []
    for label in np.random.default_rng(1).integers(1, total + 1, 50).tolist():
        place = inspector.opened.place_of(label)[0]
        begun = time.perf_counter()
        found = inspector.click(place)
        row = table.selectionModel().selectedRows()[0].row()
        shown = table.cells.data(table.cells.index(row, table.cells.columns.index("label")))
        picks.append(time.perf_counter() - begun)
        if (found, shown) != (label, str(label)):
            raise SystemExit(f"picked {found}, its row says {shown}, expected {label}")
        draw()
    viewer.close()
    return {
        "cells": total,
        "open_s": took,
        "peak_mb": peak,
        "pick_ms": 1000 * float(np.median(picks)),
        "slowest_pick_ms": 1000 * max(picks),
    }


@click.command()
@click.option("--side", default=50_000, show_default=True, help="Of the slide, px.")
@click.option("--cells", default=1_000_000, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--one", type=click.Path(path_type=Path), hidden=True)
def main(side: int, cells: int, folder: Path | None, one: Path | None) -> None:
    """Write, open, print."""
    if one is not None:
        click.echo(json.dumps(opened(one)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        home = folder or Path(scratch)
        home.mkdir(parents=True, exist_ok=True)
        slide = home / f"slide-{side}.tif"
        if not slide.exists():
            draft = slide.with_suffix(".part")
            write_large(draft, LargeScene(side))
            draft.replace(slide)
        result = home / f"slide-{side}-{cells}.cellseg"
        if not (result / "run.json").exists():
            click.echo(f"writing {cells:,} cells …")
            write_result(result, slide, side, cells)
        command = [sys.executable, __file__, "--one", str(result)]
        finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if finished.returncode:
            raise click.ClickException(f"opening ended with {finished.returncode}")
        found = json.loads(finished.stdout.splitlines()[-1])
    click.echo(f"{side:,} × {side:,} px, {found['cells']:,} cells")
    click.echo(f"opened in {found['open_s']:.2f} s, {found['peak_mb']:,.0f} MB")
    click.echo(
        f"a pick takes {found['pick_ms']:.0f} ms (slowest of 50: {found['slowest_pick_ms']:.0f} ms)"
    )
    missed = [name for name, limit in LIMITS.items() if found[name] > limit]
    if missed:
        raise SystemExit(f"over the limit: {', '.join(missed)}")


if __name__ == "__main__":
    main()
