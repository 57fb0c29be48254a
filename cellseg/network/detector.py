"""What a detector is, and what it gives.

A detector sees tiles and knows nothing of the slide: pixel (0, 0) is the tile's corner.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cellseg.errors import WeightsError
from cellseg.geometry import Box
from cellseg.instances import Instances
from cellseg.protocol import NO_TYPES, CountProtocol
from cellseg.text import visible


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in one tile, in its pixels, and limits of the detector that it reached.

    These are ``"proposals"`` and ``"detections"``. Where cell types were told, ``unlike`` counts
    fields of the tile that look unlike those that types were learned from, and all fields with
    objects enough to tell.
    """

    instances: Instances
    limits: tuple[str, ...] = ()
    unlike: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Sizes:
    """Between which areas, and up to which side of the box, objects are believed.

    In pixels of the network.
    """

    smallest_px: float
    largest_px: float
    longest_px: float

    def __post_init__(self) -> None:
        if not (0 <= self.smallest_px < self.largest_px < np.inf and 0 < self.longest_px < np.inf):
            raise WeightsError(f"the model card's sizes make no sense: {self}")

    @classmethod
    def of(cls, settings: Mapping[str, float]) -> Sizes | None:
        """From a model card's settings, where they are there."""
        names = [field.name for field in fields(cls)]
        return cls(*(settings[name] for name in names)) if set(names) <= set(settings) else None


@dataclass(frozen=True)
class DetectorInfo:
    """Who the detector is, for the table and the record of a run.

    Other fields are as in :class:`~cellseg.network.modelfile.ModelCard`.
    """

    name: str
    checksum: str
    classes: tuple[str, ...]
    object: str
    diameter_px: float | None = None
    mpp: float | None = None  # µm per pixel of its training; None: any, the protocol's is taken.
    score: float | None = None
    """At which the model counts best on its own validation; None: the protocol's."""

    sizes: Sizes | None = None  # Of what it was trained on; None: the protocol's gates hold.
    types: tuple[str, ...] = ()
    types_from: str = ""
    device: str = ""  # Where it runs.
    inference: str = "torch"  # What computes its network; cells of one run come from one.
    notes: tuple[str, ...] = ()  # What was chosen when it was loaded, for a person.
    tile_px: int = 1024  # The largest tile's side, without halo, that is a good use of memory.

    def __post_init__(self) -> None:
        # Names of classes go into tables, pages and other programs: nothing in them may act.
        for name in ("classes", "types"):
            object.__setattr__(self, name, tuple(map(visible, getattr(self, name))))

    def counting(self, wanted: Iterable[str]) -> DetectorInfo:
        """Of its classes those that are wanted; all where it has none of them."""
        kept = tuple(name for name in self.classes if name in set(wanted))
        return replace(self, classes=kept or self.classes)

    def sorting(self, tissue: str) -> DetectorInfo:
        """With its cell types as classes.

        In any tissue but the one that the types were learned from they are names of what a
        nucleus looks like, ``epithelial_like``; of ``none`` there are no types.
        """
        if tissue == NO_TYPES or not self.types:
            return self
        if tissue in self.types_from:
            return replace(self, classes=self.types)
        names = (f"{name.removeprefix('tumour_')}_like" for name in self.types)
        return replace(self, classes=tuple(names))


class Detector(Protocol):
    """Anything that finds objects in tiles.

    Derived from this class, a detector needs ``info`` and :meth:`detect`.

    Attributes
    ----------
    threads : int
        Tiles that may be under way at once.
    """

    info: DetectorInfo
    threads: int = 1

    def detect(
        self, tile: NDArray[np.float32], *, fill: float, near: Box | None = None
    ) -> Detections:
        """Find the objects of a tile.

        Parameters
        ----------
        tile : ndarray, float32, (H, W, 3)
            Normalised to 0 … 1.
        fill : float
            What lies beyond a tile's edge where the detector needs more pixels: the
            background, 0 in fluorescence and 1 in transmitted light.
        near : Box, optional
            Part of the tile; objects of which no pixel lies in it may be left out.
        """
        ...

    def get_ready(self, extent: tuple[int, int]) -> None:
        """Prepare for tiles of an extent (H, W), while the first of them is being read."""
        return None

    def for_run(self, protocol: CountProtocol) -> Detector:
        """One for a run: with its scores, overlap, classes and cell types; others' stay as is."""
        return self

    def free_memory(self) -> None:
        """Give back what is kept for the next tile."""
        return None

    def take_seconds(self) -> dict[str, float]:
        """Seconds by stage since the last call, where they are measured."""
        return {}
