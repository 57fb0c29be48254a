"""Pixels of tiles: read once, normalised for the network, kept for measuring."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cellseg.counting.plan import Plan
from cellseg.errors import RegionError
from cellseg.geometry import Box, Tile
from cellseg.instances import Instances
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

log = logging.getLogger(__name__)

CACHE_BYTES = 192 * 2**20
"""Tiles that are kept for measuring: a stripe's row, until the row below has come."""

BLOCK_PX = 128


@dataclass(frozen=True, eq=False)
class TileFound:
    """What one tile brought.

    Attributes
    ----------
    instances : Instances
        On the slide's lattice, before merging.
    limits : tuple of str
        Limits of the detector that were reached.
    unlike : (int, int)
        As in :class:`~cellseg.network.detector.Detections`.
    damaged : tuple of Box
        Blocks that did not decode, of the halo too: filled with background.
    raw : ndarray, (h, w, C)
        The padded tile for measuring: every channel that is, the slide's dtype; NaN or 0 where it
        was damaged. Empty where it was read elsewhere.
    units : ndarray, float16, (rows, columns, 5), or None
        Quality of the core: see :func:`cellseg.counting.quality.tile_units`; None where nothing
        of it decoded.
    error : str
        Why pixels of the core are missing; empty if none are.
    """

    tile: Tile
    instances: Instances = field(default_factory=Instances.empty)
    limits: tuple[str, ...] = ()
    unlike: tuple[int, int] = (0, 0)
    damaged: tuple[Box, ...] = ()
    raw: NDArray[np.generic] = field(default_factory=lambda: np.empty((0, 0, 0)))
    units: NDArray[np.float16] | None = None
    error: str = ""


class TileSource:
    """Reads tiles of a slide on the lattice; some are ``kept`` for measuring, by their tile."""

    def __init__(self, slide: Slide, plan: Plan, normaliser: Normaliser) -> None:
        self.slide, self.plan, self.normaliser = slide, plan, normaliser
        everything = tuple(range(len(slide.channels)))
        self.measured = everything if plan.protocol.intensity else plan.channels
        self._seen = tuple(self.measured.index(channel) for channel in plan.channels)
        self.kept = ChunkCache(CACHE_BYTES)

    @property
    def fill(self) -> float:
        """Normalised background."""
        return 0.0 if self.normaliser.light == "fluorescence" else 1.0

    @property
    def pixel_bytes(self) -> int:
        """Of a pixel of ``raw``."""
        return len(self.measured) * self.slide.dtype.itemsize

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the measured channels, in the order of ``raw``."""
        return tuple(self.slide.channels[index] for index in self.measured)

    def read(self, tile: Tile) -> TileFound:
        """Read a padded tile.

        Raises
        ------
        RegionError
            If no block of the core decodes. Blocks that do not are filled with background.
        """
        try:
            return TileFound(tile, raw=self.region(tile.padded))
        except RegionError:
            return self._around_damage(tile)

    def scaled(self, raw: NDArray[np.generic]) -> NDArray[np.float32]:
        """What of raw pixels the network sees, on its intensity scale, (h, w, 3)."""
        return self.normaliser.apply(raw[..., list(self._seen)])

    def network_input(self, read: TileFound) -> NDArray[np.float32]:
        """Normalised (h, w, 3)."""
        seen = self.scaled(read.raw)
        for box in read.damaged:
            seen[box.inside(read.tile.padded)] = self.fill
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
