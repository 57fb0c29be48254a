"""Small slides of discs whose areas are known: for tests that need no weights."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthetic.tiff import PyramidLayout, write_pyramid

GROUND_RGB = (236, 214, 228)
DISC_RGB = (96, 60, 140)
GROUND_GREY = 12
DISC_GREY = 190


@dataclass(frozen=True, eq=False)
class Drawn:
    """A picture, (H, W) or (H, W, 3), and its truth: 0 is background, objects are 1 … N."""

    image: NDArray[np.generic]
    labels: NDArray[np.int32]

    @property
    def count(self):
        return int(self.labels.max())

    @property
    def areas(self):
        """Pixels of each object, the object 1 first."""
        return np.bincount(self.labels.ravel(), minlength=1)[1:]


def draw_discs(shape, rng, *, rgb=True, spacing_px=40, radius_px=(6.0, 12.0)):
    """Discs on a jittered grid, purple on pink or bright on dark, without noise.

    They lie inside the picture and do not touch.
    """
    labels = np.zeros(shape, dtype=np.int32)
    label = 0
    for top in range(0, shape[0] - spacing_px + 1, spacing_px):
        for left in range(0, shape[1] - spacing_px + 1, spacing_px):
            label += 1
            radius = rng.uniform(*radius_px)
            play = spacing_px / 2 - radius - 1.5
            centre = (spacing_px - 1) / 2 + rng.uniform(-play, play, size=2)
            distance = np.hypot(
                np.arange(spacing_px)[:, None] - centre[0],
                np.arange(spacing_px)[None, :] - centre[1],
            )
            window = labels[top : top + spacing_px, left : left + spacing_px]
            window[distance <= radius] = label
    image = np.where(labels > 0, DISC_GREY, GROUND_GREY)
    if rgb:
        image = np.where((labels > 0)[..., None], DISC_RGB, GROUND_RGB)
    return Drawn(image.astype(np.uint8), labels)


def discs_at(shape, centres, radius):
    """Discs of one radius around some places (y, x), bool."""
    y, x = np.indices(shape)
    drawn = np.zeros(shape, bool)
    for row, column in centres:
        drawn |= np.hypot(y - row, x - column) <= radius
    return drawn


def write_disc_slide(path, rng, *, shape=(512, 640), rgb=True, layout=None):
    """Draw discs and write them as a tiled pyramid of 0.5 µm/px, without loss."""
    drawn = draw_discs(shape, rng, rgb=rgb)
    write_pyramid(path, drawn.image, layout=layout or PyramidLayout(mpp=0.5, tile_px=128))
    return drawn
