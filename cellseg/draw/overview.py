"""``overview.png``: the slide, and beside it how dense the cells lie.

Density is smoothed by a Gaussian whose σ is :data:`KERNEL_SPACINGS` times the distance at which
neighbours lie where there are cells, so that the map shows groups of cells and not each of them;
at least a 90th of the longer side, which is as fine as the map can show, at most an eighth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from cellseg.derive.places import marked
from cellseg.draw.outlines import draw_borders, draw_edges
from cellseg.draw.sheet import INK, MUTED, Panel, Sheet, font, scale_bar, shortened
from cellseg.result import Result
from cellseg.slide import Slide
from cellseg.table.summary import counted
from cellseg.text import visible

MAX_PANEL_PX = 900
MIN_PANEL_PX = 480
MOST_MAPS = 6  # Classes that have a map of their own.

MOST_GRID = 360
"""Along the longer side of the grid on which density is smoothed: four to the finest σ."""

KERNEL_SPACINGS = 1.0
"""About 13 evenly spread cells then make up each value (4πσ² times their density)."""

_FINEST, _WIDEST = 1 / 90, 1 / 8
_BLOCKS, _IN_BLOCK = (32, 16, 8, 4, 2, 1), 4
_TISSUE = ((2, (0, 150, 90)),)
_BAR, _BESIDE = 14, 94

_ENDS = np.frombuffer(
    bytes.fromhex(
        "44015448186a472d7b4240863b528b33638d2c728e26828e21918c1fa08828ae803fbc735ec96284d44baddc30"
        "d8e219fde725"
    ),
    np.uint8,
).reshape(-1, 3)
_STEPS = np.linspace(0, len(_ENDS) - 1, 256)
_VIRIDIS = np.rint(
    np.stack([np.interp(_STEPS, np.arange(len(_ENDS)), one) for one in _ENDS.T], 1)
).astype(np.uint8)
"""Viridis (van der Walt and Smith 2015, CC0) by 17 of its colours, at most 6 of 255 off: matplotlib
takes a tenth of a second to load, which no small image should wait for."""


def overview_sheet(result: Result, slide: Slide) -> Sheet:
    """The slide of a result, and maps of how dense all its cells and those of each class lie.

    Where several classes have cells, each gets a map of its own, on its own scale; of more than
    :data:`MOST_MAPS` those with most cells.
    """
    ground, mpp = result.ground(slide), result.frame.mpp
    image, downsample = ground.overview()
    longest = max(image.shape[:2])
    factor = max(min(1.0, MAX_PANEL_PX / longest), MIN_PANEL_PX / longest)
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])

    def picture(pixels: NDArray[np.uint8]) -> Image.Image:
        return Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)

    panels = [Panel(picture(image), "Slide")]
    if (tissue := result.tissue()) is not None:
        draw_edges(panels[0].image, [tissue.shape], _TISSUE, pixel=downsample / factor)
        panels = [replace(panels[0], caption="Slide, tissue outlined")]
    pale, step = _pale(image), -(-longest // MOST_GRID)
    side = downsample * step
    rows, columns = (-(-length // step) for length in image.shape[:2])
    for name, counts in _counts(result, (rows, columns), side).items():
        density = Density.of(counts, side if mpp is None else side * mpp, mpp is None)
        shown = shortened(visible(name) or "Density", 240, 14)
        small = Image.fromarray(density.values / density.top)
        level = small.resize((columns * step, rows * step), Image.Resampling.BILINEAR)
        panels.append(
            Panel(
                picture(_heated(pale, np.asarray(level))),
                f"{shown}, {density.unit}; Gaussian, σ = {density.kernel}",
                _colour_bar(height, density.top),
                f"{visible(name)}: {density.scale}" if name else density.scale,
            )
        )
    if (regions := marked(result)) is not None:
        for panel in panels:
            draw_borders(panel.image, regions, pixel=downsample / factor)
    return Sheet(
        title=f"{ground.title}: {counted(result.summary.cells, result.object_name)}",
        panels=panels,
        columns=2 if width <= 1.6 * height else 1,
        bar=scale_bar(max(20, width / 4), pixel=downsample / factor, mpp=mpp),
    )


def _counts(
    result: Result, shape: tuple[int, ...], downsample: float
) -> dict[str, NDArray[np.float64]]:
    """Cells per pixel, (H, W): of all, under an empty name, and of each class that has a map."""
    table = result.table.load(["class", "centroid_y_px", "centroid_x_px"])
    at = (table[["centroid_y_px", "centroid_x_px"]].to_numpy() + 0.5) / downsample
    y, x = np.clip(at.astype(np.int64), 0, np.array(shape) - 1).T
    held = table["class"].value_counts()
    most = held[held > 0].index[:MOST_MAPS]
    names = ["", *(name for name in result.class_names if name in most and len(most) > 1)]
    found = {name: np.zeros(shape) for name in names}
    for name, counts in found.items():
        chosen = (table["class"] == name).to_numpy() if name else slice(None)
        np.add.at(counts, (y[chosen], x[chosen]), 1.0)
    return found


@dataclass(frozen=True, eq=False)
class Density:
    """How dense cells lie: cells per ``unit`` of area, smoothed, float32 (H, W).

    ``top`` is what the brightest colour stands for, ``kernel`` the Gaussian's width for people.
    """

    values: NDArray[np.float32]
    top: float
    unit: str
    kernel: str

    @classmethod
    def of(cls, counts: NDArray[np.float64], side: float, in_px: bool) -> Density:
        """Density of cells per pixel, whose ``side`` is in µm, or ``in_px`` of the slide."""
        longest = max(counts.shape)
        wanted = np.clip(KERNEL_SPACINGS * spacing_px(counts), _FINEST * longest, _WIDEST * longest)
        sigma = float(f"{wanted * side:.2g}")
        values = density_map(counts, sigma_px=sigma / side) / np.float32((side / 1000) ** 2)
        seen = values[values > values.max() / 100]
        return cls(
            values,
            nice_ceiling(float(np.percentile(seen, 99.5))) if seen.size else 1.0,
            "cells / megapixel" if in_px else "cells / mm²",
            f"{sigma:,.6g} {'px' if in_px else 'µm'}",
        )

    @property
    def scale(self) -> str:
        return f"{self.top:,.3g} {self.unit}" if self.top < 1000 else f"{self.top:,.0f} {self.unit}"


def density_map(counts: NDArray[np.float64], *, sigma_px: float) -> NDArray[np.float32]:
    """Cells per pixel, smoothed; at the edge only what lies inside counts: density keeps up."""
    smooth = gaussian_filter(counts, sigma_px, mode="constant")
    rows, columns = (gaussian_filter1d(np.ones(n), sigma_px, mode="constant") for n in counts.shape)
    return np.asarray(smooth / np.outer(rows, columns), dtype=np.float32)


def spacing_px(counts: NDArray[np.float64]) -> float:
    """How far apart neighbours lie, where there are cells: √(area that holds cells / cells).

    The area is that of blocks with cells: of the smallest, 32, 16, 8, 4, 2 or 1 along the longer
    side, that hold four cells or more on average.
    """
    total, spacing = float(counts.sum()), 0.0
    for number in _BLOCKS if total else ():
        side = -(-max(counts.shape) // number)
        tops, lefts = (np.arange(0, length, side) for length in counts.shape)
        blocks = np.add.reduceat(np.add.reduceat(counts, tops, axis=0), lefts, axis=1)
        each = total / np.count_nonzero(blocks)
        spacing = side / each**0.5
        if each >= _IN_BLOCK:
            break
    return float(spacing)


def nice_ceiling(value: float) -> float:
    """The smallest of 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8 × 10ⁿ that is not below ``value``."""
    power = 10.0 ** np.floor(np.log10(value))
    steps = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
    return float(next(step * power for step in steps if step * power >= value * (1 - 1e-9)))


def viridis(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Colours of values 0 … 1; (…) becomes (…, 3)."""
    index = np.clip(values * len(_VIRIDIS), 0, len(_VIRIDIS) - 1).astype(np.intp)
    return np.asarray(_VIRIDIS[index])


