"""What is chosen for an image where the user left it open: protocol, gates, scale.

Every choice comes with the lines that say it aloud.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellseg.counting.request import CountRequest
from cellseg.errors import Notice, RegionError, SettingsError
from cellseg.geometry import STRIDE_PX, Box, TileGrid, padded_spans
from cellseg.protocol import (
    NO_TYPES,
    OTHER_TISSUE,
    PHASE_PX,
    CountProtocol,
    load_protocol,
    shipped_protocols,
)
from cellseg.slide import Slide
from cellseg.stain.normalise import Normaliser
from cellseg.stain.stain import guess_stain

if TYPE_CHECKING:
    from cellseg.network.detector import Detector, DetectorInfo, Sizes

MIN_DOWNSAMPLE = 0.25

COARSE_SCAN_MPP = 0.4
"""Slides from here on are taken as scanned at 20×; they have a protocol of their own."""

STAINED = ("he", "ihc", "brightfield")
LOOKS: dict[str, tuple[str | None, ...]] = {
    "fluorescence": ("fluorescence",),
    "phase_contrast": ("phase_contrast", "counting_chamber", "brightfield", None),
    "counting_chamber": ("counting_chamber", "phase_contrast", "brightfield", "fluorescence", None),
}
"""What pictures for a shipped protocol are taken for, other than :data:`STAINED` ones."""

CELLS = "cells"
"""The shipped model of whole cells, which counts in its own protocols alone."""

UNKNOWN_SCALE = 2.0
"""How far off, either way, a protocol's scale may be for an image without a pixel size."""

LOOK_DOWNSAMPLES = tuple(0.45 * 1.5**step for step in range(7))
"""At which the network looks: of training it knows cells of 0.7 to 1.5 times their usual size."""

LOOK_PX = 512
"""Side of what it looks at, pixels of the network, from the middle of the image."""

SURE, FEWEST = 0.5, 2
"""Score of a cell that counts as evidence, and so many of them are needed."""

ALIKE = 2.0
"""Cells at most so many times as large as the usual one, or as small, speak for a scale."""


def model_for(wanted: str | Path, protocol: CountProtocol) -> str | Path:
    """The model that counts: the wanted one, and of the shipped ones the protocol's.

    Raises
    ------
    SettingsError
        If whole cells are wanted in a protocol of nuclei.
    """
    if str(wanted) == CELLS != protocol.model:
        names = [name for name in shipped_protocols() if load_protocol(name).model == CELLS]
        raise SettingsError(
            f"protocol {protocol.name} is of nuclei, the model {CELLS} counts whole cells: name "
            f"one of {', '.join(names)}",
            hint="protocol",
        )
    return protocol.model if str(wanted) == "default" else wanted


def model_settings(
    protocol: CountProtocol, info: DetectorInfo, *, own: bool
) -> tuple[dict[str, object], list[str]]:
    """What a model of the user's own brings: the scale and the score it was validated at.

    It takes the place of a shipped protocol's. A protocol of the user's ``own`` keeps what it
    says; a calibration for other weights is left out of either, and so are rules of classes and
    the usual size where the model has none of these classes.
    """
    changes: dict[str, object] = {}
    notes: list[str] = []
    if protocol.classes and not set(protocol.classes) & set(info.classes):
        changes |= {"classes": {}, "usual_um": None}
    if protocol.calibration is not None and not protocol.calibration.holds_for(info.checksum):
        changes["calibration"] = None
    if own:
        if info.mpp is not None and abs(info.mpp / protocol.mpp - 1) > 0.1:
            notes.append(
                f"the model was trained at {info.mpp:g} µm/px, the protocol looks at "
                f"{protocol.mpp:g} µm/px"
            )
        return changes, notes
    if info.mpp is not None and abs(info.mpp / protocol.mpp - 1) > 0.01:
        changes["mpp"] = info.mpp
        notes.append(f"the model was trained at {info.mpp:g} µm/px: counted at that scale")
    if info.score is not None and (info.score != protocol.score or protocol.classes):
        changes["score"] = info.score
        changes["classes"] = {}
        notes.append(Notice(f"score {info.score:g}, by the model's validation", hint="score"))
    return changes, notes


def choose_types(
    protocol: CountProtocol, wanted: str | None, info: DetectorInfo
) -> tuple[dict[str, object], list[str]]:
    """Whether nuclei are sorted by cell type: where the user or the protocol names a tissue.

    Raises
    ------
    SettingsError
        If the model has no types, or did not learn them from the tissue that is named.
    """
    tissue = protocol.cell_types if wanted is None else wanted
    if tissue == NO_TYPES:
        return {"cell_types": tissue}, []
    if not info.types:
        said = f"the model {info.name} tells no cell types apart"
        if wanted is None:
            return {"cell_types": NO_TYPES}, [said]
        raise SettingsError(said, hint="types")
    if tissue != OTHER_TISSUE and tissue not in info.types_from:
        raise SettingsError(
            f"the model {info.name} learned its cell types from {info.types_from}, not from "
            f"{tissue}; of {OTHER_TISSUE} tissue it says what a nucleus looks like",
            hint="types",
        )
    names = ", ".join(info.sorting(tissue).classes)
    return {"cell_types": tissue}, [f"cell types ({names}) as learned from {info.types_from}"]


