"""Measuring cells around nuclei, and the cytoplasm between, block by block of the slide.

Sums are added up over the blocks; kept are a few numbers a cell, and no pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg.protocol import Stain
from cellseg.stain.dyes import Dyes
from cellseg.table._columns import Column, Scale, channel_slugs, densities
from cellseg.table._measure import optical_densities, unmixed
from cellseg.table._shape import Floats

_PARTS = {
    "cell": "the cell: the nucleus and the cytoplasm around it",
    "cytoplasm": "the cytoplasm: the cell without its nucleus",
}


@dataclass(frozen=True)
class ChannelPixels:
    """What of a slide's pixels is measured around nuclei.

    Without ``channels`` areas alone; ``white`` is the raw value of full transmission, or the
    slide's own dyes.
    """

    channels: tuple[str, ...] = ()
    _: KW_ONLY
    stain: Stain = "brightfield"
    white: float | Dyes = 1.0

    @property
    def stains(self) -> tuple[str, ...]:
        return densities(self.channels, stain=self.stain)


def around_columns(channels: Sequence[str], *, stain: Stain, has_mpp: bool) -> tuple[Column, ...]:
    """The columns that an expansion adds to ``cells.csv``, in order.

    No intensities without ``channels``; nothing in µm² without a pixel size.
    """
    found = []
    for part, what in _PARTS.items():
        found += [
            Column(f"{part}_area_px", "px²", "float64", f"Area of {what}; level-0 pixels."),
            Column(f"{part}_area_um2", "µm²", "float64", f"Area of {what}."),
        ]
    for part, what in _PARTS.items():
        found += [
            Column(
                f"{part}_{slug}_mean", "raw", "float64", f"Mean of channel `{slug}` over {what}."
            )
            for slug in channel_slugs(channels)
        ]
        found += [
            Column(f"{part}_{name}_od_mean", "OD", "float64", f"Mean optical density over {what}.")
            for name in densities(channels, stain=stain)
        ]
    return tuple(column for column in found if has_mpp or column.unit != "µm²")


class AroundSums:
    """Sums of pixels and of their values over nuclei and cytoplasms; labels are 1 … ``cells``."""

    def __init__(self, cells: int, scale: Scale, seen: ChannelPixels) -> None:
        self._scale, self._seen = scale, seen
        values = len(seen.channels) + (3 if seen.stains else 0)
        # The last axis is nucleus, cytoplasm.
        self._pixels = np.zeros((cells, 2), np.int64)
        self._sums = np.zeros((values, cells, 2), np.float64)
        self._known = np.zeros((values, cells, 2), np.uint32)

    def add(
        self,
        nuclei: NDArray[np.uint32],
        cells: NDArray[np.uint32],
        pixels: NDArray[np.generic] | None,
    ) -> None:
        """Add a block: labels as found and grown, (h, w), and raw values, (h, w, C).

        NaN and infinities are left out; ``pixels`` are None where they cannot be read.
        """
        inside = cells > 0
        labels, inverse = np.unique(cells[inside], return_inverse=True)
        place, size = 2 * inverse + (nuclei[inside] == 0), 2 * len(labels)
        rows = labels.astype(np.int64) - 1
        self._pixels[rows] += np.bincount(place, minlength=size).reshape(-1, 2)
        if pixels is None:
            return
        raw = pixels[inside]
        # Of a channel after the other: a block of many channels is not copied whole.
        values = [raw[:, number] for number in range(len(self._seen.channels))]
        if self._seen.stains:
            values += [*optical_densities(raw, self._seen.white).T]
        for number, value in enumerate(values):
            known = np.isfinite(value)
            at = place[known]
            self._known[number, rows] += (
                np.bincount(at, minlength=size).reshape(-1, 2).astype(np.uint32)
            )
            weights = value[known].astype(np.float64)
            self._sums[number, rows] += np.bincount(at, weights, size).reshape(-1, 2)

    def table(self) -> dict[str, Floats]:
        """Columns of :func:`around_columns`, (cells,) each."""
        step, mpp = self._scale.downsample, self._scale.mpp
        found: dict[str, Floats] = {}
        for part in _PARTS:
            # A cell is both of its parts.
            of = np.s_[..., 0:2] if part == "cell" else np.s_[..., 1:2]
            area = self._pixels[of].sum(axis=-1) * step**2
            found[f"{part}_area_px"] = area
            if mpp is not None:
                found[f"{part}_area_um2"] = area * mpp**2
            count = self._known[of].sum(axis=-1, dtype=np.float64)
            means = self._sums[of].sum(axis=-1) / np.where(count > 0, count, np.nan)
            slugs = channel_slugs(self._seen.channels)
            found |= {f"{part}_{slug}_mean": means[i] for i, slug in enumerate(slugs)}
            if stains := self._seen.stains:
                mixed = unmixed(means[len(slugs) :].T, stains, self._seen.white)
                found |= {f"{part}_{name}_od_mean": value for name, value in mixed.items()}
        return found
