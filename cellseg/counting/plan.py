"""What is decided before a count starts: protocol, channel, scale, grid, intensities.

Every choice that the user did not make is a note, said aloud.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from pydantic_core import to_jsonable_python

from cellseg.annotations.region import Regions
from cellseg.counting.channel import choose_channels, sample
from cellseg.counting.choice import (
    choose_protocol,
    choose_types,
    contradictions,
    fit_grid,
    model_for,
    model_settings,
    with_gates,
)
from cellseg.counting.request import CountRequest, Plane
from cellseg.counting.scale import choose_downsample
from cellseg.errors import Notice, RegionError, SettingsError
from cellseg.geometry import Box, TileGrid
from cellseg.network.detector import Detector, DetectorInfo
from cellseg.network.inference import EIGHT_BITS
from cellseg.network.modelfile import read_card
from cellseg.protocol import PHASE_PX, SHIPPED_MODELS, CountProtocol, shipped_protocols
from cellseg.slide import Slide
from cellseg.stain.contrast import visible_scale
from cellseg.stain.dyes import Dyes, estimated_dyes, given_dyes
from cellseg.stain.normalise import Normaliser

SAMPLE_PX = 512
SAMPLES = 48
LEAST_PATCH_PX = 128

DYE_PATCHES, DYE_EVERY_PX = 24, 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Settings of one run, complete: all that determines its tiles and its cells.

    Two plans that are equal lead to the same result from the same slide.
    """

    model: str  # Checksum of the weights.
    protocol: CountProtocol
    channels: tuple[int, ...]  # That the network sees: one, or red, green and blue.
    z: Plane
    t: int | None
    series: int
    mpp: float | None
    downsample: float  # Level-0 pixels per lattice pixel.
    grid: TileGrid
    prefilter: bool
    regions: Regions | None  # As far as they lie on the slide.
    precision: str
    inference: str
    skip_bad: bool
    notes: tuple[str, ...] = field(compare=False)  # What was chosen, for a person.
    doubts: tuple[str, ...] = field(default=(), compare=False)

    @property
    def pixel_um(self) -> float:
        """µm per lattice pixel, the protocol's where the slide has no pixel size."""
        return self.protocol.mpp if self.mpp is None else self.mpp * self.downsample

    def settings(self) -> dict[str, object]:
        """Every field that tells one plan from another, ready for JSON."""
        return {
            one.name: to_jsonable_python(getattr(self, one.name), fallback=shapely.to_wkt)
            for one in fields(self)
            if one.compare
        }


@dataclass(frozen=True, kw_only=True)
class Assay:
    """What is told from a slide before a model, a shipped one's name or a file, is loaded."""

    channels: tuple[int, ...]
    protocol: CountProtocol
    model: str | Path
    notes: tuple[str, ...]
    doubts: tuple[str, ...] = ()


def choose_assay(slide: Slide, request: CountRequest) -> Assay:
    """Channel, protocol and model, where the user left them open.

    SettingsError if a channel does not exist, no protocol fits, or the model is for others.
    """
    notes: list[str] = []
    look = cache(partial(sample, slide))
    if slide.dtype.kind == "f":
        with suppress(RegionError):
            notes += _missing_values(look())
    channels, said = choose_channels(slide, look, request.channel)
    notes += said
    wanted, carried = request.protocol, None
    of_user = str(request.model) not in SHIPPED_MODELS
    if wanted is None and of_user:
        card = read_card(request.model)
        carried = card.protocol
        wanted = carried if card.base else None  # it was taught one kind of slide

    def counted(*mpp: float) -> list[NDArray[np.generic]]:
        return [patch[..., channels] for patch in look(*mpp)]

    protocol, said = choose_protocol(slide, counted, wanted, carried)
    own = _is_own(request.protocol)
    is_shipped = not of_user and not own
    if of_user and not own and protocol.dab_share < 1:
        learned = read_card(request.model).protocol
        protocol = protocol.changed(dab_share=learned.dab_share if learned else 1.0)
    return Assay(
        channels=channels,
        protocol=protocol,
        model=model_for(request.model, protocol),
        notes=(*notes, *said),
        doubts=tuple(contradictions(slide, protocol, counted)) if wanted and is_shipped else (),
    )


