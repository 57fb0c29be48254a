"""Whole cells against annotated boxes: blood, counting chambers, phase contrast.

    python benchmarks/cells.py DATA [--model M] [--split val] [--without-mpp] [--diameter PX]

DATA holds the sets' folders. Every image goes through the whole of a count, down to a low score;
what a higher one counts is read off. Boxes match from an IoU of 0.5 on, each once, the surest
first, within a class. One table gives the figures at the protocols' scores, another one for each
class the score that counts right. Cells of phase contrast have outlines: their F1 by masks is that
of ``cellseg evaluate``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from cellseg.annotations.compare import Compared, match
from cellseg.annotations.masks import outline_of
from cellseg.counting.plan import choose_assay, make_plan
from cellseg.counting.request import CountRequest
from cellseg.counting.stages import SlideCount
from cellseg.instances import Instances
from cellseg.network.detect import MaskRCNNDetector, load_detector
from cellseg.protocol import CountProtocol, load_protocol
from cellseg.slide import open_slide

SETS = {
    "blood_smears": "blood_smear",
    "ldc_hemocytometer": "counting_chamber",
    "t98g_phase": "phase_contrast",
}
LOWEST = 0.05
SCORES = np.arange(LOWEST, 0.96, 0.01)


@dataclass(frozen=True)
class Image:
    """Boxes (y0, x0, y1, x1) of one image, found and annotated, with classes by name.

    Attributes
    ----------
    hits : ndarray, bool
        Which found boxes match an annotated one of their class, each score at its best.
    mask_hits : ndarray, bool, optional
        The same by masks, where they are real.
    """

    scores: NDArray[np.float64]
    classes: NDArray[np.str_]
    hits: NDArray[np.bool_]
    mask_hits: NDArray[np.bool_] | None
    truth: NDArray[np.str_]
    downsample: float


def box_hits(
    found: NDArray[np.float64], scores: NDArray[np.float64], truth: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which found boxes match an annotated one, the surest first."""
    hits, free = np.zeros(len(found), bool), np.ones(len(truth), bool)
    for index in np.argsort(-scores, kind="stable"):
        if not free.any():
            break
        low, high = (
            np.maximum(found[index, :2], truth[:, :2]),
            np.minimum(found[index, 2:], truth[:, 2:]),
        )
        common = np.clip(high - low, 0, None).prod(1)
        areas = (truth[:, 2:] - truth[:, :2]).prod(1)
        union = (found[index, 2:] - found[index, :2]).prod() + areas - common
        overlap = np.where(free, common / union, 0)
        best = int(overlap.argmax())
        if overlap[best] >= 0.5:
            hits[index], free[best] = True, False
    return hits


def counted(
    path: Path,
    rows: Sequence[dict[str, object]],
    names: dict[int, str],
    detector: MaskRCNNDetector,
    request: CountRequest,
    protocol: CountProtocol,
    extent: tuple[int, int],
) -> Image:
    """One image, counted down to a low score."""
    rules = {k: v.model_copy(update={"score": None}) for k, v in protocol.classes.items()}
    with open_slide(path, mpp=request.mpp) as slide:
        assay = choose_assay(slide, request)
        plan = make_plan(slide, request, detector.info, assay=assay, detector=detector)
        low = plan.protocol.changed(score=LOWEST, classes=rules, intensity=False)
        count = SlideCount(slide, replace(plan, protocol=low), detector)
        cells = Instances.concatenate([p.instances for step in count.steps() for p in step.cells])
    classes = np.array(count.detector.info.classes)[cells.classes]
    boxes = cells.boxes.astype(float) * plan.downsample
    given = np.array([row.get("box") or row["bbox"] for row in rows], float).reshape(-1, 4)
    truth = np.stack([given[:, 1], given[:, 0], given[:, 1] + given[:, 3],
                      given[:, 0] + given[:, 2]], 1)  # fmt: skip
    kinds = np.array([names[int(str(row["category_id"]))] for row in rows], dtype=str)
    hits = np.zeros(len(cells), bool)
    for name in np.unique(classes):
        own = classes == name
        hits[own] = box_hits(boxes[own], cells.scores[own].astype(float), truth[kinds == name])
    masks = None
    if not any(row.get("box_only") for row in rows):
        outlines = [outline_of(row["segmentation"], extent) for row in rows]
        annotated = Instances.build(
            [box.corners for box, _ in outlines],
            [1.0] * len(rows),
            [0] * len(rows),
            [m for _, m in outlines],
        )
        pairs = Compared(on_pixels(cells, plan.downsample, extent), annotated, extent)
        masks = np.zeros(len(cells), bool)
        allowed = np.ones(len(pairs.overlaps.found), bool)
        masks[match(pairs.overlaps, allowed=allowed, scores=cells.scores).found] = True
    return Image(cells.scores.astype(float), classes, hits, masks, kinds, plan.downsample)


