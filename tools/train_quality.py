"""Train the head that tells how well a mask fits, on a finished model of nuclei.

    python tools/train_quality.py DATA --model default --output default.safetensors --minutes 45

DATA holds the sets' folders, each with ``train.json``. All else of the model stays as it is. Crops
are changed as for its own training. What the model finds in them is learned from, right and wrong:
the IoU of each mask with the object that it outlines most. The file is for ``cellseg/weights/``;
checksums stand in ``cellseg/network/modelfile.py``.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from crop_changes import crop_of_any_stain
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from train_default import SETS, reporter, without_tiny
from train_ihc import STAINED, brown_crop

from cellseg.network.architecture import QUALITY_KEYS, Architecture
from cellseg.network.boxes import sampled
from cellseg.network.inference import Wanted
from cellseg.network.modelfile import RANGE, read_arrays
from cellseg.network.paste import paste_all
from cellseg.network.ranges import input_ranges
from cellseg.network.roi_heads import MOSTLY, QUALITY_HIDDEN, QualityHead, ignored_share
from cellseg.network.torch_inference import best_precision, make_ready
from cellseg.network.weights import network_of, read_model, save_model
from cellseg.train.augment import DIAMETERS_PX
from cellseg.train.crops import Crop
from cellseg.train.loop import CropStream
from cellseg.train.prepare import prepare
from cellseg.train.run import TrainRequest

CROP_PX, CROPS, RANGES_FROM = 256, 4, 15
LEAST_SCORE, RIGHT, CHANNELS, OUTPUTS = 0.05, 0.5, 64, 3
KEPT, BATCH, FIRST = 12_000, 256, 1_500
"""Finds that are kept to be learned from again, those of a step, and those that tell the scale of
features."""

RATE, DECAY = 5e-4, 0.02
LEAST_SPREAD = 1.0
"""A channel that hardly varies is not made to: 8 bits could not show it."""


class Finds(NamedTuple):
    """What the mask branch sees of each find, and what it makes of it; its IoU and score."""

    seen: Tensor
    branch: Tensor
    iou: Tensor
    score: Tensor

    def take(self, rows: Tensor) -> Finds:
        """Some of them."""
        return Finds(*(part[rows] for part in self))


class Store:
    """The newest finds, to be learned from again: a ring of tensors that are never copied."""

    def __init__(self, like: Finds) -> None:
        self.finds = Finds(*(part.new_zeros((KEPT, *part.shape[1:])) for part in like))
        self.filled = self._place = 0

    def put(self, new: Finds) -> Tensor:
        """Keep finds; the rows where they are."""
        rows = (torch.arange(len(new.iou)) + self._place) % KEPT
        for part, values in zip(self.finds, new, strict=True):
            part[rows] = values
        self._place = (self._place + len(rows)) % KEPT
        self.filled = min(KEPT, self.filled + len(rows))
        return rows


class Learner(nn.Module):
    """The head behind inputs of one scale; it says the IoU of right finds besides, to learn it."""

    def __init__(self, channels: int, mask: int) -> None:
        super().__init__()
        self.head = QualityHead(channels, mask, CHANNELS)
        self.head.logits = nn.Linear(QUALITY_HIDDEN, OUTPUTS)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.head.logits.weight, std=0.01)
        for name, width in (("seen", channels), ("branch", mask)):
            self.register_buffer(f"{name}_mean", torch.zeros(width, 1, 1))
            self.register_buffer(f"{name}_std", torch.ones(width, 1, 1))

    def scale_by(self, finds: Finds) -> None:
        """Take the scale of features from finds."""
        for name in ("seen", "branch"):
            values = getattr(finds, name).float()
            getattr(self, f"{name}_mean").copy_(values.mean((0, 2, 3))[:, None, None])
            spread = values.std((0, 2, 3)).clamp_min(LEAST_SPREAD)
            getattr(self, f"{name}_std").copy_(spread[:, None, None])

    def arrays(self) -> dict[str, Tensor]:
        """The head's arrays for inputs as they are, by their names in a model."""
        state = {name: value.detach().clone() for name, value in self.head.state_dict().items()}
        for name in ("seen", "branch"):
            layer = f"{'sampled' if name == 'seen' else name}.weight"
            state[layer] = state[layer] / getattr(self, f"{name}_std")
            mean = getattr(self, f"{name}_mean")
            state["sampled.bias"] = state["sampled.bias"] - (state[layer] * mean).sum((1, 2, 3))
        for name in ("logits.weight", "logits.bias"):
            state[name] = state[name][:2]
        return {QUALITY_KEYS + name: value for name, value in state.items()}

    def forward(self, finds: Finds) -> Tensor:
        """Logits of the IoU, of whether it is 0.5, and of the IoU of right finds, (N, 3)."""
        seen = (finds.seen.float() - self.seen_mean) / self.seen_std
        branch = (finds.branch.float() - self.branch_mean) / self.branch_std
        with torch.autocast("cpu", torch.bfloat16, best_precision(seen.device) == "bfloat16"):
            return self.head(seen, branch).float()


