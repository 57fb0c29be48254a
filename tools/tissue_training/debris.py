"""What is on a slide and is no tissue: glass, pen, dust, bubbles, edges, haze."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional as F

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

PENS = (
    (0.1, 0.15, 0.6),
    (0.05, 0.45, 0.25),
    (0.06, 0.06, 0.08),
    (0.75, 0.1, 0.15),
    (0.1, 0.5, 0.75),
)


def smooth_noise(side: int, cell: float, rng: np.random.Generator) -> Image:
    """Random field (side, side) that varies over about ``cell`` pixels, mean 0, spread 1."""
    count = max(3, round(side / cell) + 3)
    grid = torch.from_numpy(rng.standard_normal((1, 1, count, count)).astype(np.float32))
    field = F.interpolate(grid, (side, side), mode="bicubic", align_corners=True)[0, 0].numpy()
    return np.asarray((field - field.mean()) / (field.std() + 1e-6), dtype=np.float32)


def glass(side: int, rng: np.random.Generator) -> Image:
    """Empty glass in transmitted light, (side, side, 3): white, grey or yellowish, uneven."""
    base = rng.uniform(0.82, 1.0)
    tint = np.array([1.0, 1 - rng.uniform(0, 0.04), 1 - rng.uniform(0, 0.1)])
    if rng.random() < 0.4:
        tint = 1 - rng.uniform(0, 0.05, 3)
    uneven = 1 + rng.uniform(0, 0.03) * smooth_noise(side, side / 2, rng)
    image = base * tint[None, None] * uneven[..., None]
    return np.clip(image, 0, 1).astype(np.float32)


def dark(side: int, rng: np.random.Generator) -> Image:
    """Empty slide in fluorescence, (side, side): an offset, haze, vignetted fields."""
    image = rng.uniform(0.02, 0.2) + np.zeros((side, side), dtype=np.float32)
    if rng.random() < 0.6:
        haze = np.maximum(smooth_noise(side, rng.uniform(side / 5, side), rng), 0)
        image += rng.uniform(0, 0.15) * haze
    if rng.random() < 0.3:
        period = int(rng.integers(128, 400))
        wave = (np.arange(side) % period) / period - 0.5
        image *= 1 - rng.uniform(0, 0.4) * (wave[:, None] ** 2 + wave[None] ** 2)
    return image.astype(np.float32)


def path_mask(side: int, rng: np.random.Generator, *, width: float, straight: bool = False) -> Mask:
    """A random stroke across the image, ``width`` pixels wide."""
    steps = 400
    t = np.linspace(0, 1, steps)
    start, stop = rng.uniform(-0.2, 1.2, 2) * side, rng.uniform(-0.2, 1.2, 2) * side
    points = start[None] * (1 - t)[:, None] + stop[None] * t[:, None]
    if not straight:
        bend = rng.uniform(0.05, 0.4) * side
        for frequency in (1, 2, 3):
            phase = rng.uniform(0, 2 * np.pi, 2)
            points += bend / frequency**2 * np.sin(np.pi * frequency * t[:, None] + phase)
    return near(side, points, width / 2)


def near(side: int, points: NDArray[np.float64], radius: float) -> Mask:
    """Pixels within ``radius`` of any of the points (n, 2)."""
    line = np.ones((side, side), dtype=bool)
    inside = points[((points >= 0) & (points < side)).all(1)].astype(int)
    line[inside[:, 0], inside[:, 1]] = False
    if line.all():
        return ~line
    return np.asarray(ndimage.distance_transform_edt(line) <= max(radius, 0.7), dtype=bool)


def pen(side: int, rng: np.random.Generator) -> tuple[Image, Image]:
    """A felt-tip stroke: colour (side, side, 3) and opacity (side, side)."""
    mask = path_mask(side, rng, width=rng.uniform(30, 350))
    colour = np.clip(np.array(PENS[rng.integers(len(PENS))]) + rng.normal(0, 0.07, 3), 0, 1)
    streaks = 1 + 0.15 * smooth_noise(side, rng.uniform(6, 60), rng)
    soft = ndimage.gaussian_filter(mask.astype(np.float32), rng.uniform(0.5, 6))
    opacity = np.clip(rng.uniform(0.35, 1.0) * soft * streaks, 0, 1)
    image = np.broadcast_to(colour.astype(np.float32), (side, side, 3))
    return np.asarray(image, dtype=np.float32), opacity.astype(np.float32)


def fibre(side: int, rng: np.random.Generator) -> Mask:
    """A long thin fibre."""
    length = rng.uniform(0.15, 0.6)
    t = np.linspace(0, length, 600)
    angle = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.06, t.size))
    step = side * length / t.size
    start = rng.uniform(0, side, 2)
    points = start + np.cumsum(np.stack([np.sin(angle), np.cos(angle)], 1) * step, 0)
    return near(side, points, rng.uniform(0.7, 2.5))


def bubble(side: int, rng: np.random.Generator) -> Image:
    """An air bubble's dark rim: opacity (side, side)."""
    y, x = rng.uniform(-0.2, 1.2, 2) * side
    radius = rng.uniform(0.06, 0.6) * side
    rows, columns = np.ogrid[:side, :side]
    wobble = 1 + 0.05 * smooth_noise(side, side / 3, rng)
    distance = np.abs(np.hypot(rows - y, (columns - x) * rng.uniform(0.8, 1.2)) * wobble - radius)
    width = rng.uniform(2, 10)
    return np.asarray(rng.uniform(0.3, 0.95) * np.exp(-((distance / width) ** 2)), dtype=np.float32)


def edge(side: int, rng: np.random.Generator) -> tuple[Mask, Mask]:
    """A straight edge at any angle near a border: the line, and all that lies beyond it."""
    angle = rng.choice([0, 0.5, 1, 1.5]) * np.pi + rng.normal(0, 0.05)
    rows, columns = np.mgrid[:side, :side] - side / 2
    distance = rows * np.sin(angle) + columns * np.cos(angle) - rng.uniform(0.0, 0.45) * side
    return np.abs(distance) < rng.uniform(0.7, 8), distance > 0


def blobs(side: int, rng: np.random.Generator, *, count: int, size: tuple[float, float]) -> Image:
    """Soft round specks, heights 0 … 1, (side, side)."""
    image = np.zeros((side, side), dtype=np.float32)
    for _ in range(count):
        sigma = rng.uniform(*size)
        reach = int(3 * sigma) + 1
        y, x = rng.integers(0, side, 2)
        ya, yb = max(y - reach, 0), min(y + reach + 1, side)
        xa, xb = max(x - reach, 0), min(x + reach + 1, side)
        dy, dx = np.arange(ya, yb)[:, None] - y, np.arange(xa, xb)[None] - x
        spot = np.exp(-(dy**2 + dx**2) / (2 * sigma**2)) * rng.uniform(0.3, 1)
        image[ya:yb, xa:xb] = np.maximum(image[ya:yb, xa:xb], spot)
    return image
