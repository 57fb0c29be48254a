"""Slide quality, collected while tiles are read for counting."""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cellseg.counting.plan import Plan
from cellseg.geometry import Box, Tile
from cellseg.network.tissue import TissueMask
from cellseg.stain.quality import (
    BUBBLE,
    FIELDS,
    FOLDED,
    LEAST_CONTRAST,
    OUT_OF_FOCUS,
    PEN,
    UNIT_PX,
    UNKNOWN,
    judged,
)
from cellseg.table.doubts import SlideQuality

_SAMPLES = 4
"""Places along a side of a unit that are asked for tissue."""


def packed_units(units: NDArray[np.float16]) -> str:
    """Units of a tile as text, for the journal."""
    return b64encode(zlib.compress(units.tobytes(), 1)).decode()


def unpacked_units(text: str, core: Box) -> NDArray[np.float16]:
    """Units of a tile out of :func:`packed_units`."""
    values = np.frombuffer(zlib.decompress(b64decode(text)), np.float16)
    return values.reshape(-(-core.height // UNIT_PX), -(-core.width // UNIT_PX), FIELDS)


@dataclass(frozen=True, eq=False)
class JudgedSlide:
    """What is wrong where on a slide, and its tissue without what is.

    Codes, uint8 (R, C), are as of :func:`cellseg.stain.quality.judged`; unknown without tissue.
    """

    codes: NDArray[np.uint8]
    shares: SlideQuality
    sound: TissueMask


def judge_slide(
    plan: Plan, mask: TissueMask, tiles: Mapping[Tile, NDArray[np.float16]]
) -> JudgedSlide:
    """Judge a slide by the units of its tiles' cores, once all of them came."""
    rows, columns = (-(-side // UNIT_PX) for side in (plan.grid.height, plan.grid.width))
    light, units = plan.protocol.light, np.zeros((rows, columns, FIELDS), np.float16)
    for tile, part in tiles.items():
        y, x = tile.core.y0 // UNIT_PX, tile.core.x0 // UNIT_PX
        units[y : y + len(part), x : x + part.shape[1]] = part
    side = UNIT_PX / _SAMPLES
    fine = np.ix_(*(
        np.minimum((np.arange(n * _SAMPLES) + 0.5) * side // mask.step, most - 1).astype(int)
        for n, most in zip((rows, columns), mask.tissue.shape, strict=True)
    ))  # fmt: skip
    places = mask.tissue[fine].reshape(rows, _SAMPLES, columns, _SAMPLES)
    tissue: NDArray[np.bool_] = np.asarray(places.any(axis=(1, 3)) & units.any(axis=2))
    if not plan.prefilter:
        tissue &= units[..., 1] >= LEAST_CONTRAST
    codes = judged(units, tissue, plan.pixel_um, light)
    codes[~tissue] = UNKNOWN
    at = np.ix_(*(
        np.minimum((np.arange(n) + 0.5) * mask.step // UNIT_PX, most - 1).astype(int)
        for n, most in zip(mask.tissue.shape, (rows, columns), strict=True)
    ))  # fmt: skip
    all_of_it = mask.tissue if plan.prefilter else tissue[at]
    whole = replace(mask, tissue=all_of_it).area_px() or 1.0

    def share(code: int) -> float:
        part = replace(mask, tissue=all_of_it & (codes[at] == code)).area_px() / whole
        return round(min(part, 1.0), 6)

    is_stained = light == "transmitted"
    shares = SlideQuality(
        out_of_focus=share(OUT_OF_FOCUS),
        folded=share(FOLDED) if is_stained else None,
        pen=share(PEN) if is_stained else None,
        bubbles=share(BUBBLE) if is_stained else None,
        unknown_focus=share(UNKNOWN),
        left_out=plan.skip_bad,
    )
    sound = replace(mask, tissue=mask.tissue & (codes[at] < OUT_OF_FOCUS))
    return JudgedSlide(codes, shares, sound)
