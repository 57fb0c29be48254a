"""Nuclei with smooth, irregular outlines, laid out in islands and pushed against each other."""

from __future__ import annotations

from collections.abc import Iterator
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
    """A nucleus: its centre and its radius in every direction, pixels.

    Attributes
    ----------
    y, x : float
        Centre; the centre of pixel (0, 0) lies at (0, 0).
    radius : ndarray, float64, (180,)
        Distance from the centre to the outline at equally spaced angles.
    """

    y: float
    x: float
    radius: NDArray[np.float64]

    @property
    def reach_px(self) -> int:
        """Half the side of a box that holds the nucleus and 3 px around it."""
        return int(np.ceil(self.radius.max())) + 3

    @property
    def area_px(self) -> float:
        """Area inside the outline, px²."""
        return float(np.mean(self.radius**2) * np.pi)

    def toward(self, angle: float) -> float:
        """Radius in one direction, pixels."""
        return float(self.radius[round(angle / (2 * np.pi) * _ANGLES) % _ANGLES])

    def moved(self, y: float, x: float) -> Outline:
        """The same shape around another centre."""
        return Outline(y, x, self.radius)

    def box(self) -> tuple[slice, slice]:
        """The box's rows and columns."""
        reach, y, x = self.reach_px, round(self.y), round(self.x)
        return slice(y - reach, y + reach + 1), slice(x - reach, x + reach + 1)

    def depth(self) -> NDArray[np.float32]:
        """Distance from the centre over the radius in that direction.

        Returns
        -------
        ndarray, float32
            Of the box's shape: 0 in the centre, 1 on the outline, more outside.
        """
        rows, columns = self.box()
        dy = np.arange(rows.start, rows.stop)[:, None] - self.y
        dx = np.arange(columns.start, columns.stop)[None, :] - self.x
        at = np.rint(np.arctan2(dy, dx) * (_ANGLES / (2 * np.pi))).astype(np.int64) % _ANGLES
        depth: NDArray[np.float32] = (np.hypot(dy, dx) / self.radius[at]).astype(np.float32)
        return depth


@dataclass(frozen=True)
class NucleiPlan:
    """What to lay out.

    Attributes
    ----------
    height_px, width_px : int
        Size of the slide.
    count : int
        Nuclei to place; fewer where they do not fit.
    diameter_px : (float, float, float)
        Smallest, most frequent and largest equivalent diameter.
    island_share : float
        Share of the slide that is tissue; nuclei lie in it.
    island_px : float
        Typical size of an island.
    clustered : float
        Chance that a nucleus is pushed against one that lies there already.
    elongation : (float, float)
        Range of the ratio of the axes.
    """

    height_px: int
    width_px: int
    count: int
    diameter_px: tuple[float, float, float] = (24.0, 33.0, 44.0)
    island_share: float = 0.5
    island_px: float = 600.0
    clustered: float = 0.3
    elongation: tuple[float, float] = (1.0, 1.9)

    def __post_init__(self) -> None:
        if min(self.height_px, self.width_px) < 4 * self.diameter_px[2]:
            raise ValueError(
                f"expected sides of at least four nuclei ({4 * self.diameter_px[2]:.0f} px), "
                f"got {self.height_px} × {self.width_px}"
            )
        if not 0.0 < self.island_share <= 1.0:
            raise ValueError(f"expected an island_share in (0, 1], got {self.island_share}")


@dataclass(frozen=True)
class Scene:
    """What a slide of nuclei shows.

    Attributes
    ----------
    mpp : float
        µm per pixel.
    nuclei : int
        How many to draw; fewer where they do not fit.
    diameter_um : (float, float, float)
        Smallest, most frequent and largest equivalent diameter.
    island_um : float
        Typical size of an island.
    island_share, clustered, elongation
        As in :class:`NucleiPlan`.
    """

    height_px: int = 1024
    width_px: int = 1024
    mpp: float = 0.25
    nuclei: int = 250
    diameter_um: tuple[float, float, float] = (5.5, 7.5, 10.0)
    island_share: float = 0.7
    clustered: float = 0.3
    island_um: float = 120.0
    elongation: tuple[float, float] = (1.0, 2.2)

    def plan(self) -> NucleiPlan:
        """Where nuclei go, in pixels."""
        low, mode, high = (length / self.mpp for length in self.diameter_um)
        return NucleiPlan(
            self.height_px,
            self.width_px,
            self.nuclei,
            diameter_px=(low, mode, high),
            island_share=self.island_share,
            island_px=self.island_um / self.mpp,
            clustered=self.clustered,
            elongation=self.elongation,
        )


