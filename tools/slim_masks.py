"""Teach a slim mask branch what the wide one knows.

    python tools/slim_masks.py TRAIN.json... --model WIDE.safetensors --output SLIM.safetensors
        [--steps 2000] [--width 64] [--name NAME]

Backbone, proposals and boxes of the model stay as they are, bit for bit but for the second
quantisation. The new branch sees the same features at annotated boxes, moved a little as found ones
are, and learns the wide branch's probabilities and the annotated masks at once. The state is saved
every hundred steps, the same command goes on.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import click
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from cellseg.models.maskrcnn import MASK_KEYS, SLIM_MASK_WIDTH, Widths, build_maskrcnn
from cellseg.models.weights import load_model, read_model, save_model
from cellseg.training.augment import Augmentation
from cellseg.training.coco import join, read_coco
from cellseg.training.crops import Crop
from cellseg.training.loop import CropStream
from cellseg.training.validate import split

RATE = 1.5e-3
BOXES = 64
JITTER = 0.06
SAVE_EVERY = 100


class Branch(nn.Module):
    """Mask head and predictor of a network."""

    def __init__(self, model: MaskRCNN) -> None:
        super().__init__()
        self.mask_head, self.mask_predictor = (
            model.roi_heads.mask_head,
            model.roi_heads.mask_predictor,
        )

    def forward(self, pooled: Tensor, labels: Tensor) -> Tensor:
        """(B, 256, 14, 14) to logits of each box's class, (B, 28, 28)."""
        logits: Tensor = self.mask_predictor(self.mask_head(pooled))
        return logits[torch.arange(len(labels)), labels]


def samples(crop: Crop, quota: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (B, 4), a little off, which object each is of, and its class."""
    target = crop.target()
    order = torch.randperm(len(target["boxes"]), generator=generator)[:quota]
    boxes = target["boxes"][order]
    size = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    boxes = boxes + JITTER * size * torch.randn(boxes.shape, generator=generator)
    side = crop.image.shape[-1]
    boxes = boxes.clamp(0, side)
    good = ((boxes[:, 2:] - boxes[:, :2]) >= 2).all(1)
    return boxes[good], order[good], target["labels"][order][good]


def loss_of(
    crops: list[Crop], wide: MaskRCNN, teacher: Branch, student: Branch, generator: torch.Generator
) -> Tensor | None:
    """Cross-entropy against the teacher's probabilities and against the annotation."""
    quota = max(1, BOXES // len(crops))
    chosen = [samples(crop, quota, generator) for crop in crops]
    if not sum(len(boxes) for boxes, _, _ in chosen):
        return None
    boxes = [part[0] for part in chosen]
    labels = torch.cat([part[2] for part in chosen])
    with torch.no_grad():
        batch, _ = wide.transform([crop.image for crop in crops])
        features = wide.backbone(batch.tensors.contiguous(memory_format=torch.channels_last))
        pooled = wide.roi_heads.mask_roi_pool(features, boxes, batch.image_sizes)
        pooled = pooled.contiguous(memory_format=torch.channels_last)
        taught = teacher(pooled, labels).sigmoid()
        drawn = torch.cat(
            [
                project_masks_on_boxes(crop.target()["masks"], part[0], part[1], taught.shape[-1])
                for crop, part in zip(crops, chosen, strict=True)
            ]
        )
    logits = student(pooled, labels)
    return F.binary_cross_entropy_with_logits(logits, taught) + F.binary_cross_entropy_with_logits(
        logits, drawn
    )


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--model", default="default", show_default=True)
@click.option("--output", required=True, type=click.Path(path_type=Path))
@click.option("--steps", default=2000, show_default=True)
@click.option("--width", default=SLIM_MASK_WIDTH, show_default=True)
@click.option("--batch", default=2, show_default=True)
@click.option("--name", help="Of the new model.")
def main(
    data: tuple[Path, ...],
    model: str,
    output: Path,
    steps: int,
    width: int,
    batch: int,
    name: str | None,
) -> None:
    """Train, write the model with the slim branch."""
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    wide, card = load_model(model)
    wide = wide.to(memory_format=torch.channels_last)
    slim = build_maskrcnn(len(card.classes), widths=Widths(mask=width))
    teacher, student = Branch(wide).eval(), Branch(slim).to(memory_format=torch.channels_last)
    state, step = output.with_suffix(".state.safetensors"), 0
    if state.exists():
        with safe_open(state, "pt") as stored:
            step = json.loads(stored.metadata()["step"])
            student.load_state_dict({k: stored.get_tensor(k) for k in stored.keys()})  # noqa: SIM118
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, weight_decay=0.01)
    images, _ = split(list(join([read_coco(path) for path in data]).images))
    generator = torch.Generator().manual_seed(step)
    start, mean = time.monotonic(), 0.0
    for crops in CropStream(images, None, Augmentation(), batch, seed=step):
        if step >= steps:
            break
        for group in optimizer.param_groups:
            share = step / steps
            rise = min(1.0, (step + 1) / 50)
            group["lr"] = RATE * rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))
        loss = loss_of(crops, wide, teacher, student, generator)
        if loss is None:
            continue
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimizer.step()
        step += 1
        mean += (loss.item() - mean) * max(0.02, 1 / step)
        if step % SAVE_EVERY == 0:
            click.echo(f"step {step}, {(time.monotonic() - start) / 60:.1f} min, loss {mean:.4f}")
            parts = {k: v.contiguous() for k, v in student.state_dict().items()}
            save_file(parts, state, {"step": json.dumps(step)})
    arrays, _ = read_model(model)
    arrays = {k: v for k, v in arrays.items() if not k.startswith(MASK_KEYS)}
    arrays |= {k: v for k, v in slim.state_dict().items() if k.startswith(MASK_KEYS)}
    training = {**card.training, "mask_width": float(width), "mask_steps": float(steps)}
    new = card.model_copy(update={"name": name or card.name, "training": training})
    save_model(output, arrays, new, quantise=True)
    click.echo(f"{output}: {output.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
