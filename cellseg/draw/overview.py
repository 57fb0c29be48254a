"""``overview.png``: the slide, and beside it how dense the cells lie.

Density is smoothed by a Gaussian whose σ is :data:`KERNEL_SPACINGS` times the distance at which
neighbours lie where there are cells, so that the map shows groups of cells and not each of them;
at least a 90th of the longer side, which is as fine as the map can show, at most an eighth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.signal import fftconvolve

from cellseg.annotations.region import Regions
from cellseg.draw import (
    SCALE_KEY,
    draw_bar,
    draw_borders,
    font,
    keep_parts,
    scale_bar,
    shortened,
    write_png,
)
from cellseg.text import visible

MAX_PANEL_PX = 900
MIN_PANEL_PX = 480

MOST_MAPS = 6
"""Classes that have a map of their own."""

KERNEL_SPACINGS = 1.0
"""About 13 evenly spread cells then make up each value (4πσ² times their density)."""

_FINEST, _WIDEST = 1 / 90, 1 / 8
_BLOCKS, _IN_BLOCK = (32, 16, 8, 4, 2, 1), 4

_INK = (32, 32, 36)
_MUTED = (110, 110, 118)
_TISSUE = (0, 150, 90)
_MARGIN = 24
_HEADER = 44
_BAR, _LEGEND = 14, 110
# matplotlib's "viridis", CC0, every 1/8.
_VIRIDIS = (
    (68, 1, 84), (71, 45, 123), (59, 82, 139), (44, 114, 142), (33, 145, 140),
    (40, 174, 128), (94, 201, 98), (173, 220, 48), (253, 231, 37),
)  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class Overview:
    """What the picture is drawn on.

    Attributes
    ----------
    image : ndarray, uint8, (H, W, 3)
        The slide, small; about 1000 px on the longer side.
    downsample : float
        Level-0 pixels along a side of an overview pixel.
    mpp : float or None
        µm per pixel at level 0.
    tissue : ndarray of bool, (h, w), or None
        Where cells were looked for.
    tissue_downsample : float
        Level-0 pixels along a side of a pixel of ``tissue``.
    title : str
        Stands above the picture.
    """

    image: NDArray[np.uint8]
    downsample: float
    mpp: float | None = None
    tissue: NDArray[np.bool_] | None = None
    tissue_downsample: float = 1.0
    title: str = ""

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise ValueError(f"expected uint8 (H, W, 3), got {self.image.dtype} {self.image.shape}")

    @property
    def mpp_overview(self) -> float | None:
        """µm along a side of an overview pixel."""
        return None if self.mpp is None else self.mpp * self.downsample


def density_map(
    counts: NDArray[np.float64], *, pixel_area: float, sigma_px: float
) -> NDArray[np.float32]:
    """Cells per unit of area, smoothed.

    Parameters
    ----------
    counts : ndarray, (H, W)
        Cells per overview pixel.
    pixel_area : float
        Of one overview pixel, in the unit wanted.
    sigma_px : float
        Of the Gaussian. At the slide's edge only what lies inside counts, so that density does
        not fall there.
    """
    # By Fourier transform: the kernel may be half as wide as the map, and each class has one.
    reach = math.ceil(4 * sigma_px)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma_px, 1e-9)) ** 2)
    kernel /= kernel.sum()
    smooth = fftconvolve(counts, kernel[:, None], mode="same", axes=0)
    smooth = fftconvolve(smooth, kernel[None], mode="same", axes=1).clip(min=0)
    rows, columns = (fftconvolve(np.ones(n), kernel, mode="same") for n in counts.shape)
    return np.asarray(smooth / np.outer(rows, columns) / pixel_area, dtype=np.float32)


def write_overview(
    path: Path,
    overview: Overview,
    counts: NDArray[np.float64],
    regions: Regions | None = None,
    by_class: Mapping[str, NDArray[np.float64]] | None = None,
) -> None:
    """Draw the slide and maps of its cells' density side by side, as PNG.

    Parameters
    ----------
    path : Path
        Overwritten.
    overview : Overview
        The slide.
    counts : ndarray, float64, (H, W)
        Cells per pixel of ``overview.image``.
    regions : Regions, optional
        What was counted in: bordered and named.
    by_class : mapping of str to ndarray, float64, (H, W), optional
        The same of each class. Where several have cells, each gets a map of its own, on its own
        scale; of more than :data:`MOST_MAPS` those with the most cells.
    """
    height, width = counts.shape
    said = "Slide" if overview.tissue is None else "Slide, tissue outlined"
    maps = [_density("Density", counts, overview)]
    held = {name: some for name, some in (by_class or {}).items() if some.any()}
    if len(held) > 1:
        most = sorted(held, key=lambda name: -held[name].sum())[:MOST_MAPS]
        maps += [_density(visible(name), held[name], overview) for name in held if name in most]
    factor = _zoom(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    panels = [
        replace(panel, image=panel.image.resize(size, Image.Resampling.LANCZOS))
        for panel in (_Panel(Image.fromarray(_outlined(overview)), said), *maps)
    ]
    if regions is not None:
        for panel in panels:
            draw_borders(panel.image, *regions.drawn, pixel=overview.downsample / factor)
    canvas = _lay_out(panels, overview)
    bar = scale_bar(max(20, size[0] / 4), pixel=overview.downsample / factor, mpp=overview.mpp)
    corner = (_MARGIN, _HEADER + 22 + size[1] + 9)
    draw_bar(ImageDraw.Draw(canvas), corner, bar, ink=_INK)
    canvas.info[SCALE_KEY] = "\n".join(panel.scale for panel in panels[1:])
    write_png(canvas, path)


@dataclass(frozen=True, eq=False)
class _Panel:
    """A part of the picture: its caption above it, and what the brightest colour stands for."""

    image: Image.Image
    caption: str
    top: float | None = None
    scale: str = ""


def _density(name: str, counts: NDArray[np.float64], overview: Overview) -> _Panel:
    mpp = overview.mpp_overview
    sigma, kernel = _kernel(counts, overview)
    area = (mpp / 1000) ** 2 if mpp is not None else overview.downsample**2 / 1e6
    unit = "cells / mm²" if mpp is not None else "cells / megapixel"
    density = density_map(counts, pixel_area=area, sigma_px=sigma)
    top = nice_ceiling(
        float(np.percentile(density[density > density.max() / 100], 99.5))
        if density.max() > 0
        else 1.0
    )
    said = f"{shortened(name, 240, 14)}, {unit}; Gaussian, σ = {kernel}"
    number = f"{top:,.3g}" if top < 1000 else f"{top:,.0f}"
    heated = Image.fromarray(_heated(overview.image, density / top))
    return _Panel(
        heated, said, top, f"{name}: {number} {unit}" if name != "Density" else f"{number} {unit}"
    )


def spacing_px(counts: NDArray[np.float64]) -> float:
    """How far apart neighbours lie, where there are cells: √(area that holds cells / cells).

    Parameters
    ----------
    counts : ndarray, float64, (H, W)
        Cells per pixel. The area is that of blocks with cells: of the smallest, 32, 16, 8, 4, 2
        or 1 along the longer side, that hold four cells or more on average.
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


