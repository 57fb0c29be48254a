"""Tiles: read once, normalised, detected in threads of this process, kept for measuring."""

from __future__ import annotations

import logging
import zlib
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cellseg.counting.plan import Plan
from cellseg.errors import RegionError
from cellseg.geometry import Box, Tile
from cellseg.instances import Instances
from cellseg.network.detector import Detector
from cellseg.network.timer import Timer
from cellseg.network.tissue import (
    CHANNELS,
    FINE_FACTOR,
    OVERVIEW_STEP,
    STRIP_ROWS,
    Strips,
    TissueFinder,
    TissueMask,
    overview_features,
)
from cellseg.slide import ChunkCache, Slide
from cellseg.stain.normalise import Normaliser
from cellseg.stain.quality import FIELDS, UNIT_PX, measured_units

log = logging.getLogger(__name__)

CACHE_BYTES = 192 * 2**20
"""Tiles that are kept for measuring: a stripe's row, until the row below has come."""

BLOCK_PX = 128

_LOOK_SECONDS = 0.2
"""How often a wait ends for a moment: on Windows nothing interrupts one without an end."""

_AHEAD = 1
"""Tiles under way beside those in the network: one that is read, or done."""


@dataclass(frozen=True, eq=False)
class TileFound:
    """What one tile brought.

    ``limits`` and ``unlike`` are as in :class:`~cellseg.network.detector.Detections`.
    """

    tile: Tile
    instances: Instances = field(default_factory=Instances.empty)
    """On the slide's lattice, before merging."""

    limits: tuple[str, ...] = ()
    unlike: tuple[int, int] = (0, 0)
    damaged: tuple[Box, ...] = ()  # Did not decode, in core or halo: filled with background.
    raw: NDArray[np.generic] = field(default_factory=lambda: np.empty((0, 0, 0)))
    """The padded tile for measuring, (h, w, C): every channel that is, the slide's dtype; NaN or 0
    where it was damaged. Empty where it was read elsewhere."""

    units: NDArray[np.float16] | None = None
    """Quality of the core by :func:`.measured_units`; None where nothing of it decoded."""

    error: str = ""  # Why pixels of the core are missing; empty if none are.


class TileSource:
    """Reads tiles of a slide on the lattice; some are ``kept`` for measuring, by their tile."""

    def __init__(self, slide: Slide, plan: Plan, normaliser: Normaliser) -> None:
        self.slide, self.plan, self.normaliser = slide, plan, normaliser
        everything = tuple(range(len(slide.channels)))
        self.measured = everything if plan.protocol.intensity else plan.channels
        self._seen = tuple(self.measured.index(channel) for channel in plan.channels)
        self.kept = ChunkCache(CACHE_BYTES)

    def read(self, tile: Tile) -> TileFound:
        """Read a padded tile; blocks that do not decode are filled with background.

        RegionError if no block of the core decodes.
        """
        try:
            return TileFound(tile, raw=self.region(tile.padded))
        except RegionError:
            return self._around_damage(tile)

    def scaled(self, raw: NDArray[np.generic]) -> NDArray[np.float32]:
        """What of raw pixels the network sees, on its intensity scale, (h, w, 3)."""
        return self.normaliser.apply(raw[..., list(self._seen)])

    def network_input(self, read: TileFound) -> NDArray[np.float32]:
        seen = self.scaled(read.raw)
        for box in read.damaged:
            seen[box.inside(read.tile.padded)] = self.normaliser.background
        return seen

    def region(self, box: Box) -> NDArray[np.generic]:
        """Raw pixels of any box, every measured channel."""
        return self.slide.read(box, downsample=self.plan.downsample, channels=self.measured)

    def _around_damage(self, tile: Tile) -> TileFound:
        padded, core = tile.padded, tile.core
        raw = np.zeros((*padded.shape, len(self.measured)), dtype=self.slide.dtype)
        damaged, errors = [], []
        # Blocks end at the core's border: damage in the halo then never counts as the core's.
        rows = _edges(padded.y0, core.y0, core.y1, padded.y1)
        columns = _edges(padded.x0, core.x0, core.x1, padded.x1)
        blocks = [Box(y0, x0, y1, x1) for y0, y1 in pairwise(rows) for x0, x1 in pairwise(columns)]
        for block in blocks:
            try:
                raw[block.inside(padded)] = self.region(block)
            except RegionError as error:
                damaged.append(block)
                errors += [str(error)] * block.intersects(core)
        if len(errors) == sum(block.intersects(core) for block in blocks):
            raise RegionError(errors[0])
        log.info("tile (%d, %d): %d damaged blocks", tile.row, tile.column, len(damaged))
        return TileFound(tile, raw=raw, damaged=tuple(damaged), error="".join(errors[:1]))


def _edges(*corners: int) -> list[int]:
    """The corners, ascending, and every multiple of ``BLOCK_PX`` from the first between them."""
    return sorted({*corners, *range(corners[0], corners[-1], BLOCK_PX)})


