"""COCO JSON to annotated images."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from imageio.v3 import imread
from numpy.typing import NDArray
from pycocotools import mask as rle

from cellseg.normalise import Light
from cellseg.training.crops import AnnotatedImage


def decode(segmentation: object, height: int, width: int) -> NDArray[np.bool_]:
    if isinstance(segmentation, list):
        code = rle.merge(rle.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        code = rle.frPyObjects(segmentation, height, width)
    else:
        code = segmentation
    return rle.decode(code).astype(bool)


def load(path: Path) -> tuple[list[AnnotatedImage], list[str]]:
    data = json.loads(path.read_text())
    names = [c["name"] for c in sorted(data["categories"], key=lambda c: c["id"])]
    index = {c["id"]: i for i, c in enumerate(sorted(data["categories"], key=lambda c: c["id"]))}
    by_image = defaultdict(list)
    for a in data["annotations"]:
        if not a.get("iscrowd"):
            by_image[a["image_id"]].append(a)
    images = []
    for entry in data["images"]:
        pixels = imread(path.parent / entry["file_name"])
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        pixels = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1]
        boxes, masks, classes = [], [], []
        for a in by_image[entry["id"]]:
            m = decode(a["segmentation"], entry["height"], entry["width"])
            ys, xs = np.where(m.any(1))[0], np.where(m.any(0))[0]
            if not len(ys):
                continue
            b = (ys[0], xs[0], ys[-1] + 1, xs[-1] + 1)
            boxes.append(b)
            masks.append(m[b[0] : b[2], b[1] : b[3]].copy())
            classes.append(index[a["category_id"]])
        modality = entry.get("modality") or "unknown"
        light: Light = "fluorescence" if modality == "fluorescence" else "transmitted"
        images.append(
            AnnotatedImage(
                name=entry["file_name"], pixels=pixels,
                boxes=np.array(boxes, np.int32).reshape(-1, 4), masks=masks,
                classes=np.array(classes, np.int64), light=light, mpp=entry.get("mpp"),
                group=f"{path.parent.name}/{modality}",
            )
        )
    return images, names
