"""The heads of a network learn on features that are kept: backbone and pyramid stay as they are."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList

from cellseg.annotations.image import AnnotatedImage
from cellseg.errors import CellsegError
from cellseg.geometry import Box
from cellseg.instances import Instances
from cellseg.network.architecture import QUALITY_KEYS, TYPE_KEYS
from cellseg.protocol import PHASE_PX
from cellseg.train.augment import photometric
from cellseg.train.crops import MIN_AREA_PX, Crop, boxes_of, cut_pixels, turned
from cellseg.train.validate import annotated
from cellseg.train.windows import CONTEXT_PX, SIDE_PX, Lesson

STEPS, BATCH, RATE = 200, 4, 1e-3
"""Steps of a training at most, windows a step, and the peak rate of AdamW."""

PRIOR = 0.002
"""Of its way from the old heads each weight goes back so much at a step."""

VIEWS, SCALES = 16, (1.0, 0.8, 1.0, 1.25)
"""Views of a window that features are kept of, and their scales; places and colours are drawn."""


class View(NamedTuple):
    """A window as it is learned from: its number, features of each level, and what is in it."""

    window: int
    features: dict[str, Tensor]
    target: dict[str, Tensor]


def is_head(name: str) -> bool:
    """Whether an array of the network learns: proposals, boxes and masks; no types, no quality."""
    return name.startswith(("rpn.", "roi_heads.")) and not name.startswith(
        (TYPE_KEYS, QUALITY_KEYS)
    )


def seen(image: AnnotatedImage, window: Box) -> tuple[Box, Tensor, Instances]:
    """Pixels around a window, (3, H, W), the cells there, and where in them the window lies."""
    zoom, reach = image.zoom, math.ceil(CONTEXT_PX / image.zoom)
    around = window.widened(reach).intersection(Box(0, 0, *image.pixels.shape[:2]))
    height, width = (max(1, round(side * zoom)) for side in around.shape)
    pixels = cut_pixels(image, around, (height, width))
    pad = (0, -width % PHASE_PX, 0, -height % PHASE_PX)
    moved = window.shifted(-around.y0, -around.x0)
    inner = Box(*(round(end * zoom) for end in moved.corners)).intersection(
        Box(0, 0, height, width)
    )
    return inner, F.pad(pixels, pad, value=image.background), annotated(image, around)


@torch.no_grad()
def views_of(network: GeneralizedRCNN, lessons: Sequence[Lesson]) -> list[View]:
    """Features of all windows in half precision: turned, scaled and recoloured.

    They are computed with what lies around the window, as in counting, and cut to it.
    """
    rng, found = np.random.default_rng(0), []
    for number, view in product(range(len(lessons)), range(VIEWS)):
        image, whole = lessons[number]
        image = replace(image, zoom=image.zoom * SCALES[view % len(SCALES)])
        side = round(SIDE_PX / image.zoom)
        room = (whole.height - side, whole.width - side)
        y, x = (int(rng.integers(max(0, most) + 1)) for most in room)
        window = Box(y, x, y + side, x + side).shifted(whole.y0, whole.x0).intersection(whole)
        inner, pixels, cells = seen(image, window)
        masks = torch.zeros((1 + len(cells), *pixels.shape[1:]), dtype=torch.uint8)
        masks[0][inner.pixels] = 1
        for index, mask in enumerate(cells.masks):
            masks[1 + index][cells.box(index).pixels] = torch.from_numpy(mask.astype(np.uint8))
        turns, flip = view % 4, view // 4 % 2 == 1
        pixels, masks = turned(pixels, turns, flip=flip), turned(masks, turns, flip=flip)
        kinds = torch.from_numpy(cells.classes + 1)
        if view:
            pixels = photometric(Crop.of(pixels, masks[1:], kinds), image.light, rng).image
        x0, y0, x1, y1 = (int(end) for end in boxes_of(masks[:1])[0])
        y0, x0 = (-(-end // PHASE_PX) * PHASE_PX for end in (y0, x0))
        cut = Box(y0, x0, y1 // PHASE_PX * PHASE_PX, x1 // PHASE_PX * PHASE_PX)
        if not cut.area:
            continue
        levels = network.backbone(network.transform.normalize(pixels[None]))
        kept = {
            name: level[..., cut.y0 // s : cut.y1 // s, cut.x0 // s : cut.x1 // s].bfloat16()
            for s, (name, level) in zip((4, 8, 16, 32, 64), levels.items(), strict=True)
        }
        masks = masks[1:, *cut.pixels]
        large = masks.sum((1, 2)) >= MIN_AREA_PX
        crop = Crop.of(pixels[:, *cut.pixels], masks[large], kinds[large])
        found.append(View(number, kept, crop.target()))
    return found


def learn(network: GeneralizedRCNN, views: Sequence[View], seconds: float) -> Iterator[float]:
    """Train the heads of a network, in place; tells which share is done, 1 at the end.

    CellsegError if the loss is not finite.
    """
    rng, start = np.random.default_rng(0), time.monotonic()
    torch.manual_seed(0)
    network.train().requires_grad_(False)
    learning = [value.requires_grad_() for n, value in network.named_parameters() if is_head(n)]
    prior = [value.detach().clone() for value in learning]
    optimizer = torch.optim.AdamW(learning, lr=RATE, weight_decay=0.0)
    shapes = [view.features["0"].shape for view in views]
    done = 0.0
    for step in range(1, STEPS + 1):
        shape = shapes[int(rng.integers(len(views)))]
        alike = [view for view, other in zip(views, shapes, strict=True) if other == shape]
        loss = _loss(network, [alike[n] for n in rng.permutation(len(alike))[:BATCH].tolist()])
        if not bool(torch.isfinite(loss)):
            raise CellsegError("the loss is not finite: these windows cannot be learned from")
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, step / 10) * (0.51 + 0.49 * math.cos(math.pi * done))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learning, 5.0)
        optimizer.step()
        with torch.no_grad():
            for value, old in zip(learning, prior, strict=True):
                value.lerp_(old, PRIOR)
        done = min(1.0, max(step / STEPS, (time.monotonic() - start) / max(seconds, 1e-3)))
        yield done
        if done >= 1:
            break


def _loss(network: GeneralizedRCNN, views: Sequence[View]) -> Tensor:
    names = views[0].features
    features = {name: torch.cat([one.features[name] for one in views]).float() for name in names}
    height, width = (4 * side for side in features["0"].shape[2:])
    sizes, targets = [(height, width)] * len(views), [view.target for view in views]
    images = ImageList(torch.empty(len(views), 3, height, width), sizes)
    proposals, of_proposals = network.rpn(images, features, targets)
    _, of_boxes = network.roi_heads(features, proposals, sizes, targets)
    return torch.stack([*of_proposals.values(), *of_boxes.values()]).sum()
