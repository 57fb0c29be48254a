"""GeoJSON regions, COCO annotations, and outlines of QuPath and ImageJ to be converted."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import imageio.v3 as imageio
import numpy as np
from roifile import ROI_TYPE, ImagejRoi

from ..child import Make
from ..dice import TEXTS, damaged, json_text, number
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


def _outline(dice: Random) -> Any:  # noqa: ANN401
    """What may stand where an outline is expected: right in form, wrong in content."""
    far = dice.choice((121.0, 1e4, 1e9, 1e150, -1.0, -1e9, 1e-300))
    runs = [[9600], [0, 9600], [30, 50, 9520], [30, -50, 9620], [9601], [1] * 9600, [10**12], [],
            [0.5, 9599.5], ["30", "9570"], [2**63, 2**63]]  # fmt: skip
    texts = ("PPYo1", "", "0", "o" * 3000, "PPY", "~~~~", "\x00", "PPYo1é", "P" * 100_000)
    return dice.choice((
        lambda: [[10, 10, far, 10, 40, 40]],
        lambda: [[10, 10, 40, 10, 40, 40, 10]],
        lambda: [[dice.choice((10, number(dice))) for _ in range(8)]],
        lambda: [[10, 10, 40, 40, 40, 10, 10, 40]],
        lambda: [[10, 10] * dice.choice((3, 3000))],
        lambda: [[10, 10, 40, 10, 40, 40]] * dice.choice((2, 500)),
        lambda: [[dice.uniform(0, 120) for _ in range(dice.choice((6, 40, 4000)))]],
        lambda: {"size": [80, 120], "counts": dice.choice(runs)},
        lambda: {"size": [80, 120], "counts": dice.choice(texts)},
        lambda: {"size": dice.choice(([120, 80], [80], [0, 0], [2**31, 2**31], [-80, 120], 80)),
                 "counts": dice.choice((*runs, *texts))},
        lambda: [[]],
        lambda: dice.choice(TEXTS),
    ))()  # fmt: skip


def _hostile(dice: Random, tree: dict[str, Any]) -> None:
    """One change of a kind that programs and people make, or somebody who means no good."""
    row, image = dice.choice(tree["annotations"]), dice.choice(tree["images"])
    match dice.randrange(10):
        case 0 | 1 | 2:
            row["segmentation"] = _outline(dice)
        case 3:
            row["bbox"] = [number(dice) for _ in range(dice.choice((4, 4, 4, 3, 0)))]
            row["segmentation"] = []
        case 4:
            row[dice.choice(("id", "image_id", "category_id", "iscrowd", "area"))] = dice.choice(
                (number(dice), 1, True, None, "1", dice.choice(TEXTS))
            )
        case 5:
            image["file_name"] = dice.choice((*TEXTS, "../secret.png", "in/../../secret.png",
                                              "link.png", "link/secret.png", "fifo"))  # fmt: skip
        case 6:
            image[dice.choice(("height", "width", "mpp", "modality"))] = number(dice)
        case 7:
            dice.choice(tree["categories"])[dice.choice(("name", "id"))] = dice.choice(
                (*TEXTS, 0, -1, 1, "nucleus")
            )
        case 8:
            part = dice.choice(("annotations", "images", "categories"))
            tree[part] *= dice.choice((0, 2, 300))
        case _:
            tree["annotations"] = [{**row, "id": n} for n in range(dice.choice((2, 3000)))]


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
            (folder / "secret.png").write_bytes(_drawn("colour.png"))
            (folder / "in" / "link.png").symlink_to("../secret.png")
            (folder / "in" / "link").symlink_to("..")
            for _ in range(dice.choice((1, 1, 2, 3))):
                if all(tree.values()):
                    _hostile(dice, tree)
            data = json.dumps(tree).encode() if dice.randrange(4) else json_text(dice, tree)
            (folder / "in" / "cells.json").write_bytes(data)
    return ["evaluate", "{here}/in/cells.json", "--no-prefilter", *dice.choice(([], ["--json"]))]


@cache
def _rois() -> tuple[bytes, ...]:
    ring = np.array([[5, 5], [60, 5], [60, 40], [5, 40]])
    made = [ImagejRoi.frompoints(ring, name="one"), ImagejRoi.frompoints(ring + 0.5, name="two")]
    made[1].props, made[1].group = "class: tumour\n", 3
    for kind in (ROI_TYPE.RECT, ROI_TYPE.OVAL):
        one = ImagejRoi.frompoints(ring, name=f"Region* {kind}")
        one.roitype = kind
        made.append(one)
    return tuple(one.tobytes() for one in made)


def _features(dice: Random) -> list[dict[str, Any]]:
    """What QuPath exports: cells, some with a nucleus, in a region."""
    nucleus = {"type": "Polygon", "coordinates": [[[6, 6], [30, 6], [30, 30], [6, 6]]]}
    square = {"type": "Polygon", "coordinates": [[[0, 0], [110, 0], [110, 70], [0, 70], [0, 0]]]}
    cell = {
        "type": "Feature",
        "geometry": _POLYGON,
        "nucleusGeometry": nucleus,
        "properties": {"objectType": "cell", "classification": {"names": ["Tumor", "+"]}},
    }
    around = {
        "type": "Feature",
        "geometry": square,
        "properties": {
            "objectType": "annotation",
            "name": dice.choice(TEXTS),
            "classification": {"name": dice.choice(("Region*", "Ignore*", "Stroma"))},
        },
    }
    deep: Any = nucleus
    for _ in range(dice.choice((2, 100, 400))):
        deep = {"type": "GeometryCollection", "geometries": [deep]}
    bare = {"type": "Feature", "geometry": deep}
    found = [cell] * dice.choice((1, 3)) + [around] * dice.randrange(2)
    return found + [bare] * (not dice.randrange(6))  # fmt: skip


def converted(dice: Random, folder: Path) -> list[str]:
    """Outlines made into training data: of QuPath, packed or not, and of ImageJ."""
    home = folder / "in"
    (home / "a.png").write_bytes(_drawn("colour.png"))
    kind = dice.choice(("geojson", "geojson.gz", "roi", "zip"))
    if kind == "roi":
        data = damaged(dice, dice.choice(_rois()))
    elif kind == "zip":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
            for number_, one in enumerate(_rois()):
                name = dice.choice(
                    (f"{number_}.roi",) * 4
                    + (f"../{number_}.roi", f"/{number_}.roi", f"{number_}.txt")
                )
                content = one if dice.randrange(3) else damaged(dice, one)
                packed.writestr(name, content if dice.randrange(40) else one + bytes(300_000_000))
        data = file.getvalue() if dice.randrange(2) else damaged(dice, file.getvalue())
    else:
        data = json_text(dice, _features(dice))
        if kind == "geojson.gz":
            data = gzip.compress(data if dice.randrange(12) else bytes(400_000_000), 1)
            data = data if dice.randrange(3) else damaged(dice, data)
    (home / f"a.{kind}").write_bytes(data)
    return ["annotations", "convert", f"{{here}}/in/a.{kind}", "-o", "{here}/out/cells.json",
            *dice.choice(([], [], ["--whole-cells"], ["--mpp", "0.5"]))]  # fmt: skip


KINDS: dict[str, Make] = {"geojson": region, "coco": coco, "outlines": converted}
