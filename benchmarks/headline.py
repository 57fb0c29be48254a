"""Touching cells fuse: counting by a semantic U-Net against counting by instances.

    python benchmarks/headline.py train.json... --val val.json... --steps 3000 --output headline/

A Mask R-CNN (that of ``cellseg train --init imagenet``) and a semantic U-Net with the same encoder,
EfficientNet-Lite0 from the same ImageNet weights, learn from the same images with the same
augmentation in as many steps of as many crops. The U-Net's objects are counted twice, as connected
components of the foreground and after a watershed on its distance map. All thresholds are the best
ones on the same training images, which neither network saw. Instances are counted through the whole
of ``cellseg count``, with the Mask R-CNN and with the shipped model, which saw more images for
longer. Validation images are binned by the share of their cells that touch another one. The table
goes to stdout and, with the plot, to the output folder; the same command goes on with an
interrupted training. ``--only unet`` and ``--only instances`` train one of the two and stop.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path

import click
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import h_maxima
from skimage.segmentation import watershed
from torch import Tensor, nn
from torch.nn import functional as F

from cellseg.annotations.coco import join, read_coco
from cellseg.annotations.image import AnnotatedImage
from cellseg.errors import Notice
from cellseg.judge.evaluate import EvaluateRequest, Evaluation, evaluate
from cellseg.network.backbones import build_body, load_imagenet
from cellseg.network.torch_inference import best_precision
from cellseg.train.crops import Crop
from cellseg.train.loop import CropStream, rate_at
from cellseg.train.run import Event, TrainRequest, Validated, train
from cellseg.train.validate import split

BINS = (0.1, 0.3, 0.6)
RATE = 4e-4
MIN_AREA_PX = 20
FOREGROUND = (0.3, 0.4, 0.5, 0.6, 0.7)
HEIGHTS_PX = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
NAMES = {
    "components": "U-Net, connected components",
    "watershed": "U-Net, watershed",
    "instances": "Mask R-CNN",
    "shipped": "as shipped",
}
"""Methods, by their name in a row's counts."""


class SemanticUNet(nn.Module):
    """EfficientNet-Lite0 with a U-Net decoder: foreground logit, and distance to the border in px.

    The decoder's widths (256, 128, 64, 32, 16) are those of segmentation_models_pytorch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = build_body("efficientnet_lite0", nn.BatchNorm2d)
        load_imagenet(self.body)
        widths, skips = (320, 256, 128, 64, 32), (112, 40, 24, 32)
        self.ups = nn.ModuleList(
            _block(wide + skip, narrow)
            for wide, skip, narrow in zip(widths[:-1], skips, widths[1:], strict=True)
        )
        self.last = nn.Sequential(_block(32, 16), nn.Conv2d(16, 2, 1))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W), sides multiples of 32, to (N, 2, H, W)."""
        kept, x = [], (image - 0.5) / 0.5
        for stage in self.body.children():
            x = stage(x)
            kept.append(x)
        kept.pop()
        for up in self.ups:
            x = up(torch.cat([_twice(x), kept.pop()], 1))
        out: Tensor = self.last(_twice(x))
        return out


