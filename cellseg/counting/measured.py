"""Settled cells become measured ones: gates, pixels, the table's rows.

What cannot be told from the background around it is no cell: a network may outline bare glass,
with compression blocks or dust for a reason, and be sure of it. On the intensity scale of the run
(0 … 1) such an object is even, and as bright as its surroundings. Both limits were chosen on
annotated images in three kinds of light, where they remove no object that matches an annotated
nucleus (``benchmarks/background.py``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from cellseg.counting.merge import Settled
from cellseg.counting.tally import Tally
from cellseg.counting.tiles import TileSource
from cellseg.errors import RegionError
from cellseg.geometry import Box, Frame, Tile
from cellseg.instances import Instances
from cellseg.network.detector import DetectorInfo
from cellseg.network.tissue import TissueMask
from cellseg.result.journal import Columns, Journal
from cellseg.stain.dyes import Dyes
from cellseg.stain.normalise import DARKEST
from cellseg.table import Column, channel_slugs, columns, dab_density, measure

ASKED_A_TILE = 50
"""Cells of a tile that are asked for the stain around them."""

LEAST_CONTRAST = 0.02
"""Difference to the ring, in any channel, from which an object stands out."""

LEAST_SPREAD = 0.045
"""Standard deviation, in any channel, from which an object has structure of its own."""

BROWN = 0.15
"""Optical density of DAB from which a ring is brown."""

GAP_PX, RING_PX = 1, 5
"""The ring begins and ends so far from the object."""


@dataclass(frozen=True, eq=False)
class MeasuredCells:
    """Cells that are final, on the slide's lattice, and what was measured of them.

    The table, columns by name, has the numbers and flags of ``cells.csv`` but for ``label``, as
    only the whole run can number the cells. They are not new where an interrupted run had them.
    """

    instances: Instances
    table: Columns
    is_new: bool = True


class CellMeasurer:
    """Measures what the merge hands out; ``tally`` is told what is left out.

    ``dyes`` are the slide's own, in place of the published ones.
    """

    def __init__(
        self,
        source: TileSource,
        info: DetectorInfo,
        tissue: TissueMask,
        tally: Tally,
        *,
        frame: Frame,
        dyes: Dyes | None = None,
    ) -> None:
        self._frame = frame
        self._source, self._info, self._tissue, self._tally = source, info, tissue, tally
        normaliser = source.normaliser
        # Of full transmission, for optical densities.
        high = normaliser.high if normaliser.light == "transmitted" else None
        self._white: float | Dyes | None = dyes or high
        self._protocol, self._grid = source.plan.protocol, source.plan.grid
        self._regions = source.plan.regions
        # Names of the measured channels, in the order of their pixels.
        names = tuple(source.slide.channels[index] for index in source.measured)
        self._channels = names if self._protocol.intensity else ()

    @property
    def columns(self) -> tuple[Column, ...]:
        return columns(
            self._channels,
            stain=self._protocol.stain,
            has_mpp=self._frame.mpp is not None,
            has_regions=self._regions is not None,
            has_t=self._source.plan.t is not None,
        )

    @property
    def _numbers(self) -> list[Column]:
        return [c for c in self.columns if c.dtype != "str" and c.name != "label"]

    def gated(self, settled: Settled) -> Settled:
        """Without what is too unsure, small or large for its class, or outside the tissue."""
        kinds = settled.instances.classes
        sure = settled.instances.scores >= self._of_class("score")[kinds]
        settled = settled.take(np.flatnonzero(sure))
        instances, kinds = settled.instances, kinds[sure]
        area = instances.areas * self._source.plan.pixel_um**2
        low, high = self._of_class("min_area_um2"), self._of_class("max_area_um2")
        sized = (area >= low[kinds]) & (area <= high[kinds])
        centres = (instances.boxes[:, :2] + instances.boxes[:, 2:]) / 2
        inside = self._tissue.contains(centres[:, 0], centres[:, 1])
        kept = np.flatnonzero(sized & inside)
        self._tally.gated += int(np.count_nonzero(~sized))
        self._tally.outside += int(np.count_nonzero(sized & ~inside))
        return settled.take(kept)

    def _of_class(self, limit: str) -> NDArray[np.float64]:
        """A limit for each class: its rule's, else the protocol's."""
        rules, usual = self._protocol.classes, getattr(self._protocol, limit)
        own = [getattr(rules.get(name), limit, None) for name in self._info.classes]
        return np.array([usual if value is None else value for value in own], np.float64)

    def recalled(
        self, settled: Settled, earlier: Journal
    ) -> tuple[tuple[MeasuredCells, ...], Settled]:
        """The cells that were measured before, and the others."""
        kept = self._numbers
        rows = earlier.recall(settled.instances, [column.name for column in kept])
        if not rows:
            return (), settled
        known = np.array(sorted(rows))
        values = np.stack([rows[index] for index in known.tolist()])
        table = {c.name: values[:, k].astype(c.dtype) for k, c in enumerate(kept)}
        part = settled.take(known)
        self._tally.kept += len(part)
        new = np.setdiff1d(np.arange(len(settled)), known)
        if self._channels:
            first = f"intensity_mean_{channel_slugs(self._channels)[0]}"
            self._tally.unmeasured += int(np.isnan(table[first]).sum())
        return (MeasuredCells(part.instances, table, is_new=False),), settled.take(new)

    def measured(self, settled: Settled) -> Iterator[MeasuredCells]:
        """The cells with their rows, those of a tile together.

        Without those that cannot be told from the background around them, and of a count in
        regions without those whose centroid lies in none.
        """
        for tile, chosen in self._by_tile(settled.instances):
            whole = settled.take(chosen)
            raw, origin = self._pixels(whole.instances, tile)
            table = measure(
                whole.instances, raw, origin, frame=self._frame, channels=self._channels,
                stain=self._protocol.stain, white=self._white, scaled=self._source.scaled,
            )  # fmt: skip
            even = np.flatnonzero(np.less(table.pop("spread"), LEAST_SPREAD))  # may be background
            rings = _with_rings(whole.instances.take(even), raw, origin)
            gone = [
                index
                for index, (margin, crop) in zip(even, rings, strict=True)
                if np.isfinite(crop).all() and is_background(margin, self._source.scaled(crop))
            ]
            kept = np.setdiff1d(np.arange(len(whole)), gone)
            part, table = whole.take(kept), {n: values[kept] for n, values in table.items()}
            self._tally.background += len(gone)
            if not len(part):
                continue
            if self._channels and self._protocol.stain == "ihc" and raw.shape[-1] == 3:
                self._look_at_limit(part.instances, raw, origin)
                self._look_around(part.instances, raw, origin)
            if self._regions is not None:
                place = table["centroid_y_px"], table["centroid_x_px"]
                held = np.unique(self._regions.holding(*place)[0])
                part, table = part.take(held), {n: values[held] for n, values in table.items()}
            self._tally.kept += len(part)
            yield MeasuredCells(part.instances, self._whole(table, part))

    def _by_tile(self, instances: Instances) -> Iterator[tuple[Tile | None, NDArray[np.int64]]]:
        """Group cells by the tile whose padded box holds them; None for larger ones."""
        groups: dict[Tile | None, list[int]] = defaultdict(list)
        for index, (y0, x0, y1, x1) in enumerate(instances.boxes.tolist()):
            tile = self._grid.at(*self._grid.owner((y0 + y1 - 1) // 2, (x0 + x1 - 1) // 2))
            padded = tile.padded
            fits = y0 >= padded.y0 and x0 >= padded.x0 and y1 <= padded.y1 and x1 <= padded.x1
            groups[tile if fits else None].append(index)
        for home, chosen in groups.items():
            for part in [chosen] if home else [[index] for index in chosen]:
                yield home, np.array(part)

    def _look_at_limit(
        self, part: Instances, raw: NDArray[np.generic], origin: tuple[int, int]
    ) -> None:
        """Count pixels too dark for the sensor to tell how much DAB there is."""
        normaliser = self._source.normaliser
        limit = normaliser.low + DARKEST * (normaliser.high - normaliser.low)
        blue = np.less_equal(raw[..., 2], limit)
        for (y0, x0, y1, x1), mask in zip(part.boxes - np.tile(origin, 2), part.masks, strict=True):
            self._tally.pixels += int(np.count_nonzero(mask))
            self._tally.at_limit += int(np.count_nonzero(blue[y0:y1, x0:x1] & mask))

    def _look_around(
        self, part: Instances, raw: NDArray[np.generic], origin: tuple[int, int]
    ) -> None:
        """Ask some cells whether the brown stain lies around the nucleus, not in it."""
        some = part.take(np.arange(0, len(part), max(1, len(part) // ASKED_A_TILE)))
        for margin, crop in _with_rings(some, raw, origin):
            ringed = is_ringed(margin, dab_density(crop, self._white))
            self._tally.asked += 1
            self._tally.ringed += bool(ringed)
            self._tally.brown += ringed is not None

    def _whole(self, table: Columns, cells: Settled) -> Columns:
        """With what pixels do not tell, how each cell lies and when; all columns, in order."""
        lying = {"stitched": cells.stitched, "touches_border": cells.touches_border}
        whole = {**table, **lying, "t": np.full(len(cells), self._source.plan.t)}
        return {column.name: whole[column.name] for column in self._numbers}

    def _pixels(
        self, part: Instances, tile: Tile | None
    ) -> tuple[NDArray[np.generic], tuple[int, int]]:
        """Pixels that hold the cells and their surroundings, and where they begin."""
        if tile is not None and (kept := self._source.kept.find(tile)) is not None:
            return kept, (tile.padded.y0, tile.padded.x0)
        y0, x0 = np.maximum(part.boxes[:, :2].min(axis=0) - RING_PX, 0).tolist()
        y1, x1 = (part.boxes[:, 2:].max(axis=0) + RING_PX).tolist()
        box = Box(y0, x0, min(y1, self._grid.height), min(x1, self._grid.width))
        try:
            return self._source.region(box), (y0, x0)
        except RegionError:
            if tile is not None:
                with suppress(RegionError):  # what of it decodes, as if it had been kept
                    return self._source.read(tile).raw, (tile.padded.y0, tile.padded.x0)
            self._tally.unmeasured += len(part) if self._channels else 0
            empty = np.full((*box.shape, len(self._source.measured)), np.nan, dtype=np.float32)
            return empty, (y0, x0)


def _with_rings(
    instances: Instances, raw: NDArray[np.generic], origin: tuple[int, int]
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.generic]]]:
    """Each mask with a margin for its ring, and its pixels; the margin ends at the slide's edge."""
    for box, mask in zip(instances.boxes, instances.masks, strict=True):
        y, x = box[:2] - origin - RING_PX
        rows = slice(max(y, 0), y + mask.shape[0] + 2 * RING_PX)
        columns = slice(max(x, 0), x + mask.shape[1] + 2 * RING_PX)
        crop = raw[rows, columns]
        margin = np.pad(mask, RING_PX)[rows.start - y :, columns.start - x :]
        yield margin[: crop.shape[0], : crop.shape[1]], crop


