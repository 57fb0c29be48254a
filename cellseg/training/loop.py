"""The training loop: time-boxed, resumable, one process."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from torchvision.models.detection import MaskRCNN

from cellseg.training.augment import Augmentation, random_crop
from cellseg.training.crops import AnnotatedImage, Crop
from cellseg.training.dense import DenseHead, dense_loss, dense_target

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast.

    Attributes
    ----------
    minutes : float
        Time box of the whole training, over all resumed parts.
    warmup_share : float
        Share of it that trains backbone and FPN on the dense task alone.
    batch : int
        Crops a step.
    rate, backbone_rate : float
        Peak learning rates of AdamW.
    """

    minutes: float
    warmup_share: float = 0.2
    batch: int = 4
    rate: float = 4e-4
    backbone_rate: float = 4e-4
    weight_decay: float = 0.02
    average: float = 0.997
    checkpoint_minutes: float = 6.0


@dataclass
class State:
    """What a resumed training must know beside the tensors."""

    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


class CropStream(IterableDataset[list[Crop]]):
    """Endless batches: a group is drawn by its weight, then an image of it, then a crop."""

    def __init__(
        self,
        images: list[AnnotatedImage],
        weights: dict[str, float],
        augmentation: Augmentation,
        batch: int,
        seed: int,
    ) -> None:
        self.groups: dict[str, list[AnnotatedImage]] = {}
        for image in images:
            self.groups.setdefault(image.group, []).append(image)
        self.names = list(self.groups)
        raw = np.array([weights.get(name, 1.0) for name in self.names])
        self.weights = raw / raw.sum()
        self.augmentation, self.batch, self.seed = augmentation, batch, seed

    def __iter__(self) -> Iterator[list[Crop]]:
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        while True:
            crops = []
            while len(crops) < self.batch:
                group = self.groups[self.names[rng.choice(len(self.names), p=self.weights)]]
                crop = random_crop(group[rng.integers(len(group))], self.augmentation, rng)
                if len(crop.boxes) or rng.random() < 0.1:
                    crops.append(crop)
            yield crops


def rate_at(progress: float, warmup_share: float) -> float:
    """Share of the peak rate: in each phase a short rise, then half a cosine down to 2 %."""
    if progress < warmup_share:
        local, floor = progress / warmup_share, 0.3
    else:
        local, floor = (progress - warmup_share) / (1 - warmup_share), 0.02
    rise = min(1.0, local / 0.06 + 0.02)
    return rise * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, local))))


class Trainer:
    """Holds what changes during training and knows how to save it."""

    def __init__(self, model: MaskRCNN, schedule: Schedule, folder: Path) -> None:
        self.model, self.schedule, self.folder = model, schedule, folder
        self.dense = DenseHead()
        backbone = [p for p in model.backbone.body.parameters() if p.requires_grad]
        known = {id(p) for p in backbone}
        heads = [p for p in model.parameters() if id(p) not in known and p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": backbone, "peak": schedule.backbone_rate},
                {"params": heads + list(self.dense.parameters()), "peak": schedule.rate},
            ],
            lr=schedule.rate,
            weight_decay=schedule.weight_decay,
        )
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.state = State()

    @property
    def progress(self) -> float:
        return self.state.seconds / (60 * self.schedule.minutes)

    def step(self, crops: list[Crop]) -> dict[str, float]:
        start = time.monotonic()
        self.model.train()
        progress, share = self.progress, self.schedule.warmup_share
        factor = rate_at(progress, share)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        losses = self._losses(crops, dense_only=progress < share)
        total = sum(losses.values(), torch.zeros(()))
        self.optimizer.zero_grad(set_to_none=True)
        result = {k: float(v.detach()) for k, v in losses.items()}
        if math.isfinite(float(total.detach())):
            total.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(
                [p for g in self.optimizer.param_groups for p in g["params"]], 5.0
            )
            self.optimizer.step()
            self._update_average()
        else:
            log.warning("step %d left out: loss is not finite", self.state.step)
        self.state.step += 1
        self.state.seconds += time.monotonic() - start
        return result

    def _losses(self, crops: list[Crop], *, dense_only: bool) -> dict[str, Tensor]:
        targets = [crop.target() for crop in crops]
        batch, targets = self.model.transform([crop.image for crop in crops], targets)
        features = self.model.backbone(
            batch.tensors.contiguous(memory_format=torch.channels_last)
        )
        goal = torch.stack([dense_target(crop.masks) for crop in crops])
        dense = dense_loss(self.dense(features["0"]), goal)
        if dense_only:
            return {"loss_dense": dense}
        proposals, losses = self.model.rpn(batch, features, targets)
        _, head_losses = self.model.roi_heads(features, proposals, batch.image_sizes, targets)
        return {**losses, **head_losses, "loss_dense": 0.3 * dense}

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.schedule.average, (1 + self.state.step) / (10 + self.state.step))
        for key, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1 - decay)
            else:
                self.average[key].copy_(value)

    def save(self) -> None:
        """Write ``checkpoint.safetensors`` in one piece: model, average, optimiser, state."""
        tensors = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average/{k}": v for k, v in self.average.items()}
        tensors |= {f"dense/{k}": v for k, v in self.dense.state_dict().items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{k}": v for k, v in entry.items()}
        path = self.folder / "checkpoint.safetensors"
        partial = path.with_suffix(".part")
        save_file(
            {k: v.detach().contiguous().clone() for k, v in tensors.items()},
            partial,
            {"state": json.dumps(vars(self.state))},
        )
        os.replace(partial, path)

    def load(self) -> bool:
        """Go on from ``checkpoint.safetensors`` if there is one."""
        path = self.folder / "checkpoint.safetensors"
        if not path.exists():
            return False
        parts: dict[str, dict[str, Tensor]] = {}
        with safe_open(path, "pt") as handle:
            self.state = State(**json.loads(handle.metadata()["state"]))
            for key in handle.keys():
                part, name = key.split("/", 1)
                parts.setdefault(part, {})[name] = handle.get_tensor(key)
        self.model.load_state_dict(parts["model"])
        self.dense.load_state_dict(parts["dense"])
        self.average = parts["average"]
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in parts.get("optimizer", {}).items():
            index, name = key.split("/")
            state.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict(
            {"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]}
        )
        return True

    def run(self, stream: CropStream) -> Iterator[dict[str, float]]:
        """Train to the end of the time box, saving on the way."""
        loader = DataLoader(stream, batch_size=None, num_workers=1, prefetch_factor=4)
        saved = self.state.seconds
        for crops in loader:
            if self.progress >= 1:
                break
            yield {"step": self.state.step, "minutes": self.state.seconds / 60, **self.step(crops)}
            if self.state.seconds - saved > 60 * self.schedule.checkpoint_minutes:
                self.save()
                saved = self.state.seconds
        self.save()
