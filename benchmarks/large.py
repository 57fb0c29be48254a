"""Slides too large for memory, drawn tile by tile while they are written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from synthetic.discs import DISC_GREY, DISC_RGB, GROUND_GREY, GROUND_RGB
from synthetic.noise import smooth_noise
from synthetic.tiff import PyramidLayout, new_tiff

_DOWNSAMPLES = (1, 4, 16)


@dataclass(frozen=True)
class LargeScene:
    """A square slide of discs on a jittered grid.

    Attributes
    ----------
    side_px : int
        Height and width of the slide.
    mpp : float
        µm per pixel, in the resolution tags.
    rgb : bool
        Purple on pink, JPEG (as scanners write); else bright on dark grey, zlib.
    spacing_px : int
        Side of the grid's cells; it divides no power of 2, so that discs lie across the
        borders of tiles.
    radius_px : (float, float)
        Range of the discs' radii.
    seed : int
        Row ``r`` of the grid is drawn from the generator of (seed, r).
    """

    side_px: int
    mpp: float = 0.25
    rgb: bool = True
    spacing_px: int = 60
    radius_px: tuple[float, float] = (12.0, 20.0)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.side_px < self.spacing_px:
            raise ValueError(
                f"expected a side of at least {self.spacing_px} px, got {self.side_px}"
            )
        if 2 * self.radius_px[1] + 4 > self.spacing_px:
            raise ValueError(
                f"discs of radius {self.radius_px[1]} px do not fit a grid of {self.spacing_px} px"
            )

    @property
    def cells(self) -> int:
        """Grid cells, and so discs, along a side."""
        return self.side_px // self.spacing_px

    def row(self, row: int) -> NDArray[np.float64]:
        """The discs of one row of the grid, float64, (cells, 3): centre y, x, radius; px."""
        rng = np.random.default_rng((self.seed, row))
        radius = rng.uniform(*self.radius_px, size=self.cells)
        play = (self.spacing_px / 2 - radius - 2)[:, None] * rng.uniform(-1, 1, (self.cells, 2))
        middle = (np.arange(self.cells) + 0.5) * self.spacing_px
        y = (row + 0.5) * self.spacing_px + play[:, 0]
        return np.column_stack([y, middle + play[:, 1], radius])


@dataclass(frozen=True)
class LargeTruth:
    """What lies on a large slide.

    Attributes
    ----------
    count : int
        Discs, all whole and apart.
    area_px : float
        Their area in all, px² of level 0, as drawn (πr²).
    """

    count: int
    area_px: float


def write_large(path: Path, scene: LargeScene, *, tile_px: int = 512) -> LargeTruth:
    """Write a BigTIFF with a pyramid (1, 4, 16); no more than a few tiles are in memory.

    Every level is drawn from the discs themselves, so that none has to be read to make the
    next.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    layout = PyramidLayout(scene.mpp, tile_px, compression="jpeg" if scene.rgb else "zlib")
    downsamples = [d for d in _DOWNSAMPLES if d == 1 or scene.side_px // d >= tile_px // 2]
    canvas = _Canvas(scene, tile_px)
    with new_tiff(path, big=True) as tif:
        for number, downsample in enumerate(downsamples):
            side = -(-scene.side_px // downsample)
            tif.write(
                canvas.tiles(downsample),
                shape=(side, side, 3) if scene.rgb else (side, side),
                dtype=np.uint8,
                photometric="rgb" if scene.rgb else "minisblack",
                subifds=0 if number else len(downsamples) - 1,
                subfiletype=1 if number else 0,
                metadata=None,
                **layout.tags(),
                **layout.resolution(downsample),
            )
    rows = [scene.row(row) for row in range(scene.cells)]
    area = sum(float(np.pi * np.sum(row[:, 2] ** 2)) for row in rows)
    return LargeTruth(scene.cells**2, area)


class _Canvas:
    """Draws tiles of a scene at any level."""

    def __init__(self, scene: LargeScene, tile_px: int) -> None:
        self._scene = scene
        self._tile_px = tile_px
        self._row = lru_cache(maxsize=4 + tile_px * 16 // scene.spacing_px)(scene.row)
        grain = smooth_noise(np.random.default_rng(scene.seed), (tile_px, tile_px), 1.5)
        texture = np.rint(4 * grain).astype(np.int16)
        ground = np.array(GROUND_RGB if scene.rgb else GROUND_GREY)
        disc = np.array(DISC_RGB if scene.rgb else DISC_GREY)
        shape = texture[..., None] if scene.rgb else texture
        self._ground = np.clip(ground + shape, 0, 255).astype(np.uint8)
        self._disc = np.clip(disc + 2 * shape, 0, 255).astype(np.uint8)

    def tiles(self, downsample: int) -> Iterator[NDArray[np.uint8]]:
        """All tiles of a level, row by row, those at the edge padded to the full size."""
        across = -(-self._scene.side_px // (downsample * self._tile_px))
        for row in range(across):
            for column in range(across):
                yield self._tile(row * self._tile_px, column * self._tile_px, downsample)

    def _tile(self, top: int, left: int, downsample: int) -> NDArray[np.uint8]:
        """One tile: (tile, tile) or (tile, tile, 3), origin in pixels of its level."""
        side = self._tile_px
        tile = self._ground.copy()
        first, last = self._reach(top, downsample)
        start, stop = self._reach(left, downsample)
        for number in range(first, last):
            discs = self._row(number)[start:stop] / downsample
            for y, x, radius in (discs - [top + 0.5, left + 0.5, 0.0]).tolist():
                y0, y1 = max(0, int(y - radius)), min(side, int(y + radius) + 2)
                x0, x1 = max(0, int(x - radius)), min(side, int(x + radius) + 2)
                if y1 <= y0 or x1 <= x0:
                    continue
                dy = np.arange(y0, y1)[:, None] - y
                dx = np.arange(x0, x1)[None, :] - x
                inside = dy * dy + dx * dx <= radius * radius
                tile[y0:y1, x0:x1][inside] = self._disc[y0:y1, x0:x1][inside]
        return tile

    def _reach(self, origin: int, downsample: int) -> tuple[int, int]:
        """Grid rows (or columns) that may lie in a tile."""
        spacing, cells = self._scene.spacing_px, self._scene.cells
        low = origin * downsample // spacing
        high = -(-(origin + self._tile_px) * downsample // spacing)
        return min(low, cells), min(high, cells)
