"""What kind of picture it is, by its light and its dyes: the protocol that fits, or none.

A dye takes light away: its optical density in red, green and blue has one direction, however
much of it there is. Haematoxylin takes red and green, eosin green, DAB all three and blue most
(Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23 (2001) 291-299).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.stain.contrast import look_at

Floats = NDArray[np.float64]

COLOURED = 0.08
"""Difference between a pixel's largest and smallest channel, of white, that is a colour."""

COLOURED_SHARE = 0.002  # Of the pixels: fewer coloured ones leave a picture grey.
DARK = 0.3  # Half of a coloured picture below this share of its white: a dark ground.
GROUND_SHARE = 0.2
"""Of the pixels that lie in the lowest, or highest, fifth of the range: a dark, or bright, ground.

Phase contrast and DIC have a mid-grey ground, and a tenth at most at either end."""

STAINED, PALE_BROWN, BROWN = 0.04, 0.12, 0.2
"""Optical density, the mean of three channels: of any stain, of DAB without eosin, and beside it.

Saffron, blood and yellowed collagen are brownish where they are pale, DAB where it is dark."""

LONE = 3.0
"""Times as far as the darkest pixel below the ground, and the brightest above it is a lone object
on noise. In phase contrast cells and their halos lie on either side, 1.7 times as far at most."""

BROWN_SHARE = 0.0005  # Of the pixels: one positive nucleus in a field of a thousand.
BROWN_PER_EOSIN = 0.1
"""A section with eosin is H&E, whatever pigment it holds, until brown is this much of the pink."""

EOSIN_SHARE, PINK_SHARE = 0.002, 0.01
"""Of the stained pixels: with fewer in eosin's colour, and in its mixtures with haematoxylin, there
is no eosin."""

Kind = Literal[
    "he", "ihc", "brightfield", "fluorescence", "blood_smear", "phase_contrast", "counting_chamber"
]


@dataclass(frozen=True)
class StainGuess:
    """The shipped protocol that fits, if any, and the reason for people."""

    protocol: Kind | None
    reason: str


FLUORESCENCE = StainGuess("fluorescence", "dark background")
BRIGHTFIELD = StainGuess("brightfield", "bright background, little colour")
NEITHER = StainGuess(
    None, "a mid-grey ground with brighter and darker edges, as in phase contrast or DIC"
)
CULTURE = StainGuess("phase_contrast", "a mid-grey ground, cells of every shape")
CHAMBER = StainGuess("counting_chamber", "a flat grey ground, round cells bright in a dark rim")
ASSAYS = {"phase_contrast": CULTURE, "counting_chamber": CHAMBER, None: NEITHER}
BLOOD = StainGuess("blood_smear", "round bodies of one size on clear glass")


def guess_stain(patches: Sequence[NDArray[np.generic]]) -> StainGuess:
    """Tell pictures apart by their ground and the colours of what is stained.

    Patches, (H, W, C), are red, green and blue, or one channel; NaN and infinities count as dark.
    """
    whole = [
        np.nan_to_num(np.asarray(patch, dtype=np.float64), posinf=0, neginf=0) for patch in patches
    ]
    # One scale for all: neither 2^31 nor 10^300 costs a digit.
    scale = max(float(np.abs(patch).max()) for patch in whole) or 1.0
    floats = [patch / scale for patch in whole]
    if floats[0].shape[-1] != 3:
        return _by_ground([patch[..., 0] for patch in floats], patches[0].dtype, scale)
    values = np.concatenate([patch.reshape(-1, 3) for patch in floats])
    top = float(np.percentile(values, 99.9))
    if top <= 0:
        return FLUORESCENCE
    if _is_coloured(values / top):
        if float(np.median(values.max(axis=1))) < DARK * top:
            return FLUORESCENCE
        ground = np.median(values, axis=0)
        # A lamp's own tint lies over every pixel alike.
        balance = (ground.max() / top) / np.maximum(ground, 0.01 * top)
        if _is_coloured(values * balance):
            seen = _by_dye(floats, white_light(values, top))
            # Imported late, as below: scikit-image takes a while to load.
            from cellseg.stain.assay import is_blood

            return BLOOD if seen.protocol != "ihc" and is_blood(floats) else seen
    return _by_ground([patch.mean(axis=-1) for patch in floats], patches[0].dtype, scale)


def _is_coloured(colours: NDArray[np.floating]) -> bool:
    return float((np.ptp(np.clip(colours, 0, 1), axis=1) > COLOURED).mean()) > COLOURED_SHARE


