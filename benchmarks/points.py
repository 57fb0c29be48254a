"""Count fields of which only the cells' centres are annotated.

    python benchmarks/points.py FOLDER [--split val] [--mpp 0.5] [--model M] [--protocol P]

FOLDER holds ``images/``, ``counts.csv`` (image, split, n_cells) and ``points.csv`` (image, x, y).
Each image goes through the whole of a count, down to a low score. The table gives the count's
error at the protocol's score and at others; a cell is met if its centre lies within ``--within``
µm of a counted cell's, one-to-one. Images without cells are left out.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from cellseg.counting.plan import make_plan
from cellseg.counting.request import CountRequest
from cellseg.network.detect import MaskRCNNDetector, load_detector
from cellseg.protocol import CountProtocol
from cellseg.run import CountResult, run
from cellseg.slide import open_slide

SCORES = tuple(0.1 + 0.05 * k for k in range(15))


def centres(
    image: Path,
    mpp: float,
    detector: MaskRCNNDetector,
    folder: Path,
    protocol: str | CountProtocol | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Centroids (x, y) down to a low score, pixels of the image, (N, 2); scores; the one in use."""
    wanted = CountRequest(image=image, mpp=mpp, protocol=protocol)
    with open_slide(image, mpp=mpp) as slide:
        used = make_plan(slide, wanted, detector.info).protocol.score
    request = replace(wanted, output=folder, score=SCORES[0])
    for event in run(request, detector=detector):
        if isinstance(event, CountResult):
            table = pd.read_csv(event.folder / "cells.csv")
            places = table[["centroid_x_px", "centroid_y_px"]].to_numpy(dtype=float)
            return places, table["score"].to_numpy(dtype=float), used
    raise SystemExit(f"{image}: the run ended without a result")


def matched(found: NDArray[np.float64], truth: NDArray[np.float64], within: float) -> int:
    """One-to-one pairs that lie no farther apart."""
    if not len(found) or not len(truth):
        return 0
    near = cdist(found, truth) <= within
    pairs = linear_sum_assignment(near, maximize=True)
    return int(near[pairs].sum())


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--split", default="val", show_default=True)
@click.option("--mpp", default=0.5, show_default=True)
@click.option("--within", default=6.0, show_default=True, help="µm.")
@click.option("--model", default="default", show_default=True)
@click.option("--protocol", help="Name or file; chosen from each image if left out.")
def main(
    folder: Path, split: str, mpp: float, within: float, model: str, protocol: str | None
) -> None:
    """Print one line an image, and the totals."""
    counts = pd.read_csv(folder / "counts.csv")
    points = pd.read_csv(folder / "points.csv").groupby("image")
    detector = load_detector(model, score=SCORES[0])
    rows: dict[str, list[tuple[int, int, int]]] = {}
    for image in counts[(counts["split"] == split) & (counts["n_cells"] > 0)].itertuples():
        with tempfile.TemporaryDirectory() as place:
            path = folder / "images" / str(image.image)
            found, scores, used = centres(path, mpp, detector, Path(place), protocol)
        truth = points.get_group(image.image)[["x", "y"]].to_numpy(dtype=float)
        for name, score in [("in use", used), *((f"{s:.2f}", s) for s in SCORES)]:
            kept = found[scores >= np.float32(score)]
            hits = matched(kept, truth, within / mpp)
            rows.setdefault(name, []).append((len(kept), int(image.n_cells), hits))
        total, cells, hits = rows["in use"][-1]
        click.echo(f"{str(image.image)[:40]:40s} {cells:5d} cells, counted {total:5d}, {hits} met")
    click.echo("| score | images | cells | counted | bias | error per image | F1 |")
    click.echo("|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        counted, annotated, right = np.array(row, dtype=float).T
        error = np.abs(counted / annotated - 1).mean()
        bias = counted.sum() / annotated.sum() - 1
        f1 = 2 * right.sum() / (counted.sum() + annotated.sum())
        click.echo(
            f"| {name} | {len(row)} | {annotated.sum():,.0f} | {counted.sum():,.0f} | "
            f"{100 * bias:+.1f} % | {100 * error:.1f} % | {f1:.3f} |"
        )


if __name__ == "__main__":
    main()
