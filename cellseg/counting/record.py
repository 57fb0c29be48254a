"""From a count's steps to the result folder: what is kept while it goes on, what is found."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from numpy.typing import NDArray

import cellseg
from cellseg.annotations.region import tissue_outline
from cellseg.counting.choice import model_for
from cellseg.counting.plan import Plan
from cellseg.counting.request import CountRequest
from cellseg.counting.stages import SlideCount, Step
from cellseg.counting.tiles import overview_step, packed_units
from cellseg.errors import Notice
from cellseg.network.detector import DetectorInfo
from cellseg.protocol import SHIPPED_MODELS
from cellseg.result import Change, Result, ResultFolder
from cellseg.result.folder import Findings
from cellseg.result.publish import REGIONS
from cellseg.slide.formats import image_name
from cellseg.stain.quality import (
    BUBBLE,
    FIELDS,
    FOLDED,
    LEAST_CONTRAST,
    OUT_OF_FOCUS,
    PEN,
    UNIT_PX,
    UNKNOWN,
    judged,
)
from cellseg.storage import content_mark
from cellseg.table.doubts import Expected, SlideQuality
from cellseg.text import visible

RECORDED = (
    "torch", "torchvision", "numpy", "scipy", "scikit-image", "shapely", "tifffile", "zarr",
    "imagecodecs", "openvino", "pandas",
)  # fmt: skip
"""Packages whose versions are recorded."""

_SAMPLES = 4
"""Places along a side of a unit of quality that are asked for tissue."""


class Recording:
    """Keeps a count's tiles and cells as they come, and leaves what was found.

    The journal of the open ``folder`` holds what an interrupted run found.
    """

    def __init__(self, folder: ResultFolder, count: SlideCount, request: CountRequest) -> None:
        self.folder, self.count, self.request = folder, count, request

    def steps(self) -> Generator[Step, None, None]:
        """The count's steps, each kept before it is handed on."""
        with closing(self.count.steps(self.folder.journal)) as steps:
            for step in steps:
                self._keep(step)
                yield step

    def _keep(self, step: Step) -> None:
        new = [(cells.table, cells.instances) for cells in step.cells if cells.is_new]
        found = step.found
        if found is None or found.units is None or not step.is_new:
            for table, instances in new:
                self.folder.journal.add_cells(table, instances)
            return
        tile, quality = found.tile, packed_units(found.units)
        info = {"limits": found.limits, "damaged": len(found.damaged), "quality": quality}
        info["unlike"] = found.unlike
        self.folder.journal.tile_done(tile.row, tile.column, found.instances, info=info, cells=new)

    def finish(self, complete: Callable[[Change], None], *, started: float) -> Result:
        """Write everything; ``complete`` gets what was found, and adds what follows from it.

        The run began at ``started``, by ``time.monotonic()``, without the time that loading took.
        """
        count, info, writing = self.count, self.count.detector.info, time.monotonic()
        codes, quality = judge_slide(count)
        left_out = 0
        if count.plan.skip_bad:
            left_out = self.folder.journal.leave_out(codes >= OUT_OF_FOCUS, UNIT_PX)

        def completed(change: Change) -> None:
            complete(change)
            now = time.monotonic()
            stages = {**count.seconds, "write": now - writing, "total": now - started}
            change.run["seconds"] = {name: round(took, 3) for name, took in stages.items()}

        findings = Findings(
            frame=count.frame,
            columns=count.cells.columns,
            class_names=info.classes,
            object_name=info.object,
            image_name=visible(image_name(count.slide.path)),
            facts=self._facts(quality, left_out),
            record={**provenance(count, self.request), "quality": asdict(quality)},
            quality=codes,
            tissue=_outline(count) if count.plan.prefilter else None,
            regions=self.request.regions,
            is_complete=not count.tally.failures,
        )
        return self.folder.finish(findings, completed)

    def _facts(self, quality: SlideQuality, left_out: int) -> dict[str, object]:
        """What of the count no later change alters."""
        count, tally = self.count, self.count.tally
        calibration = count.plan.protocol.calibration
        tissue_mm2, in_regions = count.tissue_mm2()
        warnings, doubts = count.warnings(), [*count.doubts(), *quality.doubts()]
        if quality.left_out:
            warnings.append(quality.said_of_left_out())
        return {
            "tissue_mm2": tissue_mm2,
            "tissue_mm2_in_regions": in_regions,
            "skipped_share": count.skipped_share if count.plan.prefilter else None,
            "interval": calibration.interval if calibration else None,
            "warnings": warnings,
            "hints": {str(one): one.hint for one in warnings + doubts if isinstance(one, Notice)},
            "is_doubted": bool(count.wanted),
            "doubts": doubts,
            "counted": {
                "outside_size_gates": tally.gated,
                "saturated_share": tally.at_limit / tally.pixels if tally.pixels else None,
                "outside_tissue": tally.outside,
                "like_background": tally.background,
                "in_bad_tissue": left_out,
                **{f"merge_{name}": value for name, value in vars(count.merger.stats).items()},
            },
        }


