"""Tissue microarrays: a count in the cores of the array, each a region."""

from __future__ import annotations

from dataclasses import replace

from cellseg.annotations.cores import find_cores
from cellseg.counting.plan import Plan
from cellseg.counting.request import CountRequest
from cellseg.counting.tiles import find_tissue
from cellseg.errors import Notice, SettingsError
from cellseg.network.tissue import TissueFinder, TissueMask
from cellseg.slide import Slide


def by_core(
    slide: Slide, request: CountRequest, plan: Plan
) -> tuple[CountRequest, Plan, TissueMask]:
    """The request and the plan with a region for each core; as they were where there is no grid;
    and the tissue of the whole slide.

    The plan's notes say what was found, or why the whole slide is counted.

    Raises
    ------
    SettingsError
        If the request has regions already.
    """
    if request.regions is not None:
        raise SettingsError("the cores of an array are regions already", hint="region,tma")
    mask = find_tissue(slide, plan, TissueFinder())
    try:
        grid = find_cores(mask.tissue)
    except SettingsError as error:
        said = Notice(f"{error}: the whole slide is counted", hint="tma")
        return request, replace(plan, notes=(*plan.notes, said)), mask
    regions = grid.regions(mask.step * plan.downsample).on(slide.height, slide.width)
    found = replace(plan, regions=regions, notes=(*plan.notes, Notice(str(grid))))
    return replace(request, regions=regions, cores=grid), found, mask
