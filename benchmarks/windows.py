"""How well five windows stand for a slide: those that are chosen, and random ones.

    python benchmarks/windows.py DATA [--draws 200] [--output windows/]

Teaching takes minutes; this takes none. Mosaics of annotated images are counted as in
``benchmarks/teach.py``, also down to low scores. Of five windows it is asked what the shipped model
gets wrong there and in the whole mosaic: how far the logarithms of counted / annotated lie apart,
how far F1 does, and by how much the mosaic is miscounted from the score on that counts the windows
right. Random windows are drawn many times, the chosen ones are there once a mosaic.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from teach import SETS, WINDOWS, Wanted, mosaic, random_windows

import cellseg
from cellseg.annotations.coco import read_coco
from cellseg.annotations.compare import SCORES
from cellseg.protocol import load_protocol
from cellseg.result import load_result
from cellseg.train.windows import Window, teach_windows

HE = load_protocol("he")
DARK = load_protocol("fluorescence")
MORE = {
    "tnbc": Wanted("tnbc", "", HE, "nucleus"),
    "bbbc039": Wanted("bbbc039", "", DARK, "nucleus"),
}
MOSAICS = [
    (name, wanted, 0) for name, wanted in (SETS | MORE).items() if wanted.folder != "membranes"
] + [(name, (SETS | MORE)[name], 1) for name in ("human bladder", "human jejunum", *MORE)]
"""Of most sets of benchmarks/teach.py only the half that is not judged on there."""


def counted(data: Path, wanted: Wanted, half: int, home: Path) -> tuple[Path, np.ndarray]:
    """A mosaic of every other image of a set, counted; its annotations as labels."""
    folder = data / wanted.folder
    found = json.loads((folder / "val.json").read_text(encoding="utf-8"))
    entries = [one for one in found["images"] if wanted.named in one["file_name"]][half::2][:36]
    for one in entries:
        one.setdefault("mpp", 1.0)
    ids = {one["id"] for one in entries}
    rows = [
        {key: value for key, value in one.items() if key != "box_only"} | {"category_id": 1}
        for one in found["annotations"]
        if one["image_id"] in ids
    ]
    about = {"categories": [{"id": 1, "name": wanted.outlined}], "images": entries}
    home.mkdir(parents=True, exist_ok=True)
    (home / "seen.json").write_text(json.dumps({**found, **about, "annotations": rows}))
    labels = mosaic(list(read_coco(home / "seen.json", images=folder).images), home / "slide.tif")
    options: dict[str, Any] = {"overwrite": True, "types": "none", "progress": False}
    cells = cellseg.count(home / "slide.tif", protocol=wanted.protocol, **options)
    low = wanted.protocol.changed(score=min(SCORES))
    cellseg.count(home / "slide.tif", output=home / "low", protocol=low, **options)
    return cells.folder, labels


class Compared:
    """Cells of a mosaic down to low scores, and those that are annotated, (y, x) on the lattice."""

    def __init__(self, folder: Path, labels: np.ndarray, least: float) -> None:
        result, self.least = load_result(folder), least
        step, frame = result.frame.downsample, result.frame
        rows, columns = (
            np.minimum(((np.arange(length) + 0.5) * step).astype(int), side - 1)
            for length, side in zip((frame.lattice_height, frame.lattice_width), labels.shape,
                                    strict=True)
        )  # fmt: skip
        truth = np.unique(labels[np.ix_(rows, columns)], return_inverse=True)[1]
        shape = (len(rows), len(columns))
        truth, found = truth.reshape(shape), np.asarray(result.labels()[0]).astype(np.int64)
        size = int(truth.max()) + 1
        both = np.bincount((found * size + truth).ravel()).astype(float)
        both = np.pad(both, (0, -len(both) % size)).reshape(-1, size)
        iou = both / (both.sum(1, keepdims=True) + both.sum(0) - both)
        iou[:, 0] = 0
        table = result.table.load(["label", "score", "centroid_y_px", "centroid_x_px"])
        self.scores, used = table["score"].to_numpy(), set[int]()
        self.hits = np.zeros(len(table), bool)
        for place in np.argsort(-self.scores):
            best = int(iou[int(table["label"].iloc[place])].argmax())
            if iou[int(table["label"].iloc[place]), best] >= 0.5 and best not in used:
                used.add(best)
                self.hits[place] = True
        self.found = (table[["centroid_y_px", "centroid_x_px"]].to_numpy() + 0.5) / step
        area = np.bincount(truth.ravel(), minlength=size)
        self.truth = np.column_stack(
            [np.bincount(truth.ravel(), at.ravel()) / area for at in np.indices(shape)]
        )[1:]

    def judged(self, windows: list[Window]) -> tuple[float, ...]:
        """Miscounted share at the windows' score; apart in bias and F1; cells; what is wrong."""

        def inside(points: np.ndarray) -> np.ndarray:
            boxes = np.array([one.box.corners for one in windows])
            low, high = boxes[:, None, :2], boxes[:, None, 2:]
            return ((points >= low) & (points < high)).all(2)

        truth, found = inside(self.truth), inside(self.found)
        counts = np.array([(found & (self.scores >= one)).sum(1) for one in SCORES])
        outlined = truth.sum(1)
        off = np.abs(counts.sum(1) - outlined.sum()) + np.abs(counts - outlined).sum(1)
        best = np.flatnonzero(off == off.min())
        score, there, usual = SCORES[int(best[len(best) // 2])], len(self.truth), found.any(0)
        kept = self.scores >= self.least
        pairs = ((kept & usual, outlined.sum()), (kept, there))
        bias = [np.log((which.sum() + 0.5) / (number + 0.5)) for which, number in pairs]
        f1 = [2 * (which & self.hits).sum() / (which.sum() + number) for which, number in pairs]
        wrong = (kept & usual).sum() + outlined.sum() - 2 * (kept & usual & self.hits).sum()
        return (abs((self.scores >= score).sum() - there) / there, abs(bias[0] - bias[1]),
                abs(f1[0] - f1[1]), outlined.sum(), wrong)  # fmt: skip


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--draws", default=200, show_default=True, help="Of random windows.")
@click.option("--output", default="windows", type=click.Path(path_type=Path))
def main(data: Path, draws: int, output: Path) -> None:
    """Judge windows of each mosaic, print the table."""
    rng, rows = np.random.default_rng(0), []
    click.echo("| mosaic | windows | miscounted | bias apart | F1 apart | cells | wrong |")
    click.echo("|---|---|---|---|---|---|---|")

    def tell(name: str, kind: str, row: np.ndarray) -> None:
        click.echo(f"| {name} | {kind} | {row[0]:.1%} | {row[1]:.3f} | {row[2]:.3f} | "
                   f"{row[3]:.0f} | {row[4]:.0f} |")  # fmt: skip

    for name, wanted, half in MOSAICS:
        home = output / f"{name.replace(' ', '_')}_{half}"
        folder, labels = counted(data, wanted, half, home)
        compared = Compared(home / "low" / "slide.cellseg", labels, wanted.protocol.score)
        frame = load_result(folder).frame
        size = (frame.lattice_height, frame.lattice_width)
        random = [
            compared.judged(random_windows(*size, labels, frame.downsample, rng))
            for _ in range(draws)
        ]
        chosen = compared.judged(teach_windows(folder, WINDOWS))
        rows.append([np.mean(random, 0), np.array(chosen, float)])
        for kind, row in zip(("random", "chosen"), rows[-1], strict=True):
            tell(f"{name}, {half}", kind, row)
    for kind, row in zip(("random", "chosen"), np.mean(rows, 0), strict=True):
        tell("all", kind, row)


if __name__ == "__main__":
    main()
