"""Immunohistochemistry: blue nuclei, some of them brown, with known amounts of the brown dye."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb_from_hed

from synthetic.discs import Drawn
from synthetic.nuclei import Scene, place_nuclei
from synthetic.paint import Chromatin, NucleusPainter

_WHITE = np.float32(240.0)
_BLUE, _BROWN = (rgb_from_hed[row].astype(np.float32) for row in (0, 2))

DAB_LEVELS = (0.0, 0.3, 0.6, 0.95)
"""Amount of DAB at the centre of negative, weak, moderate and strong nuclei; over the whole of a
nucleus, with its softer rim, the mean is about seven eighths of it."""

DAB_THRESHOLDS = (0.13, 0.38, 0.66)
"""Between the means of neighbouring levels."""


@dataclass(frozen=True)
class ImmunoScene(Scene):
    """What a slide of a nuclear marker shows."""

    height_px: int = 1536
    width_px: int = 1536
    nuclei: int = 600
    grades: tuple[float, float, float] = (0.1, 0.06, 0.04)
    """Shares of weak, moderate and strong nuclei."""


@dataclass(frozen=True, eq=False)
class Immuno(Drawn):
    """A picture, its labels, and how each nucleus is stained."""

    grades: NDArray[np.int64]
    """0 for negative, 1 … 3, the object 1 first."""


def draw_immuno(scene, rng):
    """A slide by Beer's law from the densities of haematoxylin and DAB."""
    labels, outlines, islands = place_nuclei(scene, rng)
    number = len(outlines)
    counts = np.round(np.array(scene.grades) * number).astype(np.int64)
    grades = rng.permutation(np.repeat(np.arange(4), [number - counts.sum(), *counts]))
    look = Chromatin(fine=0.12, coarse=0.12, grain_px=0.3 / scene.mpp, nucleoli=2, flatness=8)
    painter = NucleusPainter(rng, look)
    blue = np.zeros(labels.shape, dtype=np.float32)
    brown = blue.copy()
    counterstain = rng.lognormal(np.log(0.4), 0.2, number).clip(0.25, 0.7)
    painter.add(blue, outlines, counterstain * np.where(grades > 0, 0.7, 1.0))
    stain = np.array(DAB_LEVELS)[grades] * rng.normal(1.0, 0.06, number).clip(0.85, 1.15)
    painter.add(brown, outlines, stain)
    blue += 0.04 * islands
    density = blue[..., None] * _BLUE + brown[..., None] * _BROWN
    density = ndimage.gaussian_filter(density, (0.25 / scene.mpp, 0.25 / scene.mpp, 0.0))
    light = _WHITE * np.power(np.float32(10.0), -density)
    light += 2.0 * rng.standard_normal(light.shape, dtype=np.float32)
    image = np.clip(np.rint(light), 0, 255).astype(np.uint8)
    return Immuno(image, labels, grades)
