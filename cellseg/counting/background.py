"""Objects against what lies around them: what cannot be told from it is no cell.

A network may outline bare glass, with compression blocks or dust for a reason, and be sure of it.
On the intensity scale of the run (0 … 1) such an object is even, and as bright as its
surroundings. Both limits were chosen on annotated images in three kinds of light, where they
remove no object that matches an annotated nucleus (``benchmarks/background.py``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

LEAST_CONTRAST = 0.02
"""Difference to the ring, in any channel, from which an object stands out."""

LEAST_SPREAD = 0.045
"""Standard deviation, in any channel, from which an object has structure of its own."""

BROWN = 0.15
"""Optical density of DAB from which a ring is brown."""

GAP_PX, RING_PX = 1, 5
"""The ring begins and ends so far from the object."""


def is_background(mask: NDArray[np.bool_], pixels: NDArray[np.float32]) -> bool:
    """Whether an object is even and as bright as its surroundings; False of unknown pixels.

    ``mask``, (H, W), is the object with a margin of :data:`RING_PX` where the slide goes on;
    ``pixels``, (H, W, C), are on the intensity scale of the run.
    """
    inside = pixels[mask].astype(np.float64)
    if not inside.std(axis=0).max() < LEAST_SPREAD:
        return False  # nearly all cells
    ring = _ring(mask)
    if not ring.any():
        return False
    around = pixels[ring].mean(axis=0, dtype=np.float64)
    return bool(np.abs(inside.mean(axis=0) - around).max() < LEAST_CONTRAST)


def is_ringed(mask: NDArray[np.bool_], dab: NDArray[np.float64]) -> bool | None:
    """Whether a brown ring around a nucleus is browner than the nucleus; None without a ring.

    So are nuclei among membranes or cytoplasm that the stain marks; a positive nucleus is browner
    than what is around it. ``dab``, (H, W), is the optical density of DAB.
    """
    ring = _ring(mask)
    around = float(dab[ring].mean()) if ring.any() else 0.0
    return around > float(dab[mask].mean()) if around > BROWN else None


def _ring(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    near = binary_dilation(mask, iterations=GAP_PX)
    return np.asarray(binary_dilation(mask, iterations=RING_PX) & ~near)
