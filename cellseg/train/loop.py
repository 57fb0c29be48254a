"""The training loop: bounded by time or steps, resumable, one process and one device."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from cellseg.annotations.image import AnnotatedImage
from cellseg.errors import CellsegError, WeightsError, line_of
from cellseg.network.torch_inference import Precision, best_precision
from cellseg.train import checkpoint
from cellseg.train.augment import DIAMETERS_PX, random_crop
from cellseg.train.checkpoint import TrainState
from cellseg.train.crops import Crop
from cellseg.train.request import TrainRequest

log = logging.getLogger(__name__)

BAD_STEPS = 50
"""So many steps in a row without a finite loss end the training."""

FRESH_RATES, TRAINED_RATES = (4e-4, 4e-4), (1e-4, 5e-4)
"""Peak learning rates of AdamW for the backbone and for all else."""

WARMUP_SHARE, DENSE_WEIGHT, DENSE_STRIDE = 0.12, 0.3, 4
"""Share of a fresh training that knows the dense task alone, and its weight afterwards: foreground,
border and distance at each place of the pyramid's finest level. From random weights a two-stage
detector learns slowly, as its heads get sensible boxes only once the backbone tells cells from
background. The task has no part in the shipped model."""

NORM_SHARE = 0.35
"""From this share on trainable batch norm holds its statistics, as it will in counting: batches
of few crops from unlike images would make them differ from step to step."""

AVERAGE, AVERAGE_EVERY = 0.997, 5
"""Share that the average of the weights keeps of itself at a step, and steps between two of its
updates: each costs a pass over all weights."""

WEIGHT_DECAY = 0.02

CHECKPOINT_MINUTES = 6.0

Augment = Callable[[AnnotatedImage, int, np.random.Generator, tuple[float, float]], Crop]
"""One changed crop of an image, as :func:`~cellseg.train.augment.random_crop` makes it."""


class CropStream(IterableDataset[list[Crop]]):
    """Endless batches: a group is drawn by its weight, then an image of it, then a crop.

    The weight of a group, and of an image in it, is the root of its number of objects: dense
    tissue, where counts go wrong, is seen more often.
    """

    def __init__(
        self,
        images: list[AnnotatedImage],
        size: int,
        batch: int,
        seed: int,
        diameters_px: tuple[float, float] = DIAMETERS_PX,
        augment: Augment = random_crop,
    ) -> None:
        groups: dict[str, list[AnnotatedImage]] = {}
        for image in images:
            groups.setdefault(image.group, []).append(image)
        self.groups = list(groups.values())
        self.counts = [[max(len(image.masks), 1) for image in group] for group in self.groups]
        self.size, self.batch, self.seed = size, batch, seed
        self.diameters_px, self.augment = diameters_px, augment

    def __iter__(self) -> Iterator[list[Crop]]:
        worker = get_worker_info()
        if worker is not None:
            torch.set_num_threads(1)
            # Ctrl-C reaches all processes; the training one decides what it means.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        rng = np.random.default_rng([self.seed, 0 if worker is None else worker.id])
        while True:
            crops: list[Crop] = []
            while len(crops) < self.batch:
                group = _drawn([sum(counts) for counts in self.counts], rng)
                image = self.groups[group][_drawn(self.counts[group], rng)]
                crop = self.augment(image, self.size, rng, self.diameters_px)
                if len(crop.boxes) or rng.random() < 0.3:
                    crops.append(crop)
            yield crops


def _drawn(counts: list[int], rng: np.random.Generator) -> int:
    """An index, drawn by the root of its count."""
    roots = np.sqrt(counts)
    return int(rng.choice(len(counts), p=roots / roots.sum()))


def rate_at(progress: float, warmup_share: float) -> float:
    """Share of the peak rate: in each phase a short rise, then half a cosine down to 2 %."""
    if progress < warmup_share:
        local, floor = progress / warmup_share, 0.3
    else:
        local, floor = (progress - warmup_share) / (1 - warmup_share), 0.02
    rise = min(1.0, local / 0.06 + 0.02)
    return rise * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, local))))


class Trainer:
    """Network, optimiser and average: what changes during training, and its checkpoint.

    A ``fresh`` network starts without a detector: a dense task warms its backbone up. One that
    ``is_taught`` was trained for this very task: smaller steps, and the average starts as it is.
    """

    def __init__(
        self,
        model: GeneralizedRCNN,
        request: TrainRequest,
        *,
        fresh: bool = False,
        is_taught: bool = False,
    ) -> None:
        self.model, self.request, self.is_taught = model, request, is_taught
        self.device = next(model.parameters()).device
        self.precision: Precision = best_precision(self.device)
        # Channels last, but for float32 on a CPU: its backward pass takes a fifth longer with that.
        slower = self.device.type == "cpu" and self.precision == "float32"
        self.memory_format = torch.contiguous_format if slower else torch.channels_last
        model.to(memory_format=self.memory_format)
        self.warmup_share = WARMUP_SHARE if fresh else 0.0
        # (N, C, H/4, W/4) to four logits each: foreground, border, two offsets to the centre.
        dense = nn.Conv2d(model.backbone.out_channels, 64, 3, padding=1)
        last = nn.Conv2d(64, 4, 1)
        self.dense = nn.Sequential(dense, nn.ReLU(inplace=True), last).to(self.device)
        backbone = [p for p in model.backbone.body.parameters() if p.requires_grad]
        known = {id(p) for p in backbone}
        heads = [p for p in model.parameters() if id(p) not in known and p.requires_grad]
        of_backbone, rate = FRESH_RATES if fresh else TRAINED_RATES
        smaller = 0.5 if is_taught else 1.0
        self.optimizer = torch.optim.AdamW(
            [
                {"params": backbone, "peak": smaller * of_backbone},
                {"params": heads + list(self.dense.parameters()), "peak": smaller * rate},
            ],
            weight_decay=WEIGHT_DECAY,
            fused=self.device.type in ("cpu", "cuda"),
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "float16")
        self.average = {name: value.clone() for name, value in model.state_dict().items()}
        self.best: dict[str, Tensor] = {}  # the average at the best validation so far
        self.state = TrainState()
        self._bad_steps = 0
        self._fits = request.batch

    @property
    def progress(self) -> float:
        """Share of the training that is done, from 1 on it is finished."""
        minutes, steps = self.request.minutes, self.request.steps
        by_time = 0.0 if minutes is None else self.state.seconds / (60 * minutes)
        return max(by_time, 0.0 if steps is None else self.state.step / steps)

    @property
    def warming_up(self) -> bool:
        """Whether the detector's own losses do not count yet."""
        return self.progress < self.warmup_share

    def step(self, crops: list[Crop]) -> dict[str, float]:
        """One step of the optimiser; the losses by name."""
        start = time.monotonic()
        self.model.train()
        if self.progress >= NORM_SHARE:
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        factor = rate_at(self.progress, self.warmup_share)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        losses = self._forward_backward(crops)
        if all(map(math.isfinite, losses.values())):
            self._bad_steps = 0
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(
                [p for g in self.optimizer.param_groups for p in g["params"]], 5.0
            )
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if self.state.step % AVERAGE_EVERY == 0:
                self._update_average()
        else:
            self._bad_steps += 1
            log.warning("step %d left out: loss is not finite", self.state.step)
            if self._bad_steps >= BAD_STEPS:
                raise CellsegError(f"the loss has not been finite for {BAD_STEPS} steps: stopped")
        self.state.step += 1
        self.state.seconds += time.monotonic() - start
        return losses

    def _forward_backward(self, crops: list[Crop]) -> dict[str, float]:
        """Losses of the crops that fit into memory; gradients where they are finite."""
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                with torch.autocast(
                    self.device.type,
                    dtype=getattr(torch, self.precision),
                    enabled=self.precision != "float32",
                ):
                    losses = self._losses([crop.to(self.device) for crop in crops[: self._fits]])
                total = torch.stack(list(losses.values())).sum()
                result = {k: float(v.detach()) for k, v in losses.items()}
                if all(map(math.isfinite, result.values())):
                    self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
                return result
            except torch.OutOfMemoryError:
                if self._fits == 1:
                    raise
            self._fits = max(1, min(self._fits, len(crops)) // 2)
            torch.cuda.empty_cache()
            log.warning("out of memory: going on with batches of %d", self._fits)

    def _losses(self, crops: list[Crop]) -> dict[str, Tensor]:
        targets = [crop.target() for crop in crops]
        batch, targets = self.model.transform([crop.image for crop in crops], targets)
        features = self.model.backbone(batch.tensors.contiguous(memory_format=self.memory_format))
        losses: dict[str, Tensor] = {}
        if self.warmup_share > 0:
            weight = 1.0 if self.warming_up else DENSE_WEIGHT
            logits = self.dense(features["0"]).float()
            losses["loss_dense"] = weight * dense_loss(logits, crops)
        if not self.warming_up:
            proposals, of_proposals = self.model.rpn(batch, features, targets)
            _, of_boxes = self.model.roi_heads(features, proposals, batch.image_sizes, targets)
            losses |= of_proposals | of_boxes
        return {name: loss.float() for name, loss in losses.items()}

    @torch.no_grad()
    def _update_average(self) -> None:
        updates = self.state.step // AVERAGE_EVERY
        decay = AVERAGE**AVERAGE_EVERY
        if not self.is_taught:  # what is known already is worth keeping
            decay = min(decay, (1 + updates) / (10 + updates))
        for key, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1 - decay)
            else:
                self.average[key].copy_(value)

    def save(self) -> None:
        """Write ``checkpoint.safetensors``: model, averages, optimiser, state."""
        parts: checkpoint.Parts = {
            "model": self.model.state_dict(),
            "average": self.average,
            "best": self.best,
            "dense": self.dense.state_dict(),
            "optimizer": {
                f"{index}/{name}": value
                for index, entry in self.optimizer.state_dict()["state"].items()
                for name, value in entry.items()
            },
        }
        checkpoint.write(self.request.output / checkpoint.CHECKPOINT, parts, self.state)

    def load(self, parts: checkpoint.Parts, state: TrainState) -> None:
        """Go on from a checkpoint, whose ``model`` the network holds already."""
        self.state, self.best = state, parts.get("best", {})
        entries: dict[int, dict[str, Tensor]] = {}
        try:
            self.dense.load_state_dict(parts["dense"])
            for key, value in parts["average"].items():
                self.average[key].copy_(value)
            for key, value in parts.get("optimizer", {}).items():
                index, name = key.split("/")
                entries.setdefault(int(index), {})[name] = value
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": entries, "param_groups": groups})
        except (KeyError, RuntimeError, ValueError) as error:
            raise WeightsError(
                f"{self.request.output}: holds a checkpoint of another network: {line_of(error)}"
            ) from error

    def run(self, stream: CropStream) -> Iterator[dict[str, float]]:
        """Train to the end of the time box, saving on the way; at the end the consumer saves."""
        workers = self.request.workers
        loader = DataLoader(
            stream, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None
        )
        batches = cast("Iterator[list[Crop]]", iter(loader)) if self.progress < 1 else iter(())
        saved = self.state.seconds
        while self.progress < 1:
            losses = self.step(next(batches))
            yield losses
            if self.state.seconds - saved > 60 * CHECKPOINT_MINUTES:
                self.save()
                saved = self.state.seconds


