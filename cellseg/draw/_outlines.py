"""Cells outlined by class, in colours that colour-blind readers tell apart."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

RGB = tuple[int, int, int]

# Okabe and Ito's, those first that stand out on stained nuclei and on a dark ground alike.
PALETTE: tuple[RGB, ...] = (
    (240, 228, 66),
    (86, 180, 233),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (0, 114, 178),
)
OTHER: RGB = (190, 190, 190)
"""Of classes beyond the palette."""

_CASING = 0.35
"""What is left of the ground's light on the line around an outline."""

_PX_PER_WIDTH = 20
"""Of a usual object's diameter, for each further pixel of its outline's width."""


def colours(number: int) -> list[RGB]:
    """One for each of a model's classes, in their order."""
    return [PALETTE[index] if index < len(PALETTE) else OTHER for index in range(number)]


def borders(labels: NDArray[np.integer], width: int) -> NDArray[np.bool_]:
    """The outermost pixels of each label, inside of it.

    Parameters
    ----------
    labels : ndarray, integer, (H, W)
        0 is background. What lies beyond the array's edge is taken as more of the same.
    width : int
        Steps up, down, left or right from a pixel of something else.
    """
    inner = labels.copy()
    for _ in range(width):
        differs = np.zeros(labels.shape, dtype=bool)
        below, right = inner[1:] != inner[:-1], inner[:, 1:] != inner[:, :-1]
        differs[1:] |= below
        differs[:-1] |= below
        differs[:, 1:] |= right
        differs[:, :-1] |= right
        inner[differs] = 0
    return np.asarray((labels != 0) & (inner == 0))


def line_width(images: Iterable[NDArray[np.integer]]) -> int:
    """Width of outlines that suits the usual size of all images' objects, px."""
    areas = np.concatenate(
        [np.unique(labels[labels != 0], return_counts=True)[1] for labels in images]
    )
    usual = float(np.median(areas)) ** 0.5 if areas.size else 0.0
    return int(np.clip(round(usual / _PX_PER_WIDTH + 0.7), 1, 4))


def outlined(
    image: NDArray[np.uint8],
    labels: NDArray[np.integer],
    classes: NDArray[np.integer],
    palette: list[RGB],
    *,
    width: int,
) -> NDArray[np.uint8]:
    """An image with its cells outlined.

    Parameters
    ----------
    image : ndarray, uint8, (H, W, 3)
    labels : ndarray, integer, (H, W)
    classes : ndarray, integer, (N + 1,)
        Class of each label, by the label.
    palette : list of (red, green, blue)
        By class.
    width : int
        Of the line, px.

    Returns
    -------
    ndarray, uint8, (H, W, 3)
        The line lies inside each cell; a dark one around it keeps it apart from a bright ground.
    """
    line = borders(labels, width)
    ground = labels == 0
    casing = ground & borders(ground.astype(np.uint8), 1)
    out = image.copy()
    out[casing] = (image[casing] * _CASING).astype(np.uint8)
    out[line] = np.array(palette, dtype=np.uint8)[classes[labels[line]]]
    return out
