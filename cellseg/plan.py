"""What is decided before a count starts: protocol, channel, scale, grid, intensities.

Every choice that the user did not make is a note, said aloud.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cellseg.detect import DetectorInfo, Sizes
from cellseg.errors import RegionError, SettingsError
from cellseg.geometry import STRIDE_PX, Box, TileGrid
from cellseg.location import Location
from cellseg.normalise import Light, Normaliser
from cellseg.protocol import PHASE_PX, CountProtocol, load_protocol, shipped_protocols
from cellseg.region import Region
from cellseg.slide import Slide

Plane = int | Literal["max", "mean"] | None

NUCLEAR_NAMES = ("dapi", "hoechst", "draq", "dna", "nucle", "nuclei", "sytox", "topro", "h2b")
SAMPLE_PX = 512
SAMPLES = 48
MIN_DOWNSAMPLE = 0.25

COARSE_SCAN_MPP = 0.4
"""Slides from here on are taken as scanned at 20×; they have a protocol of their own."""

UNKNOWN_SCALE = 2.0
"""How far off, either way, a protocol's scale may be for an image without a pixel size."""


@dataclass(frozen=True, kw_only=True)
class CountRequest:
    """One slide to count, as the user asked for it.

    Attributes
    ----------
    image : Path or RemotePath
    output : Path, RemotePath or None
        Folder that gets the result folder; None: beside the slide.
    folder_name : str or None
        Name of the result folder; None: the slide's stem and ``.cellseg``.
    protocol : str, CountProtocol or None
        Name, path or object; None: chosen from the image.
    score, tile_px : float or int or None
        Take the place of the protocol's.
    model : str or Path
        ``"default"`` or a file of ``cellseg train``.
    mpp : float or None
        µm per pixel at level 0, where the file does not say or is wrong.
    diameter_px : float or None
        Usual object's diameter in level-0 pixels, for slides without pixel size.
    channel : str or None
        Name or number (from 0) of the channel that shows what is counted.
    z, t : int, str or None
        Plane and time point.
    series : int
        Which image of a file with several.
    prefilter : bool
        Skip tiles without tissue (if the protocol says so too).
    region : Region or None
        Count only what lies in it (level-0 pixels); None: the whole slide.
    strict : bool
        A tile that does not decode ends the run.
    export : tuple of str
        File names of exports, for instance ``labels.tif``.
    device : str
    precision : {'auto', 'float32', 'bfloat16', 'float16'}
        Of the network; ``auto``: half where the device is faster with it.
    batch : int or None
        Tiles that go through the network together; None: by device.
    engine : {'local', 'dask'}
        Where tiles are read and detected: in this process, or on a Dask cluster. The result is
        the same.
    scheduler : str or None
        Address of the cluster, or its scheduler file; None: one that is started on this machine.
    """

    image: Location
    output: Location | None = None
    folder_name: str | None = None
    protocol: str | CountProtocol | None = None
    score: float | None = None
    tile_px: int | None = None
    model: str | Path = "default"
    mpp: float | None = None
    diameter_px: float | None = None
    channel: str | None = None
    z: Plane = None
    t: int | None = None
    series: int = 0
    prefilter: bool = True
    region: Region | None = None
    strict: bool = False
    export: tuple[str, ...] = ()
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch: int | None = None
    engine: Literal["local", "dask"] = "local"
    scheduler: str | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Settings of one run, complete.

    Attributes
    ----------
    protocol : CountProtocol
    channels : tuple of int
        Channels that the network sees: one, or red, green and blue.
    downsample : float
        Level-0 pixels per lattice pixel.
    grid : TileGrid
    notes : tuple of str
    """

    protocol: CountProtocol
    channels: tuple[int, ...]
    downsample: float
    grid: TileGrid
    notes: tuple[str, ...]


def make_plan(
    slide: Slide,
    request: CountRequest,
    info: DetectorInfo,
) -> Plan:
    """Decide what the user left open.

    Parameters
    ----------
    slide : Slide
    request : CountRequest
    info : DetectorInfo
        The model's own scale, score and sizes take the place of a shipped protocol's where it
        has them.

    Raises
    ------
    SettingsError
        If a channel does not exist, or settings clash.
    """
    notes: list[str] = []
    overview, _ = slide.overview()
    protocol, said = choose_protocol(slide, overview, request.protocol)
    notes += said
    own = _is_own(request.protocol)
    changes, said = model_settings(protocol, info, own=own)
    notes += said
    if request.score is not None and request.score != protocol.score:
        changes |= {"score": request.score, "calibration": None}
    if request.tile_px is not None:
        if request.tile_px % PHASE_PX:
            raise SettingsError(f"--tile must be a multiple of {PHASE_PX}, got {request.tile_px}")
        changes["tile_px"] = request.tile_px
    if changes:
        protocol = protocol.changed(**changes)
    channels, said = choose_channels(slide, protocol, request.channel)
    notes += said
    downsample, said = choose_downsample(slide, protocol, request.diameter_px, info.diameter_px)
    notes += said
    if info.sizes is not None and not own:
        lattice_mpp = None if slide.mpp is None else slide.mpp * downsample
        protocol, line = with_sizes(protocol, info.sizes, lattice_mpp=lattice_mpp)
        notes.append(line)
    elif slide.mpp is None and not own:
        protocol = with_wider_gates(protocol)
    height, width = slide.lattice_shape(downsample)
    grid = fit_grid(height, width, tile=protocol.tile_px, halo=protocol.halo_px)
    return Plan(
        protocol=protocol, channels=channels, downsample=downsample, grid=grid, notes=tuple(notes)
    )


def _is_own(wanted: str | CountProtocol | None) -> bool:
    """Whether the user wrote the protocol; the shipped ones know nothing of the user's model."""
    return wanted is not None and str(wanted) not in shipped_protocols()


