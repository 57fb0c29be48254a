"""An H&E-like slide: haematoxylin nuclei on an eosin ground, in transmitted light."""

import numpy as np
from scipy import ndimage

from synthetic.discs import Drawn
from synthetic.noise import broad_noise, smooth_noise
from synthetic.nuclei import place_nuclei
from synthetic.paint import Chromatin, NucleusPainter

# Optical density of the two dyes in red, green and blue, as QuPath sets them for H&E;
# haematoxylin after Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23 (2001) 291-299.
_HAEMATOXYLIN = np.array([0.65, 0.70, 0.29], dtype=np.float32)
_EOSIN = np.array([0.22, 0.80, 0.56], dtype=np.float32)
_WHITE = np.float32(243.0)


def draw_stained(scene, rng):
    """A slide by Beer's law from the densities of two dyes."""
    labels, outlines, islands = place_nuclei(scene, rng)
    blue = np.zeros(labels.shape, dtype=np.float32)
    look = Chromatin(fine=0.14, coarse=0.16, grain_px=0.3 / scene.mpp, nucleoli=2, flatness=8)
    weights = rng.lognormal(np.log(0.75), 0.25, len(outlines)).clip(0.4, 1.3)
    NucleusPainter(rng, look).add(blue, outlines, weights)
    blue += 0.06 * islands
    red = islands * _fibres(labels.shape, scene.mpp, rng)
    density = blue[..., None] * _HAEMATOXYLIN + red[..., None] * _EOSIN
    density = ndimage.gaussian_filter(density, (0.25 / scene.mpp, 0.25 / scene.mpp, 0.0))
    light = _WHITE * np.exp(-density)
    light += 2.0 * rng.standard_normal(light.shape, dtype=np.float32)
    return Drawn(np.clip(np.rint(light), 0, 255).astype(np.uint8), labels)


def _fibres(shape, mpp, rng):
    """Density of eosin: patches, and strands that bend because their coordinates do."""
    patches = broad_noise(rng, shape, 8.0 / mpp)
    strands = smooth_noise(rng, shape, (0.5 / mpp, 5.0 / mpp))
    y, x = (np.arange(side, dtype=np.float32) for side in shape)
    bend = [(30.0 / mpp) * broad_noise(rng, shape, 25.0 / mpp) for _ in range(2)]
    bent = ndimage.map_coordinates(
        strands, (y[:, None] + bend[0], x[None, :] + bend[1]), order=1, mode="grid-wrap"
    )
    return np.asarray(np.clip(0.30 + 0.06 * patches + 0.045 * bent, 0.05, None), dtype=np.float32)
