"""What happens to one tile, wherever it happens: read it, find its objects."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cellseg.counting.local import LocalEngine, Mapped
from cellseg.counting.quality import tile_units
from cellseg.counting.tiles import DamagedCore, TilePixels, TileSource
from cellseg.errors import RegionError
from cellseg.geometry import Tile
from cellseg.instances import Instances
from cellseg.network.detector import Detector
from cellseg.network.timer import Timer


@dataclass(frozen=True, eq=False)
class TileFound:
    """What the network found in a tile.

    Attributes
    ----------
    instances : Instances
        On the slide's lattice.
    limits : tuple of str
        Limits of the detector that were reached.
    damaged : int
        Blocks of the halo that did not decode.
    lost : DamagedCore or None
        What of the core did not.
    pixels : TilePixels or None
        As it was read, for measuring; None where it was read elsewhere.
    units : ndarray, float16, (rows, columns, 5), or None
        Quality of the core: see :func:`cellseg.counting.quality.tile_units`.
    """

    instances: Instances
    limits: tuple[str, ...] = ()
    damaged: int = 0
    pixels: TilePixels | None = None
    lost: DamagedCore | None = None
    units: NDArray[np.float16] | None = None


@dataclass(frozen=True, eq=False)
class TileRead:
    """A tile as it was read, and as the network sees it.

    Attributes
    ----------
    seen : ndarray, float32, (h, w, 3)
        Normalised.
    units : ndarray, float16, (rows, columns, 5)
        Quality of the core.
    """

    pixels: TilePixels
    seen: NDArray[np.float32]
    units: NDArray[np.float16]


SEEN_BYTES = 12
"""Of a pixel as the network sees it."""

BATCH_BYTES = 400_000_000
"""Of a batch's tiles, as they were read and as the network sees them. Some six batches are under
way in a run."""


def tiles_together(source: TileSource, detector: Detector, wanted: int | None) -> int:
    """Tiles that go through the network together: as many as it bears, and as memory does.

    Parameters
    ----------
    wanted : int or None
        What the user asked for; it stands.
    """
    if wanted:
        return wanted
    grid = source.plan.grid
    area = (grid.tile + 2 * grid.halo) ** 2
    most = BATCH_BYTES // (area * (source.pixel_bytes + SEEN_BYTES))
    return max(1, min(detector.batch_for(area), most))


class TileWork:
    """Reading and detecting, as an engine maps them over tiles.

    Attributes
    ----------
    timer : Timer
        What ``read``, ``normalise`` and ``quality`` took, over all threads.
    """

    def __init__(self, source: TileSource, detector: Detector) -> None:
        self.source, self.detector = source, detector
        self.timer = Timer()

    def read(self, tile: Tile) -> TileRead:
        """A padded tile, read and normalised; safe from several threads.

        Raises
        ------
        RegionError
            If any pixel of the core does not decode.
        """
        with self.timer.stage("read"):
            pixels = self.source.read(tile)
        with self.timer.stage("normalise"):
            seen = self.source.network_input(pixels)
        with self.timer.stage("quality"):
            return TileRead(pixels, seen, tile_units(self.source.plan, tile, seen))

    def detect(self, batch: list[TileRead]) -> list[TileFound]:
        """The objects of each tile, in order."""
        detections = self.detector.detect([read.seen for read in batch], fill=self.source.fill)
        return [
            TileFound(
                found.instances.shifted(read.pixels.box.y0, read.pixels.box.x0),
                found.limits,
                len(read.pixels.damaged) - (read.pixels.lost.blocks if read.pixels.lost else 0),
                read.pixels,
                read.pixels.lost,
                read.units,
            )
            for read, found in zip(batch, detections, strict=True)
        ]


class TileMapper(Protocol):
    """Where tiles are read and detected: threads of this process, or a cluster.

    Attributes
    ----------
    seconds : dict of str to float
        Where the time went, by stage, once all tiles have come.
    device : str
        What the network ran on.
    """

    seconds: dict[str, float]
    device: str

    def map(
        self, source: TileSource, detector: Detector, tiles: list[Tile]
    ) -> Generator[Mapped[TileFound], None, None]:
        """Each tile's result, in any order; closed before its end, it gives the rest up."""
        ...


class LocalMapper:
    """Tiles in threads of this process.

    Parameters
    ----------
    batch : int, optional
        Tiles that go through the network together; None: as many as the device takes.
    """

    def __init__(self, batch: int | None = None) -> None:
        self._batch = batch
        self.seconds: dict[str, float] = {}
        self.device = ""

    def map(
        self, source: TileSource, detector: Detector, tiles: list[Tile]
    ) -> Generator[Mapped[TileFound], None, None]:
        """See :class:`TileMapper`."""
        self.device = detector.info.device
        work = TileWork(source, detector)
        detector.take_seconds()  # what an interrupted run of another slide left
        engine: LocalEngine[TileRead, TileFound] = LocalEngine(
            batch=tiles_together(source, detector, self._batch),
            readers=1 + detector.threads,
            networks=detector.threads,
            expected=(RegionError,),
        )
        with closing(engine.map(tiles, work.read, work.detect)) as results:
            yield from results
        self.seconds = engine.seconds | work.timer.seconds | detector.take_seconds()
