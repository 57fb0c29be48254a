"""Count fields of which only the cells' centres are annotated.

    python benchmarks/points.py FOLDER [--split val] [--mpp 0.5] [--model M]

FOLDER holds ``images/``, ``counts.csv`` (image, split, n_cells) and ``points.csv`` (image, x, y).
Each image goes through the whole of a count. The table gives the error of each count; a cell is
found if its centre lies within ``--within`` µm of a counted cell's, one-to-one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from cellseg.pipeline import CountResult, run
from cellseg.plan import CountRequest


def centres(
    image: Path, mpp: float, model: str, detectors: dict[object, object], folder: Path
) -> NDArray[np.float64]:
    """Centroids (x, y) of the counted cells, pixels of the image, (N, 2)."""
    request = CountRequest(image=image, output=folder, mpp=mpp, model=model)
    for event in run(request, detectors=detectors):
        if isinstance(event, CountResult):
            table = event.cells.table
            return table[["centroid_x_px", "centroid_y_px"]].to_numpy(dtype=float)
    raise SystemExit(f"{image}: the run ended without a result")


def matched(found: NDArray[np.float64], truth: NDArray[np.float64], within: float) -> int:
    """One-to-one pairs that lie no farther apart."""
    if not len(found) or not len(truth):
        return 0
    far = cdist(found, truth)
    pairs = linear_sum_assignment(np.minimum(far, 10 * within))
    return int((far[pairs] <= within).sum())


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--split", default="val", show_default=True)
@click.option("--mpp", default=0.5, show_default=True)
@click.option("--within", default=6.0, show_default=True, help="µm.")
@click.option("--model", default="default", show_default=True)
def main(folder: Path, split: str, mpp: float, within: float, model: str) -> None:
    """Print one line an image, and the totals."""
    counts = pd.read_csv(folder / "counts.csv")
    points = pd.read_csv(folder / "points.csv").groupby("image")
    detectors: dict[object, object] = {}
    errors, total, annotated, right = [], 0, 0, 0
    for row in counts[counts["split"] == split].itertuples():
        with tempfile.TemporaryDirectory() as place:
            path = folder / "images" / str(row.image)
            found = centres(path, mpp, model, detectors, Path(place))
        truth = points.get_group(row.image)[["x", "y"]].to_numpy(dtype=float)
        hits = matched(found, truth, within / mpp)
        errors.append(len(found) / row.n_cells - 1)
        total, annotated, right = total + len(found), annotated + row.n_cells, right + hits
        click.echo(
            f"{str(row.image)[:40]:40s} {row.n_cells:5d} cells, counted {len(found):5d} "
            f"({100 * errors[-1]:+.1f} %), {hits} matched"
        )
    click.echo(
        f"{len(errors)} images, {annotated:,} cells: error per image "
        f"{100 * np.mean(np.abs(errors)):.1f} %, bias {100 * (total / annotated - 1):+.1f} %, "
        f"F1 within {within:g} µm {2 * right / (total + annotated):.3f}"
    )


if __name__ == "__main__":
    main()
