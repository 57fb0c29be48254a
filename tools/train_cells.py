"""Train the model ``cells``: whole cells in phase contrast, blood smears and counting chambers.

    python tools/train_cells.py DATA --output FOLDER --minutes 90
    python tools/train_cells.py DATA --output FOLDER --export cells.safetensors

DATA holds the sets' folders, each with ``train.json``. A training found in the output folder goes
on. ``--export`` writes the average of the weights as it stands in the checkpoint, finished or not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from crop_changes import colour_moments, recoloured, varied
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import IterableDataset

from cellseg import __version__
from cellseg.annotations.coco import join, read_coco
from cellseg.annotations.image import AnnotatedImage
from cellseg.geometry import Box
from cellseg.network.architecture import TYPE_KEYS, Architecture
from cellseg.network.maskrcnn import build_maskrcnn
from cellseg.network.modelfile import DataCard, ModelCard
from cellseg.network.weights import (
    HEAD_KEYS,
    fill,
    read_model,
    save_model,
)
from cellseg.train import checkpoint
from cellseg.train.augment import add_copies, blurred, coarser, compressed, geometric, with_stains
from cellseg.train.crops import MIN_AREA_PX, Crop, boxes_of, cut
from cellseg.train.loop import Trainer
from cellseg.train.request import TrainRequest

NAME = "cellseg-cells-4"
CLASSES = (
    "cell",
    "red blood cell",
    "white blood cell",
    "platelet",
    "living cell",
    "dead cell",
)
RARE = ("white blood cell", "platelet", "dead cell")
"""Half of the crops of a set that has them are drawn around one of them."""

CROP_PX = 256
WARP_PX = 352
"""Side of what is turned by any angle: a crop of ``CROP_PX`` fits into it but for its corners."""

BEND, BEND_PX = 5.0, 32
"""Largest standard deviation of the shift that bends shapes, and the spacing of its random
values, pixels."""

JITTER = (0.7, 1.5)
"""Range of the random scale beside the assay's own, uniform in its logarithm."""

EDGE_PX = 8
"""In counting chambers cells that the image cuts are often unmarked: what lies so near to the edge
and is not annotated is ignored."""


@dataclass(frozen=True)
class Assay:
    """One set: its share of the crops, and its scale.

    Attributes
    ----------
    zooms : dict of float
        Pixels of the network per pixel of the image, by the beginning of the image's name.
    """

    share: float
    zooms: dict[str, float]
    licence: str
    attribution: str


ASSAYS = {
    "t98g_phase": Assay(0.5, {"": 0.8}, "MIT", "Usiigaci, Tsai et al. 2019, T98G cells"),
    "blood_smears": Assay(
        0.15,
        {"bccd": 40 / 95, "pbc": 40 / 69, "aslan": 40 / 49},
        "MIT and CC-BY-4.0",
        "BCCD (MIT); Aslan 2020 (MIT); PBC, Acevedo et al. 2020 (CC BY 4.0)",
    ),
    "ldc_hemocytometer": Assay(0.35, {"": 1.6}, "MIT", "LDC hemocytometer cells"),
}
"""Red cells are brought to 40 px, cells of a chamber to 30, cells in culture to 1.09 µm/px."""


def with_outlines(path: Path, folder: Path) -> Path:
    """A set's JSON in which masks that were made from boxes teach outlines as well.

    They are ellipses, or the stain inside a box: near enough for cells that are round.
    """
    data = json.loads(path.read_text())
    for row in data["annotations"]:
        row.pop("box_only", None)
    for image in data["images"]:
        image["file_name"] = Path(image["file_name"]).name
    copy = folder / "sets" / path.parent.name / path.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(json.dumps(data))
    if not (link := copy.parent / "images").exists():
        link.symlink_to((path.parent / "images").resolve())
    return copy


def scaled(image: AnnotatedImage, name: str) -> AnnotatedImage:
    """An image at its assay's scale; of chambers the edge is ignored where nothing is marked."""
    zooms = ASSAYS[name].zooms
    zoom = next(zoom for start, zoom in zooms.items() if image.name.startswith(start))
    if name != "ldc_hemocytometer":
        return replace(image, zoom=zoom)
    height, width = image.pixels.shape[:2]
    edge = np.ones((height, width), bool)
    edge[EDGE_PX:-EDGE_PX, EDGE_PX:-EDGE_PX] = False
    for y0, x0, y1, x1 in image.boxes:
        edge[y0:y1, x0:x1] = False
    return replace(image, zoom=zoom, ignored=((Box(0, 0, height, width), edge),))


