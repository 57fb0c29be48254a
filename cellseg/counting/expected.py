"""What sizes a count expects of its cells."""

from __future__ import annotations

from cellseg.counting.plan import Plan
from cellseg.counting.request import CountRequest
from cellseg.network.detector import DetectorInfo
from cellseg.table.doubts import Expected


def expected_sizes(plan: Plan, request: CountRequest, info: DetectorInfo) -> Expected:
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