@torch.inference_mode()
def finds_in(network: GeneralizedRCNN, crops: Sequence[Crop]) -> Finds | None:
    """What a network made ready for counting finds in crops, but in ignored parts of them."""
    heads, images = network.roi_heads, torch.stack([crop.image for crop in crops])
    dtype, shape = next(heads.mask_head.parameters()).dtype, (CROP_PX, CROP_PX)
    batch = network.transform.normalize(images).to(dtype, memory_format=torch.channels_last)
    features = network.backbone(batch)
    proposals, _ = network.rpn(ImageList(batch, [shape] * len(crops)), features)
    parts = []
    for index, crop in enumerate(crops):
        levels = [level[index].permute(1, 2, 0).float().numpy() for level in features.values()]

        def samples(pool: nn.Module, boxes: Tensor, levels: list = levels) -> Tensor:
            used = levels[: len(pool.featmap_names)]
            return torch.from_numpy(sampled(used, boxes.numpy(), pool.output_size[0])).permute(
                0, 3, 1, 2
            )

        boxes = proposals[index]
        wanted = Wanted(LEAST_SCORE)
        found = heads.select(*heads._boxes(samples, boxes), boxes, shape, wanted)
        if not len(found["boxes"]):
            continue
        seen = samples(heads.mask_roi_pool, found["boxes"])
        branch = heads.mask_head(seen.to(dtype, memory_format=torch.channels_last))
        masks = heads.mask_predictor(branch)[:, 1].float().sigmoid()
        iou, counts = _judged(masks, found["boxes"], crop)
        finds = Finds(seen.bfloat16(), branch.bfloat16(), iou, found["scores"])
        parts.append(finds.take(counts.nonzero()[:, 0]))
    return Finds(*map(torch.cat, zip(*parts, strict=True))) if parts else None


def _judged(masks: Tensor, boxes: Tensor, crop: Crop) -> tuple[Tensor, Tensor]:
    """IoU of each find with the outlined object that it fits best, and whether that is known."""
    counts = ignored_share(boxes, crop.target()) < MOSTLY
    drawn = torch.zeros((len(boxes), CROP_PX, CROP_PX))
    for index, one in enumerate(paste_all(masks.numpy(), boxes.numpy(), (CROP_PX, CROP_PX))):
        if one is None:
            counts[index] = False
        else:
            drawn[index][one[0].pixels] = torch.from_numpy(one[1]).float()
    if not len(crop.masks):
        return torch.zeros(len(boxes)), counts
    found, truth = drawn.flatten(1), crop.masks.float().flatten(1)
    inner = found @ truth.T
    iou = inner / (found.sum(1)[:, None] + truth.sum(1) - inner).clamp_min(1)
    outlined, boxed = iou[:, crop.outlined], iou[:, ~crop.outlined]
    best = outlined.amax(1) if outlined.shape[1] else torch.zeros(len(boxes))
    if boxed.shape[1]:  # of these only a box is known
        counts &= (boxed.amax(1) <= 0.3) | (best >= RIGHT)
    return best, counts