class Crops(IterableDataset[list[Crop]]):
    """Endless batches: a set is drawn by its share, then an image, or a rare cell of one."""

    def __init__(self, sets: dict[str, list[AnnotatedImage]], batch: int, seed: int) -> None:
        self.sets, self.batch, self.seed = sets, batch, seed
        self.shares = np.array([ASSAYS[name].share for name in sets])
        rare = [CLASSES.index(name) for name in RARE]
        self.rare = {
            name: [
                (number, index)
                for number, image in enumerate(images)
                for index in np.flatnonzero(np.isin(image.classes, rare))
            ]
            for name, images in sets.items()
        }
        # A class of which there are few is drawn as often as another rare one of its set.
        self.weights: dict[str, NDArray[np.float64]] = {}
        for name, cells in self.rare.items():
            kinds = np.array([sets[name][n].classes[i] for n, i in cells], np.int64)
            weight = 1 / np.bincount(kinds, minlength=len(CLASSES)).clip(1)[kinds]
            self.weights[name] = weight / weight.sum() if len(weight) else weight
        moments = [colour_moments(image) for image in sets.get("blood_smears", ())]
        self.colours = [one for one in moments if one is not None]

    def __iter__(self) -> Iterator[list[Crop]]:
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        while True:
            crops: list[Crop] = []
            while len(crops) < self.batch:
                crop = self.crop(rng)
                if len(crop.boxes) or rng.random() < 0.4:
                    crops.append(crop)
            yield crops

    def crop(self, rng: np.random.Generator) -> Crop:
        """One changed crop."""
        name = [*self.sets][int(rng.choice(len(self.sets), p=self.shares / self.shares.sum()))]
        images, cells, at = self.sets[name], self.rare[name], None
        if cells and rng.random() < 0.5:
            number, index = cells[int(rng.choice(len(cells), p=self.weights[name]))]
            at = images[number].boxes[index]
        else:
            roots = np.sqrt([max(1, len(image.masks)) for image in images])
            number = int(rng.choice(len(images), p=roots / roots.sum()))
        image = images[number]
        if name == "t98g_phase":
            crop = warped(window(image, at, rng, WARP_PX), CROP_PX, rng)
        else:
            crop = geometric(window(image, at, rng, CROP_PX), rng)
        if name == "blood_smears":
            own = colour_moments(image)
            if own is not None and rng.random() < 0.4:
                other = self.colours[int(rng.integers(len(self.colours)))]
                seen = recoloured(crop.image, own, other, float(rng.uniform(0.3, 1)))
                crop = replace(crop, image=seen)
            if rng.random() < 0.2:
                crop = varied(crop, rng)
            return replace(crop, image=filmed(stained(crop.image, rng), rng))
        return replace(crop, image=filmed(lit(crop.image, rng), rng))


