"""Nuclei between brown membranes: how many of a field's annotated ones a count finds.

    python benchmarks/membranes.py [--model FILE] [--scores 0.05,0.1,0.2,0.3,0.5]

The field is scikit-image's ``immunohistochemistry``, 512 × 512 px. ``ihc_nuclei.csv`` holds its
nuclei, annotated by eye: ellipses as skimage.draw.ellipse has them (angle in degrees), in pixels
of the field, 0 at the corner of the first. One is found where a counted nucleus overlaps it by an
IoU of 0.3 or lies within 6 px of its centre, one-to-one. Counted with and without a diameter.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import click
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from PIL import Image
from shapely.affinity import rotate, scale, translate
from skimage.data import immunohistochemistry

import cellseg

NUCLEI, WITHIN_PX, IOU = Path(__file__).with_name("ihc_nuclei.csv"), 6.0, 0.3


def ellipses(table: pd.DataFrame) -> NDArray[np.object_]:
    """One polygon for each row, (x, y)."""
    numbers = table[["y", "x", "radius_y", "radius_x", "angle"]].to_numpy(float)
    disc = shapely.Point(0, 0).buffer(1)
    drawn = [translate(rotate(scale(disc, b, a), -turn), x, y) for y, x, a, b, turn in numbers]
    return np.array(drawn, object)


def pairs(truth: NDArray[np.object_], found: NDArray[np.object_]) -> list[tuple[int, int, float]]:
    """Rows of annotated and counted nuclei that are the same, and their IoU, one-to-one."""
    shared = shapely.area(shapely.intersection(truth[:, None], found[None]))
    overlap = shared / (shapely.area(truth)[:, None] + shapely.area(found)[None] - shared)
    far = shapely.distance(shapely.centroid(truth)[:, None], shapely.centroid(found)[None])
    rows, columns = np.nonzero((overlap >= IOU) | (far <= WITHIN_PX))
    told: list[tuple[int, int, float]] = []
    for one in np.lexsort((far[rows, columns], -overlap[rows, columns])):
        row, column = int(rows[one]), int(columns[one])
        if all(row != other[0] and column != other[1] for other in told):
            told.append((row, column, float(overlap[row, column])))
    return told


@click.command()
@click.option("--model", default="default", show_default=True)
@click.option("--scores", default="0.05,0.1,0.2,0.3,0.5", show_default=True)
def main(model: str, scores: str) -> None:
    """Print the table."""
    warnings.simplefilter("ignore", cellseg.CountWarning)
    table = pd.read_csv(NUCLEI)
    gland, truth = table["kind"].to_numpy() == "gland", ellipses(table)
    click.echo(f"{gland.sum()} nuclei in glands, {(~gland).sum()} in the stroma\n")
    click.echo("| diameter | score | counted | glands | stroma | not annotated | IoU 0.5 |")
    click.echo("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        field = Path(folder) / "field.png"
        Image.fromarray(immunohistochemistry()).save(field)  # type: ignore[no-untyped-call]
        for diameter in (10.0, None):
            for score in map(float, scores.split(",")):
                cells = cellseg.count(field, protocol="ihc", diameter=diameter, score=score,
                                      model=model, overwrite=True, progress=False)  # fmt: skip
                same = pairs(truth, cells.outlines)
                met, close = [row for row, *_ in same], sum(iou >= 0.5 for *_, iou in same)
                row = [gland[met].sum(), (~gland[met]).sum(), len(cells) - len(same), close]
                told = " | ".join(map(str, [diameter or "none", score, len(cells), *row]))
                click.echo(f"| {told} |")


if __name__ == "__main__":
    main()