def white_light(values: Floats, top: float | None = None) -> Floats:
    """The light without a stain: the brightest of pixels (M, 3), unless these are stained.

    ``top`` is white where they are; their 99.9th percentile otherwise.
    """
    top = float(np.percentile(values, 99.9)) if top is None else top
    grey = values.mean(axis=1)
    white: Floats = np.median(values[grey >= np.percentile(grey, 99)], axis=0)
    neutral = white.max() - white.min() < 0.15 * white.max()
    return white if neutral else np.full(3, top)


def _by_dye(patches: Sequence[Floats], white: Floats) -> StainGuess:
    pixels = stained = brown = pale = eosin = pink = blue = 0
    for patch in patches:
        density = -np.log10(np.clip(patch / white, 1 / 255, 1))
        mean = density.mean(axis=-1)
        red, green, violet = np.moveaxis(density, -1, 0)
        like_dab = (violet > 1.05 * green) & (green > red) & (red > 0.3 * violet)
        like_dab &= violet > 1.15 * red
        dyed = mean > STAINED
        reddish = dyed & (green > 1.2 * violet)
        pixels += mean.size
        stained += int(dyed.sum())
        brown += _solid(like_dab & (mean > BROWN))
        pale += _solid(like_dab & (mean > PALE_BROWN))
        eosin += int((reddish & (red < 0.6 * green)).sum())
        pink += int((reddish & (red < 0.7 * green)).sum())
        blue += int((dyed & (red > 0.7 * green) & (green > violet)).sum())
    least, reason = BROWN_SHARE * pixels, "brown stain in {:.1%} of the pixels"
    if brown >= max(least, BROWN_PER_EOSIN * pink):
        return StainGuess("ihc", f"bright background, {reason.format(brown / pixels)}")
    if eosin < EOSIN_SHARE * stained and pale >= least:
        return StainGuess("ihc", f"bright background, {reason.format(pale / pixels)}")
    if eosin >= EOSIN_SHARE * stained or pink >= PINK_SHARE * stained:
        return StainGuess("he", "bright background, pink and blue-violet stain")
    if blue > stained / 2:
        return StainGuess("ihc", "bright background, blue counterstain without eosin")
    return StainGuess("brightfield", "bright background, neither eosin nor brown nor blue stain")


def _solid(mask: NDArray[np.bool_]) -> int:
    """Pixels in areas of two by two and more: a lens colours edges, one pixel wide."""
    return int(ndimage.binary_opening(mask, np.ones((2, 2))).sum())


def _by_ground(patches: Sequence[Floats], dtype: np.dtype[Any], scale: float) -> StainGuess:
    """Grey pictures: cells are brighter than a dark ground, or darker than a bright one."""
    smooth = np.concatenate([ndimage.gaussian_filter(patch, 1).ravel() for patch in patches])
    low, high = (float(value) for value in np.percentile(smooth, [0.5, 99.5]))
    rough = np.concatenate(
        [np.abs(patch - ndimage.gaussian_filter(patch, 1)).ravel() for patch in patches]
    )
    # Noise of deviation s, smoothed, keeps 0.28 s: its percentiles lie 1.5 s apart.
    if high - low < 2 * 1.5 * 1.48 * float(np.median(rough)) or high == low:
        return _empty(float(np.median(smooth)) * scale, dtype)
    place = (smooth - low) / (high - low)
    dark, bright = float((place < 0.2).mean()), float((place > 0.8).mean())
    if max(dark, bright) < GROUND_SHARE:
        middle = float(np.median(smooth))
        up, down = float(smooth.max()) - middle, middle - float(smooth.min())
        if max(up, down) > LONE * min(up, down):
            return FLUORESCENCE if up > down else BRIGHTFIELD
        if not any(look_at(patch[..., None], "fluorescence", stained=False).objects
                   for patch in patches):  # fmt: skip
            return _empty(middle * scale, dtype)
    elif dark >= bright:
        return FLUORESCENCE
    from cellseg.stain.assay import grey_assay

    if max(dark, bright) < GROUND_SHARE:
        return ASSAYS[grey_assay(patches)]
    return CHAMBER if grey_assay(patches) == "counting_chamber" else BRIGHTFIELD


def _empty(level: float, dtype: np.dtype[Any]) -> StainGuess:
    """A picture of nothing, by the level of its ground."""
    full = float(np.iinfo(dtype).max) if dtype.kind in "ui" else 1.0
    return BRIGHTFIELD if level > full / 4 else FLUORESCENCE
