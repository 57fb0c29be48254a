"""Tiles in threads of this process: some read ahead, others run the network."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cellseg.counting.quality import tile_units
from cellseg.counting.tiles import TileFound, TileSource
from cellseg.errors import RegionError
from cellseg.geometry import Tile
from cellseg.network.detector import Detector
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


def cores() -> int:
    """Of this machine, those that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


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
    network: torch gives the interpreter away while it computes. Of a ``batch`` of None as many
    tiles go through the network together as the device takes.
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
            detector.free_memory()
        self.seconds = work.timer.seconds | detector.take_seconds()


def tiles_together(source: TileSource, detector: Detector, wanted: int | None) -> int:
    """Tiles that go through the network together: the wanted ones, or as many as memory bears."""
    if wanted:
        return wanted
    area = source.plan.grid.at(0, 0).padded.area
    most = BATCH_BYTES // (area * (source.pixel_bytes + SEEN_BYTES))
    return max(1, min(detector.batch_for(area), most))


_Read = tuple[TileFound, NDArray[np.float32] | None]
"""A tile without its objects, and as the network sees it: (h, w, 3); None if nothing decoded."""


class _Work:
    """What the threads of one run do; its times are sums over all of them."""

    def __init__(self, source: TileSource, detector: Detector) -> None:
        self.source, self.detector, self.timer = source, detector, Timer()

    def read(self, tile: Tile) -> _Read:
        """A padded tile, read and normalised."""
        try:
            with self.timer.stage("read"):
                found = self.source.read(tile)
        except RegionError as error:
            return TileFound(tile, error=str(error)), None
        with self.timer.stage("normalise"):
            seen = self.source.network_input(found)
        with self.timer.stage("quality"):
            units = tile_units(self.source.plan, tile, seen)
        return replace(found, units=units), seen

    def detect(self, reads: list[Future[_Read]]) -> list[TileFound]:
        """The objects of a batch of tiles that are being read; failed ones come first."""
        with self.timer.stage("wait for input"):
            came = [future.result() for future in reads]
        failed = [tile for tile, seen in came if seen is None]
        ready = [(tile, seen) for tile, seen in came if seen is not None]
        with self.timer.stage("detect"):
            images = [seen for _, seen in ready]
            found = self.detector.detect(images, fill=self.source.fill) if ready else []
        return failed + [
            replace(
                one,
                instances=its.instances.shifted(one.tile.padded.y0, one.tile.padded.x0),
                limits=its.limits,
                unlike=its.unlike,
            )
            for (one, _), its in zip(ready, found, strict=True)
        ]
