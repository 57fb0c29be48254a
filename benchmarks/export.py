"""Peak memory, time and size of exporting many cells.

    python benchmarks/export.py [--cells 1000000] [--folder RESULTS] [--to NAME ...]

Writes a result of so many ellipses, as a run leaves one, and exports it, each file in a process
of its own. Fails where one takes more than 1.5 GB.
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

MOST_MB = 1500.0
SPACING_PX, BATCH = 30, 5000
PEAK_BYTES = 1 if sys.platform == "darwin" else 1024
"""Unit of ``ru_maxrss``."""


def make(folder: Path, cells: int) -> None:
    """In a child: a finished result of ellipses of 300 lattice px on a grid, at 0.25 µm/px."""
    import numpy as np

    from cellseg.derive import Recipe, derive
    from cellseg.geometry import Frame
    from cellseg.instances import Instances
    from cellseg.result.folder import Findings, ResultFolder
    from cellseg.table import columns, measure

    rng = np.random.default_rng(0)
    across = int(np.ceil(cells**0.5))
    side = across * SPACING_PX
    frame = Frame(
        height=side, width=side, lattice_height=side, lattice_width=side, downsample=1.0, mpp=0.25
    )
    wanted = columns([], stain="he", has_mpp=True)
    y, x = np.mgrid[-14:15, -14:15]
    with ResultFolder.open(folder, key=f"benchmark of {cells}") as result:
        for start in range(0, cells, BATCH):
            numbers = np.arange(start, min(start + BATCH, cells))
            corners = np.stack(np.divmod(numbers, across), axis=1) * SPACING_PX
            radii = rng.uniform(7, 14, (len(numbers), 2))
            masks = [(y / ry) ** 2 + (x / rx) ** 2 < 1 for ry, rx in radii]
            boxes = np.concatenate([corners, corners + 29], axis=1)
            instances = Instances.build(
                boxes, rng.uniform(0.5, 1, len(numbers)), numbers % 3, masks
            )
            table = measure(instances, None, (0, 0), frame=frame, channels=[], stain="he")
            lying = dict.fromkeys(("touches_border", "stitched"), np.zeros(len(instances), bool))
            result.journal.add_cells(table | lying, instances)
        findings = Findings(
            frame=frame,
            columns=wanted,
            class_names=["tumour", "stroma", "immune"],
            object_name="nucleus",
        )
        result.finish(findings, lambda changed: derive(changed, Recipe()))


def export_one(folder: Path, name: str) -> None:
    """In a child: export, print one line of JSON."""
    from cellseg.export import export

    started = time.perf_counter()
    path = export(folder, name)
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - started,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_BYTES / 1e6,
                "mb": path.stat().st_size / 1e6,
            }
        )
    )


@click.command()
@click.option("--cells", default=1_000_000, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where the result stays.")
@click.option(
    "--to",
    "names",
    multiple=True,
    default=("cells.geojson", "cells.parquet"),
    show_default=True,
)
@click.option("--child", type=(str, click.Path(path_type=Path)), hidden=True)
def main(cells: int, folder: Path | None, names: tuple[str, ...], child: tuple[str, Path] | None):
    if child is not None:
        name, path = child
        make(path, cells) if name == "make" else export_one(path, name)
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = (folder or Path(scratch)) / f"{cells}.cellseg"
        command = [sys.executable, __file__, "--cells", str(cells), "--child"]
        if not (path / "run.json").is_file():
            subprocess.run([*command, "make", str(path)], check=True)
        worst = 0.0
        for name in names:
            out = subprocess.run([*command, name, str(path)], check=True, capture_output=True)
            found = json.loads(out.stdout)
            worst = max(worst, found["peak_mb"])
            print(
                f"{name:<16} {cells:>9,} cells  {found['seconds']:>7.1f} s"
                f"  {found['mb']:>8,.1f} MB  peak {found['peak_mb']:>6,.0f} MB"
            )
    if worst > MOST_MB:
        raise SystemExit(f"more than {MOST_MB:,.0f} MB")


if __name__ == "__main__":
    main()
