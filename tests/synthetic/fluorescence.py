"""A DAPI-like fluorescence slide: bright nuclei on a dark, hazy, noisy ground."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from synthetic.discs import Drawn
from synthetic.noise import enlarged, smooth_noise
from synthetic.nuclei import Outline, Scene, draw_outline, place_nuclei
from synthetic.paint import Chromatin, NucleusPainter

_HAZE_STEP_PX = 16


@dataclass(frozen=True)
class FluorescenceScene(Scene):
    """What a fluorescence slide shows and how it was taken; sides are multiples of 16 px."""

    height_px: int = 4096
    width_px: int = 4096
    nuclei: int = 2500
    diameter_um: tuple[float, float, float] = (6.0, 8.6, 11.0)
    island_share: float = 0.55
    island_um: float = 150.0
    elongation: tuple[float, float] = (1.0, 1.9)
    mitotic: float = 0.02
    """Share of condensed, bright nuclei."""
    debris: int = 60
    """Specks of under 1.6 µm that are no nuclei."""
    psf_um: float = 0.3
    """Standard deviation of the microscope's blur."""
    photons: float = 260.0
    """Photoelectrons of a typical nucleus: the fewer, the more shot noise."""


def draw_fluorescence(scene, rng):
    """A slide in grey, uint16."""
    labels, outlines, islands = place_nuclei(scene, rng)
    light = np.zeros(labels.shape, dtype=np.float32)
    grain = 0.3 / scene.mpp
    painter = NucleusPainter(rng, Chromatin(grain_px=grain, flatness=8))
    weights = _brightness(outlines, scene.mitotic, rng)
    painter.add(light, outlines, weights)
    _add_debris(light, scene, rng)
    ndimage.gaussian_filter(light, scene.psf_um / scene.mpp, output=light)
    light += _haze(light, scene.mpp)
    _add_ground(light, islands, rng)
    return Drawn(_camera(light, scene.photons, rng), labels)


def _brightness(outlines, mitotic, rng):
    """Relative brightness: most nuclei alike, some faint, a few small ones condensed and bright."""
    weights = rng.lognormal(0.0, 0.28, len(outlines)).clip(0.45, 1.9)
    areas = np.array([outline.area_px for outline in outlines])
    small = areas <= np.median(areas)
    weights[small & (rng.random(len(outlines)) < 2 * mitotic)] *= 2.0
    return weights


def _add_debris(light, scene, rng):
    """Faint specks anywhere, too small to be nuclei."""
    specks: list[Outline] = []
    while len(specks) < scene.debris:
        speck = draw_outline(rng, rng.uniform(0.7, 1.6) / scene.mpp, elongation=(1.0, 1.6))
        edge = speck.reach_px + 1
        y = rng.uniform(edge, scene.height_px - 1 - edge)
        x = rng.uniform(edge, scene.width_px - 1 - edge)
        specks.append(speck.moved(y, x))
    plain = NucleusPainter(rng, Chromatin(fine=0.0, coarse=0.0, nucleoli=0))
    plain.add(light, specks, rng.uniform(0.1, 0.5, len(specks)))


def _haze(light, mpp):
    """Out-of-focus light: two wide, weak blurs, computed on a coarse grid."""
    step = _HAZE_STEP_PX
    height, width = light.shape
    small = light.reshape(height // step, step, width // step, step).mean(axis=(1, 3))
    near = ndimage.gaussian_filter(small, 6.0 / mpp / step)
    far = ndimage.gaussian_filter(small, 30.0 / mpp / step)
    return enlarged(np.asarray(0.05 * near + 0.06 * far, dtype=np.float32), light.shape)


def _add_ground(light, islands, rng):
    """The tissue's own faint glow, the camera's ground and uneven lighting, in place."""
    height, width = light.shape
    cloud = smooth_noise(rng, (height // _HAZE_STEP_PX, width // _HAZE_STEP_PX), 4.0)
    cloud = enlarged(np.clip(1.0 + 0.35 * cloud, 0.2, None), light.shape)
    light += 0.02 * islands * cloud
    light += np.float32(0.02)
    y = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
    x = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :]
    light *= 1.0 - 0.08 * (y**2 + x**2)


def _camera(light, photons, rng):
    """Gain, offset, read noise, and shot noise as a normal variable of the same variance."""
    electrons = light * np.float32(photons)
    spread = np.sqrt(electrons + np.float32(2.5**2))
    electrons += spread * rng.standard_normal(electrons.shape, dtype=np.float32)
    return np.clip(np.rint(100 + 2 * electrons), 0, 65535).astype(np.uint16)
