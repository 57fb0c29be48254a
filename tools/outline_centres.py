"""Give fields of annotated centres pseudo-outlines to train on: COCO JSON beside their images.

    python tools/outline_centres.py FOLDER --model MODEL --output NEW [--split train] [--mpp 0.5]

FOLDER holds ``images/``, ``counts.csv`` (image, split) and ``points.csv`` (image, x, y). A nucleus
that the model finds is taken where it holds exactly one centre, and no other does. Everything else
that is annotated or found is a region to ignore: ``iscrowd``.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from imageio.v3 import imread
from numpy.typing import NDArray

from cellseg.annotations.image import AnnotatedImage
from cellseg.annotations.masks import encoded
from cellseg.errors import InputError
from cellseg.geometry import Box
from cellseg.instances import Instances
from cellseg.network.detect import load_detector
from cellseg.train.crops import cut_pixels, resampled

NETWORK_MPP = 0.25
RADIUS_UM = 3.5
"""Of the region that is ignored about a centre without a nucleus."""


def sorted_out(
    found: Instances, centres: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Which nuclei hold one centre of their own, the other nuclei, and the centres left over.

    Parameters
    ----------
    found : Instances
    centres : ndarray, (C, 2)
        (y, x), pixels of ``found``.
    """
    inside = np.zeros((len(found), len(centres)), dtype=bool)
    for row, (box, mask) in enumerate(zip(found.boxes, found.masks, strict=True)):
        y, x = np.floor(centres - box[:2]).astype(int).T
        within = (y >= 0) & (x >= 0) & (y < mask.shape[0]) & (x < mask.shape[1])
        inside[row, within] = mask[y[within], x[within]]
    alone = inside & (inside.sum(1, keepdims=True) == 1) & (inside.sum(0, keepdims=True) == 1)
    return (
        np.flatnonzero(alone.any(1)),
        np.flatnonzero(~alone.any(1)),
        np.flatnonzero(~alone.any(0)),
    )


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--model", default="default", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@click.option("--split", default="train", show_default=True)
@click.option("--mpp", default=0.5, show_default=True)
@click.option("--score", default=0.35, show_default=True)
def main(folder: Path, model: str, output: Path, split: str, mpp: float, score: float) -> None:
    """Write NEW/train.json and NEW/images, a link."""
    torch.set_num_threads(1)
    detector = load_detector(model, device="cpu", score=score)
    table = pd.read_csv(folder / "counts.csv")
    points = pd.read_csv(folder / "points.csv").groupby("image")
    images, rows, taken, total = [], [], 0, 0
    for name in table.loc[table["split"] == split, "image"]:
        pixels = imread(folder / "images" / name)[..., :3]
        height, width = pixels.shape[:2]
        none = np.zeros(0, np.int64)
        field = AnnotatedImage(
            name, pixels, np.zeros((0, 4), np.int32), [], none, "transmitted", mpp, name
        )
        window, zoom = Box(0, 0, height, width), mpp / NETWORK_MPP
        size = (round(height * zoom), round(width * zoom))
        seen = cut_pixels(field, window, size).permute(1, 2, 0).contiguous().numpy()
        found = detector.detect(seen, fill=1.0).instances
        xy = points.get_group(name)[["x", "y"]].to_numpy(float) if name in points.groups else none
        centres = np.reshape(xy, (-1, 2))[:, ::-1]
        outside = (centres < 0) | (centres >= (height, width))
        if outside.any():
            raise InputError(f"{name}: {outside.any(1).sum()} centres lie outside of the image")
        good, doubtful, lost = sorted_out(found, (centres + 0.5) * zoom)
        taken, total = taken + len(good), total + len(centres)
        back = Box(0, 0, *size)
        parts = [(index, 0) for index in good.tolist()] + [(i, 1) for i in doubtful.tolist()]
        outlines = [
            (
                resampled(Box(*map(int, found.boxes[i])), found.masks[i], back, (height, width)),
                crowd,
            )
            for i, crowd in parts
        ]
        radius = RADIUS_UM / mpp
        for y, x in centres[lost]:
            box = Box(
                max(0, int(y - radius)), max(0, int(x - radius)),
                min(height, int(y + radius) + 1), min(width, int(x + radius) + 1),
            )  # fmt: skip
            outlines.append(((box, np.ones((box.height, box.width), bool)), 1))
        images.append(
            {"id": len(images) + 1, "file_name": name, "height": height, "width": width,
             "modality": "histology", "mpp": mpp}
        )  # fmt: skip
        for outline, crowd in outlines:
            if outline is not None:
                box, mask = outline
                code = encoded(box, mask, (height, width))
                code["counts"] = code["counts"].decode()
                rows.append(
                    {"id": len(rows) + 1, "image_id": len(images), "category_id": 1,
                     "iscrowd": crowd, "segmentation": code}
                )  # fmt: skip
        click.echo(f"{name[:40]}: {len(centres)} centres, {len(good)} outlined, {len(found)} found")
    output.mkdir(parents=True, exist_ok=True)
    link = output / "images"
    if not link.exists():
        link.symlink_to((folder / "images").resolve())
    data = {
        "images": images,
        "annotations": rows,
        "categories": [{"id": 1, "name": "nucleus"}],
    }
    (output / f"{split}.json").write_text(json.dumps(data))
    click.echo(f"{taken} of {total} centres outlined")


if __name__ == "__main__":
    main()
