"""Annotated images that training and validation see."""

import json

import numpy as np
from imageio.v3 import imwrite

from cellseg.annotations.image import AnnotatedImage
from cellseg.annotations.masks import encoded
from cellseg.geometry import Box
from cellseg.instances import Instances


def annotated(pixels, cells=None, light="transmitted"):
    """A picture (H, W, 3) and its cells."""
    cells = cells or Instances.empty()
    boxes = np.array([cells.box(n).corners for n in range(len(cells))], np.int32).reshape(-1, 4)
    masks = list(cells.masks)
    return AnnotatedImage("drawn", pixels, boxes, masks, cells.classes, light, None, "drawn")


def write_coco(folder, pictures, classes, **about):
    """Pictures, each with the masks (H, W) and the classes of its objects, as COCO JSON."""
    images, annotations = [], []
    for number, (pixels, masks, kinds) in enumerate(pictures, start=1):
        extent = pixels.shape[:2]
        name = f"{number}.png"
        imwrite(folder / name, pixels)
        size = {"height": extent[0], "width": extent[1]}
        images.append({"id": number, "file_name": name, **size, **about})
        for mask, kind in zip(masks, kinds, strict=True):
            code = encoded(Box(0, 0, *extent), mask, extent)
            code["counts"] = code["counts"].decode()
            ids = {"id": len(annotations) + 1, "image_id": number, "category_id": kind + 1}
            annotations.append({**ids, "iscrowd": 0, "segmentation": code})
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(classes)]
    path = folder / "cells.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return path