def _block(wide: int, narrow: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (wide, narrow):
        layers += [
            nn.Conv2d(channels, narrow, 3, padding=1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def target(crop: Crop) -> Tensor:
    """Foreground, and each pixel's distance to the border of its object: (2, S, S)."""
    side = crop.image.shape[-1]
    owners = np.zeros((side, side), np.int32)
    for number, mask in enumerate(crop.masks.numpy(), start=1):
        owners[mask > 0] = number
    inner = owners > 0
    for axis in (0, 1):
        same = np.diff(owners, axis=axis) == 0
        pad = [(0, 0), (0, 0)]
        for pad[axis] in ((0, 1), (1, 0)):
            inner &= np.pad(same, pad, constant_values=True)
    distance = np.where(owners > 0, ndimage.distance_transform_edt(inner) + 0.5, 0)
    return torch.from_numpy(np.stack([owners > 0, distance]).astype(np.float32))


def loss_of(out: Tensor, goal: Tensor) -> Tensor:
    """Cross-entropy and Dice on the foreground, smooth L1 on the distance inside."""
    foreground, inside = goal[:, 0], goal[:, 0] > 0.5
    entropy = F.binary_cross_entropy_with_logits(out[:, 0], foreground)
    share = out[:, 0].sigmoid()
    dice = 1 - (2 * (share * foreground).sum() + 1) / ((share**2 + foreground).sum() + 1)
    distance = F.smooth_l1_loss(out[:, 1], goal[:, 1], reduction="none") * inside
    return entropy + dice + 0.3 * distance.sum() / (inside.sum() + 1)


def train_unet(
    images: list[AnnotatedImage], steps: int, batch: int, folder: Path, device: torch.device
) -> SemanticUNet:
    """Train to the last crop, going on from ``unet.safetensors`` if it is there."""
    path, seconds, step = folder / "unet.safetensors", 0.0, 0
    model = SemanticUNet().to(device, memory_format=torch.channels_last)
    if path.exists():
        with safe_open(path, "pt") as stored:
            said = json.loads(stored.metadata()["state"])
            model.load_state_dict({k: stored.get_tensor(k) for k in stored.keys()})  # noqa: SIM118
        seconds, step = said["seconds"], said["step"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.02)
    precision = best_precision(device)

    def save() -> None:
        state = json.dumps({"seconds": seconds, "step": step})
        tensors = {k: v.contiguous().cpu() for k, v in model.state_dict().items()}
        save_file(tensors, path, metadata={"state": state})

    model.train()
    saved = seconds
    for crops in CropStream(images, 256, batch, seed=step):
        if step >= steps:
            break
        start = time.monotonic()
        for group in optimizer.param_groups:
            group["lr"] = RATE * rate_at(step / steps, 0.0)
        goal = torch.stack([target(crop) for crop in crops]).to(device)
        inputs = torch.stack([crop.image for crop in crops]).to(device)
        with torch.autocast(
            device.type, dtype=getattr(torch, precision), enabled=precision != "float32"
        ):
            out = model(inputs.contiguous(memory_format=torch.channels_last))
        loss = loss_of(out.float(), goal)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        step += 1
        seconds += time.monotonic() - start
        if step % 50 == 0:
            click.echo(f"step {step}, {seconds / 60:.1f} min, loss {loss.item():.3f}")
        if seconds - saved > 300:
            save()
            saved = seconds
    save()
    return model.eval()


@torch.no_grad()
def maps(model: SemanticUNet, image: AnnotatedImage) -> NDArray[np.float32]:
    """Foreground share and distance of a whole image, (2, H, W)."""
    height, width = image.pixels.shape[:2]
    device = next(model.parameters()).device
    seen = torch.tensor(image.normaliser.apply(image.pixels)).permute(2, 0, 1)[None].to(device)
    padded = F.pad(seen, (0, -width % 32, 0, -height % 32), value=image.background)
    out = model(padded)[0, :, :height, :width].float()
    return np.stack([out[0].sigmoid().cpu().numpy(), out[1].cpu().numpy()])


def components(found: NDArray[np.float32], share: float) -> int:
    """Connected components of the foreground."""
    labels = label(found[0] >= share, connectivity=1)
    return int(np.count_nonzero(np.bincount(labels.ravel())[1:] >= MIN_AREA_PX))


def basins(found: NDArray[np.float32], share: float, height_px: float) -> int:
    """Watershed of the distance map, a seed for each peak that rises by ``height_px``."""
    inside = found[0] >= share
    distance = ndimage.gaussian_filter(np.clip(found[1], 0, None), 1.0)
    seeds = label(h_maxima(distance, height_px) > 0)
    labels = watershed(-distance, seeds * inside, mask=inside)
    return int(np.count_nonzero(np.bincount(labels.ravel())[1:] >= MIN_AREA_PX))


def tuned(model: SemanticUNet, held: Sequence[AnnotatedImage]) -> dict[str, tuple[float, ...]]:
    """Thresholds with the smallest mean error of an image's count, on unseen training images."""
    seen = [maps(model, image) for image in held]
    truth = np.array([len(image.masks) for image in held])

    def error(counts: list[int]) -> float:
        return float(np.mean(np.abs(np.array(counts) - truth) / np.maximum(truth, 1)))

    plain = {(share,): error([components(m, share) for m in seen]) for share in FOREGROUND}
    split_up = {
        (share, height): error([basins(m, share, height) for m in seen])
        for share, height in product(FOREGROUND, HEIGHTS_PX)
    }
    return {
        "components": min(plain, key=lambda key: plain[key]),
        "watershed": min(split_up, key=lambda key: split_up[key]),
    }


def touching(image: AnnotatedImage) -> float:
    """Share of the annotated cells that touch or overlap another one."""
    owners = np.zeros(image.pixels.shape[:2], np.int32)
    in_touch: set[int] = set()
    for number, (box, mask) in enumerate(zip(image.boxes.tolist(), image.masks, strict=True), 1):
        part = owners[box[0] : box[2], box[1] : box[3]]
        under = np.unique(part[mask & (part > 0)])
        in_touch |= {number, *under.tolist()} if len(under) else set()
        part[mask] = number
    for first, second in ((owners[1:], owners[:-1]), (owners[:, 1:], owners[:, :-1])):
        edge = (first != second) & (first > 0) & (second > 0)
        in_touch |= set(np.unique(first[edge]).tolist()) | set(np.unique(second[edge]).tolist())
    return len(in_touch) / max(1, len(image.masks))


@dataclass(frozen=True)
class Row:
    """One validation image."""

    name: str
    touching: float
    truth: int
    counts: dict[str, int]

    def error(self, method: str) -> float:
        """Relative, whatever its sign."""
        return abs(self.counts[method] - self.truth) / max(1, self.truth)


def binned(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Rows by their share of touching cells, then all."""
    edges = (0.0, *BINS, 1.001)
    for low, high in pairwise(edges):
        part = [row for row in rows if low <= row.touching < high]
        if part:
            yield f"{100 * low:.0f}–{100 * min(high, 1):.0f} %", part
    yield "all", list(rows)


def table(rows: Sequence[Row]) -> str:
    """Markdown: mean error of an image's count, and pooled bias, for each method."""
    names = " | ".join(NAMES.values())
    lines = [
        f"| cells that touch another | images | cells | {names} |",
        "|---|---|---|" + "---|" * len(NAMES),
    ]
    for name, part in binned(rows):
        truth = sum(row.truth for row in part)
        figures = []
        for method in NAMES:
            mean = np.mean([row.error(method) for row in part])
            bias = sum(row.counts[method] for row in part) / max(1, truth) - 1
            figures.append(f"{100 * mean:.1f} % ({100 * bias:+.1f} %)")
        lines.append(f"| {name} | {len(part)} | {truth:,} | {' | '.join(figures)} |")
    return "\n".join(lines)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Bars of the mean error of an image's count."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    parts = list(binned(rows))
    for place, method in enumerate(NAMES):
        heights = [100 * np.mean([row.error(method) for row in part]) for _, part in parts]
        axes.bar(np.arange(len(parts)) + 0.21 * (place - 1.5), heights, 0.2, label=NAMES[method])
    axes.set_xticks(np.arange(len(parts)), [f"{name}\n{len(part)} images" for name, part in parts])
    axes.set(xlabel="cells that touch another", ylabel="mean error of an image's count, %")
    axes.legend()
    figure.savefig(path, dpi=120)


def counted(data: tuple[Path, ...], model: str, device: str) -> list[int]:
    """Instances in each image, through the whole of ``cellseg count``."""
    *_, last = evaluate(EvaluateRequest(data=data, model=model, device=device))
    assert isinstance(last, Evaluation)
    return [int(judged.counted.sum()) for judged in last.images]


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--val", multiple=True, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--steps", type=int, required=True, help="Of either training.")
@click.option("--batch", default=4, show_default=True, help="Crops of 256 px in a step.")
@click.option("--only", type=click.Choice(["unet", "instances"]), help="Train it and stop.")
@click.option("--output", default="headline", type=click.Path(path_type=Path))
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu")
def main(
    data: tuple[Path, ...],
    val: tuple[Path, ...],
    steps: int,
    batch: int,
    only: str | None,
    output: Path,
    device: str,
) -> None:
    """Train both, count with both, print the table."""
    output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    model = output / "instances" / "instances.safetensors"
    if only != "unet" and not model.exists():
        train(
            TrainRequest(
                data=data,
                output=model.parent,
                init="imagenet",
                steps=steps,
                batch=batch,
                device=device,
                validations=2,
            ),
            report=tell,
        )
    if only == "instances":
        return
    seen, held = split(list(join([read_coco(path) for path in data]).images))
    unet = train_unet(seen, steps, batch, output, torch.device(device))
    if only == "unet":
        return
    settings = tuned(unet, held)
    instances, shipped = (counted(val, name, device) for name in (str(model), "default"))
    rows = []
    for place, image in enumerate(join([read_coco(path) for path in val]).images):
        found = maps(unet, image)
        counts = {
            "components": components(found, *settings["components"]),
            "watershed": basins(found, *settings["watershed"]),
            "instances": instances[place],
            "shipped": shipped[place],
        }
        rows.append(Row(image.name, touching(image), len(image.masks), counts))
    click.echo(f"U-Net's thresholds: {settings}")
    click.echo(table(rows))
    plot(rows, output / "headline.png")
    (output / "headline.json").write_text(json.dumps([vars(row) for row in rows], indent=1) + "\n")


def tell(event: Event) -> None:
    """A training's notes, validations and every fiftieth step, for the log."""
    if isinstance(event, Notice):
        click.echo(event)
    elif isinstance(event, Validated) or event.step % 50 == 0:
        click.echo(f"{event}")


if __name__ == "__main__":
    main()
