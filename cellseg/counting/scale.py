"""At which scale an image is counted: by its pixel size, a diameter, or its cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellseg.errors import Notice, RegionError, SettingsError
from cellseg.geometry import Box
from cellseg.instances import Instances
from cellseg.network.detector import Detector
from cellseg.protocol import NO_TYPES, CountProtocol
from cellseg.slide import Slide
from cellseg.stain.contrast import visible_scale
from cellseg.stain.normalise import Light, Normaliser

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
        if told is not None:
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
    """Diameter of the cells that tell a slide's scale, level-0 pixels; None where they tell none.

    Cells are of the first class that the protocol counts. Whole cells have to look as large as
    the network knows them: it looks at several scales, and is surest at the right one. Nuclei of
    many sizes are known, so that the finest look that shows enough of them tells their diameter.
    Those of a usual size tell nothing: the image's own scale is right (docs/lab/scale.md).
    """
    usual = protocol.usual_px or detector.info.diameter_px
    assert usual is not None
    scales = NUCLEI_DOWNSAMPLES if protocol.usual_px is None else LOOK_DOWNSAMPLES
    looks = _looks(slide, channels, protocol, detector, usual, scales)
    if protocol.usual_px is None:
        return _unusual(looks, usual, protocol.light)
    return _surest(looks, usual)


class _Look(NamedTuple):
    """Pixels of the middle of a slide, and the cells that lie in it whole."""

    downsample: float
    pixels: NDArray[Any]
    cells: Instances

    @property
    def diameters_px(self) -> NDArray[np.float64]:
        return np.sqrt(4 * self.cells.areas / np.pi)


def _looks(
    slide: Slide,
    channels: tuple[int, ...],
    protocol: CountProtocol,
    detector: Detector,
    usual_px: float,
    downsamples: Sequence[float],
) -> Iterator[_Look]:
    """Looks at the middle of a slide, at each scale that shows a cell; damaged ones are left out.

    Their cells are sure ones of the first class.
    """
    classes: dict[str, object] = {name: {} for name in protocol.classes}
    sure = protocol.changed(score=SURE, cell_types=NO_TYPES, classes=classes)
    one = detector.for_run(sure)
    with suppress(RegionError):
        normaliser = Normaliser.fit(slide.overview()[0][..., channels], protocol.light)
        normaliser = replace(normaliser, dab=protocol.dab_share)
        for downsample in downsamples:
            height, width = slide.lattice_shape(downsample)
            if min(height, width) < usual_px:
                return
            y, x = max(0, (height - LOOK_PX) // 2), max(0, (width - LOOK_PX) // 2)
            box = Box(y, x, min(y + LOOK_PX, height), min(x + LOOK_PX, width))
            try:
                pixels = slide.read(box, downsample=downsample, channels=channels)
            except RegionError:
                continue
            found = one.detect(normaliser.apply(pixels), fill=1.0).instances
            cut = (found.boxes[:, :2] <= 0).any(1) | (found.boxes[:, 2:] >= box.shape).any(1)
            whole = found.take(np.flatnonzero((found.classes == 0) & ~cut))
            yield _Look(downsample, pixels, whole)


def _surest(looks: Iterable[_Look], usual_px: float) -> float | None:
    """Diameter in the look that shows most cells, and surest, of about the usual size."""
    best, told = 0.0, None
    for look in looks:
        sizes = look.diameters_px
        alike = (sizes > usual_px / ALIKE) & (sizes < usual_px * ALIKE)
        weights = (look.cells.scores * look.cells.areas)[alike]
        evidence = float(weights.sum()) * look.downsample**2
        if alike.sum() >= FEWEST and evidence > best:
            best, told = evidence, float(np.median(sizes[alike])) * look.downsample
    return told


def _unusual(looks: Iterable[_Look], usual_px: float, light: Light) -> float | None:
    """Diameter of nuclei in the first look that shows enough of them; None of a usual one.

    Where little stands out of noise or blur, these may be taken for unusual nuclei: None as well.
    """
    for look in looks:
        if len(look.cells) < FEWEST_NUCLEI:
            continue
        told = float(np.median(look.diameters_px)) * look.downsample
        low, high = KNOWN[light]
        if low < told / usual_px < high:
            return None
        scale = visible_scale(look.pixels, [look.pixels], light)
        return None if scale.faint or scale.blank else told
    return None
