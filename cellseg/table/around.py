"""Cells around nuclei: how they grow, and how they and the cytoplasm between are measured.

Each grows until it meets its neighbour, a distance, or the edge that a channel of cytoplasm or
membranes shows. Sums are added up over the blocks of the slide; kept are a few numbers a cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.geometry import Box, Frame, LazyArray
from cellseg.protocol import Stain
from cellseg.stain.dyes import Dyes
from cellseg.table._shape import Floats
from cellseg.table._table import Column, channel_slugs, densities, optical_densities, unmixed

Labels = NDArray[np.uint32]

BLOCK_PX = 1024
"""Side of what is grown at once, lattice pixels."""

OUTLINE_PX = 0.25
"""From a mask's outermost pixel centres to its outline, on average over its directions."""

SMOOTH_PX = 1.0
"""Deviation of the Gaussian that smooths the channel, lattice pixels."""

WEIGHT = 4.0
"""Cost of a step over a change by a factor of two, beside its length."""

DETOUR = 2.0
"""Most that a path may cost, of the distance by which nuclei may grow."""

_LABEL_BITS, _UNIT, _LEVELS = 32, 256, 64
_STEPS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]

_PARTS = {
    "cell": "the cell: the nucleus and the cytoplasm around it",
    "cytoplasm": "the cytoplasm: the cell without its nucleus",
}


def grow(labels: Labels, distance: float) -> Labels:
    """Give each pixel of the background, 0 in (h, w) labels, the nearest label within a distance.

    ``distance`` is in pixels, from the outlines of the masks.
    """
    from skimage.segmentation import expand_labels  # late: a viewer opens results without it

    return np.asarray(expand_labels(labels, distance + OUTLINE_PX), np.uint32)  # type: ignore[no-untyped-call]


def grown_blocks(
    labels: LazyArray, distance: float, grown_in: Callable[[Box, Labels], Labels] | None = None
) -> Iterator[tuple[Box, Labels, Labels]]:
    """Grow block by block of :data:`BLOCK_PX`; those without a cell are left out.

    ``grown_in`` grows the labels of a box as :func:`follow` does, in place of by distance alone.
    Yielded are where a block lies, and its labels as they were and grown; uint32, (h, w).
    """
    whole = Box(0, 0, *labels.shape)
    halo = halo_px(distance) if grown_in else math.ceil(distance + OUTLINE_PX) + 1
    for box in whole.parts(BLOCK_PX):
        around = box.widened(halo).intersection(whole)
        seen = np.asarray(labels[around.pixels], np.uint32)
        if not seen.any():
            continue
        inner = box.inside(around)
        grown = grow(seen, distance) if grown_in is None else grown_in(around, seen)
        if grown[inner].any():
            yield box, seen[inner], grown[inner]


@dataclass(frozen=True)
class ChannelGround:
    """Brightness of a channel where there are no cells, and from which on there are."""

    level: float
    threshold: float

    @classmethod
    def of(cls, channel: NDArray[np.generic]) -> ChannelGround | None:
        """The ground of a channel, from an overview of the slide; None where all is the same.

        The lower of two thresholds: the triangle's, for a ground that is most of the picture,
        and Otsu's of the logarithm, for one that is not.
        """
        from skimage.filters import threshold_otsu, threshold_triangle

        seen = channel.astype(np.float64)
        seen = _smoothed(np.where(np.isfinite(seen), seen, np.nanmin(seen)))
        low, high = np.percentile(seen, (1, 99.5))
        if not high > low:
            return None
        seen = np.clip(seen, low, high)
        step = (high - low) / 256
        dark = threshold_triangle(seen)  # type: ignore[no-untyped-call]
        parts = threshold_otsu(np.log(seen - low + step))  # type: ignore[no-untyped-call]
        return cls(float(low), float(min(dark, np.exp(parts) + low - step)))


def follow(
    nuclei: Labels,
    channel: NDArray[np.generic],
    ground: ChannelGround,
    *,
    distance: float,
    rim: float,
) -> Labels:
    """Give each pixel of the cells the nucleus from which a path costs least.

    ``nuclei``, (h, w), are 0 on the background; ``channel``, (h, w), holds raw values. Beyond
    ``distance`` pixels from the nearest nucleus there is no cell; ``rim`` pixels around each are
    cell however dark they are.

    Notes
    -----
    A step costs its length, and more where the channel changes: at edges, and on either side of
    a membrane (Propagation of Jones, Carpenter and Golland, 2005, is of this kind). Costs are whole
    numbers; of two labels at the same cost the smaller wins. No path costs more than
    :data:`DETOUR` times the distance, so what lies farther away (:func:`halo_px`) plays no part.
    """
    smooth = np.maximum(_smoothed(channel) - ground.level, 0)
    above = ground.threshold - ground.level
    relief = np.rint(np.log2(np.nan_to_num(smooth) / above + 1) * _LEVELS).astype(np.int64)
    near = ndimage.distance_transform_edt(nuclei == 0) <= distance if nuclei.any() else nuclei > 0
    ring = grow(nuclei, rim)
    inside = (near & (smooth >= above)) | (ring > 0)
    found = _cheapest(nuclei, relief, inside, int(DETOUR * distance * _UNIT))
    return np.where(found > 0, found, ring)


def halo_px(distance: float) -> int:
    """How far around a block nuclei and pixels play a part."""
    return int(np.ceil((1 + DETOUR) * distance + 4 * SMOOTH_PX)) + 2


def _smoothed(values: NDArray[np.generic]) -> NDArray[np.float64]:
    known = values.astype(np.float64)
    return np.asarray(ndimage.gaussian_filter(known, SMOOTH_PX, mode="nearest"))


def _cheapest(
    nuclei: Labels, relief: NDArray[np.int64], inside: NDArray[np.bool_], most: int
) -> Labels:
    """Relax the costs from the nuclei outwards until none falls; cost and label are one integer."""
    label_mask = np.int64(2**_LABEL_BITS - 1)
    # A border all around, so that a step does not lead into the next row.
    relief, is_open = np.pad(relief, 1).ravel(), np.pad(inside, 1).ravel()
    seeds = np.pad(nuclei, 1).astype(np.int64)
    width, seeds = seeds.shape[1], seeds.ravel()
    key = np.where(seeds > 0, seeds, (np.int64(most) << _LABEL_BITS) | label_mask)
    active = np.flatnonzero(seeds)
    while len(active):
        changed = []
        for y, x in _STEPS:
            to = active + (y * width + x)
            change = np.abs(relief[to] - relief[active])
            cost = np.hypot(y, x) * (_UNIT + WEIGHT * _UNIT / _LEVELS * change)
            reached = key[active] + (np.rint(cost).astype(np.int64) << _LABEL_BITS)
            is_better = (reached < key[to]) & is_open[to]
            key[to[is_better]] = reached[is_better]
            changed.append(to[is_better])
        active = np.unique(np.concatenate(changed))
    labels = np.where(key >> _LABEL_BITS < most, key & label_mask, 0)
    return labels.reshape(-1, width)[1:-1, 1:-1].astype(np.uint32)


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

    def __init__(self, cells: int, frame: Frame, seen: ChannelPixels) -> None:
        self._frame, self._seen = frame, seen
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
        step, mpp = self._frame.downsample, self._frame.mpp
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