def make_plan(
    slide: Slide,
    request: CountRequest,
    info: DetectorInfo,
    *,
    assay: Assay | None = None,
    detector: Detector | None = None,
) -> Plan:
    """Decide what the user left open, but for the ``assay`` that is decided already.

    The model's own scale, score and sizes take the place of a shipped protocol's. The detector
    tells the scale of an image without pixel size, where the protocol says how large its cells are.

    SettingsError if a channel does not exist, no protocol fits, or settings clash.
    """
    request.recipe.refuse_without(slide.mpp)
    assay = assay or choose_assay(slide, request)
    channels, protocol = assay.channels, assay.protocol
    notes = [*info.notes, *assay.notes]
    own = _is_own(request.protocol)
    changes, said = model_settings(protocol, info, own=own)
    notes += said
    if request.score is not None and (request.score != protocol.score or protocol.classes):
        rules = protocol.rules_without("score")
        changes |= {"score": request.score, "classes": rules, "calibration": None}
    if request.tile_px is not None:
        if request.tile_px % PHASE_PX:
            raise SettingsError(
                f"a tile must be a multiple of {PHASE_PX} px, got {request.tile_px}", hint="tile"
            )
        changes["tile_px"] = request.tile_px
    types, said = choose_types(protocol, request.cell_types, info)
    notes += said
    changes |= types
    if changes:
        protocol = protocol.changed(**changes)

    downsample, said = choose_downsample(
        slide,
        protocol,
        channels,
        diameter_px=request.diameter_px,
        model_diameter_px=info.diameter_px,
        detector=detector,
    )
    notes += said
    protocol, said = with_gates(
        protocol, request, info.sizes, own=own, mpp=slide.mpp, downsample=downsample
    )
    notes += said
    regions = None if request.regions is None else request.regions.on(slide.height, slide.width)
    notes += () if regions is None else regions.notes
    height, width = slide.lattice_shape(downsample)
    grid = fit_grid(
        height,
        width,
        tile=protocol.tile_px or info.tile_px,
        halo=protocol.halo_px,
        exact=protocol.tile_px is not None,
    )
    # Another processor may go on: 8 bits with VNNI, 8 bits without it and float32 are not mixed.
    is_narrow = info.device.startswith(EIGHT_BITS) and request.precision == "auto"
    return Plan(
        model=info.checksum,
        protocol=protocol,
        channels=channels,
        z=request.z,
        t=request.t,
        series=request.series,
        mpp=slide.mpp,
        downsample=downsample,
        grid=grid,
        prefilter=request.prefilter and protocol.prefilter,
        regions=regions,
        precision=info.device if is_narrow else request.precision,
        inference=info.inference,
        skip_bad=request.skip_bad,
        notes=tuple(notes),
        doubts=assay.doubts,
    )


def _is_own(wanted: str | CountProtocol | None) -> bool:
    """Whether the user wrote the protocol; the shipped ones know nothing of the user's model."""
    return wanted is not None and str(wanted) not in shipped_protocols()


def fit_normaliser(slide: Slide, plan: Plan, tissue: Sequence[Box] | None = None) -> Normaliser:
    """Fit the slide's one intensity scale on patches of the lattice: those with tissue, or all.

    Patches are multiples of 512 px, whatever the tile size. The scale is ``blank`` where none of
    them shows anything beyond noise: only then are all read. Few or faint objects do not fill the
    range: see :func:`visible_scale`.
    """
    light = plan.protocol.light
    boxes = list(tissue or plan.grid.extent.parts(SAMPLE_PX))
    # Not every n-th: where n divides the columns, that would be one strip of the slide.
    order = np.random.default_rng(0).permutation(len(boxes))
    some = [boxes[index] for index in sorted(order[:SAMPLES].tolist())]
    pixels = [
        patch[::4, ::4].reshape(-1, 1, patch.shape[-1]) for patch in _patches(slide, plan, some)
    ]
    if not pixels:
        return Normaliser(0.0, 1.0, light)
    sample = np.concatenate(pixels)
    shuffled = [boxes[index] for index in order.tolist()]
    scale = visible_scale(sample, _patches(slide, plan, shuffled), light)
    return replace(scale, dab=plan.protocol.dab_share)


def fit_dyes(slide: Slide, plan: Plan, patches: Sequence[Box]) -> Dyes | None:
    """White and directions of both dyes; None for fixed ones, and where there are no colours.

    Of the ``patches``, on the lattice, a few from all over are read.
    """
    wanted, stain = plan.protocol.dyes, plan.protocol.stain
    if wanted == "fixed" or stain not in ("he", "ihc") or len(plan.channels) != 3:
        return None
    places = np.unique(np.linspace(0, len(patches) - 1, min(DYE_PATCHES, len(patches))).astype(int))
    seen = [
        patch[::DYE_EVERY_PX, ::DYE_EVERY_PX].reshape(-1, 3).astype(np.float64)
        for patch in _patches(slide, plan, [patches[place] for place in places.tolist()])
    ]
    pixels = np.concatenate(seen) if seen else np.empty((0, 3))
    pixels = pixels[np.isfinite(pixels).all(axis=1)]
    if not len(pixels) or pixels.max() <= 0:
        return None
    if isinstance(wanted, dict):
        return given_dyes(wanted, pixels)
    return estimated_dyes(pixels, ("hematoxylin", "eosin" if stain == "he" else "dab"))


def _patches(slide: Slide, plan: Plan, boxes: Sequence[Box]) -> Iterator[NDArray[np.generic]]:
    """Pixels of patches that decode whole; where none does, of quarters of some of them."""
    found = False
    for box in boxes:
        with suppress(RegionError):
            yield slide.read(box, downsample=plan.downsample, channels=plan.channels)
            found = True
    large = [box for box in boxes[:SAMPLES] if min(box.shape) > LEAST_PATCH_PX]
    if not found and large:
        quarters = [part for box in large for part in box.parts(-(-max(box.shape) // 2))]
        yield from _patches(slide, plan, quarters)


def _missing_values(patches: Sequence[NDArray[np.generic]]) -> list[Notice]:
    """A notice of pixels without a value, as NaN or as a slide's no-data markers are read."""
    share = float(np.mean([1 - float(np.isfinite(patch).mean()) for patch in patches]))
    if not share:
        return []
    said = (
        f"{100 * share:.2g} % of the pixels that were looked at hold no value (NaN, infinity "
        "or a no-data marker): they are left out"
    )
    return [Notice(said)]
