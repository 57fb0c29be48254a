"""How a result came about: the record that ``run.json`` keeps."""

from __future__ import annotations

import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import cellseg
from cellseg.counting.request import CountRequest
from cellseg.counting.stages import SlideCount
from cellseg.counting.tiles import overview_step
from cellseg.result.publish import REGIONS

RECORDED = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "scikit-image",
    "shapely",
    "tifffile",
    "zarr",
    "imagecodecs",
    "pandas",
)


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
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _settings(count: SlideCount, request: CountRequest) -> dict[str, object]:
    plan, normaliser = count.plan, count.source.normaliser
    return {
        "channels": [count.slide.channels[index] for index in plan.channels],
        "z": request.z,
        "t": request.t,
        "series": request.series,
        "channel": request.channel,
        "diameter_px": request.diameter_px,
        "min_area": request.min_area,
        "max_area": request.max_area,
        "device": count.mapper.device or request.device,
        "precision": request.precision,
        "batch": request.batch,
        "engine": request.engine,
        "strict": request.strict,
        "export": list(request.export),
        "prefilter": request.prefilter,
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
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
