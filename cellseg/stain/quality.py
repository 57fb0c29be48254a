"""Slide quality in units of 64 px: out of focus, folded, marked by a pen, or under air bubbles.

Each unit is measured from the pixels of one tile, and all units are judged together at the end of
a count, a fold by its surroundings and a bubble by its rim. The measures do not depend on how
strongly a slide is stained; how the limits were chosen stands in ``docs/lab/limits.md``
(``benchmarks/quality.py``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import (
    binary_closing,
    binary_dilation,
    binary_fill_holes,
    binary_opening,
    convolve,
    find_objects,
    gaussian_filter1d,
    label,
    uniform_filter,
)

from cellseg.stain.normalise import Light

UNIT_PX = 64  # Side of a unit, lattice pixels: cores of tiles are multiples of it.
FIELDS = 6
"""Values of a unit: contrast of fine and of coarse structures, the optical densities of red, green
and blue of its lightest tenth, and how black its darkest tenth is (see :data:`RIM_OD`)."""

REACH_UM = 13.0  # Of the filters: three standard deviations of the widest, and a pixel.
FINE_UM: Mapping[Light, float] = {"transmitted": 0.5, "fluorescence": 1.0}
"""Of the Gaussian whose difference to one twice as wide shows fine structures. Nuclei in
fluorescence have softer borders and more noise."""

COARSE_UM = 2.0  # As above, for structures that a blur of some µm leaves.
BLURRED: Mapping[Light, float] = {"transmitted": 0.25, "fluorescence": 0.4}
"""Fine over coarse contrast, below which a unit is out of focus."""

LEAST_CONTRAST = 0.005
"""Coarse contrast from which a unit shows whether it is in focus; white is 1."""

AROUND_UM, PIXEL_UM = 64.0, 0.7
"""Side of the surroundings in which most units decide; lattice pixels from which on fine structures
do not show."""

SAMPLE_UM = 2.0  # Pixels of which the lightest and the darkest tenth are taken.
FOLD_AROUND_UM, FOLDED_OD = 200.0, 0.05
"""Side of the surroundings that a fold is compared with; least density of its lightest tenth."""

DENSER, SOFTER, OTHER_COLOUR = 0.7, -0.4, 0.15
"""A fold beside its surroundings: density of the lightest tenth at least so many octaves higher,
fine over coarse contrast so many lower, and no colour's share of the density further off."""

PLAIN_DENSER, FEWEST_FOLDED = 0.3, 3
"""Octaves up to which surroundings are plain; units of 3 × 3 that must look folded."""

INKED_OD, BLACK_OD = 0.25, 0.5
"""The same density, from which a unit may be covered by coloured or by black ink."""

REDDER_OD = 0.15
"""By which red ink, which resembles eosin, is denser than the median of the slide's tissue."""

RIM_OD, BLACKER_OD = 0.4, 0.3
"""Blackness of a unit's darkest tenth where the rim of an air bubble crosses it, and how far it
lies above the median of the slide's tissue. It is the least density of the three colours, less
half of their span: a grey's own density, next to nothing of dyes."""

SMALLEST_BUBBLE, ROUND, SOFT_BUBBLE = 9, 0.8, -0.5
"""Units within the rim, their share of an ellipse as high and as wide, and the octaves by which
their fine over coarse contrast is lower than that of the slide's tissue, if they are not out of
focus anyway."""

UNKNOWN, GOOD, OUT_OF_FOCUS, FOLDED, PEN, BUBBLE = range(6)
NAMES = {
    OUT_OF_FOCUS: "out of focus",
    FOLDED: "folded",
    PEN: "marked by a pen",
    BUBBLE: "under air bubbles",
}
"""What is wrong with a unit, as a sentence about tissue says it."""


