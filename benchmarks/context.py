"""How much context the network needs around a cell: the halo of a tile follows from it.

    python benchmarks/context.py IMAGE [--mpp M] [--core 256] [--places 6]

Cells of the same core are found with halos of growing width; the table says how far their
scores lie from those with the widest halo. A halo is wide enough once growing it further
moves scores by less than 0.02.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from cellseg.counting.plan import fit_normaliser, make_plan
from cellseg.counting.request import CountRequest
from cellseg.counting.tiles import TileSource
from cellseg.geometry import Box
from cellseg.instances import Instances
from cellseg.network.detect import load_detector
from cellseg.slide import open_slide
from cellseg.stain.normalise import Normaliser

HALOS = (32, 64, 96, 128, 160, 192)
WIDEST = 256


def overlap(a: Instances, i: int, b: Instances, j: int) -> float:
    """IoU of two masks."""
    box, other = a.box(i), b.box(j)
    part = box.intersection(other)
    if part.area == 0:
        return 0.0

    def cut(mask, home):
        return mask[part.y0 - home.y0 : part.y1 - home.y0, part.x0 - home.x0 : part.x1 - home.x0]

    common = np.count_nonzero(cut(a.masks[i], box) & cut(b.masks[j], other))
    return common / (a.areas[i] + b.areas[j] - common)


def changes(reference: Instances, found: Instances, core: Box) -> list[float]:
    """Change in score of each reference cell centred in the core; lost cells change by all."""
    moved = []
    for i, (y0, x0, y1, x1) in enumerate(reference.boxes.tolist()):
        y, x = (y0 + y1) / 2, (x0 + x1) / 2
        if not (core.y0 <= y < core.y1 and core.x0 <= x < core.x1):
            continue
        near = np.flatnonzero(
            (abs((found.boxes[:, 0] + found.boxes[:, 2]) / 2 - y) < 16)
            & (abs((found.boxes[:, 1] + found.boxes[:, 3]) / 2 - x) < 16)
        )
        best = max(near, key=lambda j: overlap(reference, i, found, j), default=None)
        same = best is not None and overlap(reference, i, found, best) >= 0.5
        score = float(found.scores[best]) if same else 0.0
        moved.append(abs(score - float(reference.scores[i])))
    return moved


@click.command()
@click.argument("image", type=click.Path(exists=True, path_type=Path))
@click.option("--mpp", type=float)
@click.option("--model", default="default")
@click.option("--core", default=256)
@click.option("--places", default=6)
def main(image, mpp, model, core, places) -> None:
    # A low threshold, so that a score that moves is seen moving and not vanishing.
    detector = load_detector(model, score=0.1)
    with open_slide(image, mpp=mpp) as slide:
        plan = make_plan(slide, CountRequest(image=image), detector.info)
        scale: Normaliser = fit_normaliser(slide, plan)
        source = TileSource(slide, plan, scale)
        extent = plan.grid.extent
        margin = WIDEST
        ys = np.linspace(margin, extent.y1 - core - margin, max(2, places // 2)) // 32 * 32
        xs = np.linspace(margin, extent.x1 - core - margin, 2) // 32 * 32
        moved: dict[int, list[float]] = {halo: [] for halo in HALOS}
        for y in ys.astype(int):
            for x in xs.astype(int):
                box = Box(y, x, y + core, x + core)

                def find(halo: int, box: Box = box) -> Instances:
                    padded = box.widened(halo).intersection(extent)
                    tile = source.scaled(source.region(padded))
                    found = detector.detect(tile, fill=source.normaliser.background)
                    return found.instances.shifted(padded.y0, padded.x0)

                reference = find(WIDEST)
                counted = np.flatnonzero(reference.scores >= plan.protocol.score)
                reference = reference.take(counted)
                for halo in HALOS:
                    moved[halo] += changes(reference, find(halo), box)
    click.echo(f"{image.name}: {len(moved[HALOS[0]])} cells, against a halo of {WIDEST} px")
    click.echo("halo_px  median   95 %  largest  moved by 0.02 or more")
    for halo in HALOS:
        values = np.array(moved[halo] or [0.0])
        click.echo(
            f"{halo:>7}  {np.median(values):.4f}  {np.quantile(values, 0.95):.4f}  "
            f"{values.max():.4f}  {100 * float((values >= 0.02).mean()):.1f} %"
        )


if __name__ == "__main__":
    main()
