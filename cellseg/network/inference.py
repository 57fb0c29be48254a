"""The seam between the detector and what computes its network: torch, or another library."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cellseg.geometry import STRIDE_PX, Box
from cellseg.network.architecture import FINE_FROM_PX, TYPE_FIELD_LEAST, TYPE_FIELD_PX
from cellseg.network.timer import Timer

EIGHT_BITS = "cpu, int8"
"""How the label of a network begins that computes so."""


def cores() -> int:
    """Of this machine, those that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@dataclass(frozen=True)
class Wanted:
    """Settings of a run that decide what the network looks at.

    Objects below ``score`` are not returned. Of a model that tells how well masks fit it is the
    geometric mean of the network's own score, the mask's IoU and the probability that it is right,
    but at most the root of the own score: an object below the square gets no mask.
    ``types`` are cell types, where the model has any; ``kinds`` the classes from 0 that are looked
    for, ascending, all where it is None. Boxes with a side of ``fine_from_px`` get a second look.
    Those that have no pixel in ``near``, a part of the image, get no mask either.
    """

    score: float = 0.5
    nms_iou: float = 0.5
    types: bool = False
    kinds: tuple[int, ...] | None = None
    fine_from_px: float = FINE_FROM_PX
    near: Box | None = None

    def meets(self, boxes: Any) -> Any:  # noqa: ANN401
        """Which boxes, (D, 4) as in :class:`NetworkOutput`, may have a pixel in ``near``, (D,)."""
        y0, x0, y1, x1 = self.near.corners if self.near else (-math.inf,) * 2 + (math.inf,) * 2
        high = (boxes[:, 0] < x1 + 1) & (boxes[:, 1] < y1 + 1)
        return high & (boxes[:, 2] > x0 - 1) & (boxes[:, 3] > y0 - 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class NetworkOutput:
    """Objects of one tile, before their masks are pasted."""

    boxes: NDArray[np.float32]  # (D, 4): (x1, y1, x2, y2), pixels of the tile.
    classes: NDArray[np.int64]  # (D,), from 0.
    scores: NDArray[np.float32]  # (D,).
    masks: NDArray[np.float32]  # (D, M, M): probabilities inside the box.
    fine: NDArray[np.int64]  # (K,): large objects.
    again: NDArray[np.float32]  # (K, 2 M, 2 M): what the second look at them says.
    proposals: int  # How many boxes were looked at.
    is_full: bool | NDArray[np.bool_]  # The limit on detections was reached.
    types: NDArray[np.float32] | None = None  # (D, T): probabilities of cell types.
    likeness: NDArray[np.float32] | None = None
    """(D, L): see :data:`~cellseg.network.architecture.TYPE_LIKENESS`."""

    def unlike(self, extent: tuple[int, int]) -> tuple[int, int]:
        """Fields of the tile that look unlike what types were learned from, and all that tell."""
        if self.likeness is None:
            return 0, 0
        rows, columns = (max(1, round(side / TYPE_FIELD_PX)) for side in extent)
        centres = (self.boxes[:, 1::-1] + self.boxes[:, :1:-1]) / 2
        y, x = (centres / extent * (rows, columns)).astype(int).clip(0, (rows - 1, columns - 1)).T
        field = y * columns + x
        asked = np.flatnonzero(np.bincount(field) >= TYPE_FIELD_LEAST)
        means = [self.likeness[field == one].mean(0) for one in asked]
        return sum(bool(np.linalg.norm(mean) > 1) for mean in means), len(means)


class Inference(Protocol):
    """A network that can be asked, whatever library computes it.

    Its name is what people choose it by, the label says where it runs and how exact its numbers
    are, ``threads`` how many images may be under way at once, ``stride_px`` what their sides are
    multiples of. ``tile_px`` and ``notes`` are as in
    :class:`~cellseg.network.detector.DetectorInfo`.
    """

    name: str
    label: str
    threads: int = 1
    stride_px: int = STRIDE_PX
    tile_px: int = 1024
    notes: tuple[str, ...] = ()

    def find(self, image: NDArray[np.float32], wanted: Wanted, timer: Timer) -> NetworkOutput:
        """Objects of an image, (H, W, 3) in 0 … 1; H and W are multiples of the stride."""
        ...

    def get_ready(self, extent: tuple[int, int]) -> None:
        """Make what images of an extent (H, W) need, while the first of them is being read."""
        return None

    def free_memory(self) -> None:
        """Give back what is kept for the next tile, after a slide."""
        return None
