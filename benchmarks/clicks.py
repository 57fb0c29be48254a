"""Cell types from clicks: twenty a class in three fields, judged on ten other fields.

    python benchmarks/clicks.py DATA/brca_m2c_points [--draws 20] [--output clicks/]

The fields are counted with protocol he_20x, without the model's types. The annotated centres play
the person: a cell is clicked that lies within 3 µm of one (one-to-one). Three fields of the split
train are drawn from those that show seven cells of each class, and twenty cells of each class are
drawn in them. The taught classes are given to the ten fields of the split val, whose centres of
each class are then paired by themselves, as `cellseg evaluate` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pandas as pd

import cellseg
from cellseg.derive.clicks import teach_classes
from cellseg.judge.centres import matched
from cellseg.result import load_result
from cellseg.table.taught import looks, measurements_of

MPP, WITHIN_PX, CLICKS = 0.5, 6.0, (7, 7, 6)


class Field(NamedTuple):
    """A counted field, its annotated centres, and which cells are of which centre."""

    folder: Path
    split: str
    places: np.ndarray
    looks: np.ndarray
    truth: np.ndarray
    kinds: np.ndarray
    cells: np.ndarray
    kinds_of_cells: np.ndarray


def fields_of(data: Path, output: Path) -> list[Field]:
    """Count all fields with an annotated cell, once."""
    points, found = pd.read_csv(data / "points.csv"), []
    for row in pd.read_csv(data / "counts.csv").query("n_cells > 0 or split == 'val'").itertuples():
        counted = cellseg.count(data / "images" / row.image, protocol="he_20x", mpp=MPP,
                                types="none", output=output, progress=False)  # fmt: skip
        table = load_result(counted.folder).table
        known = measurements_of(table.dtypes.items())
        cells, mine = table.load(), points[points["image"] == row.image]
        places = cells[["centroid_y_px", "centroid_x_px"]].to_numpy(float)
        truth, kinds = mine[["y", "x"]].to_numpy(float), mine["class"].to_numpy(object)
        rows, columns = matched(places, truth, WITHIN_PX)
        found.append(Field(counted.folder, row.split, places, looks(cells, known), truth, kinds,
                           rows, kinds[columns]))  # fmt: skip
    return found


def drawn(fields: list[Field], names: list[str], rng: np.random.Generator) -> pd.DataFrame:
    """Clicks in three fields, as a table of :func:`cellseg.teach_classes`."""
    chosen = [fields[place] for place in rng.choice(len(fields), 3, replace=False)]
    rows = []
    for name in names:
        for field, number in zip(chosen, CLICKS, strict=True):
            cells = rng.permutation(field.cells[field.kinds_of_cells == name])[:number]
            rows += [(field.folder.name, int(cell) + 1, name) for cell in cells]
    return pd.DataFrame(rows, columns=["result", "label", "class"])


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--draws", default=20, show_default=True)
@click.option("--output", default="clicks", type=click.Path(path_type=Path))
def main(data: Path, draws: int, output: Path) -> None:
    """Teach, apply, print a row a draw and the means."""
    fields = fields_of(data, output)
    names = sorted({str(kind) for field in fields for kind in field.kinds})
    val = [field for field in fields if field.split == "val"]
    least = max(CLICKS)
    train = [f for f in fields if f.split == "train"
             and all(np.sum(f.kinds_of_cells == name) >= least for name in names)]  # fmt: skip
    folders = {field.folder.name: field.folder for field in fields}
    truth = np.array([sum(np.sum(f.kinds == name) for f in val) for name in names])
    click.echo(
        f"{len(train)} fields to draw from; annotated: {dict(zip(names, truth, strict=True))}"
    )
    f1, off, expected, inside = [], [], [], []
    for draw in range(draws):
        clicks = drawn(train, names, np.random.default_rng(draw))
        taught = teach_classes([folders[name] for name in clicks["result"].unique()], clicks)
        order = [[*taught.colours].index(name) for name in names]
        shares = [taught.probabilities(field.looks) for field in val]
        said = [np.array(taught.names, object)[one.argmax(1)] for one in shares]
        counted = np.array([sum(np.sum(one == name) for one in said) for name in names])
        hits = [
            sum(
                len(matched(f.places[one == name], f.truth[f.kinds == name], WITHIN_PX)[0])
                for f, one in zip(val, said, strict=True)
            )
            for name in names
        ]
        counts = np.array([*taught.counts(np.concatenate(shares)).values()])[order].T
        f1.append(2 * np.array(hits) / (counted + truth))
        off.append(counted / truth - 1)
        expected.append(counts[0] / truth - 1)
        inside.append((counts[1] <= truth) & (truth <= counts[2]))
        told = [np.round(one, 2).tolist() for one in (f1[-1], off[-1], expected[-1])]
        click.echo(f"{draw}: mean F1 {f1[-1].mean():.3f} {told} {inside[-1].tolist()} "
                   f"{counts[1:].T.tolist()}")  # fmt: skip
    means = np.mean(f1, 1)
    click.echo(f"mean F1 {means.mean():.3f} ({means.min():.3f} … {means.max():.3f}), 0.60 or more "
               f"in {np.sum(means >= 0.6)} draws; by class {np.mean(f1, 0).round(3)}")  # fmt: skip
    for what, values in (("counted", off), ("expected", expected)):
        near = np.abs(values) < 0.2
        click.echo(f"{what}: mean |error| {np.abs(values).mean(0).round(2)}, within 20 % "
                   f"{near.mean(0).round(2)}, all three {near.all(1).mean():.2f}")  # fmt: skip
    click.echo(f"inside the interval: {np.mean(inside, 0).round(2)}")


if __name__ == "__main__":
    main()
