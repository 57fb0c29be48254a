"""GeoJSON regions and COCO annotations."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import imageio.v3 as imageio

from ..child import Make
from ..dice import WHOLE, damaged, json_text
from ._command import COLOURED, GREY
from .fields import _drawn
from .tiff import _WRITTEN, hostile_tags, written

_RING = [[5, 5], [100, 5], [100.5, 60], [5, 60], [5, 5]]
_HOLE = [[20, 20], [40, 20], [40, 40], [20, 20]]
_POLYGON: dict[str, Any] = {"type": "Polygon", "coordinates": [_RING, _HOLE]}
_SHAPES: tuple[dict[str, Any], ...] = (
    _POLYGON,
    {"type": "MultiPolygon", "coordinates": [[_RING], [_HOLE]]},
    {"type": "Feature", "geometry": _POLYGON, "properties": {"name": "tumour"}},
    {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": _POLYGON}] * 3},
    {
        "type": "GeometryCollection",
        "geometries": [_POLYGON, {"type": "Point", "coordinates": [1, 2]}],
    },
)


def region(dice: Random, folder: Path) -> list[str]:
    """A count inside of polygons that are none."""
    imageio.imwrite(folder / "in" / "a.png", GREY)
    (folder / "in" / "region.geojson").write_bytes(json_text(dice, dice.choice(_SHAPES)))
    return ["count", "{here}/in/a.png", "--output", "{here}/out", "--region",
            "{here}/in/region.geojson", "--mpp", "0.5", "--no-prefilter"]  # fmt: skip


def _coco(dice: Random) -> dict[str, Any]:
    counts = dice.choice(([30, 50, 9520], "PPYo1", [0, 9600], [9600], [5, 10**6]))
    outlines: list[Any] = [
        [[10, 10, 40, 10, 40, 40, 10, 40]], [[50.5, 20, 70, 22, 60, 50]],
        {"size": [80, 120], "counts": counts}, [], None,
    ]  # fmt: skip
    rows = [
        {"id": n, "image_id": 1 + n % 2, "category_id": 1, "segmentation": dice.choice(outlines),
         "bbox": [10, 10, 30, 30], "area": 900, "iscrowd": int(not dice.randrange(8))}
        for n in range(dice.choice((1, 4, 12)))
    ]  # fmt: skip
    return {
        "images": [{"id": n, "file_name": name, "height": 80, "width": 120, "mpp": 0.5}
                   for n, name in ((1, "a.png"), (2, "b.tif"))],
        "annotations": rows,
        "categories": [{"id": 1, "name": "nucleus"}, {"id": 2, "name": "lymphocyte"}],
    }  # fmt: skip


def coco(dice: Random, folder: Path) -> list[str]:
    """An evaluation on annotations, or on images, that are damaged."""
    tree = _coco(dice)
    (folder / "in" / "cells.json").write_text(json.dumps(tree))
    (folder / "in" / "a.png").write_bytes(_drawn("colour.png"))
    imageio.imwrite(folder / "in" / "b.tif", COLOURED)
    match dice.randrange(6):
        case 0:
            hostile_tags(dice, folder)
            next(iter(sorted((folder / "in").glob("b.*")))).rename(folder / "in" / "b.tif")
        case 1:
            (folder / "in" / "b.tif").write_bytes(
                damaged(dice, written(dice.randrange(len(_WRITTEN))))
            )
        case 2:
            (folder / "in" / "a.png").write_bytes(
                damaged(dice, _drawn(dice.choice(("colour.png", "colour.jpg"))))
            )
        case _:
            if not dice.randrange(4):
                tree["images"][0][dice.choice(("height", "width"))] = dice.choice(WHOLE)
            (folder / "in" / "cells.json").write_bytes(json_text(dice, tree))
    return ["evaluate", "{here}/in/cells.json", "--no-prefilter", *dice.choice(([], ["--json"]))]


KINDS: dict[str, Make] = {"geojson": region, "coco": coco}