def warped(crop: Crop, size: int, rng: np.random.Generator) -> Crop:
    """The middle of a crop, turned by any angle, mirrored or not, its shapes bent a little."""
    angle, mirror = rng.uniform(0, 2 * np.pi), rng.choice((-1, 1))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn = turn @ np.diag([mirror, 1.0])
    places = (np.arange(size) + 0.5 - size / 2).astype(np.float32)
    along, down = np.meshgrid(places, places)
    coarse = torch.from_numpy(rng.normal(0, 1, (1, 2, size // BEND_PX, size // BEND_PX)))
    bend = F.interpolate(coarse, (size, size), mode="bicubic")[0].numpy()
    along, down = (
        axis + bent / bent.std() * rng.uniform(0, BEND) * (rng.random() < 0.7)
        for axis, bent in zip((along, down), bend, strict=True)
    )
    grid = np.stack([along, down], -1) @ turn.T * 2 / crop.image.shape[-1]
    grid = torch.from_numpy(grid.astype(np.float32))[None]
    image = F.grid_sample(crop.image[None], grid, padding_mode="border", align_corners=False)[0]
    numbers = torch.arange(1, len(crop.masks) + 1)[:, None, None]
    labels = (crop.masks * numbers).sum(0)  # outlines of this set do not overlap
    planes = torch.stack([labels, crop.ignored])[None].float()
    planes = F.grid_sample(planes, grid, mode="nearest", align_corners=False)[0]
    masks = (planes[0] == numbers).to(torch.uint8)
    ignored = planes[1].to(torch.uint8)
    seen = masks.sum((1, 2), dtype=torch.int64) >= MIN_AREA_PX
    masks = masks[seen]
    return Crop(image, boxes_of(masks), masks, crop.labels[seen], crop.outlined[seen], ignored)


def window(
    image: AnnotatedImage, at: NDArray[np.int32] | None, rng: np.random.Generator, size: int
) -> Crop:
    """A crop at the assay's scale, a quarter of them with copies of their own cells."""
    side = size / (image.zoom * float(np.exp(rng.uniform(*np.log(JITTER)))))
    stretch = np.exp(rng.uniform(-0.1, 0.1))
    sides = max(32, round(side * stretch)), max(32, round(side / stretch))
    extent = image.pixels.shape[:2]
    start = []
    for axis in (0, 1):
        slack = extent[axis] - sides[axis]
        low, high = min(0, slack), max(0, slack)
        if at is not None and slack > 0:
            middle = int(at[axis] + at[axis + 2]) // 2
            low, high = max(0, middle - sides[axis]), min(slack, max(middle, 0))
        start.append(int(rng.integers(low, max(low, high) + 1)))
    crop = cut(image, origin=(start[0], start[1]), sides=sides, size=size)
    if rng.random() >= 0.25:
        return crop
    down, along = size / sides[0], size / sides[1]
    inside = Box(
        max(0, int(np.ceil(-start[0] * down))),
        max(0, int(np.ceil(-start[1] * along))),
        min(size, int((extent[0] - start[0]) * down)),
        min(size, int((extent[1] - start[1]) * along)),
    )
    return add_copies(crop, int(rng.integers(1, 7)), rng, inside=inside)


def stained(image: Tensor, rng: np.random.Generator) -> Tensor:
    """A smear in other strengths and hues, on other glass."""
    image = with_stains(image, np.exp(rng.normal(0, 0.25, 3)), rng.normal(0, 0.05, (3, 3)))
    if rng.random() < 0.5:
        white = 1 - rng.uniform(-0.05, 0.15, (3, 1, 1))
        image = image * torch.from_numpy(white.astype(np.float32))
    if rng.random() < 0.4:
        image = torch.lerp(image.mean(0, keepdim=True), image, float(rng.uniform(0.3, 1.4)))
    gain, exponent = np.exp(rng.normal(0, (0.1, 0.2)))
    return (image * float(gain)).clamp(1e-4, 1) ** float(exponent)


def lit(image: Tensor, rng: np.random.Generator) -> Tensor:
    """A grey picture under another lamp: its ground at another level, more or less contrast."""
    ground = image.median()
    contrast, level = float(np.exp(rng.uniform(-0.6, 0.5))), float(rng.uniform(0.3, 0.85))
    if rng.random() < 0.3:
        level = float(ground)
    image = level + (image - ground) * contrast
    tint = 1 + rng.normal(0, 0.03, (3, 1, 1)) * (rng.random() < 0.4)
    slope = torch.linspace(-1, 1, image.shape[1]) * float(rng.normal(0, 0.06))
    return image * torch.from_numpy(tint.astype(np.float32)) + slope


def filmed(image: Tensor, rng: np.random.Generator) -> Tensor:
    """The same picture with another focus, resolution, sharpness, noise and compression."""
    if rng.random() < 0.25:
        image = blurred(image, float(rng.uniform(0.4, 1.4)))
    if rng.random() < 0.2:
        image = coarser(image, float(rng.uniform(1, 2.5)))
    if rng.random() < 0.2:
        image = image + (image - blurred(image, float(rng.uniform(0.6, 1.5)))) * float(
            rng.uniform(0.3, 1.5)
        )
    if rng.random() < 0.5:
        noise = rng.normal(0, rng.uniform(0, 0.03), tuple(image.shape))
        image = image + torch.from_numpy(noise.astype(np.float32))
    if rng.random() < 0.3:
        image = compressed(image, int(rng.integers(30, 96)))
    return image.clamp(0, 1)


def start_of(init: str) -> dict[str, Tensor]:
    """The arrays of a model of another class or of these: each class starts as its first one."""
    state, card = read_model(init)
    state = {name: value for name, value in state.items() if not name.startswith(TYPE_KEYS)}
    if card.classes == CLASSES:
        return state
    predictor, mask = HEAD_KEYS
    for end in ("weight", "bias"):
        scores = state[f"{predictor}cls_score.{end}"]
        state[f"{predictor}cls_score.{end}"] = scores[[0] + [1] * len(CLASSES)]
        boxes = state[f"{predictor}bbox_pred.{end}"]
        boxes = boxes.view(-1, 4, *boxes.shape[1:])[[0] + [1] * len(CLASSES)]
        state[f"{predictor}bbox_pred.{end}"] = boxes.flatten(0, 1)
        state[f"{mask}{end}"] = state[f"{mask}{end}"][[0] + [1] * len(CLASSES)]
    return state


def exported(output: Path, path: Path, sets: dict[str, list[AnnotatedImage]]) -> None:
    """Write the average of a training's weights as a model, with its card."""
    parts, state = checkpoint.read(output / checkpoint.CHECKPOINT)
    card = ModelCard(
        name=NAME,
        object="cell",
        classes=CLASSES,
        diameter_px=40.0,
        data=tuple(
            DataCard(
                name=name,
                images=len(images),
                objects=sum(len(image.masks) for image in images),
                licence=ASSAYS[name].licence,
                attribution=ASSAYS[name].attribution,
            )
            for name, images in sets.items()
        ),
        started_from=str(state.run["init"]),
        training={
            "steps": float(state.step),
            "minutes": round(state.seconds / 60, 1),
            "crop_px": float(CROP_PX),
            "device": "cpu",
        },
        licence="BSD-3-Clause",
        made_with=f"cellseg {__version__}",
    )
    save_model(path, parts["average"], card, quantise=True)
    click.echo(f"{path}: step {state.step}, {state.seconds / 60:.1f} min")


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@click.option("--minutes", type=float, default=90.0, show_default=True)
@click.option("--init", default="default", show_default=True)
@click.option("--batch", default=4, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option("--export", "model", type=click.Path(path_type=Path), help="Write this, no training.")
def main(
    data: Path,
    output: Path,
    minutes: float,
    init: str,
    batch: int,
    workers: int,
    model: Path | None,
) -> None:
    """Train on the sets below DATA."""
    torch.set_num_threads(1)
    output.mkdir(parents=True, exist_ok=True)
    read = [read_coco(with_outlines(data / name / "train.json", output)) for name in ASSAYS]
    whole = join(read)
    if sorted(whole.classes) != sorted(CLASSES):
        raise click.ClickException(f"other classes: {whole.classes}")
    order = np.array([CLASSES.index(name) for name in whole.classes])
    sets: dict[str, list[AnnotatedImage]] = {name: [] for name in ASSAYS}
    for image in whole.images:
        name = image.group.split("/")[0]
        sets[name].append(scaled(replace(image, classes=order[image.classes]), name))
    if model is not None:
        exported(output, model, sets)
        return
    request = TrainRequest(
        data=(data,), output=output, init=init, minutes=minutes, batch=batch, workers=workers
    )
    torch.manual_seed(0)
    found = output / checkpoint.CHECKPOINT
    before = checkpoint.read(found) if found.exists() else None
    arrays = before[0]["model"] if before else start_of(init)
    network = build_maskrcnn(len(CLASSES), architecture=Architecture.of(arrays))
    fill(network, arrays, init)
    trainer = Trainer(network, request)
    if before:
        trainer.load(*before)
    trainer.state.run = {"init": init, "classes": list(CLASSES)}
    last, sums = time.monotonic(), dict.fromkeys(("steps",), 0.0)
    for losses in trainer.run(Crops(sets, batch, trainer.state.step)):
        for name, value in {"steps": 1.0, **losses}.items():
            sums[name] = sums.get(name, 0.0) + value
        if time.monotonic() - last > 60:
            steps, last = sums.pop("steps"), time.monotonic()
            said = ", ".join(f"{name} {value / steps:.3f}" for name, value in sums.items())
            state = trainer.state
            click.echo(f"step {state.step}, {state.seconds / 60:.1f} min: {said}")
            sums = {"steps": 0.0}
    trainer.save()


if __name__ == "__main__":
    main()