def dense_target(masks: Tensor) -> Tensor:
    """Target of one crop from its masks (N, S, S), uint8: float (4, S/4, S/4).

    Foreground share, border share (pixels of a mask within 1 px of another mask or of the
    background), and the offset (y, x) to the object's centre in units of half its box.
    """
    side = masks.shape[-1] // DENSE_STRIDE
    if len(masks) == 0:
        return torch.zeros((4, side, side), device=masks.device)
    stack = masks.to(torch.float32)
    numbers = torch.arange(1, len(masks) + 1, dtype=torch.int16, device=masks.device)
    label = (masks * numbers[:, None, None]).amax(0).to(torch.float32)[None]
    foreground = (label[0] > 0).to(torch.float32)
    # One image of labels: eroding each mask by itself took an eighth of a training step.
    alike = F.max_pool2d(label, 3, 1, 1) == -F.max_pool2d(-label, 3, 1, 1)
    border = foreground * ~alike[0]
    share, owner = F.avg_pool2d(stack[:, None], DENSE_STRIDE)[:, 0].max(0)
    grid = (torch.arange(side, device=masks.device) + 0.5) * DENSE_STRIDE
    line = torch.arange(stack.shape[-1], dtype=torch.float32, device=masks.device) + 0.5
    offsets = []
    for profile, positions in ((stack.amax(2), grid[:, None]), (stack.amax(1), grid[None, :])):
        extent = profile.sum(1).clamp_min(1)
        centre = (profile * line).sum(1) / extent
        offsets.append(((positions - centre[owner]) / (extent[owner] / 2)).clamp(-1.5, 1.5))
    maps = F.avg_pool2d(torch.stack([foreground, border])[:, None], DENSE_STRIDE)[:, 0]
    return torch.cat([maps, torch.stack(offsets) * (share > 0.3)])


def dense_loss(logits: Tensor, crops: list[Crop]) -> Tensor:
    """Cross-entropy and Dice on the two shares, L1 on the offsets inside objects.

    Logits are (N, 4, H, W); places of which nothing is known have no weight.
    """
    target = torch.stack([dense_target(crop.masks) for crop in crops])
    unknown = torch.stack([crop.unknown[None] for crop in crops])
    known = 1 - F.avg_pool2d(unknown.to(torch.float32), DENSE_STRIDE)
    shares, goal = logits[:, :2], target[:, :2] * known
    entropy = F.binary_cross_entropy_with_logits(shares, goal, known.expand_as(goal))
    probability = shares.sigmoid() * known
    overlap = (probability * goal).sum((0, 2, 3))
    dice = 1 - (2 * overlap + 1) / ((probability**2 + goal**2).sum((0, 2, 3)) + 1)
    inside = (target[:, :1] * known > 0.3).to(logits.dtype)
    offset = F.smooth_l1_loss(logits[:, 2:], target[:, 2:], reduction="none", beta=0.2) * inside
    return entropy + dice.mean() + offset.sum() / (2 * inside.sum() + 1)
