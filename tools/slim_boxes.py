"""Make the first layer of the box head two smaller ones that say the same of real proposals.

    python tools/slim_boxes.py TRAIN.json... --model WIDE.safetensors --output SLIM.safetensors
        [--rank 256] [--batches 300] [--name NAME]

The layer takes 12,544 samples to 1,024 numbers and is most of the box head's arithmetic. What it
says of proposals in the training images lies almost in a subspace: its principal components there
become the layer in between. Nothing is learned, no other array changes but for a second
quantisation. (The weights' own singular values do not fall off: half of their sum of squares is
beyond the first 200.)
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from torch import Tensor

from cellseg.models.maskrcnn import BOX_CHANNELS, BOX_FIRST, Limits, set_limits
from cellseg.models.weights import load_model, read_model, save_model
from cellseg.training.augment import Augmentation
from cellseg.training.coco import join, read_coco
from cellseg.training.loop import CropStream
from cellseg.training.validate import split


class Moments:
    """Mean and covariance of what a layer gives."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = torch.zeros(BOX_CHANNELS, dtype=torch.float64)
        self.products = torch.zeros(BOX_CHANNELS, BOX_CHANNELS, dtype=torch.float64)

    def add(self, _module: object, _inputs: object, given: Tensor) -> None:
        """A forward hook: (P, 1024)."""
        self.count += len(given)
        self.sum += given.double().sum(0)
        self.products += (given.T @ given).double()

    def components(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (C,), variances (C,) from the largest on, directions (C, C) in columns."""
        mean = self.sum / self.count
        variance, directions = torch.linalg.eigh(
            self.products / self.count - torch.outer(mean, mean)
        )
        return mean, variance.flip(0).clamp_min(0), directions.flip(1)


def factors(weight: Tensor, bias: Tensor, seen: Moments, rank: int) -> dict[str, Tensor]:
    """The two layers' arrays.

    Parameters
    ----------
    weight : Tensor, (1024, 12544)
    bias : Tensor, (1024,)
    seen : Moments
    rank : int
    """
    mean, variance, directions = seen.components()
    share = float(variance[:rank].sum() / variance.sum())
    click.echo(f"{seen.count:,} proposals; rank {rank} keeps {100 * share:.2f} % of the variance")
    kept = directions[:, :rank]
    # Not in units of their spread: weights keep their size, and training its pace.
    return {
        f"{BOX_FIRST}.0.weight": (kept.T @ weight.double()).float(),
        f"{BOX_FIRST}.1.weight": kept.float(),
        f"{BOX_FIRST}.1.bias": (mean + kept @ (kept.T @ (bias.double() - mean))).float(),
    }


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--model", default="default", show_default=True)
@click.option("--output", required=True, type=click.Path(path_type=Path))
@click.option("--rank", default=256, show_default=True)
@click.option("--batches", default=300, show_default=True)
@click.option("--name", help="Of the new model.")
def main(
    data: tuple[Path, ...], model: str, output: Path, rank: int, batches: int, name: str | None
) -> None:
    """Look at proposals, write the model with the slim box head."""
    torch.set_flush_denormal(True)
    network, card = load_model(model)
    if f"{BOX_FIRST}.weight" not in network.state_dict():
        raise click.ClickException(f"{model}: its box head is slim already")
    seen = Moments()
    network.roi_heads.box_head.fc6.register_forward_hook(seen.add)
    augmentation = Augmentation()
    limits = Limits.for_area(augmentation.size**2)
    set_limits(network, limits, score=0.05, nms_iou=0.5)
    images, _ = split(list(join([read_coco(path) for path in data]).images))
    with torch.inference_mode():
        for done, crops in enumerate(CropStream(images, None, augmentation, 1, seed=0)):
            if done >= batches:
                break
            batch, _ = network.transform([crop.image for crop in crops])
            features = network.backbone(batch.tensors.contiguous(memory_format=torch.channels_last))
            proposals, _ = network.rpn(batch, features)
            pooled = network.roi_heads.box_roi_pool(features, proposals, batch.image_sizes)
            network.roi_heads.box_head(pooled)
    arrays, _ = read_model(model)
    weight, bias = (arrays.pop(f"{BOX_FIRST}.{part}") for part in ("weight", "bias"))
    arrays |= factors(weight, bias, seen, rank)
    training = {**card.training, "box_rank": float(rank)}
    new = card.model_copy(update={"name": name or card.name, "training": training})
    save_model(output, arrays, new, quantise=True)
    click.echo(f"{output}: {output.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
