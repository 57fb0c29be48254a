"""Tissue masks of microarrays whose cores are known: turned, bent, with cores missing and torn."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.annotations.cores import name_of as core_name


@dataclass(frozen=True, eq=False)
class DrawnArray:
    """A mask (H, W) and its truth."""

    mask: NDArray[np.bool_]
    centres: dict[str, tuple[float, float]]
    """(y, x) of each core that is there."""
    rows: int
    columns: int
    torn: set[str]
    """Cores that lost a third to two thirds of their tissue."""
    pieces: NDArray[np.int32]
    """Which core each pixel belongs to, counting from 1 in the order of ``centres``."""


def draw_array(
    rng,
    *,
    rows=8,
    columns=12,
    diameter=24.0,
    gap=0.45,
    degrees=0.0,
    torn=0.15,
    jitter=0.05,
    bend=0.0,
    specks=20,
    holes=0.1,
):
    """An array turned clockwise, a fifth of its cores missing.

    ``gap`` is a share of the diameter, ``jitter`` and ``bend`` are shares of the pitch; ``torn`` is
    a share of the cores, ``holes`` of the tissue; specks lie anywhere.
    """
    pitch = np.array([diameter * (1 + gap), diameter * (1 + gap * rng.uniform(0.8, 1.25))])
    there = rng.random((rows, columns)) >= 0.2
    there[rng.integers(rows), rng.integers(columns)] = True
    for line in (0, -1):  # the outermost lines hold a core: what is not there has no name
        if not there[line].any():
            there[line, rng.integers(columns)] = True
        if not there[:, line].any():
            there[rng.integers(rows), line] = True
    turn = np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    grid = np.stack(np.mgrid[:rows, :columns], axis=-1).astype(float)
    grid += rng.normal(0, jitter, grid.shape).clip(-2.5 * jitter, 2.5 * jitter)
    across = (grid[..., 1] / max(columns - 1, 1) - 0.5) ** 2 * 4
    down = (grid[..., 0] / max(rows - 1, 1) - 0.5) ** 2 * 4
    grid += bend * np.stack([across, down], axis=-1)
    places = (grid * pitch) @ matrix.T
    places -= places.reshape(-1, 2).min(axis=0) - diameter * rng.uniform(1.0, 3.0, 2)
    height, width = np.ceil(
        places.reshape(-1, 2).max(axis=0) + diameter * rng.uniform(1.0, 3.0, 2)
    ).astype(int)
    pieces = np.zeros((height, width), np.int32)
    centres: dict[str, tuple[float, float]] = {}
    ruined: set[str] = set()
    for row, column in np.argwhere(there).tolist():
        name = core_name(row, column)
        y, x = places[row, column]
        disc = _core(rng, diameter * rng.uniform(0.9, 1.08))
        if rng.random() < torn:
            disc, kept = _torn(rng, disc)
            if kept:
                ruined.add(name)
        top, left = round(y - disc.shape[0] / 2), round(x - disc.shape[1] / 2)
        part = pieces[top : top + disc.shape[0], left : left + disc.shape[1]]
        part[disc & (part == 0)] = len(centres) + 1
        centres[name] = (float(y), float(x))
    spots = ndimage.gaussian_filter(rng.normal(size=pieces.shape), diameter / 14)
    if holes:
        pieces[spots > np.quantile(spots, 1 - holes)] = 0
    mask = pieces > 0
    for _ in range(specks):
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        side = diameter * rng.uniform(0.04, 0.2)
        mask[int(y) : int(y + side) + 1, int(x) : int(x + side) + 1] = True
    return DrawnArray(mask, centres, rows, columns, ruined, pieces)


def _core(rng, diameter):
    """A disc with an uneven edge."""
    side = int(np.ceil(diameter * 1.2))
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    angle, radius = np.arctan2(y, x), np.hypot(y, x)
    edge = diameter / 2 * (1 + sum(
        rng.normal(0, 0.02) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in range(2, 7)
    ))  # fmt: skip
    return np.asarray(radius <= edge)


def _torn(rng, disc):
    """A core of which a third to two thirds are gone, or whose halves lie apart."""
    side = disc.shape[0]
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    turn = rng.uniform(0, 2 * np.pi)
    across = y * np.sin(turn) + x * np.cos(turn)
    if rng.random() < 0.4:
        apart = max(1, round(side * 0.07))
        first = np.pad(disc & (across < 0), apart)
        second = np.pad(disc & (across >= 0), apart)
        step = np.round(apart * np.array([np.sin(turn), np.cos(turn)])).astype(int)
        return np.roll(first, -step, (0, 1)) | np.roll(second, step, (0, 1)), False
    cut = np.quantile(across[disc], rng.uniform(0.34, 0.66))
    return np.asarray(disc & (across < cut)), True


def draw_no_array(rng, kind):
    """Tissue that is no array: one section, blobs anywhere, needles, or a row of sections."""
    height, width = (int(side) for side in rng.integers(200, 700, 2))
    mask = np.zeros((height, width), bool)
    noise = rng.normal(size=mask.shape)
    if kind == "section":
        smooth = ndimage.gaussian_filter(noise, min(mask.shape) / rng.uniform(6, 12))
        return np.asarray(smooth > np.quantile(smooth, rng.uniform(0.5, 0.8)))
    if kind == "ragged":
        smooth = ndimage.gaussian_filter(noise, rng.uniform(4, 12))
        return np.asarray(smooth > np.quantile(smooth, rng.uniform(0.4, 0.9)))
    if kind == "blobs":
        for _ in range(int(rng.integers(3, 40))):
            disc = _core(rng, rng.uniform(15, 60))
            top, left = (int(rng.uniform(0, max(1, n - disc.shape[0]))) for n in mask.shape)
            part = mask[top : top + disc.shape[0], left : left + disc.shape[1]]
            part |= disc[: part.shape[0], : part.shape[1]]
        return mask
    if kind == "needles":
        for left in np.arange(20, width - 20, rng.uniform(25, 60)).astype(int).tolist():
            thick = int(rng.integers(6, 14))
            top, below = rng.integers(5, 40, 2)
            mask[top : height - below, left : left + thick] = True
        return mask
    big = ndimage.gaussian_filter(noise[:, : width // 3], 25)
    mask[:, : 3 * big.shape[1]] = np.tile(big > np.quantile(big, 0.6), 3)
    return mask
