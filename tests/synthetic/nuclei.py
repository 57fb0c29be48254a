"""Nuclei with smooth, irregular outlines, laid out in islands and pushed against each other."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synthetic.noise import enlarged, smooth_noise

_ANGLES = 180
_THETA = np.arange(_ANGLES) * (2 * np.pi / _ANGLES)
_OVERLAP = 0.02
_NUDGES_PX = tuple(range(-4, 9))
_ISLAND_STEP_PX = 16


@dataclass(frozen=True, eq=False)
class Outline:
    """A nucleus: its centre, and its radius at 180 equally spaced angles, pixels."""

    y: float
    x: float
    radius: NDArray[np.float64]

    @property
    def reach_px(self):
        """Half the side of a box that holds the nucleus and 3 px around it."""
        return int(np.ceil(self.radius.max())) + 3

    @property
    def area_px(self):
        """Area inside the outline, px²."""
        return float(np.mean(self.radius**2) * np.pi)

    def toward(self, angle):
        """Radius in one direction, pixels."""
        return float(self.radius[round(angle / (2 * np.pi) * _ANGLES) % _ANGLES])

    def moved(self, y, x):
        """The same shape around another centre."""
        return Outline(y, x, self.radius)

    def box(self):
        """The box's rows and columns."""
        reach, y, x = self.reach_px, round(self.y), round(self.x)
        return slice(y - reach, y + reach + 1), slice(x - reach, x + reach + 1)

    def depth(self):
        """Of the box's shape: 0 in the centre, 1 on the outline, more outside."""
        rows, columns = self.box()
        dy = np.arange(rows.start, rows.stop)[:, None] - self.y
        dx = np.arange(columns.start, columns.stop)[None, :] - self.x
        at = np.rint(np.arctan2(dy, dx) * (_ANGLES / (2 * np.pi))).astype(np.int64) % _ANGLES
        depth: NDArray[np.float32] = (np.hypot(dy, dx) / self.radius[at]).astype(np.float32)
        return depth


@dataclass(frozen=True)
class Scene:
    """What a slide of nuclei shows."""

    height_px: int = 1024
    width_px: int = 1024
    mpp: float = 0.25
    nuclei: int = 250
    """How many to draw; fewer where they do not fit."""
    diameter_um: tuple[float, float, float] = (5.5, 7.5, 10.0)
    """The smallest, the most frequent and the largest equivalent diameter."""
    island_share: float = 0.7
    """Share of the slide that is tissue; nuclei lie in it."""
    clustered: float = 0.3
    """Chance that a nucleus is pushed against one that lies there already."""
    island_um: float = 120.0
    elongation: tuple[float, float] = (1.0, 2.2)
    """Range of the ratio of the axes."""


def draw_outline(rng, diameter_px, *, elongation):
    """A nucleus around (0, 0): an ellipse with a few low Fourier modes on its radius.

    The radius is scaled so that the area is that of a disc of ``diameter_px``.
    """
    ratio = elongation[0] + (elongation[1] - elongation[0]) * rng.beta(1.8, 2.0)
    turn = rng.uniform(0, 2 * np.pi)
    theta = _THETA - turn
    radius = 1.0 / np.hypot(np.cos(theta) / np.sqrt(ratio), np.sin(theta) * np.sqrt(ratio))
    for mode in range(2, 7):
        radius *= 1.0 + rng.normal(0.0, 0.085 / (mode - 0.6)) * np.cos(
            mode * theta + rng.uniform(0, 2 * np.pi)
        )
    unscaled = Outline(0.0, 0.0, radius)
    return Outline(0.0, 0.0, radius * (diameter_px / 2) * np.sqrt(np.pi / unscaled.area_px))


def place_nuclei(scene, rng):
    """Lay nuclei out, one after the other, never more than 2 % of one over another.

    Returns their labels (a shared pixel is the earlier one's), their outlines, the first one with
    label 1, and how much of a pixel is tissue, 0 … 1, with soft edges.
    """
    shape = (scene.height_px, scene.width_px)
    diameter_px = [length / scene.mpp for length in scene.diameter_um]
    coarse = _islands(scene, rng)
    labels = np.zeros(shape, dtype=np.int32)
    outlines: list[Outline] = []
    for _ in range(scene.nuclei * 30):
        if len(outlines) == scene.nuclei:
            break
        shape_px = draw_outline(rng, rng.triangular(*diameter_px), elongation=scene.elongation)
        if outlines and rng.random() < scene.clustered:
            parent = outlines[rng.integers(len(outlines))]
            candidates = _beside(parent, shape_px, rng.uniform(0, 2 * np.pi))
            gap = 1.0
        else:
            y, x = rng.uniform(0, scene.height_px), rng.uniform(0, scene.width_px)
            candidates, gap = iter((shape_px.moved(y, x),)), 1.25
        for candidate in candidates:
            if _fits(candidate, labels, coarse, gap):
                outlines.append(candidate)
                _claim(labels, candidate, len(outlines))
                break
    islands = np.clip(enlarged(ndimage.gaussian_filter(coarse, 1.5), shape), 0.0, 1.0)
    return labels, outlines, islands


def touching(labels):
    """Which labels have a pixel beside (8-neighbours) one of another label, by label."""
    result = np.zeros(int(labels.max()) + 1, dtype=bool)
    height, width = labels.shape
    for dy, dx in ((0, 1), (1, -1), (1, 0), (1, 1)):
        first = labels[: height - dy, max(0, -dx) : width - max(0, dx)]
        second = labels[dy:, max(0, dx) : width - max(0, -dx)]
        meet = (first != second) & (first > 0) & (second > 0)
        result[first[meet]] = True
        result[second[meet]] = True
    return result


def _islands(scene, rng):
    """Tissue (1) or not (0) on a coarse grid of 16 px."""
    height, width = (-(-side // _ISLAND_STEP_PX) + 1 for side in (scene.height_px, scene.width_px))
    field = smooth_noise(rng, (height, width), scene.island_um / scene.mpp / _ISLAND_STEP_PX / 4)
    return (field >= np.quantile(field, 1.0 - scene.island_share)).astype(np.float32)


def _beside(parent, child, angle):
    """The child beside its parent in one direction, from too close to just too far."""
    distance = parent.toward(angle) + child.toward(angle + np.pi)
    for nudge in _NUDGES_PX:
        step = distance + nudge
        yield child.moved(parent.y + step * np.sin(angle), parent.x + step * np.cos(angle))


def _fits(outline, labels, coarse, gap):
    """Whether a nucleus lies inside the slide and an island, and (nearly) on no other."""
    rows, columns = outline.box()
    if min(rows.start, columns.start) < 0:
        return False
    if rows.stop > labels.shape[0] or columns.stop > labels.shape[1]:
        return False
    if not coarse[round(outline.y / _ISLAND_STEP_PX), round(outline.x / _ISLAND_STEP_PX)]:
        return False
    wide = outline.depth() <= gap
    taken = np.count_nonzero(labels[rows, columns][wide])
    allowed = _OVERLAP * np.count_nonzero(wide) if gap == 1.0 else 0.0
    return bool(taken <= allowed)


def _claim(labels, outline, label):
    """Write a nucleus into the truth where nothing lies yet."""
    window = labels[outline.box()]
    window[(outline.depth() <= 1.0) & (window == 0)] = label
