"""How a result came about: what a run came across, and the record that ``run.json`` keeps."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import cellseg
from cellseg.counting.plan import Plan
from cellseg.counting.request import CountRequest
from cellseg.detect import DetectorInfo
from cellseg.geometry import Tile
from cellseg.intensity.normalise import Normaliser
from cellseg.measure import Scale
from cellseg.measure.summary import Summary
from cellseg.protocol import CountProtocol
from cellseg.results import REGIONS
from cellseg.slide import Slide

RECORDED = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "scikit-image",
    "tifffile",
    "zarr",
    "imagecodecs",
    "pandas",
)

GATED_SHARE, GATED_AT_LEAST = 0.05, 10
"""More outlines than this beyond the protocol's size limits are worth a warning."""


@dataclass(eq=False)
class Tally:
    """What a run came across that its table of cells does not tell.

    Attributes
    ----------
    skipped : int
        Tiles without tissue.
    failures : list of dict
        Box of each tile that did not decode, and why.
    damaged : int
        Blocks beside counted tiles that did not decode.
    limits : Counter
        Tiles in which a limit of the detector was reached, by its name.
    kept, gated, outside : int
        Merged outlines: counted, beyond the size limits, outside of the tissue.
    unmeasured : int
        Cells whose pixels could not be read again.
    """

    skipped: int = 0
    failures: list[dict[str, object]] = field(default_factory=list)
    damaged: int = 0
    limits: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    gated: int = 0
    outside: int = 0
    unmeasured: int = 0

    def tile(self, info: Mapping[str, object]) -> None:
        """What is known of a tile that is done."""
        self.limits.update(str(name) for name in info.get("limits", ()))  # type: ignore[attr-defined]
        self.damaged += int(info.get("damaged", 0) or 0)  # type: ignore[call-overload]

    def failure(self, tile: Tile, error: str) -> None:
        """A tile that did not decode."""
        core = tile.core
        self.failures.append({"box": [core.y0, core.x0, core.y1, core.x1], "error": error[:300]})

    def warnings(self, protocol: CountProtocol, scale: Scale) -> list[str]:
        """What a person should know, one line each."""
        found = [
            f"the limit on {name} was reached in {tiles:,} tiles: cells may be missing there"
            for name, tiles in sorted(self.limits.items())
        ]
        if self.gated > max(GATED_AT_LEAST, GATED_SHARE * (self.gated + self.kept)):
            found.append(self._gated(protocol, scale))
        if self.failures:
            found.append(f"{len(self.failures):,} tiles did not decode and were left out")
        if self.damaged:
            found.append(
                f"{self.damaged:,} damaged blocks beside counted tiles were taken as background"
            )
        if self.unmeasured:
            found.append(
                f"{self.unmeasured:,} cells have no intensities: the slide could not be read "
                "again there"
            )
        return found

    def _gated(self, protocol: CountProtocol, scale: Scale) -> str:
        if scale.mpp is None:
            unit_um2 = (protocol.mpp / scale.downsample) ** 2
            unit, right = "px²", "is --diameter or --mpp missing?"
        else:
            unit_um2, unit, right = 1.0, "µm²", "are the pixel size and the protocol right?"
        low, high = protocol.min_area_um2 / unit_um2, protocol.max_area_um2 / unit_um2
        return (
            f"{self.gated:,} outlines beside {self.kept:,} cells were left out as smaller "
            f"than {low:.3g} or larger than {high:,.0f} {unit}: {right} "
            "--min-area and --max-area set it"
        )


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Everything that a count was made from.

    Attributes
    ----------
    slide : Slide
    plan : Plan
    request : CountRequest
    info : DetectorInfo
    normaliser : Normaliser
    lattice_mpp : float or None
        µm per pixel that the network saw.
    tally : Tally
    tiles : mapping
        More about the tiles, JSON-ready.
    merging : mapping
        Figures of the merge, by name.
    """

    slide: Slide
    plan: Plan
    request: CountRequest
    info: DetectorInfo
    normaliser: Normaliser
    lattice_mpp: float | None
    tally: Tally
    tiles: Mapping[str, object]
    merging: Mapping[str, int]

    def record(self, summary: Summary, warnings: list[str]) -> dict[str, object]:
        """JSON-ready, as ``run.json`` holds it."""
        tally = self.tally
        return {
            "cellseg": cellseg.__version__,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "image": {**self.slide.describe(), "path": str(self.request.image.absolute())},
            "model": {
                "name": self.info.name,
                "checksum": self.info.checksum,
                "classes": list(self.info.classes),
                "object": self.info.object,
                "file": str(self.request.model),
            },
            "protocol": self.plan.protocol.model_dump(mode="json"),
            "settings": self._settings(),
            "pixel_size": {"mpp": self.slide.mpp, "source": self.slide.mpp_source},
            "lattice_mpp": self.lattice_mpp,
            "tiles": {
                "all": len(self.plan.grid),
                "skipped": tally.skipped,
                "failed": tally.failures,
                "limits_reached": dict(tally.limits),
                **self.tiles,
            },
            "summary": {
                **summary.as_dict(),
                "outside_size_gates": tally.gated,
                "outside_tissue": tally.outside,
                **{f"merge_{name}": value for name, value in self.merging.items()},
            },
            "warnings": warnings,
            "versions": {"python": platform.python_version(), **_versions()},
        }

    def _settings(self) -> dict[str, object]:
        request, plan = self.request, self.plan
        return {
            "channels": [self.slide.channels[index] for index in plan.channels],
            "z": request.z,
            "t": request.t,
            "series": request.series,
            "channel": request.channel,
            "diameter_px": request.diameter_px,
            "min_area": request.min_area,
            "max_area": request.max_area,
            "device": self.info.device or request.device,
            "precision": request.precision,
            "batch": request.batch,
            "engine": request.engine,
            "strict": request.strict,
            "export": list(request.export),
            "prefilter": request.prefilter,
            "regions": None if request.regions is None else REGIONS,
            "intensity_low": self.normaliser.low,
            "intensity_high": self.normaliser.high,
            "tile_px": plan.grid.tile,
            "halo_px": plan.grid.halo,
        }


def _versions() -> dict[str, str]:
    found = {}
    for name in RECORDED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
