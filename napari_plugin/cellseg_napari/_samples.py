"""Sample data in napari's own menu: two small fields, made on the spot."""

from __future__ import annotations

import numpy as np
import skimage.data
from numpy.typing import NDArray
from skimage.draw import ellipse
from skimage.filters import gaussian

from cellseg_napari._reader import LayerData, contrast_limits, placed

SIDE_PX, SPACING_PX, MPP = 1024, 32, 0.5


def fluorescence() -> list[LayerData]:
    """Some 800 drawn nuclei in fluorescence, 1,024 × 1,024 px, 0.5 µm/px."""
    pixels = _nuclei()
    look = {"name": "fluorescence", "contrast_limits": contrast_limits(pixels), **placed(MPP)}
    return [(pixels, look, "image")]


def ihc() -> list[LayerData]:
    """scikit-image's immunohistochemistry field, 512 × 512 px, without pixel size."""
    pixels = skimage.data.immunohistochemistry()  # type: ignore[no-untyped-call]
    return [(pixels, {"name": "ihc", "rgb": True, **placed(None)}, "image")]


def _nuclei() -> NDArray[np.uint16]:
    """Bright ellipses about the points of a grid, out of focus a little, with noise."""
    rng = np.random.default_rng(0)
    field = np.zeros((SIDE_PX, SIDE_PX))
    for y, x in np.ndindex(*[SIDE_PX // SPACING_PX] * 2):
        if rng.random() < 0.2:
            continue
        row, column = (np.array([y, x]) + 0.5) * SPACING_PX + rng.uniform(-7, 7, 2)
        long = rng.uniform(7, 12)
        shape = ellipse(
            row, column, long, long * rng.uniform(0.6, 0.9), shape=field.shape,
            rotation=rng.uniform(-np.pi, np.pi),
        )  # type: ignore[no-untyped-call]  # fmt: skip
        field[shape] = rng.uniform(3000, 12000)
    seen = gaussian(field, 1.2) + 400  # type: ignore[no-untyped-call]
    return np.asarray(rng.poisson(seen).clip(0, 65535), np.uint16)
