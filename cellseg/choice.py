"""What is chosen for an image where the user left it open: protocol, gates, channels, scale.

Every choice comes with the lines that say it aloud.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellseg.detect import DetectorInfo, Sizes
from cellseg.errors import SettingsError
from cellseg.geometry import STRIDE_PX, TileGrid
from cellseg.protocol import PHASE_PX, CountProtocol, load_protocol
from cellseg.slide import Slide

NUCLEAR_NAMES = ("dapi", "hoechst", "draq", "dna", "nucle", "nuclei", "sytox", "topro", "h2b")
MIN_DOWNSAMPLE = 0.25

COARSE_SCAN_MPP = 0.4
"""Slides from here on are taken as scanned at 20×; they have a protocol of their own."""

UNKNOWN_SCALE = 2.0
"""How far off, either way, a protocol's scale may be for an image without a pixel size."""


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


def fit_grid(height: int, width: int, *, tile: int, halo: int, exact: bool = True) -> TileGrid:
    """A grid whose tile is no larger than the slide needs.

    Parameters
    ----------
    height, width : int
        Of the slide, lattice pixels.
    tile, halo : int
        Side of a core and width of the halo, pixels.
    exact : bool
        Otherwise the tile is the one with which the network sees the fewest pixels in all, padded
        to ``tile + 2 * halo`` at most: a field of 1,040 px takes one tile, not one and a sliver.
    """
    longest = -(-max(height, width) // STRIDE_PX) * STRIDE_PX
    sides = [min(tile, longest)]
    if not exact:
        most = tile + 2 * halo
        sides += [longest] if longest <= most else []
        sides += range(PHASE_PX, min(most, longest) + 1, PHASE_PX)
        sides = [side for side in sides if 2 * side >= min(tile, longest)]

    def cost(side: int) -> tuple[bool, int, int]:
        down, across = _padded(height, side, halo), _padded(width, side, halo)
        too_large = max(down + across) > tile + 2 * halo
        return too_large, sum(down) * sum(across), -side

    return TileGrid(height, width, min(sides, key=cost), halo)


def _padded(length: int, side: int, halo: int) -> list[int]:
    """How long each padded tile is, along one axis."""
    return [
        min(length, start + side + halo) - max(0, start - halo) for start in range(0, length, side)
    ]


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
    values = np.asarray(overview, dtype=np.float64)
    values = values[np.isfinite(values).all(axis=-1)]
    if values.size == 0:
        return "fluorescence"
    grey = values.mean(axis=-1) if is_rgb else values[:, 0]
    # Symmetric, so that noise alone lies in the middle.
    low, high = (float(level) for level in np.percentile(grey, [0.1, 99.9]))
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