def measured_units(
    seen: NDArray[np.float32], margins: tuple[int, int, int, int], pixel_um: float, light: Light
) -> NDArray[np.float16]:
    """Measure the units of a tile's core, (rows, columns, 6): see :data:`FIELDS`.

    ``seen``, (H, W, 3), is a padded tile on the intensity scale of the run, 0 … 1; ``margins`` are
    its pixels above, left, below and right of the core; filters see a part of them. ``pixel_um``
    is µm per lattice pixel. A last unit that the slide's edge cuts is measured by what is there.
    """
    reach = math.ceil(REACH_UM / pixel_um / UNIT_PX) * UNIT_PX
    spare = [max(0, margin - reach) for margin in margins]
    part = seen[spare[0] : len(seen) - spare[2], spare[1] : seen.shape[1] - spare[3]]
    top, left, below, right = (min(margin, reach) for margin in margins)
    rows = -(-(len(part) - top - below) // UNIT_PX)
    columns = -(-(part.shape[1] - left - right) // UNIT_PX)
    found = np.zeros((rows, columns, FIELDS), np.float16)

    def by_unit(values: NDArray[np.float32], step: int) -> NDArray[np.float32]:
        """The core's pixels, (rows, columns, pixels of a unit, …); a cut unit is filled up."""
        side, rest = UNIT_PX // step, ((0, 0),) * (values.ndim - 2)
        core = values[top // step :, left // step :][: rows * side, : columns * side]
        core = core[: len(values) - (top + below) // step]
        core = core[:, : values.shape[1] - (left + right) // step]
        lacking = (0, rows * side - len(core)), (0, columns * side - core.shape[1])
        core = np.pad(core, (*lacking, *rest), mode="edge")
        blocks = core.reshape(rows, side, columns, side, *core.shape[2:]).swapaxes(1, 2)
        return blocks.reshape(rows, columns, side * side, *core.shape[2:])

    grey, step = (part[..., 0] + part[..., 1] + part[..., 2]) / np.float32(3), 1
    for field, sigma_um in enumerate((FINE_UM[light], COARSE_UM)):
        while step * pixel_um * 2 <= sigma_um and step < UNIT_PX // 2:
            grey, step = _halved(grey), 2 * step
        band = _band(grey, sigma_um / (step * pixel_um))
        found[..., field] = np.sqrt(np.square(by_unit(band, step)).mean(axis=2))
    if light == "transmitted":
        step = 1
        while step * pixel_um * 2 <= SAMPLE_UM and step < UNIT_PX // 4:
            part, step = _halved(part), 2 * step
        colours = by_unit(part, step)
        order, tenth = np.argsort(colours.sum(axis=3), axis=2), max(1, colours.shape[2] // 10)
        densities = []
        for some in (order[..., -tenth:], order[..., :tenth]):
            colour = np.take_along_axis(colours, some[..., None], axis=2).mean(axis=2)
            densities.append(-np.log10(np.clip(colour, 1 / 255, 1.0)))
        least, most = densities[1].min(axis=2), densities[1].max(axis=2)
        found[..., 2:5], found[..., 5] = densities[0], least - (most - least) / 2
    return found


def _band(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """A Gaussian less one twice as wide, both cut at three deviations.

    Down the columns they are a product of matrices, which takes a fraction of a filter's time.
    """
    reach = int(6 * sigma + 0.5)
    places = np.arange(-reach, reach + 1)
    kernels = np.exp([-0.5 * (places / width) ** 2 for width in (sigma, 2 * sigma)])
    kernels[0, abs(places) > int(3 * sigma + 0.5)] = 0
    kernels = (kernels / kernels.sum(axis=1, keepdims=True)).astype(np.float32)
    padded = np.pad(values, ((reach, reach), (0, 0)), mode="symmetric")
    windows = sliding_window_view(padded, len(places), axis=0).swapaxes(1, 2)
    narrow, wide = (kernels @ windows).swapaxes(0, 1)
    band: NDArray[np.float32] = gaussian_filter1d(narrow, sigma, truncate=3)
    band -= gaussian_filter1d(wide, 2 * sigma, truncate=3)
    return band


def _halved(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of 2 × 2 pixels."""
    odd = [(0, side % 2) for side in values.shape[:2]]
    if any(more for _, more in odd):
        values = np.pad(values, (*odd, *((0, 0),) * (values.ndim - 2)), mode="edge")
    rows = values[::2] + values[1::2]
    return (rows[:, ::2] + rows[:, 1::2]) * np.float32(0.25)


def judged(
    units: NDArray[np.float16], tissue: NDArray[np.bool_], pixel_um: float, light: Light
) -> NDArray[np.uint8]:
    """Judge all units of a slide, (R, C).

    ``units``, (R, C, 6), are as :func:`measured_units` returns them, 0 where no tile was read;
    ``tissue``, (R, C), tells those with tissue: what is usual is asked of them.

    A unit is ``UNKNOWN`` where too little contrast shows whether it is in focus, ``GOOD``,
    ``OUT_OF_FOCUS``, ``FOLDED``, ``PEN`` or ``BUBBLE``. In focus or not is what most units around
    say.
    """
    values = units.astype(np.float32)
    red, green, blue = (values[..., 2 + n] for n in range(3))
    density = values[..., 2:5].mean(axis=2)
    darkest = np.maximum(values[..., 2:5].max(axis=2), 1e-6)
    is_black = (density > BLACK_OD) & (values[..., 2:5].min(axis=2) > 0.75 * darkest)
    # Haematoxylin takes as much green as red, eosin and DAB more; inks of these colours take less.
    is_green = (green < 0.85 * red) & (green < blue)
    is_blue = (green < 0.95 * red) & (blue < 0.45 * red)
    # Eosin takes little blue, blood and haematoxylin more red, DAB more blue than red ink does.
    is_red = (blue > 0.6 * green) & (blue < 1.1 * green) & (red < 0.45 * green)
    usual = float(np.median(density[tissue])) if tissue.any() else 0.0
    is_red &= density > usual + REDDER_OD
    pen = is_black | ((density > INKED_OD) & (is_green | is_blue | is_red))
    folded = np.zeros_like(pen)
    found = np.full(density.shape, UNKNOWN, np.uint8)
    if pixel_um * FINE_UM["transmitted"] <= PIXEL_UM * FINE_UM[light]:
        blurred = values[..., 0] < BLURRED[light] * values[..., 1]
        # What is out of focus looks denser too, where it has no gaps any more.
        may_fold = tissue & ~pen & ~blurred
        folded = _folded(values, may_fold, round(FOLD_AROUND_UM / (UNIT_PX * pixel_um)) | 1)
        # A unit that ink or a fold covers in part has the edge of it for its finest structure.
        known = (values[..., 1] >= LEAST_CONTRAST) & ~binary_dilation(pen | folded)
        blurred &= known
        side = round(AROUND_UM / (UNIT_PX * pixel_um)) | 1
        around = np.ones((side, side), np.int32)
        seen, votes = (
            convolve(one.astype(np.int32), around, mode="constant") for one in (known, blurred)
        )
        told = 4 * seen >= side**2
        found[told] = np.where(2 * votes > seen, OUT_OF_FOCUS, GOOD)[told]
    found[folded], found[pen] = FOLDED, PEN
    if light == "transmitted" and tissue.any():
        found[_under_bubbles(values, tissue)] = BUBBLE
    return found


def _under_bubbles(values: NDArray[np.float32], tissue: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Units out of focus within a thin black rim that is closed and about round, and the rim."""
    group, black, sharp = np.ones((3, 3), bool), values[..., 5], _sharpness(values)
    usual = float(np.median(black[tissue]))
    softest = max(math.log2(BLURRED["transmitted"]), np.median(sharp[tissue]) + SOFT_BUBBLE)
    rim = black > max(RIM_OD, usual + BLACKER_OD)
    rim &= ~binary_dilation(binary_opening(rim, group))  # strokes of a pen are broader
    # A margin of which nothing comes back: closing takes what lies beyond for black.
    closed = binary_closing(np.pad(rim, 2), group)[2:-2, 2:-2]
    found = np.zeros_like(rim)
    holes, _ = label(binary_fill_holes(closed) & ~closed)
    for number, place in enumerate(find_objects(holes), 1):
        inside = holes[place] == number
        (height, width), area = inside.shape, np.count_nonzero(inside)
        is_round = area > ROUND * math.pi / 4 * height * width and height <= 2 * width <= 4 * height
        is_soft = np.median(sharp[place][inside]) < softest
        found[place] |= inside & (is_round and is_soft and area >= SMALLEST_BUBBLE)
    return np.asarray(binary_dilation(found, group))


def _sharpness(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fine over coarse contrast of each unit, octaves."""
    ratio: NDArray[np.float32] = (values[..., 0] + 1e-4) / (values[..., 1] + 1e-4)
    return np.log2(ratio)


def _folded(values: NDArray[np.float32], tissue: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Units that are denser and softer than those around them, of the same colour, in groups."""

    def beside(value: NDArray[np.float32], among: NDArray[np.bool_]) -> NDArray[np.float32]:
        """A value less its mean over the units of ``among`` within ``side``."""
        total, share = (
            uniform_filter(np.where(among, one, np.float32(0)), side, mode="constant")
            for one in (value, np.float32(1))
        )
        less: NDArray[np.float32] = value - total / np.maximum(share, np.float32(1e-6))
        return less

    floor = values[..., 2:5].mean(axis=2)
    density = np.log2(floor + 0.02)
    seen = tissue & (values[..., 1] >= LEAST_CONTRAST)  # without bare glass
    plain = seen & (beside(density, seen) < PLAIN_DENSER)
    denser = beside(density, plain)
    softer = beside(_sharpness(values), seen)
    parts = values[..., 2:5] / np.maximum(values[..., 2:5].sum(axis=2, keepdims=True), 1e-3)
    same = np.all([abs(beside(parts[..., n], seen)) < OTHER_COLOUR for n in range(3)], axis=0)
    found: NDArray[np.bool_] = (
        tissue & (floor > FOLDED_OD) & (denser > DENSER) & (softer < SOFTER) & same
    )
    group = np.ones((3, 3), np.int32)
    found &= convolve(found.astype(np.int32), group, mode="constant") >= FEWEST_FOLDED
    # A fold's edge is half as dense, and in focus.
    among = convolve(found.astype(np.int32), group, mode="constant") > FEWEST_FOLDED
    found |= tissue & among & (denser > DENSER / 2)
    return found