@dataclass(frozen=True, eq=False)
class Placed:
    """Nuclei in their places.

    Attributes
    ----------
    labels : ndarray, int32, (H, W)
        The truth: 0 is background, nucleus ``i`` of ``outlines`` has the label ``i + 1``.
    islands : ndarray, float32, (H, W)
        How much of a pixel is tissue, 0 … 1, with soft edges.
    """

    labels: NDArray[np.int32]
    outlines: tuple[Outline, ...]
    islands: NDArray[np.float32]


def draw_outline(
    rng: np.random.Generator, diameter_px: float, *, elongation: tuple[float, float]
) -> Outline:
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


def place_nuclei(plan: NucleiPlan, rng: np.random.Generator) -> Placed:
    """Lay nuclei out, one after the other, never more than 2 % of one over another.

    Pixels that two nuclei share belong to the earlier one in the truth.
    """
    shape = (plan.height_px, plan.width_px)
    coarse = _islands(plan, rng)
    labels = np.zeros(shape, dtype=np.int32)
    outlines: list[Outline] = []
    for _ in range(plan.count * 30):
        if len(outlines) == plan.count:
            break
        shape_px = draw_outline(rng, rng.triangular(*plan.diameter_px), elongation=plan.elongation)
        if outlines and rng.random() < plan.clustered:
            parent = outlines[rng.integers(len(outlines))]
            candidates = _beside(parent, shape_px, rng.uniform(0, 2 * np.pi))
            gap = 1.0
        else:
            y, x = rng.uniform(0, plan.height_px), rng.uniform(0, plan.width_px)
            candidates, gap = iter((shape_px.moved(y, x),)), 1.25
        for candidate in candidates:
            if _fits(candidate, labels, coarse, gap):
                outlines.append(candidate)
                _claim(labels, candidate, len(outlines))
                break
    islands = np.clip(enlarged(ndimage.gaussian_filter(coarse, 1.5), shape), 0.0, 1.0)
    return Placed(labels, tuple(outlines), islands)


def touching(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which labels have a pixel beside (8-neighbours) a pixel of another label.

    Returns
    -------
    ndarray, bool, (labels.max() + 1,)
        Indexed by label; the background's entry is False.
    """
    result = np.zeros(int(labels.max()) + 1, dtype=bool)
    height, width = labels.shape
    for dy, dx in ((0, 1), (1, -1), (1, 0), (1, 1)):
        first = labels[: height - dy, max(0, -dx) : width - max(0, dx)]
        second = labels[dy:, max(0, dx) : width - max(0, -dx)]
        meet = (first != second) & (first > 0) & (second > 0)
        result[first[meet]] = True
        result[second[meet]] = True
    return result


def _islands(plan: NucleiPlan, rng: np.random.Generator) -> NDArray[np.float32]:
    """Tissue (1) or not (0) on a coarse grid of 16 px."""
    shape = (
        -(-plan.height_px // _ISLAND_STEP_PX) + 1,
        -(-plan.width_px // _ISLAND_STEP_PX) + 1,
    )
    field = smooth_noise(rng, shape, plan.island_px / _ISLAND_STEP_PX / 4)
    return (field >= np.quantile(field, 1.0 - plan.island_share)).astype(np.float32)


def _beside(parent: Outline, child: Outline, angle: float) -> Iterator[Outline]:
    """The child beside its parent in one direction, from too close to just too far."""
    distance = parent.toward(angle) + child.toward(angle + np.pi)
    for nudge in _NUDGES_PX:
        step = distance + nudge
        yield child.moved(parent.y + step * np.sin(angle), parent.x + step * np.cos(angle))


def _fits(
    outline: Outline, labels: NDArray[np.int32], coarse: NDArray[np.float32], gap: float
) -> bool:
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


def _claim(labels: NDArray[np.int32], outline: Outline, label: int) -> None:
    """Write a nucleus into the truth where nothing lies yet."""
    window = labels[outline.box()]
    window[(outline.depth() <= 1.0) & (window == 0)] = label
