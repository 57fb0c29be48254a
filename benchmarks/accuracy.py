"""Accuracy of counting on annotated images, through the whole of ``cellseg count``.

    python benchmarks/accuracy.py DATA/val.json... [--model FILE] [--protocol NAME] [--score S]

For each COCO file: F1 at IoU 0.5 and 0.75 (one-to-one, greedy by IoU, pooled over images),
pooled and per-image count error, all and by modality. The images go through the same code
as a user's slide: protocol chosen from the image, tiles, merging, size gates, labels.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from skimage.transform import resize

from cellseg.pipeline import CountResult, run
from cellseg.plan import CountRequest
from cellseg.results import load_result


@dataclass
class Tally:
    true: int = 0
    found: int = 0
    hits50: int = 0
    hits75: int = 0
    errors: list[float] | None = None

    def add(self, true: int, best: NDArray[np.float64], found: int) -> None:
        self.true += true
        self.found += found
        self.hits50 += int((best >= 0.5).sum())
        self.hits75 += int((best >= 0.75).sum())
        self.errors = [*(self.errors or []), abs(found - true) / max(true, 1)]

    def line(self, name: str) -> str:
        both = max(1, self.true + self.found)
        return (
            f"{name:<28} images {len(self.errors or []):>3}"
            f"  true {self.true:>5}  counted {self.found:>5}"
            f"  bias {100 * (self.found - self.true) / max(1, self.true):+6.1f} %"
            f"  per image {100 * float(np.mean(self.errors or [0])):5.1f} %"
            f"  F1@.5 {2 * self.hits50 / both:.3f}  F1@.75 {2 * self.hits75 / both:.3f}"
        )


def truth_of(entry: dict, annotations: list[dict]) -> list[NDArray[np.bool_]]:
    """Masks of one image."""
    size = (entry["height"], entry["width"])
    masks = []
    for annotation in annotations:
        code = annotation["segmentation"]
        if isinstance(code, list):
            code = rle.merge(rle.frPyObjects(code, *size))
        elif isinstance(code["counts"], list):
            code = rle.frPyObjects(code, *size)
        masks.append(rle.decode(code).astype(bool))
    return masks


def best_matches(masks: list[NDArray[np.bool_]], labels: NDArray[np.uint32]) -> NDArray[np.float64]:
    """IoU of each one-to-one match between masks and labels, best pairs first."""
    areas = np.bincount(labels.ravel())
    pairs = []
    for index, mask in enumerate(masks):
        inside = np.bincount(labels[mask], minlength=len(areas))
        total = int(mask.sum())
        for label in np.flatnonzero(inside[1:]) + 1:
            union = total + areas[label] - inside[label]
            pairs.append((inside[label] / union, index, int(label)))
    used_masks: set[int] = set()
    used_labels: set[int] = set()
    found = []
    for iou, index, label in sorted(pairs, reverse=True):
        if index not in used_masks and label not in used_labels:
            used_masks.add(index)
            used_labels.add(label)
            found.append(iou)
    return np.array(found)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--model", default="default")
@click.option("--protocol")
@click.option("--score", type=float)
@click.option("--mpp", type=float)
@click.option("--no-prefilter", is_flag=True)
@click.option("--limit", type=int, help="Only so many images of each file.")
def main(files, model, protocol, score, mpp, no_prefilter, limit) -> None:
    detectors: dict = {}
    for file in files:
        data = json.loads(file.read_text())
        by_image = defaultdict(list)
        for annotation in data["annotations"]:
            if not annotation.get("iscrowd"):
                by_image[annotation["image_id"]].append(annotation)
        tallies: dict[str, Tally] = defaultdict(Tally)
        for entry in data["images"][:limit]:
            with tempfile.TemporaryDirectory() as folder:
                request = CountRequest(
                    image=file.parent / entry["file_name"], output=Path(folder), model=model,
                    protocol=protocol, score=score, mpp=mpp or entry.get("mpp"),
                    prefilter=not no_prefilter,
                )  # fmt: skip
                for event in run(request, detectors=detectors):
                    if isinstance(event, CountResult):
                        result = load_result(event.cells.folder)
                        labels = np.asarray(result.labels()[0])
            size = (entry["height"], entry["width"])
            if labels.shape != size:
                labels = resize(
                    labels, size, order=0, preserve_range=True, anti_aliasing=False
                ).astype(np.uint32)
            masks = truth_of(entry, by_image[entry["id"]])
            best = best_matches(masks, labels)
            found = len(np.unique(labels[labels > 0]))
            for name in ("all", entry.get("modality", "unknown")):
                tallies[name].add(len(masks), best, found)
        for name, tally in tallies.items():
            click.echo(tally.line(f"{file.parent.name} {name}"))


if __name__ == "__main__":
    main()
