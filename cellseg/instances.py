"""Instances: the objects of one tile or slide, as a struct of arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cellseg.geometry import Box


@dataclass(frozen=True, eq=False)
class Instances:
    """Objects with their masks, each mask kept inside its own box.

    Attributes
    ----------
    boxes : ndarray, int64, (N, 4)
        (y0, x0, y1, x1), half-open, pixels: the extent of each mask crop.
    scores : ndarray, float32, (N,)
    classes : ndarray, int64, (N,)
        Index into the detector's class names, from 0.
    masks : tuple of ndarray, bool
        Each of its box's shape, at least one pixel set.

    Raises
    ------
    ValueError
        If lengths or shapes clash.
    """

    boxes: NDArray[np.int64]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    masks: tuple[NDArray[np.bool_], ...]

    def __post_init__(self) -> None:
        count = len(self.masks)
        if self.boxes.shape != (count, 4):
            raise ValueError(f"expected boxes of shape ({count}, 4), got {self.boxes.shape}")
        if self.scores.shape != (count,) or self.classes.shape != (count,):
            raise ValueError(
                f"expected {count} scores and classes, "
                f"got {self.scores.shape} and {self.classes.shape}"
            )
        for box, mask in zip(self.boxes, self.masks, strict=True):
            if mask.shape != (box[2] - box[0], box[3] - box[1]):
                raise ValueError(f"mask of shape {mask.shape} does not fit its box {box.tolist()}")

    @classmethod
    def empty(cls) -> Instances:
        return cls.build([], [], [], [])

    @classmethod
    def build(
        cls,
        boxes: Iterable[Iterable[int]],
        scores: Iterable[float],
        classes: Iterable[int],
        masks: Iterable[NDArray[np.bool_]],
    ) -> Instances:
        """From any iterables; dtypes are set."""
        return cls(
            np.array([list(box) for box in boxes], dtype=np.int64).reshape(-1, 4),
            np.array(list(scores), dtype=np.float32),
            np.array(list(classes), dtype=np.int64),
            tuple(np.asarray(mask, dtype=np.bool_) for mask in masks),
        )

    def __len__(self) -> int:
        return len(self.masks)

    def box(self, index: int) -> Box:
        return Box(*self.boxes[index].tolist())

    @property
    def areas(self) -> NDArray[np.int64]:
        """Pixels in each mask, int64, (N,)."""
        return np.array([np.count_nonzero(mask) for mask in self.masks], dtype=np.int64)

    def take(self, indices: Iterable[int]) -> Instances:
        """The objects at ``indices``, in that order."""
        chosen = np.fromiter(indices, dtype=np.int64)
        return Instances(
            self.boxes[chosen],
            self.scores[chosen],
            self.classes[chosen],
            tuple(self.masks[index] for index in chosen),
        )

    def without_class(self) -> Instances:
        """The same objects, all of class 0."""
        return replace(self, classes=np.zeros_like(self.classes))

    def shifted(self, dy: int, dx: int) -> Instances:
        """The same objects, moved."""
        return Instances(
            self.boxes + np.array([dy, dx, dy, dx]), self.scores, self.classes, self.masks
        )

    @staticmethod
    def concatenate(parts: Iterable[Instances]) -> Instances:
        """All objects of ``parts``, in order."""
        given = list(parts)
        if not given:
            return Instances.empty()
        return Instances(
            np.concatenate([part.boxes for part in given]),
            np.concatenate([part.scores for part in given]),
            np.concatenate([part.classes for part in given]),
            tuple(mask for part in given for mask in part.masks),
        )

    def to_bytes(self) -> bytes:
        """Pack for the journal: exact, masks as bits, no pickle."""
        pixels = [np.zeros(0, np.bool_), *(mask.ravel() for mask in self.masks)]
        parts = (
            np.array(len(self), "<i8"),
            self.boxes.astype("<i8"),
            self.scores.astype("<f4"),
            self.classes.astype("<i8"),
            np.packbits(np.concatenate(pixels)),
        )
        return b"".join(part.tobytes() for part in parts)

    def __reduce__(self) -> tuple[object, tuple[bytes]]:
        """Pickled, masks are bits too: so they travel between machines."""
        return Instances.from_bytes, (self.to_bytes(),)

    @classmethod
    def from_bytes(cls, data: bytes) -> Instances:
        """Unpack what :meth:`to_bytes` packed.

        Raises
        ------
        ValueError
            If the data is cut off or too long.
        """
        count = int(np.frombuffer(data, "<i8", 1)[0])
        if not 0 <= count <= len(data):
            raise ValueError(f"{len(data)} bytes do not hold {count} instances")
        boxes = np.frombuffer(data, "<i8", 4 * count, 8).reshape(-1, 4).astype(np.int64)
        scores = np.frombuffer(data, "<f4", count, 8 + 32 * count).astype(np.float32)
        classes = np.frombuffer(data, "<i8", count, 8 + 36 * count).astype(np.int64)
        sides = boxes[:, 2:] - boxes[:, :2]
        ends = np.cumsum(sides.prod(axis=1))
        bits = np.frombuffer(data[8 + 44 * count :], np.uint8)
        size = int(ends[-1]) if count else 0
        if (sides < 0).any() or bits.size != -(-size // 8):
            raise ValueError(f"{bits.size} bytes do not hold masks of {size} pixels")
        pixels = np.split(np.unpackbits(bits, count=size).astype(np.bool_), ends[:-1])
        masks = [mask.reshape(side) for mask, side in zip(pixels, sides, strict=False)]
        return cls(boxes, scores, classes, tuple(masks))
