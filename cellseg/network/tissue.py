"""Where is tissue? A small U-Net on an overview, generous by design.

The overview has about 8 µm per pixel. A lone nucleus is as small as one such pixel, and
averaging would dim it, so each overview pixel also carries the darkest, the brightest and
the spread of the finer pixels (about 2 µm) that it covers: :func:`overview_features`.
Every overview pixel depends on its own fine pixels alone, so a slide can be read in strips.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from scipy import ndimage
from scipy.special import expit

from cellseg.errors import WeightsError, line_of
from cellseg.geometry import Box
from cellseg.network.unet import UNet
from cellseg.stain.normalise import Light

OVERVIEW_STEP = 16
"""Lattice pixels per overview pixel, each way, at the protocol's usual 0.5 µm/px."""

FINE_FACTOR = 4
"""Fine pixels per overview pixel, each way: the fine image has 2 µm/px."""

CHANNELS = 7
"""Mean red, green, blue; darkest; brightest; spread; light (1 in fluorescence)."""

DILATION_PX = 6
"""The search area is the tissue grown by this many overview pixels, about 50 µm."""

SMALL_SIDE_PX = 32
"""An overview with a shorter side is searched whole: there is nothing to gain."""

SHIPPED_SHA256 = "416df0e66ce10b5fe87c87a7f8d8ab6ff40a53f7bab82f58ad547fb932bed98d"
"""Checksum of the weights that come with cellseg."""

NEAR_PX = 32
"""Tiles are searched that lie no farther from a region, lattice pixels."""

POINTS = 2_500
"""At which the box around a region is asked for tissue, at least."""

BLOCK_PX = 256

STRIP_ROWS, STRIPS_KEPT = 32, 16
"""Overview rows that are read together, and how many of these strips the network needs at once."""