def with_gates(
    protocol: CountProtocol,
    request: CountRequest,
    sizes: Sizes | None,
    *,
    own: bool,
    mpp: float | None,
    downsample: float,
) -> tuple[CountProtocol, list[str]]:
    """A protocol with the size gates that hold: the user's own, the model's, or the protocol's.

    Without a pixel size pixels of the network are taken to have the protocol's scale. They may be
    half as wide, or twice, and so a shipped protocol's gates are made wider.

    Parameters
    ----------
    sizes : Sizes or None
        Of the model; they take the place of a shipped protocol's.
    own : bool
        The user wrote the protocol.
    mpp : float or None
        µm per pixel of the image.
    downsample : float
        Pixels of the image along a side of one of the network.

    Raises
    ------
    SettingsError
        If no area lies between the user's.
    """
    notes: list[str] = []
    if sizes is not None and not own:
        pixel_um = protocol.mpp if mpp is None else mpp * downsample
        low, high = sizes.smallest_px * pixel_um**2, sizes.largest_px * pixel_um**2
        protocol = protocol.changed(
            min_area_um2=low,
            max_area_um2=high,
            # The halo is made of it at the protocol's scale.
            largest_cell_um=sizes.longest_px * protocol.mpp,
        )
        said = f"{low:.3g} … {high:.3g} µm²"
        if mpp is None:
            ends = (sizes.smallest_px * downsample**2, sizes.largest_px * downsample**2)
            said = f"{ends[0]:.0f} … {ends[1]:.0f} px²"
        said = f"areas of {said} are counted, by the model's training"
        notes.append(Notice(said, hint="min_area,max_area"))
    elif mpp is None and not own:
        protocol = protocol.changed(
            min_area_um2=protocol.min_area_um2 / UNKNOWN_SCALE**2,
            max_area_um2=protocol.max_area_um2 * UNKNOWN_SCALE**2,
        )
    # What an area of 1 is in the protocol's µm².
    unit_um2 = 1.0 if mpp is not None else (protocol.mpp / downsample) ** 2
    gates = {"min_area_um2": request.min_area, "max_area_um2": request.max_area}
    wanted = {name: area * unit_um2 for name, area in gates.items() if area is not None}
    if not wanted:
        return protocol, notes
    rules = {
        name: rule.model_copy(update=dict.fromkeys(wanted))
        for name, rule in protocol.classes.items()
    }
    smallest = wanted.get("min_area_um2", protocol.min_area_um2)
    largest = wanted.get("max_area_um2", protocol.max_area_um2)
    if smallest >= largest:
        raise SettingsError(
            f"no area is above {smallest / unit_um2:.4g} and below {largest / unit_um2:.4g}",
            hint="min_area,max_area",
        )
    # It was calibrated with its own gates.
    return protocol.changed(**wanted, classes=rules, calibration=None), notes


