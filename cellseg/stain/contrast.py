"""Whether a patch of a slide shows anything beyond noise: asked of its pixels, of no network.

Normalisation stretches what there is to full contrast, so an empty field would be stretched
noise. Whatever its strength and grain (blurred, enlarged, compressed), noise that was filtered is
still Gaussian: nothing stands far out of it at the scale of nuclei, and it has one peak. Every
scale is held against its own spread, so no kind of noise needs to be known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.stain.normalise import Light, Normaliser

Floats = NDArray[np.float64]

SCALES_PX = (2, 4)  # Of the Gaussians whose difference to those twice as wide is looked at.
OUTSTANDING = 6.5
"""Robust standard deviations. Noise of many kinds reached 5.8; the faintest of 541 fluorescent
fields with nuclei, 8.5."""

ONE_PEAK = 2.3
"""Kurtosis less squared skewness: 3 of Gaussian noise, 1 of two grey values. Crowded nuclei of one
brightness leave no ground to stand out of, and are known by this."""

FOCUS = 0.5
"""Contrast at 2 px over that at 4 px; from 0.6 with edges, below where all is out of focus."""

GRAINY = 1.6
"""The same, from which on a stained field is noise: 1.8 of white noise, 1.5 of noisy tissue."""

LARGE = 20.0
"""Times as far above the median as the ground spreads below it: one large object on a dark ground,
which leaves little else in its field."""

STEPS = 0.25  # Spread that rounding may hide, in steps of the grey values.
FEWEST_LEVELS = 8

STAINED, FAINTLY_STAINED = 0.015, 0.01
"""Contrast of nuclei to their surroundings, of white: alone, and where it is outstanding too.
Of 115 fields of tissue the lowest was 0.028, twelve pixels out of focus the usual is 0.01."""

SMALLEST_PX = 32
"""A patch with a shorter side is not judged: it is taken to show something if it varies."""

BLOCK_PX, QUIET_PERCENTILE = 16, 10

PLAUSIBLE = 1e6
"""Times the spread of the middle nine tenths of the values: what lies further off is cut there.
One marker of -1e20 would leave no digit for anything else."""

LEAST_RANGE = 20.0
"""Standard deviations of the noise between black and white: noise alone has 5 to 8, and stretched
to full contrast it looks like nuclei. The 541 fluorescent fields of the training data have 23 and
more, and keep their range."""

FAINT_RANGE, FAINT_LEAST_RANGE = 10.5, 60.0
"""As above, between black and the brightest pixel: noise alone has 6 to 8, nuclei of four times
its standard deviation 9 to 12, of six 11.5 and more. A slide below the first is shown with less
contrast: nuclei are found all the same, noise is taken for them more rarely (docs/lab/faint.md)."""


class Look(NamedTuple):
    """Whether something stands out of a patch's noise, or two levels of brightness are told apart.

    The noise is the standard deviation in the quieter parts, grey values.
    """

    objects: bool
    noise: float


def look_at(pixels: NDArray[np.generic], light: Light, *, stained: bool) -> Look:
    """Look for contrast beyond noise in raw pixels, (H, W, C), at the scale of nuclei.

    In fluorescence the largest channel counts; otherwise the first one, as red light is what
    haematoxylin takes away. Where they are ``stained``, contrast is held against white as well.
    """
    bands = np.asarray(pixels, dtype=np.float64)
    plane = bands.max(axis=2) if light == "fluorescence" else bands[..., 0]
    known = np.isfinite(plane)
    if not known.any():
        return Look(objects=False, noise=0.0)
    plane = np.where(known, plane, np.median(plane[known]))
    lowest, *middle, highest = np.percentile(plane, (0.1, 5, 95, 99.9))
    reach = PLAUSIBLE * (float(np.ptp(middle)) or float(highest - lowest))
    plane = plane.clip(middle[0] - reach, middle[1] + reach) if reach else plane
    # One scale for all: neither 2^31 nor 10^300 costs a digit.
    low, span = float(plane.min()), float(np.ptp(plane))
    if span == 0:
        return Look(objects=False, noise=0.0)
    values = (plane - low) / span
    noise = _quiet(values) * span
    if min(values.shape) < SMALLEST_PX:
        return Look(objects=True, noise=noise)
    # A picture of two grey values has an edge between them, and no step to be lost in.
    step = min(float(np.diff(np.unique(values)).min()), 1 / FEWEST_LEVELS)
    seen = ndimage.median_filter(_levelled(values), 3)
    blurred = {scale: ndimage.gaussian_filter(seen, scale) for scale in (2, 4, 8, 16)}
    bands_of = {scale: blurred[scale] - blurred[2 * scale] for scale in SCALES_PX}
    stands_out = False
    for scale, band in bands_of.items():
        off = np.abs(band - np.median(band))
        least = OUTSTANDING * max(1.4826 * float(np.median(off)), STEPS * step)
        # A few pixels are chance; an object of this scale has more.
        stands_out |= int(np.count_nonzero(off > least)) > 2 * scale**2
    if stained:
        white = float(np.percentile(plane, 99.9))
        contrast = float(np.sort(np.abs(bands_of[2]), axis=None)[-8]) * span
        grainy = bands_of[2].std() > GRAINY * bands_of[4].std()
        least = FAINTLY_STAINED if stands_out else np.inf if grainy else STAINED
        return Look(objects=contrast >= least * white > 0, noise=noise)
    objects = stands_out or _has_two_levels(blurred, bands_of, step)
    if light == "fluorescence" and not objects:
        wide = ndimage.gaussian_filter(ndimage.median_filter(values, 3), 2)
        ground, middle, top = np.percentile(wide, (16, 50, 99.5))
        if top - middle > LARGE * max(middle - ground, step):
            # The object lies in most blocks, and left none quiet.
            return Look(objects=True, noise=min(noise, float(middle - ground) * span))
    return Look(objects=objects, noise=noise)


def _quiet(values: Floats) -> float:
    """Noise where little else is: a low percentile of small blocks' standard deviations."""
    side = min(BLOCK_PX, *values.shape)
    height, width = (length // side * side for length in values.shape)
    blocks = values[:height, :width].reshape(height // side, side, width // side, side)
    return float(np.percentile(blocks.std(axis=(1, 3)), QUIET_PERCENTILE))


def _levelled(values: Floats) -> Floats:
    """Without uneven light: less the quadratic surface of least squares."""
    y, x = np.meshgrid(
        *(np.linspace(-1, 1, length) for length in values.shape), indexing="ij", copy=False
    )
    terms = np.stack([np.ones_like(values), y, x, y * x, y * y, x * x], axis=-1)
    some = (slice(None, None, 4), slice(None, None, 4))
    found = np.linalg.lstsq(terms[some].reshape(-1, 6), values[some].ravel())[0]
    return np.asarray(values - terms @ found, dtype=np.float64)


def _has_two_levels(blurred: dict[int, Floats], bands: dict[int, Floats], step: float) -> bool:
    wide = blurred[2] - blurred[16]
    wide = wide - wide.mean()
    spread = float(wide.std())
    if spread <= max(step, 1e-12) or bands[2].std() < FOCUS * bands[4].std():
        return False
    skewness, kurtosis = ((wide / spread) ** 3).mean(), ((wide / spread) ** 4).mean()
    return bool(kurtosis - skewness**2 < ONE_PEAK)


def visible_scale(
    sample: NDArray[np.generic], patches: Iterable[NDArray[np.generic]], light: Light
) -> Normaliser:
    """The intensity scale of a sample, under which noise alone does not look like nuclei.

    The ``sample``, (..., C), is raw intensities from all over. ``patches``, (H, W, C), are read one
    after the other until one shows something beyond noise; the scale is ``blank`` where none does.
    In fluorescence the range is that of the sample, or :data:`LEAST_RANGE` where that is more;
    ``faint`` by :data:`FAINT_RANGE`.
    """
    fitted = Normaliser.fit(sample, light)
    looks = (look_at(patch, light, stained=light == "transmitted") for patch in patches)
    first = next((look for look in looks if look.objects), None)
    if first is None:
        return replace(fitted, blank=True)
    if light == "transmitted":  # not stretched
        return fitted
    brightest = float(np.max(sample, where=np.isfinite(sample), initial=fitted.low))
    faint = brightest - fitted.low < FAINT_RANGE * first.noise
    least = first.noise * (FAINT_LEAST_RANGE if faint else LEAST_RANGE)
    return replace(fitted, high=max(fitted.high, fitted.low + least), faint=faint)