def _kernel(counts: NDArray[np.float64], overview: Overview) -> tuple[float, str]:
    """σ of the Gaussian, overview pixels, and the same for people, in two digits."""
    longest = max(counts.shape)
    wanted = np.clip(KERNEL_SPACINGS * spacing_px(counts), _FINEST * longest, _WIDEST * longest)
    mpp = overview.mpp_overview
    pixel, unit = (overview.downsample, "px") if mpp is None else (mpp, "µm")
    rounded = float(f"{wanted * pixel:.2g}")
    return rounded / pixel, f"{rounded:,.6g} {unit}"


def nice_ceiling(value: float) -> float:
    """The smallest of 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8 × 10ⁿ that is not below ``value``."""
    power = 10.0 ** np.floor(np.log10(value))
    steps = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
    return float(next(step * power for step in steps if step * power >= value * (1 - 1e-9)))


def viridis(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Colours 0 … 255 of values 0 … 1; (…) becomes (…, 3)."""
    at = np.linspace(0, 1, len(_VIRIDIS))
    channels = [np.interp(values, at, channel) for channel in zip(*_VIRIDIS, strict=True)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _zoom(height: int, width: int) -> float:
    longest = max(height, width)
    return min(1.0, MAX_PANEL_PX / longest) if longest >= MIN_PANEL_PX else MIN_PANEL_PX / longest


def _outlined(overview: Overview) -> NDArray[np.uint8]:
    image = overview.image.copy()
    if overview.tissue is None or not overview.tissue.any():
        return image
    step = overview.downsample / overview.tissue_downsample
    rows, columns = (
        np.minimum(((np.arange(length) + 0.5) * step).astype(np.int64), size - 1)
        for length, size in zip(image.shape[:2], overview.tissue.shape, strict=True)
    )
    tissue = overview.tissue[np.ix_(rows, columns)]
    edge = tissue & ~ndimage.binary_erosion(tissue, iterations=2, border_value=0)
    image[edge] = _TISSUE
    return image


def _heated(image: NDArray[np.uint8], level: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The density's colours over a pale slide; without cells the slide shows through."""
    grey = image.mean(axis=2, keepdims=True, dtype=np.float32)
    if float(np.median(grey)) < 90:  # fluorescence: dark on light, as the map's ground
        grey = 255 - grey
    pale = 255 - (255 - grey) * 0.35
    weight = np.clip(level * 4, 0, 0.85)[..., None]
    return np.asarray(pale * (1 - weight) + viridis(np.clip(level, 0, 1)) * weight, dtype=np.uint8)


def _lay_out(panels: Sequence[_Panel], overview: Overview) -> Image.Image:
    """Side by side, in rows of two; wide ones one below the other."""
    width, height = panels[0].image.size
    columns = 2 if width <= 1.6 * height else 1
    row_height = height + _MARGIN + 22
    lefts, left = [], _MARGIN
    for column in range(columns):
        lefts.append(left)
        left += _MARGIN + max(
            max(width + _LEGEND * (panel.top is not None), round(font(14).getlength(panel.caption)))
            for panel in panels[column::columns]
        )
    rows = -(-len(panels) // columns)
    canvas = Image.new("RGB", (max(left, 560), _HEADER + rows * row_height + 20), "white")
    draw = ImageDraw.Draw(canvas)
    title = shortened(overview.title, canvas.width - 2 * _MARGIN, 20)
    draw.text((_MARGIN, 12), title, _INK, font=font(20))
    parts = []
    for number, panel in enumerate(panels):
        x, y = lefts[number % columns], _HEADER + 22 + number // columns * row_height
        draw.text((x, y - 20), panel.caption, _INK, font=font(14))
        canvas.paste(panel.image, (x, y))
        draw.rectangle((x - 1, y - 1, x + width, y + height), outline=(205, 205, 210))
        parts.append((x, y, x + width, y + height))
        if panel.top is not None:
            _colour_bar(draw, (x + width + 16, y), min(height, 420), panel.top)
    keep_parts(canvas, parts)
    return canvas


def _colour_bar(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], height: int, top: float
) -> None:
    x, y = corner
    for step, colour in enumerate(viridis(np.linspace(1, 0, height))):
        red, green, blue = (int(channel) for channel in colour)
        draw.line((x, y + step, x + _BAR, y + step), fill=(red, green, blue))
    draw.rectangle((x - 1, y - 1, x + _BAR + 1, y + height), outline=_MUTED)
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = y + round((height - 1) * (1 - part))
        draw.line((x + _BAR + 1, at, x + _BAR + 5, at), fill=_MUTED)
        text = f"{top * part:,.0f}" if top >= 8 else f"{top * part:.3g}"
        draw.text((x + _BAR + 9, at), text, _INK, font=font(13), anchor="lm")