def is_background(mask: NDArray[np.bool_], pixels: NDArray[np.float32]) -> bool:
    """Whether an object is even and as bright as its surroundings; False of unknown pixels.

    ``mask``, (H, W), is the object with a margin of :data:`RING_PX` where the slide goes on;
    ``pixels``, (H, W, C), are on the intensity scale of the run.
    """
    inside = pixels[mask].astype(np.float64)
    if not inside.std(axis=0).max() < LEAST_SPREAD:
        return False
    ring = _ring(mask)
    if not ring.any():
        return False
    around = pixels[ring].mean(axis=0, dtype=np.float64)
    return bool(np.abs(inside.mean(axis=0) - around).max() < LEAST_CONTRAST)


def is_ringed(mask: NDArray[np.bool_], dab: NDArray[np.float64]) -> bool | None:
    """Whether a brown ring around a nucleus is browner than the nucleus; None without a ring.

    So are nuclei among membranes or cytoplasm that the stain marks; a positive nucleus is browner
    than what is around it. ``dab``, (H, W), is the optical density of DAB.
    """
    ring = _ring(mask)
    around = float(dab[ring].mean()) if ring.any() else 0.0
    return around > float(dab[mask].mean()) if around > BROWN else None


def _ring(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    near = binary_dilation(mask, iterations=GAP_PX)
    return np.asarray(binary_dilation(mask, iterations=RING_PX) & ~near)
