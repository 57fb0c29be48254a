"""Train the model of immunohistochemistry: heads and pyramid on the default model's backbone.

    python tools/train_ihc.py DATA --output FOLDER --minutes 45

DATA holds the sets' folders, each with ``train.json``: stained tissue, most of it redrawn with a
brown label. A training found in the output folder goes on. It leaves ``ihc.safetensors`` for
``cellseg/weights/``, which names the default model and holds what differs from it. Its checksum
stands in ``cellseg/network/modelfile.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from crop_changes import drawn_out, labelled, with_brown_tissue
from train_default import licensed, reporter

from cellseg.annotations.coco import join, read_coco
from cellseg.annotations.image import AnnotatedImage
from cellseg.geometry import Box
from cellseg.network.architecture import BODY, QUALITY_KEYS, TYPE_KEYS
from cellseg.network.ranges import input_ranges
from cellseg.network.weights import network_of, read_model, save_model
from cellseg.train import run
from cellseg.train.augment import (
    DIAMETERS_PX,
    add_copies,
    coarser,
    compressed,
    geometric,
    photometric,
    random_window,
)
from cellseg.train.crops import Crop

STAINED = ("tnbc", "nucls", "nuinsseg", "nucls_mixed", "ihc_synth", "brca_m2c_outlined")

MEMBRANES, LABELLED = 0.6, 0.85
"""Up to which draw of 0 … 1 a crop gets brown membranes, and another label; H&E beyond."""

CROP_PX, RANGES_FROM = 256, 200
"""Side of a crop, and crops of which the ranges of layers are measured."""


def brown_crop(
    image: AnnotatedImage, size: int, rng: np.random.Generator, diameters_px: tuple[float, float]
) -> Crop:
    """One changed crop of an image of tissue, most of them with a brown label."""
    crop, drawn = random_window(image, size, rng, diameters_px), rng.random()
    if "ihc_synth" not in image.group and drawn < LABELLED:
        if drawn < MEMBRANES and len(crop.masks):
            whole = Box(0, 0, size, size)
            crop = add_copies(crop, int(rng.integers(0, 40)), rng, inside=whole)
            if rng.random() < 0.6:
                crop = drawn_out(crop, float(rng.uniform(1.2, 2.2)), rng)
        redrawn = with_brown_tissue if drawn < MEMBRANES else labelled
        crop = replace(crop, image=redrawn(crop.image, crop.masks, rng))
    crop = geometric(crop, rng)
    if rng.random() < 0.5:
        return photometric(crop, image.light, rng)
    pixels = crop.image
    if rng.random() < 0.6:
        pixels = coarser(pixels, float(rng.uniform(1.2, 2.4)))
    if rng.random() < 0.3:
        pixels = compressed(pixels, int(rng.integers(40, 90)))
    return replace(crop, image=pixels)


@click.command()
@click.argument("data", nargs=-1, type=click.Path(exists=True, path_type=Path), required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@click.option("--minutes", type=float, required=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--checked", is_flag=True, help="8 bits find the same cells.")
def main(data: tuple[Path, ...], output: Path, minutes: float, device: str, checked: bool) -> None:
    """Train on the sets below DATA (one folder or several)."""
    torch.set_num_threads(1)
    files = [root / name / "train.json" for root in data for name in STAINED]
    files = [path for path in files if path.is_file()]
    request = run.TrainRequest(data=tuple(files), output=output, init="default", minutes=minutes,
                               validations=2, patience=4, held_share=0.02, device=device,
                               name="cellseg-ihc-1")  # fmt: skip
    trained = run.train(request, report=reporter(), augment=brown_crop, kept=BODY)
    images = join([read_coco(path) for path in files]).images
    click.echo(finished(trained.model, images, output / "ihc.safetensors", checked=checked))


def finished(trained: Path, images: Sequence[AnnotatedImage], path: Path, *, checked: bool) -> Path:
    """Write what a trained model has of its own, with the ranges of layers on such crops."""
    old, base = read_model("default")
    new, card = read_model(trained)
    own = {
        name: value
        for name, value in new.items()
        if not name.startswith(BODY) and TYPE_KEYS not in name
    }
    old = {name: value for name, value in old.items() if not name.startswith(QUALITY_KEYS)}
    network, rng = network_of(old | own, len(card.classes), "default"), np.random.default_rng(0)
    some = [images[int(at)] for at in rng.integers(len(images), size=RANGES_FROM)]
    crops = (brown_crop(one, CROP_PX, rng, DIAMETERS_PX).image for one in some)
    taken = ("name", "validation", "scores", "training")
    card = base.model_copy(
        update={name: getattr(card, name) for name in taken}
        | {
            "data": licensed(card.data),
            "types": (),  # They were learned from H&E, on the pyramid of before.
            "types_from": "",
            "started_from": base.name,
            "base": base.checksum,
            "base_file": "default",
        }
    )
    measured = input_ranges(network, crops).items() if checked else ()
    ranges = {name: ends for name, ends in measured if name in own}
    save_model(path, own, card, quantise=True, ranges=ranges)
    return path


if __name__ == "__main__":
    main()