def model_settings(
    protocol: CountProtocol, info: DetectorInfo, *, own: bool
) -> tuple[dict[str, object], list[str]]:
    """What a model of the user's own brings: the scale and the score it was validated at.

    It takes the place of a shipped protocol's. A protocol of the user's ``own`` keeps what it
    says; a calibration for other weights is left out of either.
    """
    changes: dict[str, object] = {}
    notes: list[str] = []
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
    if info.score is not None:
        changes["score"] = info.score
        notes.append(f"score {info.score:g}, by the model's validation; --score takes another")
    return changes, notes


def with_sizes(
    protocol: CountProtocol, sizes: Sizes, *, lattice_mpp: float | None
) -> tuple[CountProtocol, str]:
    """A shipped protocol with the size gates of a model of the user's own.

    Parameters
    ----------
    protocol : CountProtocol
    sizes : Sizes
        In pixels of the network.
    lattice_mpp : float or None
        µm per pixel that the network sees; unknown, pixels are turned into µm by the protocol.
    """
    pixel_um = lattice_mpp or protocol.mpp
    low, high = sizes.smallest_px * pixel_um**2, sizes.largest_px * pixel_um**2
    changed = protocol.changed(
        min_area_um2=low,
        max_area_um2=high,
        # The halo is made of it at the protocol's scale.
        largest_cell_um=sizes.longest_px * protocol.mpp,
    )
    if lattice_mpp is None:
        said = f"{sizes.smallest_px:.0f} … {sizes.largest_px:.0f} px"
    else:
        said = f"{low:.3g} … {high:.3g} µm²"
    return changed, f"areas of {said} are counted, by the model's training; --protocol FILE sets it"


def with_wider_gates(protocol: CountProtocol) -> CountProtocol:
    """A shipped protocol for an image whose pixel size nobody knows.

    Its size gates are in µm², and pixels are taken to have its scale: they may be half as wide,
    or twice.
    """
    return protocol.changed(
        min_area_um2=protocol.min_area_um2 / UNKNOWN_SCALE**2,
        max_area_um2=protocol.max_area_um2 * UNKNOWN_SCALE**2,
    )


