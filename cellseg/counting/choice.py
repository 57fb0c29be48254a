"""What is chosen for an image where the user left it open: protocol, gates, scale.

Every choice comes with the lines that say it aloud.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellseg.counting.request import CountRequest
from cellseg.errors import Notice, RegionError, SettingsError
from cellseg.geometry import STRIDE_PX, TileGrid, padded_spans
from cellseg.network.detector import DetectorInfo, Sizes
from cellseg.protocol import (
    NO_TYPES,
    OTHER_TISSUE,
    PHASE_PX,
    CountProtocol,
    load_protocol,
    shipped_protocols,
)
from cellseg.slide import Slide
from cellseg.stain.stain import StainGuess, guess_stain

COARSE_SCAN_MPP = 0.4
"""Slides from here on are taken as scanned at 20×; they have a protocol of their own."""

SMEAR_MPP, SMEAR_PX = 0.25, 384
"""Scale and side of the patches in which smears are looked for: a red cell has 30 px."""

LOOKS: dict[str, tuple[str | None, ...]] = {
    "he": ("he", "brightfield"),
    "ihc": ("he", "ihc", "brightfield"),
    "brightfield": ("he", "ihc", "brightfield"),
    "fluorescence": ("fluorescence",),
    "phase_contrast": ("phase_contrast", "counting_chamber", "brightfield", None),
    "counting_chamber": ("counting_chamber", "phase_contrast", "brightfield", "fluorescence", None),
}
"""What pictures for a shipped protocol are taken for, by its name, else by its stain."""

CELLS = "cells"
"""The shipped model of whole cells, which counts in its own protocols alone."""

Look = Callable[..., Sequence[NDArray[np.generic]]]
"""Gives patches of an image, at the usual scale or at one in µm/px."""

UNKNOWN_SCALE = 2.0
"""How far off, either way, a protocol's scale may be for an image without a pixel size."""


def model_for(wanted: str | Path, protocol: CountProtocol) -> str | Path:
    """The model that counts: the wanted one, and of the shipped ones the protocol's.

    SettingsError if whole cells are wanted in a protocol of nuclei.
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
    if (known := protocol.calibration) is not None and not info.checksum.startswith(known.model):
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
        changes |= {"score": info.score, "classes": {}}
        notes.append(Notice(f"score {info.score:g}, as the model's training says", hint="score"))
    return changes, notes


def choose_types(
    protocol: CountProtocol, wanted: str | None, info: DetectorInfo
) -> tuple[dict[str, object], list[str]]:
    """Whether nuclei are sorted by cell type: where the user or the protocol names a tissue.

    SettingsError if the model has no types, or did not learn them from the tissue that is named.
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
    half as wide, or twice, and so a shipped protocol's gates are made wider. The model's ``sizes``
    take their place; a protocol of the user's ``own`` keeps its gates. A pixel of the network is
    ``downsample`` pixels of the image wide, each of which has ``mpp`` µm.

    SettingsError if no area lies between the user's.
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
    smallest = wanted.get("min_area_um2", protocol.min_area_um2)
    largest = wanted.get("max_area_um2", protocol.max_area_um2)
    if smallest >= largest:
        raise SettingsError(
            f"no area is above {smallest / unit_um2:.4g} and below {largest / unit_um2:.4g}",
            hint="min_area,max_area",
        )
    rules = protocol.rules_without(*wanted)
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
    look: Look,
    wanted: str | CountProtocol | None,
    carried: CountProtocol | None = None,
) -> tuple[CountProtocol, list[str]]:
    """The wanted protocol, or the one that fits what is to be counted.

    SettingsError if no protocol fits: nothing is guessed then.

    ``look`` gives patches (H, W, C) of the channels that are counted, at the scale of
    :func:`sample` or at one in µm/px. Where none fits what is seen, the model's own holds, the one
    that it ``carried``.
    """
    if wanted is not None:
        named = wanted if isinstance(wanted, CountProtocol) else load_protocol(wanted)
        return named, _unlike_dab(named, look)
    seen = _seen(slide, look)
    if seen.protocol is None and carried is not None:
        said = Notice(f"protocol {carried.name}, which the model was trained for", hint="protocol")
        return carried, [said]
    if seen.protocol is None:
        raise SettingsError(
            f"{slide.path}: {seen.reason}: no protocol is plain enough to be chosen; "
            f"name one of {', '.join(shipped_protocols())}, or a YAML file",
            hint="protocol",
        )
    name, reason = str(seen.protocol), seen.reason
    if name == "he" and slide.mpp is not None and slide.mpp >= COARSE_SCAN_MPP:
        name, reason = "he_20x", f"{reason}, scanned at 20×"
    said = Notice(f"protocol {name} chosen from the image ({reason})", hint="protocol")
    return load_protocol(name), [said]


def contradictions(slide: Slide, protocol: CountProtocol, look: Look) -> list[Notice]:
    """The doubt that a picture is of another kind than the shipped protocol that was named."""
    try:
        seen = _seen(slide, look)
    except RegionError:
        return []
    if seen.protocol in (protocol.name, *LOOKS.get(protocol.name, LOOKS[protocol.stain])):
        return []
    like = f" like {seen.protocol}" if seen.protocol else ""
    said = f"the image looks{like} ({seen.reason}), and was counted as {protocol.name}"
    return [Notice(said, hint="protocol")]


def _seen(slide: Slide, look: Look) -> StainGuess:
    """What a picture shows.

    Where pixels are known to be fine, as in a blood smear, red cells are looked for at their own
    scale: at that of nuclei they are too small.
    """
    seen = guess_stain(look())
    is_fine = slide.mpp is not None and slide.mpp < COARSE_SCAN_MPP
    if not is_fine or seen.protocol not in ("he", "brightfield"):
        return seen
    closer = guess_stain([patch[:SMEAR_PX, :SMEAR_PX] for patch in look(SMEAR_MPP)[::3]])
    return closer if closer.protocol == "blood_smear" else seen


def _unlike_dab(protocol: CountProtocol, look: Look) -> list[str]:
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
