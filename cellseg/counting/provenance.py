"""How a result came about: the record that ``run.json`` keeps."""

from __future__ import annotations

import platform
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import cellseg
from cellseg.counting.plan import Plan
from cellseg.counting.request import CountRequest
from cellseg.counting.stages import SlideCount
from cellseg.counting.tiles import overview_step
from cellseg.network.detector import DetectorInfo
from cellseg.result.publish import REGIONS
from cellseg.table.doubts import Expected

RECORDED = (
    "torch", "torchvision", "numpy", "scipy", "scikit-image", "shapely", "tifffile", "zarr",
    "imagecodecs", "pandas",
)  # fmt: skip
"""Packages whose versions are recorded."""


def record(count: SlideCount, request: CountRequest) -> dict[str, object]:
    """Everything that a count was made from, ready for JSON.

    Parameters
    ----------
    count : SlideCount
        At its end.
    """
    slide, plan, tally, info = count.slide, count.plan, count.tally, count.detector.info
    return {
        "cellseg": cellseg.__version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "image": {**slide.describe(), "path": str(request.image.absolute())},
        "model": {
            "name": info.name,
            "checksum": info.checksum,
            "classes": list(info.classes),
            "object": info.object,
            "file": str(request.model),
        },
        "protocol": plan.protocol.model_dump(mode="json"),
        "settings": _settings(count, request),
        "pixel_size": {"mpp": slide.mpp, "source": slide.mpp_source},
        "lattice_mpp": count.cells.scale.lattice_mpp,
        "tiles": {
            "all": len(plan.grid),
            "skipped": tally.skipped,
            "failed": tally.failures,
            "limits_reached": dict(tally.limits),
            "skipped_area_share": count.skipped_share,
            "overview_step_px": overview_step(plan),
        },
        "expected_sizes": _expected_sizes(plan, request, info).as_dict(),
        "versions": {"python": platform.python_version(), **_versions()},
    }


_ASKED = (
    "z", "t", "series", "channel", "diameter_px", "min_area", "max_area", "precision", "batch",
    "engine", "strict", "prefilter",
)  # fmt: skip
"""Settings of the request that are recorded as they were asked for."""


def _settings(count: SlideCount, request: CountRequest) -> dict[str, object]:
    plan, normaliser = count.plan, count.source.normaliser
    return {
        **{name: getattr(request, name) for name in _ASKED},
        "channels": [count.slide.channels[index] for index in plan.channels],
        "device": count.mapper.device or request.device,
        "export": list(request.export),
        "regions": None if request.regions is None else REGIONS,
        "intensity_low": normaliser.low,
        "intensity_high": normaliser.high,
        "dyes": None if count.dyes is None else asdict(count.dyes),
        "tile_px": plan.grid.tile,
        "halo_px": plan.grid.halo,
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in RECORDED:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _expected_sizes(plan: Plan, request: CountRequest, info: DetectorInfo) -> Expected:
    """Size limits and the usual object of a run, in level-0 pixels."""
    gate = plan.protocol
    # Without a pixel size the lattice's pixels are taken to have the protocol's.
    pixel_um2 = (plan.mpp or gate.mpp / plan.downsample) ** 2
    return Expected(
        limits_px=(gate.min_area_um2 / pixel_um2, gate.max_area_um2 / pixel_um2),
        usual_px=_usual_px(plan, request, info),
        mpp=plan.mpp,
        own_model=str(request.model) != "default",
    )


def _usual_px(plan: Plan, request: CountRequest, info: DetectorInfo) -> float | None:
    """The usual object's diameter, where the user or the model says it."""
    if request.diameter_px is not None or info.diameter_px is None:
        return request.diameter_px
    if plan.mpp is None:
        return info.diameter_px * plan.downsample
    # A model for many scales saw objects of that size in pixels, of many sizes in µm.
    return None if info.mpp is None else info.diameter_px * info.mpp / plan.mpp
