"""Nuclei of unknown size: annotated images made smaller or larger, without a pixel size.

    python benchmarks/scale.py tnbc/val.json=0.5,1.5 nuinsseg/val.json=0.5,0.7 bbbc039/val.json=0.5

Each image is resized by each factor, its pixel size is left out, and it is counted twice: at its
own scale, and as ``cellseg count`` does it, which looks at some nuclei first, and enlarges or
reduces the image where they are unusually small or large (docs/lab/scale.md).
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import click
import numpy as np
from PIL import Image
from pycocotools import mask as rle

from cellseg.counting import scale
from cellseg.judge.evaluate import EvaluateRequest, Evaluation, evaluate


def resized(path: Path, factor: float, folder: Path, step: int) -> Path:
    """A COCO file and its images, every ``step``-th, resized by a factor; without pixel sizes."""
    data = json.loads(path.read_text())
    images: dict[int, dict[str, Any]] = {}
    for image in data["images"][::step]:
        pixels = Image.open(path.parent / image["file_name"])
        pixels = pixels if pixels.mode in {"L", "RGB"} else pixels.convert("RGB")
        width, height = (max(1, round(side * factor)) for side in pixels.size)
        name = f"{Path(image['file_name']).stem}.png"
        how = Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC
        pixels.resize((width, height), how).save(folder / name)
        images[image["id"]] = {"file_name": name, "height": height, "width": width}
        images[image["id"]] |= {"id": image["id"], "modality": image.get("modality", "")}
    sides = {each["id"]: (each["height"], each["width"]) for each in data["images"]}
    rows = []
    for row in data["annotations"]:
        if row["image_id"] not in images:
            continue
        image, outline = images[row["image_id"]], row["segmentation"]
        if isinstance(outline, list):
            outline = rle.merge(rle.frPyObjects(outline, *sides[row["image_id"]]))
        elif isinstance(outline["counts"], list):
            outline = rle.frPyObjects(outline, *sides[row["image_id"]])
        whole = Image.fromarray(rle.decode(outline) * 255)
        mask = np.array(whole.resize((image["width"], image["height"]), Image.Resampling.BOX)) > 127
        if mask.any():
            packed = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
            box, area = rle.toBbox(packed).tolist(), int(mask.sum())
            packed["counts"] = packed["counts"].decode()
            rows.append({**row, "segmentation": packed, "bbox": box, "area": area})
    found = folder / "val.json"
    found.write_text(json.dumps({**data, "images": [*images.values()], "annotations": rows}))
    return found


@click.command()
@click.argument("sets", nargs=-1, required=True)
@click.option("--step", default=1, show_default=True, help="Every STEP-th image.")
def main(sets: tuple[str, ...], step: int) -> None:
    """Count the images of each FILE=FACTOR,FACTOR … both ways."""
    click.echo(
        "| set, times | scale | nuclei | bias | error per image | F1 | AJI |\n|" + "---|" * 7
    )
    wide = dict.fromkeys(scale.KNOWN, (0.0, np.inf))
    for path, factors in (each.rsplit("=", 1) for each in sets):
        for factor in factors.split(","):
            with TemporaryDirectory() as folder:
                data = resized(Path(path), float(factor), Path(folder), step)
                for name, known in (("own", wide), ("as counted", scale.KNOWN)):
                    with patch.object(scale, "KNOWN", known):
                        *_, done = evaluate(EvaluateRequest(data=(data,)))
                    assert isinstance(done, Evaluation)
                    scores = done.scores()
                    count = scores.count
                    f1 = 2 * scores.matched / (count.truth + count.found)
                    click.echo(
                        f"| {Path(path).parent.name} × {factor} | {name} | {count.truth:,} | "
                        f"{count.bias:+.1%} | {count.mean_relative:.1%} | {f1:.3f} | "
                        f"{scores.aji:.3f} |"
                    )


if __name__ == "__main__":
    main()