@dataclass(frozen=True, eq=False)
class TissueMask:
    """What the prefilter found on one slide."""

    tissue: NDArray[np.bool_]  # (h, w): tissue as it looks; for areas.
    search: NDArray[np.bool_]
    """(h, w): where cells are looked for, found at a lower threshold and grown by about 50 µm."""

    step: float  # Lattice pixels per mask pixel, each way.
    extent: tuple[int, int]
    """Height and width of the slide, lattice pixels; the last mask row and column may stand for
    less than a whole step."""

    region: shapely.MultiPolygon | None = None
    """(x, y) in lattice pixels; nothing far from it is searched, nothing outside it measured as
    tissue."""

    @classmethod
    def everything(cls, extent: tuple[int, int], step: float = float(OVERVIEW_STEP)) -> TissueMask:
        """A mask that keeps the whole slide, for runs without the prefilter."""
        shape = (max(1, int(-(-extent[0] // step))), max(1, int(-(-extent[1] // step))))
        return cls(np.ones(shape, dtype=bool), np.ones(shape, dtype=bool), step, extent)

    def within(self, region: shapely.MultiPolygon) -> TissueMask:
        """A mask that is searched in a region only: in tiles that come near it.

        Which cells lie in it is asked of each cell's centroid, not here.
        """
        shapely.prepare(region)
        return replace(self, region=region)

    def coverage(self, box: Box) -> float:
        """Share of mask pixels touching ``box`` that are to be searched, 0 … 1.

        It is 0 exactly where the whole box can be skipped; an empty box has 0.
        """
        part = box.intersection(Box(0, 0, *self.extent))
        if part.area == 0:
            return 0.0
        if self.region is not None:
            # What overlaps a cell at the region's edge may decide whether that cell is kept.
            near = part.widened(NEAR_PX)
            about = shapely.box(near.x0, near.y0, near.x1, near.y1)
            if not shapely.intersects(self.region, about):
                return 0.0
        height, width = self.search.shape
        y0 = min(int(part.y0 // self.step), height - 1)
        x0 = min(int(part.x0 // self.step), width - 1)
        y1, x1 = int(-(-part.y1 // self.step)), int(-(-part.x1 // self.step))
        return float(self.search[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)].mean())

    def contains(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.bool_]:
        """Whether points (lattice pixels) lie in the search area; false outside the slide."""
        ys, xs = np.asarray(y, dtype=np.float64), np.asarray(x, dtype=np.float64)
        inside = (ys >= 0) & (xs >= 0) & (ys < self.extent[0]) & (xs < self.extent[1])
        return self._at(self.search, np.where(inside, ys, 0), np.where(inside, xs, 0)) & inside

    def area_px(self) -> float:
        """Area of the tissue (not of the search area) in the region, if any, lattice pixels."""
        return self._area(self.tissue)

    def skipped_px(self) -> float:
        """Area that is not searched, lattice pixels; of the region, where there is one."""
        return self._area(~self.search)

    def looked_at_px(self) -> float:
        """Area of the slide, or of the region, lattice pixels."""
        if self.region is not None:
            return float(self.region.area)
        return float(self.extent[0]) * self.extent[1]

    def _area(self, mask: NDArray[np.bool_]) -> float:
        if self.region is not None:
            return float(self.region.area) * self._share(mask, self.region)
        low, right = (
            length - (count - 1) * self.step
            for count, length in zip(mask.shape, self.extent, strict=True)
        )
        # The last row and column may stand for less than a whole step.
        across = self.step * np.count_nonzero(mask[:, :-1], axis=1) + right * mask[:, -1]
        return float(self.step * across[:-1].sum() + low * across[-1])

    def _share(self, mask: NDArray[np.bool_], region: shapely.MultiPolygon) -> float:
        """Share of a region in which a mask is set, asked at points of a regular grid.

        The grid is as fine as the mask's pixels, in small regions finer: :data:`POINTS` in the
        box around it.
        """
        if region.is_empty or mask.all() or not mask.any():
            return float(mask.any())
        shapely.prepare(region)
        left, top, right, bottom = region.bounds
        spacing = min(self.step, math.sqrt((right - left) * (bottom - top) / POINTS))
        xs, ys = _midpoints(left, right, spacing), _midpoints(top, bottom, spacing)
        inside = found = 0
        for y in range(0, len(ys), BLOCK_PX):
            points = np.meshgrid(xs, ys[y : y + BLOCK_PX])
            chosen = shapely.contains_xy(region, *points)
            inside += int(np.count_nonzero(chosen))
            found += int(np.count_nonzero(self._at(mask, points[1][chosen], points[0][chosen])))
        if not inside:  # thinner than the grid
            point = region.representative_point()
            return float(self._at(mask, np.array([point.y]), np.array([point.x]))[0])
        return found / inside

    def _at(
        self, mask: NDArray[np.bool_], y: NDArray[np.float64], x: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        rows = np.clip(y // self.step, 0, mask.shape[0] - 1).astype(np.int64)
        columns = np.clip(x // self.step, 0, mask.shape[1] - 1).astype(np.int64)
        return np.asarray(mask[rows, columns])


def _midpoints(start: float, stop: float, spacing: float) -> NDArray[np.float64]:
    """Middles of equal parts, none longer than ``spacing``."""
    edges = np.linspace(start, stop, max(1, math.ceil((stop - start) / spacing)) + 1)
    return np.asarray((edges[1:] + edges[:-1]) / 2)


def overview_features(fine: NDArray[np.float32], light: Light) -> NDArray[np.float32]:
    """Turn a fine image into the network's input.

    In fluorescence the square root is taken first, so that dim nuclei show.

    ``fine``, (H·k, W·k, 3), is normalised, about 2 µm/px. Sides that are no multiple of
    :data:`FINE_FACTOR`, k, are filled up by repeating the edge. What comes, (H, W, 7), is the mean
    of each colour, darkest, brightest and spread of the grey value, light. Strips of whole
    multiples of k rows give the same values as the whole image.
    """
    values = np.sqrt(np.clip(fine, 0.0, 1.0)) if light == "fluorescence" else fine
    factor = FINE_FACTOR
    below, right = -fine.shape[0] % factor, -fine.shape[1] % factor
    values = np.pad(values, ((0, below), (0, right), (0, 0)), mode="edge")
    height, width = values.shape[0] // factor, values.shape[1] // factor
    blocks = values.reshape(height, factor, width, factor, 3)
    grey = blocks.mean(axis=4)
    out = np.empty((height, width, CHANNELS), dtype=np.float32)
    out[..., :3] = blocks.mean(axis=(1, 3))
    out[..., 3] = grey.min(axis=(1, 3))
    out[..., 4] = grey.max(axis=(1, 3))
    out[..., 5] = np.minimum(4.0 * grey.std(axis=(1, 3)), 1.0)
    out[..., 6] = 1.0 if light == "fluorescence" else 0.0
    return out


class Strips:
    """Features of a slide's overview, (H, W, 7), read strip by strip as they are asked for.

    ``strip`` makes the strip with a number: :data:`STRIP_ROWS` rows, the last one fewer.
    """

    def __init__(
        self, shape: tuple[int, int, int], strip: Callable[[int], NDArray[np.float32]]
    ) -> None:
        self.shape, self._strip = shape, lru_cache(STRIPS_KEPT)(strip)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Rows in any order, (R, W, 7)."""
        places = (divmod(row, STRIP_ROWS) for row in rows.tolist())
        return np.stack([self._strip(number)[row] for number, row in places])


class TissueFinder:
    """The prefilter's network with its thresholds; ``weights`` replaces the shipped file.

    WeightsError if the file is missing, damaged or made for another network.
    """

    def __init__(self, weights: str | Path | None = None) -> None:
        shipped = Path(str(files("cellseg") / "weights" / "tissue.safetensors"))
        path, checksum = (shipped, SHIPPED_SHA256) if weights is None else (Path(weights), None)
        self._model, self.card = _load(path, checksum)
        self.tissue_threshold = float(self.card["tissue_threshold"])
        self.search_thresholds: dict[str, float] = self.card["search_threshold"]

    def probabilities(self, features: NDArray[np.float32] | Strips) -> NDArray[np.float32]:
        """Probability of tissue for each overview pixel, float32 (H, W).

        The overview is worked through in blocks that see all their context: of its features
        a band of rows is asked for at a time. Its edge is mirrored.
        """
        height, width = features.shape[:2]
        stride = self._model.stride
        margin = -(-self._model.reach // stride) * stride
        rows, columns = (
            np.pad(np.arange(side), (margin, margin + stride), mode="symmetric")
            for side in (height, width)
        )
        out = np.empty((height, width), dtype=np.float32)
        for y in range(0, height, BLOCK_PX):
            tall = min(BLOCK_PX, height - y)
            band = features[rows[y : y + tall + 2 * margin + -tall % stride]]
            for x in range(0, width, BLOCK_PX):
                wide = min(BLOCK_PX, width - x)
                logits = self._model(band[:, columns[x : x + wide + 2 * margin + -wide % stride]])
                inner = logits[margin : margin + tall, margin : margin + wide]
                out[y : y + tall, x : x + wide] = expit(inner)
        return out

    def find(
        self,
        features: NDArray[np.float32] | Strips,
        *,
        extent: tuple[int, int],
        step: float = float(OVERVIEW_STEP),
    ) -> TissueMask:
        """Find the tissue of a slide, from what :func:`overview_features` gives, (H, W, 7).

        ``step`` is in lattice pixels per overview pixel; ``extent`` is the slide's height and
        width in lattice pixels.
        """
        chance = self.probabilities(features)
        is_dark = features[np.zeros(1, np.int64)][0, 0, 6] > 0.5
        tissue = chance >= self.tissue_threshold
        threshold = self.search_thresholds["fluorescence" if is_dark else "transmitted"]
        if min(chance.shape) < SMALL_SIDE_PX:
            search = np.ones(chance.shape, dtype=bool)
        else:
            search = _grown(chance >= threshold, DILATION_PX)
        return TissueMask(tissue, search | tissue, step, extent)


def _grown(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Grow by a disc; the distance to the nearest set pixel is at most ``radius``."""
    grown = mask.copy()
    # In bands with what reaches into them: a distance takes 40 times a mask's memory.
    for y in range(0, len(mask), BLOCK_PX):
        first = max(0, y - radius)
        part = mask[first : y + BLOCK_PX + radius]
        if part.any():
            near = ndimage.distance_transform_edt(~part) <= radius
            grown[y : y + BLOCK_PX] = near[y - first :][: len(grown[y : y + BLOCK_PX])]
    return grown


def _load(path: Path, checksum: str | None) -> tuple[UNet, dict[str, Any]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: the tissue weights cannot be read: {error}") from error
    if checksum is not None and sha256(data).hexdigest() != checksum:
        raise WeightsError(f"{path}: the tissue weights are damaged (their checksum differs)")
    try:
        with safe_open(path, framework="np") as opened:
            card = json.loads((opened.metadata() or {})["card"])
            state = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        model = UNet(state, len(card["widths"]))
        model(np.zeros((model.stride, model.stride, model.channels), np.float32))
        search = card["search_threshold"]
        thresholds = (card["tissue_threshold"], search["transmitted"], search["fluorescence"])
        usable = all(0 < float(value) < 1 for value in thresholds)
    except (SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path}: no weights of a tissue network: {line_of(error)}") from error
    if model.channels != CHANNELS or not usable:
        raise WeightsError(f"{path}: made for {model.channels} channels, expected {CHANNELS}")
    return model, card
