"""What a finished run knows beside its cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cellseg.annotations.region import Regions
from cellseg.draw.outlined import Ground
from cellseg.draw.overview import Overview
from cellseg.geometry import Frame
from cellseg.result.table import TableColumn


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """What a finished run knows beside its cells.

    Attributes
    ----------
    columns : sequence of TableColumn
        The contract of ``cells.csv``, in order.
    object_name : str
        ``nucleus`` or ``cell``.
    image_name : str
        Of the slide's file, for the column ``image``.
    provenance : mapping, or callable that returns one
        Goes into ``run.json``: versions, weights, settings, tiles, limits, time per stage. A
        callable is asked when everything else is written.
    overview : Overview or None
        None: no ``overview.png``.
    ground : Ground or None
        None: no ``outlines.png``.
    tissue : mapping or None
        GeoJSON; None: no ``tissue.geojson``.
    regions : Regions or None
        What was counted in, as drawn; None: no ``regions.geojson``.
    complete : bool
        False where tiles failed.
    """

    frame: Frame
    columns: Sequence[TableColumn]
    class_names: Sequence[str]
    object_name: str
    provenance: Mapping[str, object] | Callable[[], Mapping[str, object]]
    overview: Overview | None = None
    ground: Ground | None = None
    tissue: Mapping[str, object] | None = None
    regions: Regions | None = None
    complete: bool = True
    image_name: str = ""
