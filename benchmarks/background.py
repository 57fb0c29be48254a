"""Outlines without contrast: how many are left out, and how many of them are annotated nuclei.

    python benchmarks/background.py nuinsseg/val.json tnbc/val.json nucls/val.json dsb2018/val.json

Counts each image with every outline kept, and asks of each what
``cellseg/counting/measured.py`` says. An outline is an annotated nucleus where both overlap by
an IoU of 0.5 or more. A row of the table is a set and a kind of light.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from scipy.ndimage import find_objects

from cellseg.counting import measured
from cellseg.counting.measured import RING_PX, is_background
from cellseg.counting.request import CountRequest
from cellseg.geometry import Box
from cellseg.result import Result, load_result
from cellseg.run import CountResult, run


def annotated(rows: list[dict], image: dict, result: Result) -> NDArray[np.int64]:
    """Annotated objects as labels on the result's lattice, 0 elsewhere."""
    labels = np.zeros((image["height"], image["width"]), dtype=np.int64)
    for number, row in enumerate(rows, start=1):
        labels[rle.decode(row["segmentation"]).astype(bool)] = number
    frame = result.frame
    y, x = (
        np.minimum((np.arange(side) + 0.5) * frame.downsample, most - 1).astype(int)
        for side, most in zip(
            (frame.lattice_height, frame.lattice_width), labels.shape, strict=True
        )
    )
    return labels[np.ix_(y, x)]


def judged(result: Result, truth: NDArray[np.int64]) -> list[tuple[bool, bool]]:
    """Of each outline whether it would be left out, and whether it is an annotated nucleus."""
    labels = np.asarray(result.labels()[0][:])
    with result.slide() as slide:
        ground = result.ground(slide)
        whole = Box(0, 0, *labels.shape)
        raw = slide.read(whole, downsample=result.frame.downsample, channels=ground.channels)
    pixels, areas = ground.normaliser.apply(raw), np.bincount(truth.ravel())
    found = []
    for label, place in enumerate(find_objects(labels), start=1):
        if place is None:
            continue
        window = tuple(slice(max(0, s.start - RING_PX), s.stop + RING_PX) for s in place)
        mask = labels[window] == label
        shared = np.bincount(truth[window][mask], minlength=len(areas))
        shared[0] = 0
        best = int(shared.argmax())
        iou = shared[best] / (mask.sum() + areas[best] - shared[best])
        found.append((is_background(mask, pixels[window]), bool(iou >= 0.5)))
    return found


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(data: tuple[Path, ...]) -> None:
    """Print the table."""
    measured.is_background = lambda mask, pixels: False
    rows: dict[tuple[str, str], list[tuple[bool, bool]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        for path in data:
            content = json.loads(path.read_text(encoding="utf-8"))
            of_image = defaultdict(list)
            for row in content["annotations"]:
                if not row.get("iscrowd"):
                    of_image[row["image_id"]].append(row)
            for image in content["images"]:
                request = CountRequest(
                    image=path.parent / image["file_name"],
                    output=Path(scratch) / path.parent.name,
                    mpp=image.get("mpp"),
                )
                *_, done = run(request)
                assert isinstance(done, CountResult)
                result = load_result(done.folder)
                truth = annotated(of_image[image["id"]], image, result)
                key = path.parent.name, str(image.get("modality", ""))
                rows[key] += judged(result, truth)
    click.echo(
        "| set | light | outlines | left out | of them annotated nuclei |\n|---|---|---|---|---|"
    )
    for (name, light), found in rows.items():
        left = [is_nucleus for is_left, is_nucleus in found if is_left]
        click.echo(f"| {name} | {light} | {len(found):,} | {len(left)} | {sum(left)} |")


if __name__ == "__main__":
    main()
