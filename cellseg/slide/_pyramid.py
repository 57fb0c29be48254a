"""The geometry of a pyramid: scales of levels, sizes of lattices, halves of boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cellseg.errors import SettingsError
from cellseg.geometry import Box
from cellseg.slide._raster import Raster


def halves(box: Box, source: Box) -> tuple[Box, Box]:
    """Cut across rows while the source is tall: files are stored in rows of chunks."""
    if box.height > 1 and (source.height >= source.width // 4 or box.width == 1):
        middle = (box.y0 + box.y1) // 2
        return Box(box.y0, box.x0, middle, box.x1), Box(middle, box.x0, box.y1, box.x1)
    middle = (box.x0 + box.x1) // 2
    return Box(box.y0, box.x0, box.y1, middle), Box(box.y0, middle, box.y1, box.x1)


def pyramid(
    rasters: Sequence[Raster],
) -> tuple[list[Raster], list[tuple[float, float]]]:
    """Levels from fine to coarse with their scales; those that are no reduction are left out."""
    base = rasters[0]
    kept: list[Raster] = [base]
    scales: list[tuple[float, float]] = [(1.0, 1.0)]
    for raster in rasters[1:]:
        if raster.bands != base.bands or raster.dtype != base.dtype:
            continue
        scale = _scale(base, raster)
        if scale[0] > scales[-1][0] and scale[1] > scales[-1][1]:
            kept.append(raster)
            scales.append(scale)
    return kept, scales


def _scale(base: Raster, level: Raster) -> tuple[float, float]:
    """Level-0 px per px of a level, (y, x).

    Writers round a level's size, so a ratio of 2.0007 means 2: the next power of two or whole
    number that explains both sizes is taken, and the ratios themselves otherwise.
    """
    ratio_y, ratio_x = base.height / level.height, base.width / level.width
    mean = (ratio_y * ratio_x) ** 0.5
    power = 2.0 ** round(math.log2(mean)) if mean > 0 else 1.0
    for whole in (power, float(round(ratio_y)), float(round(ratio_x)), float(round(mean))):
        if whole >= 1 and all(
            size in (math.floor(full / whole), math.ceil(full / whole))
            for size, full in ((level.height, base.height), (level.width, base.width))
        ):
            return whole, whole
    return ratio_y, ratio_x


def check_downsample(downsample: float) -> None:
    """Raise SettingsError unless it is above 0 and finite."""
    if not (math.isfinite(downsample) and downsample > 0):
        raise SettingsError(f"expected a downsample above 0, got {downsample}")


def cells(size: int, downsample: float) -> int:
    """How many lattice px cover ``size`` level-0 px."""
    exact = size / downsample
    nearest = round(exact)
    return max(1, nearest if abs(exact - nearest) < 1e-6 else math.ceil(exact))