def _pale(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The slide in pale greys, (H, W, 1), as the ground of a map."""
    grey = image.mean(axis=2, keepdims=True, dtype=np.float32)
    if float(np.median(grey)) < 90:  # fluorescence: dark on light, as the map's ground
        grey = 255 - grey
    return np.asarray(255 - (255 - grey) * 0.35)


def _heated(pale: NDArray[np.float32], level: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The density's colours over a pale slide; without cells the slide shows through."""
    level = np.clip(level[: pale.shape[0], : pale.shape[1]], 0, 1)
    weight = np.clip(level * 4, 0, 0.85)[..., None]
    return np.asarray(pale * (1 - weight) + viridis(level) * weight, dtype=np.uint8)


def _colour_bar(height: int, top: float) -> Image.Image:
    """The colours from 0 to ``top``, with numbers."""
    canvas = Image.new("RGB", (_BESIDE + 16, height), "white")
    draw = ImageDraw.Draw(canvas)
    tall = min(height, 420)
    ramp = viridis(np.linspace(1, 0, tall))[:, None]
    canvas.paste(Image.fromarray(ramp).resize((_BAR, tall)), (16, 0))
    draw.rectangle((15, 0, 16 + _BAR, tall - 1), outline=MUTED)
    for part in (0.0, 0.25, 0.5, 0.75, 1.0) if tall > 60 else (1.0,):
        at = round((tall - 1) * (1 - part))
        draw.line((16 + _BAR, at, 20 + _BAR, at), fill=MUTED)
        text = f"{top * part:,.0f}" if top >= 8 else f"{top * part:.3g}"
        at = min(max(at, 7), tall - 8)  # the whole number is seen
        draw.text((25 + _BAR, at), text, INK, font=font(13), anchor="lm")
    return canvas
