"""Held-out fields of H&E redrawn as immunohistochemistry: counts of a model at several scores.

    python benchmarks/redrawn.py DATA [--model ihc] [--inference auto] [--scores 0.1,0.15,0.2]

DATA holds the sets' folders, each with ``val.json``. Fields are redrawn as the crops that the
model of immunohistochemistry learned from (``tools/crop_changes.py``): every other one with brown
membranes and cytoplasm, the others with a label in nuclei or beside them. The protocol is ``ihc``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from imageio.v3 import imwrite

from cellseg.annotations.coco import read_coco
from cellseg.judge.evaluate import EvaluateRequest, Evaluation, evaluate
from cellseg.judge.judged import Judged, scores_of
from cellseg.protocol import load_protocol

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from crop_changes import labelled, with_brown_tissue

SETS = ("tnbc", "nucls", "nuinsseg")


def redrawn(path: Path, folder: Path, rng: np.random.Generator) -> Path:
    """A set's images in other stains, and its JSON, in a folder."""
    data = json.loads(path.read_text(encoding="utf-8"))
    entries = {Path(one["file_name"]).name: one for one in data["images"]}
    for number, image in enumerate(read_coco(path).images):
        pixels = torch.from_numpy(image.normaliser.apply(image.pixels)).permute(2, 0, 1)
        masks = torch.zeros((len(image.masks), *pixels.shape[1:]), dtype=torch.uint8)
        for row, (box, mask) in enumerate(zip(image.boxes.tolist(), image.masks, strict=True)):
            masks[row, box[0] : box[2], box[1] : box[3]] = torch.from_numpy(mask.astype(np.uint8))
        drawn = (with_brown_tissue if number % 2 else labelled)(pixels, masks, rng)
        name = f"{Path(image.name).stem}.png"
        entries[Path(image.name).name]["file_name"] = name
        imwrite(folder / name, (255 * drawn.permute(1, 2, 0).numpy()).round().astype(np.uint8))
    json_path = folder / f"{path.parent.name}.json"
    json_path.write_text(json.dumps(data), encoding="utf-8")
    return json_path


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--model", default="ihc", show_default=True)
@click.option(
    "--inference", type=click.Choice(["auto", "torch", "openvino"]), default="auto",
    show_default=True,
)  # fmt: skip
@click.option("--scores", default="0.12,0.15,0.2,0.3", show_default=True)
def main(data: Path, model: str, inference: str, scores: str) -> None:
    """Print the table."""
    protocol = load_protocol("ihc")
    if model in ("default", "cells"):
        protocol = protocol.changed(model=model)
    rng, images = np.random.default_rng(0), list[Judged]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for one in SETS:
            path = redrawn(data / one / "val.json", folder, rng)
            *_, last = evaluate(
                EvaluateRequest(
                    data=(path,),
                    images=folder,
                    model=model,
                    protocol=protocol,
                    inference=inference,  # type: ignore[arg-type]
                    mpp=0.25,
                )
            )
            assert isinstance(last, Evaluation)
            images += last.images
    click.echo("| score | annotated | counted | bias | error per image | F1 |")
    click.echo("|---|---|---|---|---|---|")
    for score in map(float, scores.split(",")):
        found = scores_of([replace(image, score=score) for image in images], 1)
        click.echo(
            f"| {score} | {found.count.truth:,} | {found.count.found:,} | {found.count.bias:+.1%} "
            f"| {found.count.mean_relative:.1%} | {found.f1[0.5]:.3f} |"
        )


if __name__ == "__main__":
    main()