def fit_grid(height: int, width: int, *, tile: int, halo: int, exact: bool = True) -> TileGrid:
    """A grid whose tile is no larger than the slide needs; all in lattice pixels.

    Unless it must be ``exact``, tiles may be oblong, and are those with which the network sees
    the fewest pixels in all. None, with its halo, has more pixels than a square one.
    """
    if exact:
        down, across = (min(tile, -(-side // STRIDE_PX) * STRIDE_PX) for side in (height, width))
        return TileGrid(height, width, down, halo, across)

    def fitting(length: int) -> list[tuple[int, int, int]]:
        counts = range(-(-length // (2 * tile)), 2 * -(-length // tile) + 1)
        cores = {-(-length // count // PHASE_PX) * PHASE_PX for count in counts}
        ends = {core: padded_spans(length, core, halo) for core in cores}
        return [(core, len(low), int((high - low).max())) for core, (low, high) in ends.items()]

    # Of each way to cut a side: the core, how many there are, how long each is with its halo.
    *_, down, across = min(
        (rows * columns * tall * wide, rows * columns, abs(tall - wide), down, across)
        for down, rows, tall in fitting(height)
        for across, columns, wide in fitting(width)
        if tall * wide <= (tile + 2 * halo) ** 2
    )
    return TileGrid(height, width, down, halo, across)


def choose_protocol(
    slide: Slide,
    look: Callable[[], Sequence[NDArray[np.generic]]],
    wanted: str | CountProtocol | None,
    carried: CountProtocol | None = None,
) -> tuple[CountProtocol, list[str]]:
    """The wanted protocol, or the one that fits what is to be counted.

    Parameters
    ----------
    look : callable
        Gives patches (H, W, C) of the channels that are counted.
    carried : CountProtocol, optional
        The model's own, which holds where none fits what is seen.

    Raises
    ------
    SettingsError
        If no protocol fits: nothing is guessed then.
    """
    if wanted is not None:
        named = wanted if isinstance(wanted, CountProtocol) else load_protocol(wanted)
        return named, _unlike_dab(named, look)
    seen = guess_stain(look())
    if seen.protocol is None and carried is not None:
        said = Notice(f"protocol {carried.name}, which the model was trained for", hint="protocol")
        return carried, [said]
    if seen.protocol is None:
        raise SettingsError(
            f"{slide.path}: {seen.reason}: no protocol is made for it; name one of "
            f"{', '.join(shipped_protocols())}, or a YAML file",
            hint="protocol",
        )
    name, reason = str(seen.protocol), seen.reason
    if name == "he" and slide.mpp is not None and slide.mpp >= COARSE_SCAN_MPP:
        name, reason = "he_20x", f"{reason}, scanned at 20×"
    said = Notice(f"protocol {name} chosen from the image ({reason})", hint="protocol")
    return load_protocol(name), [said]


def contradictions(
    protocol: CountProtocol, look: Callable[[], Sequence[NDArray[np.generic]]]
) -> list[Notice]:
    """The doubt that a picture is of another kind than the shipped protocol that was named."""
    try:
        seen = guess_stain(look())
    except RegionError:
        return []
    if seen.protocol in (protocol.name, *LOOKS.get(protocol.name, STAINED)):
        return []
    like = f" like {seen.protocol}" if seen.protocol else ""
    said = f"the image looks{like} ({seen.reason}), and was counted as {protocol.name}"
    return [Notice(said, hint="protocol")]


def _unlike_dab(
    protocol: CountProtocol, look: Callable[[], Sequence[NDArray[np.generic]]]
) -> list[str]:
    """That a picture is none of immunohistochemistry: its amounts of DAB mean nothing."""
    if protocol.stain != "ihc":
        return []
    patches = look()
    if not patches or patches[0].shape[-1] != 3:
        return ["the stain is ihc, but there are no red, green and blue: DAB is not measured"]
    seen = guess_stain(patches)
    if seen.protocol == "ihc":
        return []
    return [
        f"the stain is ihc, but the image shows none of DAB ({seen.reason}): "
        "what is measured as DAB is something else"
    ]


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
    usual_px = protocol.usual_px
    if diameter_px is None and slide.mpp is None and detector is not None and usual_px is not None:
        told = told_diameter(slide, channels, protocol, detector)
        if told is not None:
            said = f"no pixel size: scaled by the cells, the usual one has {told:.0f} px"
            return told / usual_px, [Notice(said, hint="mpp,diameter")]
    if diameter_px is not None:
        if not diameter_px > 0:
            raise SettingsError(
                f"a diameter must be above 0 px, got {diameter_px:g}", hint="diameter"
            )
        model_diameter_px = usual_px or model_diameter_px
        if model_diameter_px is None:
            raise SettingsError(
                "this model does not say how large its usual object is", hint="diameter"
            )
        wanted = diameter_px / model_diameter_px
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

    The usual cell is of the first class that the protocol counts. The network looks at several
    scales, and is surest where cells have the size that it knows.
    """
    usual = protocol.usual_px
    assert usual is not None
    one = detector.for_run(
        score=SURE, nms_iou=protocol.nms_iou, types=NO_TYPES, classes=tuple(protocol.classes)
    )
    normaliser: Normaliser | None = None
    best, told = 0.0, None
    for downsample in LOOK_DOWNSAMPLES:
        height, width = slide.lattice_shape(downsample)
        if min(height, width) < usual:
            break
        y, x = max(0, (height - LOOK_PX) // 2), max(0, (width - LOOK_PX) // 2)
        box = Box(y, x, min(y + LOOK_PX, height), min(x + LOOK_PX, width))
        with suppress(RegionError):
            pixels = slide.read(box, downsample=downsample, channels=channels)
            normaliser = normaliser or Normaliser.fit(pixels, protocol.light)
            found = one.detect([normaliser.apply(pixels)], fill=1.0)[0].instances
            cut = (found.boxes[:, :2] <= 0).any(1) | (found.boxes[:, 2:] >= box.shape).any(1)
            found = found.take(np.flatnonzero((found.classes == 0) & ~cut))
            diameters = np.sqrt(4 * found.areas / np.pi)
            alike = (diameters > usual / ALIKE) & (diameters < usual * ALIKE)
            evidence = float((found.scores * found.areas)[alike].sum()) * downsample**2
            if alike.sum() >= FEWEST and evidence > best:
                best, told = evidence, float(np.median(diameters[alike])) * downsample
    return told