def learn(
    learner: Learner, network: GeneralizedRCNN, crops: Iterator[list[Crop]], minutes: float
) -> Learner:
    """Train it; what comes back is the average of its weights."""
    store: Store | None = None
    while store is None or store.filled < FIRST:
        if (some := finds_in(network, next(crops))) is not None:
            store = store or Store(some)
            store.put(some)
    learner.scale_by(store.finds.take(torch.arange(store.filled)))
    average = copy.deepcopy(learner)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=RATE, weight_decay=DECAY)
    start = last = time.monotonic()
    step = 0
    while (gone := (time.monotonic() - start) / 60 / minutes) < 1:
        if (fresh := finds_in(network, next(crops))) is None:
            continue
        rows = store.put(fresh)
        for _ in range(2):
            newest = rows[torch.randperm(len(rows))[: BATCH // 2]]
            others = torch.randint(store.filled, (BATCH - len(newest),))
            step += 1
            chosen = store.finds.take(torch.cat([newest, others]))
            _step(learner, optimizer, chosen, gone, step)
            pace = min(0.998, (1 + step) / (10 + step))
            with torch.no_grad():
                pairs = zip(average.parameters(), learner.parameters(), strict=True)
                for old, new in pairs:
                    old.lerp_(new, 1 - pace)
        if time.monotonic() - last > 60:
            last = time.monotonic()
            with torch.no_grad():
                told = average(fresh)[:, :2].sigmoid().prod(1)
            right = (fresh.iou >= RIGHT).numpy()
            areas = [_area_under_curve(v.numpy(), right) for v in (fresh.score, told)]
            click.echo(
                f"step {step}, {(last - start) / 60:.1f} min: right against wrong {areas[0]:.3f} "
                f"by the network's own scores, {areas[1]:.3f} by quality"
            )
    return average


def _step(
    learner: Learner, optimizer: torch.optim.Optimizer, finds: Finds, gone: float, step: int
) -> None:
    for group in optimizer.param_groups:
        warm = min(1.0, step / 100)
        group["lr"] = RATE * warm * (0.02 + 0.49 * (1 + math.cos(math.pi * gone)))
    logits = learner(finds)
    right = (finds.iou >= RIGHT).float()
    loss = F.binary_cross_entropy_with_logits
    more = loss(logits[:, 2], finds.iou, reduction="none") * right
    total = loss(logits[:, 0], finds.iou) + loss(logits[:, 1], right)
    total = total + 2 * more.sum() / right.sum().clamp_min(1)
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    nn.utils.clip_grad_norm_(learner.parameters(), 5.0)
    optimizer.step()


def _area_under_curve(values: np.ndarray, right: np.ndarray) -> float:
    ranks, number = rankdata(values), int(right.sum())
    wrong = len(right) - number
    return float((ranks[right].sum() - number * (number + 1) / 2) / max(1, number * wrong))


def save_with(own: dict[str, Tensor], model: str, crops: Iterable[Tensor], path: Path) -> None:
    """Write a model with another head of quality; ranges of all other layers stay as they are."""
    state, card = read_model(model)
    state = {k: v for k, v in state.items() if not k.startswith(QUALITY_KEYS)} | own
    arrays, _ = read_arrays(model)
    ranges = {k.removesuffix(RANGE): tuple(v) for k, v in arrays.items() if k.endswith(RANGE)}
    measured = input_ranges(network_of(state, len(card.classes), model), crops)
    ranges |= {name: ends for name, ends in measured.items() if name.startswith(QUALITY_KEYS)}
    below = read_model(card.base_file)[0] if card.base else {}
    kept = {k: v for k, v in state.items() if k in own or not torch.equal(below.get(k, v[:0]), v)}
    ranges = {name: ends for name, ends in ranges.items() if name in kept}
    save_model(path, kept, card, quantise=True, ranges=ranges)


@click.command()
@click.argument("data", nargs=-1, type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--model", default="default", show_default=True, help="default, ihc, or a file.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@click.option("--minutes", type=float, required=True)
def main(data: tuple[Path, ...], model: str, output: Path, minutes: float) -> None:
    """Train on the sets below DATA (one folder or several)."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    state, card = read_model(model)
    sets, change = (STAINED, brown_crop) if card.base else (tuple(SETS), crop_of_any_stain)
    found = [root / name / "train.json" for root in data for name in sets]
    files = tuple(without_tiny(path, output.parent) for path in found if path.is_file())
    request = TrainRequest(data=files, output=output.parent, minutes=minutes, held_share=0.04)
    prepared = prepare(request, reporter())
    usual = prepared.diameter_px
    range_px = min(DIAMETERS_PX[0], usual / 2), max(DIAMETERS_PX[1], 1.5 * usual)
    crops = iter(CropStream(prepared.train, CROP_PX, CROPS, 0, range_px, change))
    network = network_of(state, len(card.classes), model)
    shape = Architecture.of(state)
    make_ready(network, best_precision(torch.device("cpu")))
    own = learn(Learner(shape.pyramid, shape.mask), network, crops, minutes).arrays()
    save_with(own, model, (crop.image for _ in range(RANGES_FROM) for crop in next(crops)), output)
    click.echo(output)


if __name__ == "__main__":
    main()
