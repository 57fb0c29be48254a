"""Time and peak memory of giving many cells other classes.

    python benchmarks/reclassify.py [--cells 1000000] [--folder RESULTS]

Writes a result of so many cells, each with all columns of the protocol ihc, as a run leaves one,
and classifies it by two markers with ``cellseg classify``, in a process of its own. Fails where it
takes more than 5 s or 1 GB.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

MOST_SECONDS, MOST_MB = 5.0, 1000.0
SPACING_PX, SIDE_PX, BATCH = 12, 7, 10_000
PEAK_BYTES = 1 if sys.platform == "darwin" else 1024
"""Unit of ``ru_maxrss``."""


def make(folder: Path, cells: int) -> None:
    """In a child: a finished result of small squares on a grid, with columns of chance."""
    import numpy as np
    import pandas as pd

    from cellseg.derive import Recipe, derive
    from cellseg.geometry import Frame
    from cellseg.instances import Instances
    from cellseg.result.folder import Findings, ResultFolder
    from cellseg.table import columns

    rng = np.random.default_rng(0)
    across = int(np.ceil(cells**0.5))
    side = across * SPACING_PX
    wanted = columns(["red", "green", "blue"], stain="ihc", has_mpp=True)
    numbers = [column for column in wanted if column.dtype not in ("str", "bool")]
    with ResultFolder.open(folder, key=f"benchmark of {cells}") as result:
        for start in range(0, cells, BATCH):
            order = np.arange(start, min(start + BATCH, cells))
            corners = np.stack(np.divmod(order, across), axis=1) * SPACING_PX
            instances = Instances.build(
                np.concatenate([corners, corners + SIDE_PX], axis=1),
                rng.uniform(0.5, 1, len(order)),
                np.zeros(len(order), np.int64),
                [np.ones((SIDE_PX, SIDE_PX), bool)] * len(order),
            )
            values = {c.name: rng.gamma(3.0, 40.0, len(order)).astype(c.dtype) for c in numbers}
            values |= {f"centroid_{axis}_px": corners[:, i] for i, axis in enumerate("yx")}
            table = pd.DataFrame(values).assign(touches_border=False, stitched=False)
            result.journal.add_cells(table, instances)
        frame = Frame(
            height=side,
            width=side,
            lattice_height=side,
            lattice_width=side,
            downsample=1.0,
            mpp=0.25,
        )
        findings = Findings(
            frame=frame, columns=wanted, class_names=["nucleus"], object_name="nucleus"
        )
        result.finish(findings, lambda changed: derive(changed, Recipe()))


@click.command()
@click.option("--cells", default=1_000_000, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where the result stays.")
@click.option("--child", type=click.Path(path_type=Path), hidden=True)
def main(cells: int, folder: Path | None, child: Path | None):
    if child is not None:
        make(child, cells)
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = (folder or Path(scratch)) / f"{cells}.cellseg"
        if not (path / "run.json").is_file():
            command = [sys.executable, __file__, "--cells", str(cells), "--child", str(path)]
            subprocess.run(command, check=True)
        started = time.perf_counter()
        markers = ["--measure", "dab_od_mean", "--threshold", "120"]
        markers += ["--measure", "intensity_mean_red", "--threshold", "120"]
        command = [sys.executable, "-m", "cellseg", "classify", str(path), *markers]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        # Of the children the largest: where one made the result, this says nothing of the other.
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * PEAK_BYTES / 1e6
        print(f"{cells:,} cells: {seconds:.1f} s, peak {peak:,.0f} MB")
    if seconds > MOST_SECONDS or peak > MOST_MB:
        raise SystemExit(f"expected at most {MOST_SECONDS:g} s and {MOST_MB:,.0f} MB")


if __name__ == "__main__":
    main()
