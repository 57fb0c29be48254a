"""The dyes of one slide, from patches of its tissue, unless the protocol takes fixed ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cellseg.counting.plan import Plan
from cellseg.errors import RegionError
from cellseg.geometry import Box
from cellseg.slide import Slide
from cellseg.stain.dyes import Dyes, estimated_dyes, given_dyes

PATCHES, EVERY_PX = 24, 3


def fit_dyes(slide: Slide, plan: Plan, patches: Sequence[Box]) -> Dyes | None:
    """White and directions of both dyes; None for fixed ones, and where there are no colours.

    Parameters
    ----------
    patches : sequence of Box
        On the lattice; a few from all over them are read.
    """
    wanted, stain = plan.protocol.dyes, plan.protocol.stain
    if wanted == "fixed" or stain not in ("he", "ihc") or len(plan.channels) != 3:
        return None
    places = np.unique(np.linspace(0, len(patches) - 1, min(PATCHES, len(patches))).astype(int))
    seen = []
    for box in (patches[place] for place in places.tolist()):
        try:
            patch = slide.read(box, downsample=plan.downsample, channels=plan.channels)
        except RegionError:
            continue
        seen.append(patch[::EVERY_PX, ::EVERY_PX].reshape(-1, 3).astype(np.float64))
    pixels = np.concatenate(seen) if seen else np.empty((0, 3))
    pixels = pixels[np.isfinite(pixels).all(axis=1)]
    if not len(pixels) or pixels.max() <= 0:
        return None
    if isinstance(wanted, dict):
        return given_dyes(wanted, pixels)
    return estimated_dyes(pixels, ("hematoxylin", "eosin" if stain == "he" else "dab"))
