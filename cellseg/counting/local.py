"""Tiles in threads of this process: some read ahead, others run the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cellseg.counting.quality import tile_units
from cellseg.counting.tiles import TileFound, TilePixels, TileSource
from cellseg.errors import RegionError
from cellseg.geometry import Tile
from cellseg.network.detector import Detections, Detector
from cellseg.network.timer import Timer

_LOOK_SECONDS = 0.2
"""How often a wait ends for a moment: on Windows nothing interrupts one without an end."""

_AHEAD = 2
"""Batches under way beside those in the network: one that is read, one that is ready or done."""

SEEN_BYTES = 12
"""Of a pixel as the network sees it."""

BATCH_BYTES = 400_000_000
"""Of a batch's tiles, as they were read and as the network sees them. Some six batches are under
way in a run."""


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
        self, source: TileSource, detector: Detector, tiles: Iterable[Tile]
    ) -> Generator[TileFound, None, None]:
        """Each tile's result, in any order; closed before its end, it gives the rest up."""
        ...


class LocalMapper:
    """Threads read ahead, others run the network, the caller has what is done.

    Whatever the caller does with a tile's result (merge, measure, write) goes on beside the
    network: torch gives the interpreter away while it computes.

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
        self, source: TileSource, detector: Detector, tiles: Iterable[Tile]
    ) -> Generator[TileFound, None, None]:
        """Yield each tile's result, in the order of ``tiles`` but for failed ones of a batch.

        Closed before its end, it waits for the batches under way and gives them up. Whatever
        the detector raises is raised here.
        """
        self.device = detector.info.device
        detector.take_seconds()  # what an interrupted run of another slide left
        work = _Work(source, detector)
        size, left = tiles_together(source, detector, self._batch), iter(tiles)
        under_way: deque[Future[list[TileFound]]] = deque()
        network = ThreadPoolExecutor(detector.threads, thread_name_prefix="cellseg-network")
        reading = ThreadPoolExecutor(1 + detector.threads, thread_name_prefix="cellseg-read")

        def go_on() -> None:
            if some := list(islice(left, size)):
                reads = [reading.submit(work.read, tile) for tile in some]
                under_way.append(network.submit(work.detect, reads))

        try:
            for _ in range(detector.threads + _AHEAD):
                go_on()
            while under_way:
                while not wait([under_way[0]], _LOOK_SECONDS).done:
                    pass
                results = under_way.popleft().result()
                go_on()
                yield from results
        finally:
            reading.shutdown(cancel_futures=True)
            network.shutdown(cancel_futures=True)
        self.seconds = work.timer.seconds | detector.take_seconds()


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


@dataclass(frozen=True, eq=False)
class _TileRead:
    """A tile as it was read, and as the network sees it: float32, (h, w, 3), normalised."""

    tile: Tile
    pixels: TilePixels
    seen: NDArray[np.float32]
    units: NDArray[np.float16]

    def with_(self, found: Detections) -> TileFound:
        lost, box = self.pixels.lost, self.pixels.box
        return TileFound(
            self.tile,
            found.instances.shifted(box.y0, box.x0),
            limits=found.limits,
            damaged=len(self.pixels.damaged) - (lost.blocks if lost else 0),
            pixels=self.pixels,
            lost=lost,
            units=self.units,
        )


class _Work:
    """What the threads of one run do; its times are sums over all of them."""

    def __init__(self, source: TileSource, detector: Detector) -> None:
        self.source, self.detector, self.timer = source, detector, Timer()

    def read(self, tile: Tile) -> _TileRead | TileFound:
        """A padded tile, read and normalised; one that does not decode is done with that."""
        try:
            with self.timer.stage("read"):
                pixels = self.source.read(tile)
        except RegionError as error:
            return TileFound(tile, error=str(error))
        with self.timer.stage("normalise"):
            seen = self.source.network_input(pixels)
        with self.timer.stage("quality"):
            return _TileRead(tile, pixels, seen, tile_units(self.source.plan, tile, seen))

    def detect(self, reads: list[Future[_TileRead | TileFound]]) -> list[TileFound]:
        """The objects of a batch of tiles that are being read; failed ones come first."""
        with self.timer.stage("wait for input"):
            came = [future.result() for future in reads]
        ready = [one for one in came if isinstance(one, _TileRead)]
        with self.timer.stage("detect"):
            seen = [one.seen for one in ready]
            found = self.detector.detect(seen, fill=self.source.fill) if ready else []
        failed = [one for one in came if isinstance(one, TileFound)]
        return [*failed, *(one.with_(its) for one, its in zip(ready, found, strict=True))]
