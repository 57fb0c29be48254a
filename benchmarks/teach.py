"""What teaching brings: five windows, chosen or random, corrected by an annotator who knows.

    python benchmarks/teach.py DATA [--sets "t98g_phase;..."] [--minutes 3] [--draws 1] [--swap]

DATA holds the sets' folders; "membranes" is scikit-image's field, annotated by eye, in quarters
(``ihc_nuclei.csv``). Every other image of a set's val.json becomes a field of one mosaic, the
"slide"; the rest are the images to be judged on. The slide is counted with the nuclei model,
windows are chosen, and in each the cells are painted as annotated, by the corrections that napari
makes. The taught model then counts the other images through the whole of a count; ``--swap`` takes
these for the mosaic, and the others to be judged on. Cells of counting chambers and of blood have
ellipses for masks, made of boxes. At the end dsb2018 and tnbc are counted with the untaught model.
Finished rows are not made again.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pandas as pd
import shapely
from membranes import NUCLEI, ellipses
from PIL import Image
from skimage.data import immunohistochemistry
from tifffile import imwrite

import cellseg
from cellseg.annotations.coco import read_coco
from cellseg.annotations.image import AnnotatedImage
from cellseg.derive.corrections import Corrections
from cellseg.geometry import Box
from cellseg.judge.evaluate import EvaluateRequest, Evaluation, evaluate
from cellseg.protocol import CountProtocol, load_protocol
from cellseg.result import load_result
from cellseg.train.teach import teach
from cellseg.train.windows import SIDE_PX, Window, teach_windows, write_windows

WINDOWS, FIRST_LABEL = 5, 1_000_000

REACH_PX = 192
"""How far a cell of a window may reach out of it."""


class Wanted(NamedTuple):
    """A set: its folder, which images, how it is counted before, and what is outlined."""

    folder: str
    named: str
    protocol: CountProtocol
    outlined: str


PHASE = load_protocol("brightfield").changed(
    mpp=1.45, max_area_um2=12_000, largest_cell_um=200, prefilter=False
)
CHAMBER = load_protocol("brightfield").changed(
    mpp=1.0, max_area_um2=12_000, largest_cell_um=100, prefilter=False
)
BLOOD = load_protocol("brightfield").changed(
    mpp=2.5, max_area_um2=100_000, largest_cell_um=300, prefilter=False
)
HE = load_protocol("he")
BROWN = load_protocol("ihc").changed(model="default", dab_share=0.6, score=0.3)
"""As the nuclei model counted before there was one of immunohistochemistry."""

SETS = {
    "t98g_phase": Wanted("t98g_phase", "", PHASE, "cell"),
    "human testis": Wanted("nuinsseg", "testis", HE, "nucleus"),
    "mouse spleen": Wanted("nuinsseg", "spleen", HE, "nucleus"),
    "human bladder": Wanted("nuinsseg", "bladder", HE, "nucleus"),
    "human jejunum": Wanted("nuinsseg", "jejunum", HE, "nucleus"),
    "membranes": Wanted("membranes", "", BROWN, "nucleus"),
    "membranes, model ihc": Wanted("membranes", "", load_protocol("ihc"), "nucleus"),
    "ldc_hemocytometer": Wanted("ldc_hemocytometer", "", CHAMBER, "cell"),
    "blood": Wanted("blood_smears", "bccd", BLOOD, "cell"),
}


def membranes(folder: Path) -> None:
    """Quarters of the field with brown membranes, as a set with ``val.json``."""
    pixels: np.ndarray = immunohistochemistry()  # type: ignore[no-untyped-call]
    side, images, rows = len(pixels) // 2, [], []
    folder.mkdir(exist_ok=True)
    drawn = ellipses(pd.read_csv(NUCLEI))
    for number, (y, x) in enumerate([(0, 0), (0, side), (side, side), (side, 0)]):
        name = f"{y}_{x}.png"
        Image.fromarray(pixels[y : y + side, x : x + side]).save(folder / name)
        images.append({"id": number, "file_name": name, "height": side, "width": side, "mpp": 0.5})
        for part in shapely.intersection(drawn, shapely.box(x, y, x + side, y + side)):
            if part.area:
                corners = np.asarray(part.exterior.coords)[:-1] - (x, y)
                rows.append({"id": len(rows), "image_id": number, "category_id": 1, "iscrowd": 0,
                             "segmentation": [corners.ravel().tolist()]})  # fmt: skip
    text = json.dumps({"images": images, "annotations": rows})
    (folder / "val.json").write_text(text, encoding="utf-8")


def mosaic(images: list[AnnotatedImage], path: Path) -> np.ndarray:
    """Write images side by side as one TIFF; the labels of what is annotated on it."""
    across = int(np.ceil(np.sqrt(len(images))))
    high, wide = (max(one.pixels.shape[axis] for one in images) for axis in (0, 1))
    down = -(-len(images) // across)
    ground = [np.median(one.pixels, (0, 1)) for one in images]
    pixels = np.empty((down * high, across * wide, images[0].pixels.shape[2]), np.uint8)
    pixels[:] = np.median(ground, 0).astype(np.uint8)
    labels, number = np.zeros(pixels.shape[:2], np.int64), FIRST_LABEL
    for place, one in enumerate(images):
        y, x = place // across * high, place % across * wide
        height, width = one.pixels.shape[:2]
        pixels[y : y + height, x : x + width] = one.pixels
        for box, mask in zip(one.boxes.tolist(), one.masks, strict=True):
            number += 1
            part = labels[y + box[0] : y + box[2], x + box[1] : x + box[3]]
            part[mask] = number
    kept = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    mpp = images[0].mpp or 1.0
    imwrite(path, kept, resolution=(1e4 / mpp, 1e4 / mpp), resolutionunit="CENTIMETER",
            tile=(256, 256), photometric="minisblack" if kept.ndim == 2 else "rgb")  # fmt: skip
    return labels


def painted(folder: Path, labels: np.ndarray, windows: list[Window]) -> int:
    """Correct the windows of a result as annotated, each cell as a whole; how many were painted."""
    corrections, count = Corrections(load_result(folder)), 0
    step = corrections.result.frame.downsample
    for one in windows:
        around = one.box.widened(REACH_PX).intersection(corrections.pyramid.extent)
        rows, columns = (
            np.minimum(((np.arange(low, high) + 0.5) * step).astype(int), length - 1)
            for low, high, length in (
                (around.y0, around.y1, labels.shape[0]),
                (around.x0, around.x1, labels.shape[1]),
            )
        )
        truth, found = labels[np.ix_(rows, columns)], corrections.pyramid.levels[0].read(around)
        window = one.box.inside(around)
        cells = np.unique(truth[window][truth[window] > 0])
        kept = np.where(np.isin(found, found[window]), 0, found)
        corrections.redraw((around.y0, around.x0), np.where(np.isin(truth, cells), truth, kept))
        count += len(cells)
    return count


def random_windows(
    height: int, width: int, labels: np.ndarray, step: float, rng: np.random.Generator
) -> list[Window]:
    """Five windows that do not overlap and hold a cell; none where they hardly ever fit."""
    for _ in range(1000):  # a draw may leave no room for the last one
        found: list[Window] = []
        for _ in range(200):
            y, x = (int(rng.integers(max(1, side - SIDE_PX))) for side in (height, width))
            box = Box(y, x, min(y + SIDE_PX, height), min(x + SIDE_PX, width))
            there = labels[int(y * step) : int(box.y1 * step), int(x * step) : int(box.x1 * step)]
            if there.any() and not any(one.box.intersects(box) for one in found):
                found.append(Window(box, str(len(found) + 1), "random"))
            if len(found) == WINDOWS:
                return found
    return []


def judged(data: Path, images: Path, model: str | Path, protocol: CountProtocol | None) -> dict:
    """Error of the count and F1 of annotated images."""
    request = EvaluateRequest(data=(data,), images=images, model=model, protocol=protocol,
                              inference="torch")  # fmt: skip
    *_, last = evaluate(request)
    assert isinstance(last, Evaluation)
    scores = last.scores()
    return {"error": scores.count.mean_relative, "bias": scores.count.bias, "f1": scores.f1[0.5],
            "objects": scores.count.truth, "counted": scores.count.found}  # fmt: skip


def rows_of(name: str, data: Path, home: Path, minutes: float, draws: int, *, swap: bool) -> dict:
    """Count, correct, teach, count again; random windows are drawn ``draws`` times."""
    wanted = SETS[name]
    home.mkdir(parents=True, exist_ok=True)
    folder = home if wanted.folder == "membranes" else data / wanted.folder
    if folder == home:
        membranes(folder)
    found = json.loads((folder / "val.json").read_text(encoding="utf-8"))
    entries = [one for one in found["images"] if wanted.named in one["file_name"]]
    for one in entries:
        one.setdefault("mpp", 1.0)
    single = {"categories": [{"id": 1, "name": wanted.outlined}]}
    halves = entries[::2], entries[1::2]
    for part, chosen in (("seen", halves[swap][:36]), ("other", halves[not swap][:24])):
        ids = {one["id"] for one in chosen}
        rows = [
            {key: value for key, value in one.items() if key != "box_only"} | {"category_id": 1}
            for one in found["annotations"]
            if one["image_id"] in ids
        ]
        text = json.dumps({**found, **single, "images": chosen, "annotations": rows})
        (home / f"{part}.json").write_text(text, encoding="utf-8")
    seen = list(read_coco(home / "seen.json", images=folder).images)
    labels = mosaic(seen, home / "slide.tif")
    cells = cellseg.count(home / "slide.tif", protocol=wanted.protocol, overwrite=True,
                          types="none", progress=False)  # fmt: skip
    result = load_result(cells.folder)
    frame = result.frame
    other = home / "other.json"
    told = {"before": judged(other, folder, "default", wanted.protocol)}
    kinds = {"chosen": teach_windows(cells.folder, WINDOWS)}
    for draw in range(draws):
        kinds[f"random {draw + 1}"] = random_windows(
            frame.lattice_height,
            frame.lattice_width,
            labels,
            frame.downsample,
            np.random.default_rng(draw),
        )
    for kind, windows in ((kind, windows) for kind, windows in kinds.items() if windows):
        copy = home / f"{kind}.cellseg"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(cells.folder, copy)
        write_windows(load_result(copy), windows)
        count = painted(copy, labels, windows)
        wall, start = time.monotonic(), time.process_time()
        model = home / f"{kind.replace(' ', '_')}.safetensors"
        taught = teach(copy, model, done=["all"], minutes=minutes, object=wanted.outlined)
        took = {"cells": count, "cpu_s": time.process_time() - start,
                "wall_s": time.monotonic() - wall, "cv_before": taught.before,
                "cv_after": taught.after, "score": taught.score}  # fmt: skip
        if taught.model is None:
            told[kind] = told["before"] | took | {"kept": "old"}
        else:
            told[kind] = judged(other, folder, taught.model, None) | took | {"kept": "new"}
        click.echo(f"{name}, {kind}: {told[kind]}")
    return told


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--sets", default=";".join(SETS), show_default=True, help="Parted by ;")
@click.option("--minutes", default=3.0, show_default=True, help="Of each teaching, at most.")
@click.option("--draws", default=1, show_default=True, help="Of random windows.")
@click.option("--swap", is_flag=True, help="Teach on the images that are judged on otherwise.")
@click.option("--untaught/--no-untaught", default=True, help="Count dsb2018 and tnbc too.")
@click.option("--output", default="teach", type=click.Path(path_type=Path))
def main(
    data: Path, sets: str, minutes: float, draws: int, swap: bool, untaught: bool, output: Path
) -> None:
    """Teach each set, print the table."""
    output.mkdir(parents=True, exist_ok=True)
    store = output / "rows.json"
    rows = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
    for name in filter(None, sets.split(";")):
        row = name + ", other half" * swap
        if row not in rows:
            home = output / row.replace(" ", "_").replace(",", "")
            rows[row] = rows_of(name, data, home, minutes, draws, swap=swap)
            store.write_text(json.dumps(rows), encoding="utf-8")
    if untaught:
        for name in ("dsb2018", "tnbc"):
            before = judged(data / name / "val.json", data / name, "default", None)
            click.echo(f"{name}, untaught: {before}")
    click.echo(
        "\n| set | windows | cells | counted / annotated | error per image | F1 | processor |"
    )
    click.echo("|---|---|---|---|---|---|---|")
    for name, told in rows.items():
        for kind, row in told.items():
            took = f"{row['cpu_s']:.0f} s" if "cpu_s" in row else ""
            click.echo(
                f"| {name} | {'none, ' * (kind == 'before')}{kind} | {row.get('cells', '')} | "
                f"{row['counted']:,} / {row['objects']:,} | {100 * row['error']:.1f} % | "
                f"{row['f1']:.3f} | {took} |"
            )


if __name__ == "__main__":
    main()