def fit_grid(height: int, width: int, *, tile: int, halo: int) -> TileGrid:
    """A grid whose tile is no larger than the slide needs."""
    longest = -(-max(height, width) // STRIDE_PX) * STRIDE_PX
    return TileGrid(height, width, min(tile, longest), halo)


def choose_protocol(
    slide: Slide, overview: NDArray[np.generic], wanted: str | CountProtocol | None
) -> tuple[CountProtocol, list[str]]:
    """The wanted protocol, or the one that fits the image's colours."""
    if isinstance(wanted, CountProtocol):
        return wanted, []
    if wanted is not None:
        return load_protocol(wanted), []
    name = guess_stain(overview, is_rgb=slide.is_rgb)
    if name == "he" and slide.mpp is not None and slide.mpp >= COARSE_SCAN_MPP:
        name = "he_20x"
    reasons = {
        "he": "bright background, pink and blue-violet stain",
        "he_20x": "bright background, pink and blue-violet stain, scanned at 20×",
        "ihc": "bright background, brown stain",
        "brightfield": "bright background, little colour",
        "fluorescence": "dark background",
    }
    return load_protocol(name), [
        f"protocol {name} chosen from the image ({reasons[name]}); --protocol takes another"
    ]


def guess_stain(overview: NDArray[np.generic], *, is_rgb: bool) -> str:
    """Tell stains apart by an overview's colours.

    Parameters
    ----------
    overview : ndarray, (H, W, C)
    is_rgb : bool

    Returns
    -------
    str
        ``"he"``, ``"ihc"``, ``"brightfield"`` or ``"fluorescence"``.
    """
    values = np.asarray(overview, dtype=np.float32)
    values = values[np.isfinite(values).all(axis=-1)]
    if values.size == 0:
        return "fluorescence"
    grey = values.mean(axis=-1) if is_rgb else values[:, 0]
    low, high = float(grey.min()), float(np.percentile(grey, 99.9))
    level = (float(np.median(grey)) - low) / (high - low) if high > low else float(high > 0)
    if not is_rgb:
        # A dim nuclear channel has most of its pixels near the bottom of its range.
        return "brightfield" if level > 0.6 else "fluorescence"
    top = float(np.percentile(values, 99.9)) or 1.0
    colour = np.clip(values / top, 0, 1)
    if float(np.median(colour.max(axis=-1))) < 0.35:
        return "fluorescence"
    saturation = colour.max(axis=-1) - colour.min(axis=-1)
    stained = colour[saturation > 0.08]
    if len(stained) < 0.005 * len(colour):
        return "brightfield"
    brown = (stained[:, 2] < stained[:, 1] - 0.02) & (stained[:, 1] < stained[:, 0])
    return "ihc" if float(brown.mean()) > 0.5 else "he"


def choose_channels(
    slide: Slide, protocol: CountProtocol, wanted: str | None
) -> tuple[tuple[int, ...], list[str]]:
    """The channel that shows what is counted, or all three of a colour slide."""
    names = slide.channels
    if wanted is not None:
        if wanted in names:
            return (names.index(wanted),), []
        if wanted.isdecimal() and int(wanted) < len(names):
            return (int(wanted),), []
        listed = ", ".join(f"{index} {name}" for index, name in enumerate(names))
        raise SettingsError(f"{slide.path}: no channel {wanted!r}; there are: {listed}")
    if slide.is_rgb:
        return (0, 1, 2), []
    if len(names) == 1:
        return (0,), []
    for index, name in enumerate(names):
        if any(hint in name.lower() for hint in NUCLEAR_NAMES):
            return (index,), [
                f"channel {index} ({name}) is counted, by its name; --channel takes another"
            ]
    return (0,), [
        f"channel 0 ({names[0]}) of {len(names)} is counted, as no name tells which shows nuclei; "
        "--channel takes another"
    ]


def choose_downsample(
    slide: Slide,
    protocol: CountProtocol,
    diameter_px: float | None,
    model_diameter_px: float | None,
) -> tuple[float, list[str]]:
    """Level-0 pixels per lattice pixel: by pixel size, by diameter, or 1."""
    if diameter_px is not None:
        if not diameter_px > 0:
            raise SettingsError(f"--diameter must be above 0 px, got {diameter_px:g}")
        if model_diameter_px is None:
            raise SettingsError("--diameter: this model does not say how large its usual object is")
        wanted = diameter_px / model_diameter_px
        if wanted < MIN_DOWNSAMPLE:
            return MIN_DOWNSAMPLE, [
                f"--diameter {diameter_px:g} px is very small: enlarged "
                f"{1 / MIN_DOWNSAMPLE:g} times and no more, small cells may be missed"
            ]
        return wanted, []
    if slide.mpp is None:
        return 1.0, [
            "no pixel size: counted at the image's own scale, areas in pixels only; "
            "pass --mpp (µm per pixel), or --diameter PX of a usual object"
        ]
    downsample = protocol.mpp / slide.mpp
    if abs(downsample - 1) < 0.1:
        return 1.0, []
    if downsample < MIN_DOWNSAMPLE:
        raise SettingsError(
            f"{slide.path}: {slide.mpp:g} µm/px is too coarse for cells (the protocol looks at "
            f"{protocol.mpp:g} µm/px); is the pixel size right? --mpp sets it"
        )
    notes = []
    if downsample < 0.6:
        notes.append(
            f"the slide's {slide.mpp:g} µm/px is coarse: enlarged {1 / downsample:.1f} times, "
            "small cells may be missed"
        )
    return downsample, notes


def fit_normaliser(
    slide: Slide, plan: Plan, *, light: Light, tissue: Sequence[Box] | None = None
) -> Normaliser:
    """Fit the slide's one intensity scale on patches of the lattice.

    Parameters
    ----------
    slide : Slide
    plan : Plan
    light : {'transmitted', 'fluorescence'}
    tissue : sequence of Box, optional
        Patches to sample (multiples of 512 px of the lattice, whatever the tile size); all
        of the slide where it is None or empty.
    """
    boxes = list(tissue or sample_boxes(plan.grid.height, plan.grid.width))
    # Not every n-th: where n divides the columns, that would be one strip of the slide.
    order = np.random.default_rng(0).permutation(len(boxes))[:SAMPLES]
    pixels = []
    for box in (boxes[index] for index in sorted(order.tolist())):
        try:
            patch = slide.read(box, downsample=plan.downsample, channels=plan.channels)
        except RegionError:
            continue
        pixels.append(patch[::4, ::4].reshape(-1, 1, patch.shape[-1]))
    if not pixels:
        return Normaliser(0.0, 1.0, light)
    return Normaliser.fit(np.concatenate(pixels), light)


def sample_boxes(height: int, width: int) -> list[Box]:
    """The lattice in patches of 512 px, whatever the tile size."""
    extent = Box(0, 0, height, width)
    return [
        Box(y, x, y + SAMPLE_PX, x + SAMPLE_PX).intersection(extent)
        for y in range(0, height, SAMPLE_PX)
        for x in range(0, width, SAMPLE_PX)
    ]


def with_tile(plan: Plan, tile: int) -> Plan:
    """The same plan with another tile size."""
    grid = fit_grid(plan.grid.height, plan.grid.width, tile=tile, halo=plan.grid.halo)
    return replace(plan, grid=grid, protocol=plan.protocol.changed(tile_px=tile))
