"""At which scale an image is counted: by its pixel size, a diameter, or its cells."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from cellseg.errors import Notice, RegionError, SettingsError
from cellseg.geometry import Box
from cellseg.protocol import NO_TYPES, CountProtocol
from cellseg.slide import Slide
from cellseg.stain.contrast import visible_scale
from cellseg.stain.normalise import Normaliser

if TYPE_CHECKING:
    from cellseg.network.detector import Detector

MIN_DOWNSAMPLE = 0.25

LOOK_DOWNSAMPLES: tuple[float, ...] = tuple(0.45 * 1.5**step for step in range(7))
"""At which the network looks: of training it knows cells of 0.7 to 1.5 times their usual size."""

NUCLEI_DOWNSAMPLES: tuple[float, ...] = (1.0, 2.25)
"""Likewise for nuclei, of which it knows 9 to 90 px; the second where the first shows too few."""

LOOK_PX = 512
"""Side of what it looks at, pixels of the network, from the middle of the image."""

SURE, FEWEST, FEWEST_NUCLEI = 0.5, 2, 5
"""Score of a cell that counts as evidence, and so many of them are needed."""

ALIKE = 2.0
"""Cells at most so many times as large as the usual one, or as small, speak for a scale."""

KNOWN = {"transmitted": (0.65, 1.65), "fluorescence": (0.65, 2.5)}
"""Sizes of nuclei, times the usual one, that are counted best as they are (docs/lab/scale.md)."""


def choose_downsample(
    slide: Slide,
    protocol: CountProtocol,
    channels: tuple[int, ...],
    *,
    diameter_px: float | None,
    model_diameter_px: float | None,
    detector: Detector | None,
) -> tuple[float, list[str]]:
    """Level-0 pixels per lattice pixel: by pixel size, by diameter, by the cells, or 1."""
    usual_px = protocol.usual_px or model_diameter_px
    if diameter_px is None and slide.mpp is None and detector is not None and usual_px is not None:
        told = told_diameter(slide, channels, protocol, detector)
        low, high = (1.0, 1.0) if protocol.usual_px else KNOWN[protocol.light]
        if (
            told is not None
            and not low < told / usual_px < high
            and not _is_faint(slide, channels, protocol)
        ):
            said = f"no pixel size: scaled by the cells, the usual one has {told:.0f} px"
            return max(MIN_DOWNSAMPLE, told / usual_px), [Notice(said, hint="mpp,diameter")]
    if diameter_px is not None:
        if not diameter_px > 0:
            raise SettingsError(
                f"a diameter must be above 0 px, got {diameter_px:g}", hint="diameter"
            )
        if usual_px is None:
            raise SettingsError(
                "this model does not say how large its usual object is", hint="diameter"
            )
        wanted = diameter_px / usual_px
        if wanted < MIN_DOWNSAMPLE:
            said = (
                f"a diameter of {diameter_px:g} px is very small: enlarged "
                f"{1 / MIN_DOWNSAMPLE:g} times and no more, small cells may be missed"
            )
            return MIN_DOWNSAMPLE, [Notice(said, hint="diameter")]
        return wanted, []
    if slide.mpp is None:
        said = "no pixel size: counted at the image's own scale, areas in pixels only"
        return 1.0, [Notice(said, hint="mpp,diameter")]
    downsample = protocol.mpp / slide.mpp
    if abs(downsample - 1) < 0.1:
        return 1.0, []
    if downsample < MIN_DOWNSAMPLE:
        raise SettingsError(
            f"{slide.path}: {slide.mpp:g} µm/px is too coarse for cells (the protocol looks at "
            f"{protocol.mpp:g} µm/px); is the pixel size right?",
            hint="mpp",
        )
    notes = []
    if downsample < 0.6:
        notes.append(
            f"the slide's {slide.mpp:g} µm/px is coarse: enlarged {1 / downsample:.1f} times, "
            "small cells may be missed"
        )
    return downsample, notes


def told_diameter(
    slide: Slide, channels: tuple[int, ...], protocol: CountProtocol, detector: Detector
) -> float | None:
    """Diameter of the usual cell, level-0 pixels; None where too few are seen to tell.

    The usual cell is of the first class that the protocol counts. Whole cells have to look as
    large as the network knows them: it looks at several scales, and is surest at the right one.
    Nuclei of any size are known, so that their diameter is right at the finest look that shows
    enough of them, even where many are missed (docs/lab/scale.md).
    """
    usual = protocol.usual_px or detector.info.diameter_px
    assert usual is not None
    one = detector.for_run(
        score=SURE, nms_iou=protocol.nms_iou, types=NO_TYPES, classes=tuple(protocol.classes)
    )
    looks, most, fewest = NUCLEI_DOWNSAMPLES, np.inf, FEWEST_NUCLEI
    if protocol.usual_px:
        looks, most, fewest = LOOK_DOWNSAMPLES, ALIKE, FEWEST
    normaliser = Normaliser.fit(slide.overview()[0][..., channels], protocol.light)
    best, told = 0.0, None
    for downsample in looks:
        height, width = slide.lattice_shape(downsample)
        if min(height, width) < usual:
            break
        box = _middle(height, width)
        with suppress(RegionError):
            pixels = slide.read(box, downsample=downsample, channels=channels)
            found = one.detect([normaliser.apply(pixels)], fill=1.0)[0].instances
            cut = (found.boxes[:, :2] <= 0).any(1) | (found.boxes[:, 2:] >= box.shape).any(1)
            found = found.take(np.flatnonzero((found.classes == 0) & ~cut))
            diameters = np.sqrt(4 * found.areas / np.pi)
            alike = (diameters > usual / most) & (diameters < usual * most)
            evidence = float((found.scores * found.areas)[alike].sum()) * downsample**2
            if alike.sum() >= fewest and evidence > best:
                best, told = evidence, float(np.median(diameters[alike])) * downsample
                if not protocol.usual_px:
                    break
    return told


def _middle(height: int, width: int) -> Box:
    """Where the network looks before it counts."""
    y, x = max(0, (height - LOOK_PX) // 2), max(0, (width - LOOK_PX) // 2)
    return Box(y, x, min(y + LOOK_PX, height), min(x + LOOK_PX, width))


def _is_faint(slide: Slide, channels: tuple[int, ...], protocol: CountProtocol) -> bool:
    """Whether little stands out of noise or blur, which may be taken for unusual nuclei."""
    pixels = slide.read(_middle(slide.height, slide.width), channels=channels)
    scale = visible_scale(pixels, [pixels], protocol.light)
    return scale.faint or scale.blank