class LocalMapper:
    """Threads read ahead, others run the network, the caller has what is done.

    Whatever the caller does with a tile's result (merge, measure, write) goes on beside the
    network: torch gives the interpreter away while it computes. Once all tiles have come,
    ``seconds`` tells by stage where the time went, and ``device`` what the network ran on.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.device = ""

    def map(
        self, source: TileSource, detector: Detector, tiles: Iterable[Tile]
    ) -> Generator[TileFound, None, None]:
        """Yield each tile's result, in the order of ``tiles``.

        Closed before its end, it waits for the tiles under way and gives them up. Whatever
        the detector raises is raised here.
        """
        self.device = detector.info.device
        detector.take_seconds()  # what an interrupted run of another slide left
        timer = Timer()  # Its times are sums over all threads.
        left = iter(tiles)
        under_way: deque[Future[TileFound]] = deque()
        network = ThreadPoolExecutor(detector.threads, thread_name_prefix="cellseg-network")
        reading = ThreadPoolExecutor(1 + detector.threads, thread_name_prefix="cellseg-read")

        def go_on() -> None:
            if (tile := next(left, None)) is not None:
                read = reading.submit(_read, source, tile, timer)
                under_way.append(network.submit(_detect, source, detector, tile, read, timer))

        try:
            for _ in range(detector.threads + _AHEAD):
                go_on()
            while under_way:
                while not wait([under_way[0]], _LOOK_SECONDS).done:
                    pass
                found = under_way.popleft().result()
                go_on()
                yield found
        finally:
            reading.shutdown(cancel_futures=True)
            network.shutdown(cancel_futures=True)
            detector.free_memory()
        self.seconds = timer.seconds | detector.take_seconds()


def packed_units(units: NDArray[np.float16]) -> str:
    """Units of a tile as text, for the journal."""
    return b64encode(zlib.compress(units.tobytes(), 1)).decode()


def unpacked_units(text: str, core: Box) -> NDArray[np.float16]:
    """Units of a tile out of :func:`packed_units`."""
    values = np.frombuffer(zlib.decompress(b64decode(text)), np.float16)
    return values.reshape(-(-core.height // UNIT_PX), -(-core.width // UNIT_PX), FIELDS)


_Read = tuple[TileFound, NDArray[np.float32] | None]
"""A tile without its objects, and as the network sees it: (h, w, 3); None if nothing decoded."""


def _read(source: TileSource, tile: Tile, timer: Timer) -> _Read:
    """A padded tile, read and normalised."""
    try:
        with timer.stage("read"):
            found = source.read(tile)
    except RegionError as error:
        return TileFound(tile, error=str(error)), None
    with timer.stage("normalise"):
        seen = source.network_input(found)
    with timer.stage("quality"):
        y0, x0, y1, x1 = np.abs(np.subtract(tile.core.corners, tile.padded.corners)).tolist()
        plan = source.plan
        units = measured_units(seen, (y0, x0, y1, x1), plan.pixel_um, plan.protocol.light)
    return replace(found, units=units), seen


def _detect(
    source: TileSource, detector: Detector, tile: Tile, read: Future[_Read], timer: Timer
) -> TileFound:
    """The objects of a tile that is being read."""
    at = tile.padded
    detector.get_ready(at.shape)
    with timer.stage("wait for input"):
        came, seen = read.result()
    if seen is None:
        return came
    near = tile.near.intersection(at)
    with timer.stage("detect"):
        fill, inside = source.normaliser.background, near.shifted(-at.y0, -at.x0)
        its = detector.detect(seen, fill=fill, near=inside)
    moved = its.instances.shifted(at.y0, at.x0)
    return replace(came, instances=moved, limits=its.limits, unlike=its.unlike)


def overview_step(plan: Plan) -> int:
    """Lattice pixels per overview pixel of about 8 µm, a multiple of 4."""
    step = OVERVIEW_STEP * 0.5 / plan.protocol.mpp
    return max(FINE_FACTOR, round(step / FINE_FACTOR) * FINE_FACTOR)


def find_tissue(slide: Slide, plan: Plan, finder: TissueFinder) -> TissueMask:
    """Run the prefilter on strips of about 2 µm per pixel; memory follows the overview.

    A strip that does not decode counts as tissue, so that its tiles are tried one by one.
    """
    light = plan.protocol.light
    step = overview_step(plan)
    downsample = plan.downsample * step / FINE_FACTOR
    height, width = slide.lattice_shape(downsample)
    overview, _ = slide.overview()
    normaliser = Normaliser.fit(overview[..., list(plan.channels)], light)
    failed = []

    def strip(number: int) -> NDArray[np.float32]:
        y = number * STRIP_ROWS * FINE_FACTOR
        box = Box(y, 0, min(y + STRIP_ROWS * FINE_FACTOR, height), width)
        try:
            fine = normaliser.apply(slide.read(box, downsample=downsample, channels=plan.channels))
        except RegionError:
            fine = np.zeros((*box.shape, 3), dtype=np.float32)
            failed.append((y // FINE_FACTOR, -(-box.y1 // FINE_FACTOR)))
        return overview_features(fine, light)

    strips = Strips((-(-height // FINE_FACTOR), -(-width // FINE_FACTOR), CHANNELS), strip)
    mask = finder.find(strips, extent=(plan.grid.height, plan.grid.width), step=float(step))
    for first, last in failed:
        mask.search[first:last] = True
    return mask