def judge_slide(count: SlideCount) -> tuple[NDArray[np.uint8], SlideQuality]:
    """What is wrong where on a slide, by the units of its tiles' cores, once all of them came.

    Codes, (R, C), are as of :func:`cellseg.stain.quality.judged`; unknown without tissue. Where
    what is wrong is to be left out, the count's tissue is from then on that without it.
    """
    plan, mask = count.plan, count.tissue
    rows, columns = (-(-side // UNIT_PX) for side in (plan.grid.height, plan.grid.width))
    light, units = plan.protocol.light, np.zeros((rows, columns, FIELDS), np.float16)
    for tile, part in count.units.items():
        y, x = tile.core.y0 // UNIT_PX, tile.core.x0 // UNIT_PX
        units[y : y + len(part), x : x + part.shape[1]] = part
    side = UNIT_PX / _SAMPLES
    fine = np.ix_(*(
        np.minimum((np.arange(n * _SAMPLES) + 0.5) * side // mask.step, most - 1).astype(int)
        for n, most in zip((rows, columns), mask.tissue.shape, strict=True)
    ))  # fmt: skip
    places = mask.tissue[fine].reshape(rows, _SAMPLES, columns, _SAMPLES)
    tissue: NDArray[np.bool_] = np.asarray(places.any(axis=(1, 3)) & units.any(axis=2))
    if not plan.prefilter:
        tissue &= units[..., 1] >= LEAST_CONTRAST
    codes = judged(units, tissue, plan.pixel_um, light)
    codes[~tissue] = UNKNOWN
    at = np.ix_(*(
        np.minimum((np.arange(n) + 0.5) * mask.step // UNIT_PX, most - 1).astype(int)
        for n, most in zip(mask.tissue.shape, (rows, columns), strict=True)
    ))  # fmt: skip
    all_of_it = mask.tissue if plan.prefilter else tissue[at]
    whole = replace(mask, tissue=all_of_it).area_px() or 1.0

    def share(code: int) -> float:
        part = replace(mask, tissue=all_of_it & (codes[at] == code)).area_px() / whole
        return round(min(part, 1.0), 6)

    is_stained = light == "transmitted"
    shares = SlideQuality(
        out_of_focus=share(OUT_OF_FOCUS),
        folded=share(FOLDED) if is_stained else None,
        pen=share(PEN) if is_stained else None,
        bubbles=share(BUBBLE) if is_stained else None,
        unknown_focus=share(UNKNOWN),
        left_out=plan.skip_bad,
    )
    if plan.skip_bad:
        count.tissue = replace(mask, tissue=mask.tissue & (codes[at] < OUT_OF_FOCUS))
    return codes, shares


def _outline(count: SlideCount) -> dict[str, object] | None:
    tissue, within = count.tissue, (count.slide.height, count.slide.width)
    step = tissue.step * count.plan.downsample
    return tissue_outline(tissue.tissue & tissue.search, downsample=step, within=within)


def provenance(count: SlideCount, request: CountRequest) -> dict[str, object]:
    """Everything that a count at its end was made from, ready for JSON."""
    slide, plan, tally, info = count.slide, count.plan, count.tally, count.detector.info
    return {
        "cellseg": cellseg.__version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "image": {
            **slide.describe(),
            "path": str(request.image.absolute()),
            "content": content_mark(request.image),
        },
        "model": {
            "name": info.name,
            "checksum": info.checksum,
            "classes": list(info.classes),
            "object": info.object,
            "file": str(model_for(request.model, plan.protocol)),
        },
        "protocol": plan.protocol.model_dump(mode="json"),
        "settings": _settings(count, request),
        "array": None if request.cores is None else request.cores.as_dict(),
        "pixel_size": {"mpp": slide.mpp, "source": slide.mpp_source},
        "lattice_mpp": count.frame.lattice_mpp,
        "tiles": {
            "all": len(plan.grid),
            "skipped": tally.skipped,
            "failed": tally.failures,
            "limits_reached": dict(tally.limits),
            "skipped_area_share": count.skipped_share,
            "overview_step_px": overview_step(plan),
        },
        "expected_sizes": asdict(_expected_sizes(plan, request, info)),
        "versions": {"python": platform.python_version(), **_versions()},
    }


_ASKED = (
    "z", "t", "series", "channel", "diameter_px", "min_area", "max_area", "precision",
    "engine", "strict", "prefilter", "tma", "skip_bad",
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
        "inference": plan.inference,
        "tile_px": list(plan.grid.core),
        "halo_px": plan.grid.halo,
    }


@cache
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
        own_model=str(request.model) not in SHIPPED_MODELS,
    )


def _usual_px(plan: Plan, request: CountRequest, info: DetectorInfo) -> float | None:
    """The usual object's diameter, where the user or the model says it."""
    if request.diameter_px is not None:
        return request.diameter_px
    if (usual_um := plan.protocol.usual_um) is not None:
        return usual_um / (plan.mpp or plan.protocol.mpp / plan.downsample)
    if info.diameter_px is None:
        return None
    if plan.mpp is None:
        return info.diameter_px * plan.downsample
    # A model for many scales saw objects of that size in pixels, of many sizes in µm.
    return None if info.mpp is None else info.diameter_px * info.mpp / plan.mpp