def on_pixels(cells: Instances, downsample: float, extent: tuple[int, int]) -> Instances:
    """Cells of the lattice on the image's pixels; every one keeps its place."""
    boxes, masks = [], []
    for (y0, x0, y1, x1), mask in zip(cells.boxes.tolist(), cells.masks, strict=True):
        top, left = int(y0 * downsample), int(x0 * downsample)
        rows = np.arange(top, max(top + 1, min(extent[0], round(y1 * downsample))))
        columns = np.arange(left, max(left + 1, min(extent[1], round(x1 * downsample))))
        at_y = np.clip(((rows + 0.5) / downsample).astype(int) - y0, 0, mask.shape[0] - 1)
        at_x = np.clip(((columns + 0.5) / downsample).astype(int) - x0, 0, mask.shape[1] - 1)
        seen = mask[np.ix_(at_y, at_x)]
        seen[0, 0] |= not seen.any()
        boxes.append((top, left, top + len(rows), left + len(columns)))
        masks.append(seen)
    return Instances.build(boxes, cells.scores.tolist(), cells.classes.tolist(), masks)


def figures(
    images: Sequence[Image], score: dict[str, float], *, masks: bool = False
) -> dict[str, float]:
    """Annotated, counted and right cells of the classes at their scores."""
    truth = found = right = 0
    for image in images:
        for name, least in score.items():
            kept = (image.classes == name) & (image.scores >= least)
            hits = image.mask_hits if masks else image.hits
            truth += int((image.truth == name).sum())
            found += int(kept.sum())
            right += int((kept & hits).sum())
    return {"truth": truth, "found": found, "f1": 2 * right / max(1, truth + found)}


def unbiased(images: Sequence[Image], name: str) -> float:
    """The score at which as many cells of a class are counted as are annotated."""
    truth = sum(int((image.truth == name).sum()) for image in images)
    scores = np.concatenate([image.scores[image.classes == name] for image in images])
    counts = np.array([(scores >= score).sum() for score in SCORES])
    return float(SCORES[int(np.abs(counts - truth).argmin())].round(2))


def report(name: str, images: Sequence[Image], scores: dict[str, float], said: str) -> None:
    """Lines of the table."""
    for kind in scores:
        one = figures(images, {kind: scores[kind]})
        click.echo(line(name, kind, said, scores[kind], one))
    if len(scores) > 1:
        click.echo(line(name, "all", said, None, figures(images, scores)))
    if all(image.mask_hits is not None for image in images):
        one = figures(images, scores, masks=True)
        click.echo(line(name, "all, by masks", said, None, one))
    if "living cell" in scores:
        shares = []
        for count in ("truth", "found"):
            living, dead = (
                figures(images, {kind: scores[kind]})[count]
                for kind in ("living cell", "dead cell")
            )
            shares.append(living / max(1, living + dead))
        click.echo(f"| {name} | viability | {said} | | {shares[0]:.1%} | {shares[1]:.1%} "
                   f"| {100 * (shares[1] - shares[0]):+.1f} points | |")  # fmt: skip


def line(name: str, kind: str, said: str, score: float | None, one: dict[str, float]) -> str:
    """A row: annotated, counted, bias, F1."""
    bias = one["found"] / max(1, one["truth"]) - 1
    shown = "" if score is None else f"{score:.2f}"
    return (
        f"| {name} | {kind} | {said} | {shown} | {one['truth']:,} | {one['found']:,} | {bias:+.1%} "
        f"| {one['f1']:.3f} |"
    )


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--model", default="cells", show_default=True)
@click.option("--split", default="val", show_default=True)
@click.option("--set", "sets", multiple=True, type=click.Choice([*SETS]))
@click.option("--every", default=1, show_default=True, help="Only every n-th image.")
@click.option("--without-mpp", is_flag=True, help="As a PNG is counted: the cells tell the scale.")
@click.option("--diameter", type=float, help="Usual cell, pixels of the image.")
def main(
    data: Path,
    model: str,
    split: str,
    sets: Iterable[str],
    every: int,
    without_mpp: bool,
    diameter: float | None,
) -> None:
    """Count, compare, print."""
    detector = load_detector(model)
    heads = ("set", "class", "score", "from", "annotated", "counted", "bias", "F1 at IoU 0.5")
    click.echo("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for name in sets or SETS:
        given = json.loads((data / name / f"{split}.json").read_text())
        names = {entry["id"]: entry["name"] for entry in given["categories"]}
        protocol = load_protocol(SETS[name])
        images, groups = [], {}
        for entry in given["images"][::every]:
            path = data / name / entry["file_name"]
            rows = [row for row in given["annotations"] if row["image_id"] == entry["id"]]
            request = CountRequest(
                image=path,
                protocol=SETS[name],
                model=model,
                mpp=None if without_mpp else entry.get("mpp"),
                diameter_px=diameter,
            )
            extent = (entry["height"], entry["width"])
            image = counted(path, rows, names, detector, request, protocol, extent)
            images.append(image)
            groups.setdefault(entry.get("source") or entry.get("group") or "", []).append(image)
        fixed = {
            kind: protocol.score if rule.score is None else rule.score
            for kind, rule in protocol.classes.items()
        }
        report(name, images, fixed, "protocol")
        report(name, images, {kind: unbiased(images, kind) for kind in fixed}, "counts right")
        for group, part in groups.items() if len(groups) > 1 else ():
            spread = np.percentile([image.downsample for image in part], [5, 50, 95]).round(2)
            click.echo(line(f"{name}, {group}", f"all (downsample {spread})", "protocol", None,
                            figures(part, fixed)))  # fmt: skip


if __name__ == "__main__":
    main()
