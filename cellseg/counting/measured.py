"""Settled cells become measured ones: gates, pixels, the table's rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.counting.tally import Tally
from cellseg.counting.tiles import TileSource
from cellseg.detect import DetectorInfo
from cellseg.errors import RegionError
from cellseg.geometry import Box, Tile
from cellseg.instances import Instances
from cellseg.measure import REGION, Column, Scale, columns, measure
from cellseg.merge import Settled
from cellseg.text import visible
from cellseg.tissue import TissueMask


@dataclass(frozen=True, eq=False)
class MeasuredCells:
    """Cells that are final, and what was measured of them.

    Attributes
    ----------
    instances : Instances, N
        On the slide's lattice.
    table : DataFrame, N rows
        The columns of ``cells.csv`` but for ``region``; ``label`` is 0, as only the whole run can
        number the cells.
    """

    instances: Instances
    table: pd.DataFrame


class CellMeasurer:
    """Measures what the merge hands out.

    Parameters
    ----------
    source : TileSource
    info : DetectorInfo
    tissue : TissueMask
        Cells outside of it are left out.
    tally : Tally
        Is told what was left out.
    """

    def __init__(
        self, source: TileSource, info: DetectorInfo, tissue: TissueMask, tally: Tally
    ) -> None:
        self._source, self._info, self._tissue, self._tally = source, info, tissue, tally
        self._protocol, self._grid = source.plan.protocol, source.plan.grid
        self._regions = source.plan.regions
        self.scale = Scale(source.plan.downsample, source.slide.mpp)
        self._channels = source.channel_names if self._protocol.intensity else ()

    @property
    def columns(self) -> tuple[Column, ...]:
        """The table's columns."""
        return columns(
            self._channels,
            stain=self._protocol.stain,
            has_mpp=self.scale.mpp is not None,
            has_regions=self._regions is not None,
        )

    def gated(self, settled: Settled) -> Settled:
        """Without what is too small, too large, or outside the tissue: asked of the cell."""
        instances = settled.instances
        pixel_um = self.scale.lattice_mpp or self._protocol.mpp
        area = instances.areas * pixel_um**2
        sized = (area >= self._protocol.min_area_um2) & (area <= self._protocol.max_area_um2)
        centres = (instances.boxes[:, :2] + instances.boxes[:, 2:]) / 2
        inside = self._tissue.contains(centres[:, 0], centres[:, 1])
        kept = np.flatnonzero(sized & inside)
        self._tally.gated += int(np.count_nonzero(~sized))
        self._tally.outside += int(np.count_nonzero(sized & ~inside))
        return settled.take(kept)

    def measured(self, settled: Settled) -> Iterator[MeasuredCells]:
        """The cells with their rows, those of a tile together, so that it is read once.

        Of a count in regions without those whose centroid lies in none.
        """
        for tile, chosen in self._by_tile(settled.instances):
            part = settled.take(chosen)
            table = self._table(part, tile)
            if self._regions is not None:
                place = table["centroid_y_px"], table["centroid_x_px"]
                held = np.unique(self._regions.holding(*place)[0])
                table, part = table.iloc[held], part.take(held)
            self._tally.kept += len(part)
            yield MeasuredCells(part.instances, table)

    def _by_tile(self, instances: Instances) -> Iterator[tuple[Tile | None, NDArray[np.int64]]]:
        """Group cells by the tile whose padded box holds them; None for larger ones."""
        side = self._grid.tile
        groups: dict[tuple[int, int] | None, list[int]] = defaultdict(list)
        for index, (y0, x0, y1, x1) in enumerate(instances.boxes.tolist()):
            place = ((y0 + y1 - 1) // 2 // side, (x0 + x1 - 1) // 2 // side)
            padded = self._grid.at(*place).padded
            fits = y0 >= padded.y0 and x0 >= padded.x0 and y1 <= padded.y1 and x1 <= padded.x1
            groups[place if fits else None].append(index)
        for key, chosen in groups.items():
            if key is None:
                for index in chosen:
                    yield None, np.array([index])
            else:
                yield self._grid.at(*key), np.array(chosen)

    def _table(self, part: Settled, tile: Tile | None) -> pd.DataFrame:
        raw, origin = self._pixels(part.instances, tile)
        normaliser = self._source.normaliser
        table = measure(
            part.instances,
            raw,
            origin,
            scale=self.scale,
            channels=self._channels,
            stain=self._protocol.stain,
            # Raw value of full transmission, for optical densities.
            white=normaliser.high if normaliser.light == "transmitted" else None,
        )
        return self.with_names(table, part)

    def with_names(self, table: pd.DataFrame, settled: Settled) -> pd.DataFrame:
        """What pixels do not tell: names, and how the cell lies; all columns, in order."""
        names = np.array(self._info.classes, dtype=object)
        table["class"] = names[settled.instances.classes]
        table["image"] = visible(self._source.slide.path.name)
        table["object"] = self._info.object
        table["stitched"], table["touches_border"] = settled.stitched, settled.touches_border
        table["label"] = 0
        return table[[column.name for column in self.columns if column.name != REGION]]

    def _pixels(
        self, part: Instances, tile: Tile | None
    ) -> tuple[NDArray[np.generic] | None, tuple[int, int]]:
        if not self._channels:
            return None, (0, 0)
        y0, x0 = part.boxes[:, :2].min(axis=0).tolist()
        y1, x1 = part.boxes[:, 2:].max(axis=0).tolist()
        box = Box(y0, x0, y1, x1)
        try:
            if tile is not None:
                pixels = self._source.cached(tile)
                return pixels.raw, (pixels.box.y0, pixels.box.x0)
            return self._source.region(box), (y0, x0)
        except RegionError:
            self._tally.unmeasured += len(part)
            empty = np.full((*box.shape, len(self._channels)), np.nan, dtype=np.float32)
            return empty, (y0, x0)
