"""How far outlines lie from the annotated ones, by the size of the nucleus.

    python benchmarks/borders.py DATA.json... [--model M]

Three columns: what the 28 × 28 mask alone would cost if the network made no mistake (annotated
masks are sampled and pasted as the mask branch's), masks of one look, and masks with the second
look at large boxes (:mod:`cellseg.network.roi_heads`). Figures are the mean distance between the
two outlines in pixels of the image (symmetric), and the mean IoU, over nuclei matched at
IoU 0.5 by both; the images go through the whole of a count. The time of both follows.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torchvision.ops import roi_align

from cellseg.geometry import Box
from cellseg.judge.evaluate import EvaluateRequest, Evaluation, evaluate
from cellseg.judge.judged import Judged
from cellseg.network.architecture import FINE_FROM_PX
from cellseg.network.detect import MaskRCNNDetector, load_detector
from cellseg.network.paste import paste_all

DIAMETERS_PX = (0, 12, 24, 36, 48, 72, 1000)

Mask = NDArray[np.bool_]


def distance(a: Mask, b: Mask) -> float:
    """Mean distance of each outline's pixels from the other outline, pixels."""
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (a, b)]
    far = [ndimage.distance_transform_edt(~edge) for edge in edges]
    there, back = far[1][edges[0]], far[0][edges[1]]
    return float((there.sum() + back.sum()) / (len(there) + len(back)))


def together(first: tuple[Box, Mask], second: tuple[Box, Mask]) -> tuple[Mask, Mask]:
    """Two masks on one frame, with a margin."""
    boxes = [first[0], second[0]]
    frame = Box(
        min(box.y0 for box in boxes),
        min(box.x0 for box in boxes),
        max(box.y1 for box in boxes),
        max(box.x1 for box in boxes),
    )
    drawn = []
    for box, mask in (first, second):
        canvas = np.zeros((frame.height + 2, frame.width + 2), dtype=bool)
        y, x = box.y0 - frame.y0 + 1, box.x0 - frame.x0 + 1
        canvas[y : y + box.height, x : x + box.width] = mask
        drawn.append(canvas)
    return drawn[0], drawn[1]


def sampled(box: Box, mask: Mask, extent: tuple[int, int]) -> tuple[Box, Mask] | None:
    """An annotated mask through the mask branch's 28 × 28 target and back."""
    pixels = torch.from_numpy(np.pad(mask, 1).astype(np.float32))[None, None]
    place = torch.tensor([[0, 1, 1, 1 + box.width, 1 + box.height]], dtype=torch.float32)
    target = roi_align(pixels, place, 28, 1.0)[0]
    corners = torch.tensor([[box.x0, box.y0, box.x1, box.y1]], dtype=torch.float32)
    return paste_all(target.numpy(), corners.numpy(), extent)[0]


Row = tuple[float, float, float]


def rows(images: tuple[Judged, ...], *, ideal: bool) -> dict[tuple[int, int], Row]:
    """Diameter, distance, IoU of each match, by image and annotated object."""
    found: dict[tuple[int, int], Row] = {}
    for number, image in enumerate(images):
        for mine, other in zip(image.matches.found, image.matches.truth, strict=True):
            truth = (image.truth.box(other), image.truth.masks[other])
            seen = (image.found.box(mine), image.found.masks[mine])
            if ideal:
                drawn = sampled(*truth, image.extent)
                if drawn is None:
                    continue
                seen = drawn
            a, b = together(seen, truth)
            diameter = 2 * np.sqrt(b.sum() / np.pi)
            found[number, int(other)] = (diameter, distance(a, b), (a & b).sum() / (a | b).sum())
    return found


@dataclass(frozen=True, kw_only=True)
class Looking(EvaluateRequest):
    """An evaluation with the second look at boxes with a side of so many pixels."""

    fine_from_px: float

    def detector(self) -> MaskRCNNDetector:
        found = load_detector(self.model)
        return MaskRCNNDetector(found.network, found.info, fine_from_px=self.fine_from_px)


def counted(data: tuple[Path, ...], model: str, fine_from_px: float) -> tuple[Evaluation, float]:
    """All images, and the seconds they took."""
    start = time.monotonic()
    *_, last = evaluate(Looking(data=data, model=model, fine_from_px=fine_from_px))
    assert isinstance(last, Evaluation)
    return last, time.monotonic() - start


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--model", default="default", show_default=True)
def main(data: tuple[Path, ...], model: str) -> None:
    """Print the table."""
    load_detector(model)
    once, once_s = counted(data, model, float("inf"))
    twice, twice_s = counted(data, model, FINE_FROM_PX)
    found = [
        rows(once.images, ideal=True),
        rows(once.images, ideal=False),
        rows(twice.images, ideal=False),
    ]
    # Of the nuclei that all three have.
    shared = sorted(set.intersection(*(set(one) for one in found)))
    columns = [np.array([one[key] for key in shared]).reshape(-1, 3) for one in found]
    click.echo("| diameter, px | nuclei | 28 × 28 alone | one look | second look |")
    click.echo("|---|---|---|---|---|")
    for low, high in pairwise(DIAMETERS_PX):
        parts = [table[(table[:, 0] >= low) & (table[:, 0] < high)] for table in columns]
        if len(parts[1]):
            name = f"{low} … {high}" if high < 1000 else f"from {low}"
            cells = [f"{part[:, 1].mean():.2f} px, {part[:, 2].mean():.3f}" for part in parts]
            click.echo(f"| {name} | {len(parts[1])} | {' | '.join(cells)} |")
    for name, run, seconds in (("one look", once, once_s), ("second look", twice, twice_s)):
        scores = run.scores()
        click.echo(
            f"{name}: F1 at IoU 0.75 {scores.f1[0.75]:.3f}, mask AP {scores.mask_ap:.3f}, "
            f"{seconds:.0f} s"
        )


if __name__ == "__main__":
    main()
