"""Thresholds that all slides of a study have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cellseg.derive.classes import decided, known_markers
from cellseg.errors import Notice, SettingsError
from cellseg.protocol import Marker
from cellseg.result import Result
from cellseg.text import visible


def common_thresholds(
    results: Sequence[Result], markers: Sequence[Marker]
) -> tuple[tuple[Marker, ...], tuple[str, ...], list[Notice]]:
    """Markers with thresholds in numbers, how these came about, and what to know of them.

    A threshold of ``auto`` is found from the cells of all results together. A SettingsError if a
    result has no such measurement, or no threshold can be proposed.
    """
    known = tuple(markers)
    for result in results:
        try:
            known = known_markers(markers, result.table.dtypes)
        except SettingsError as error:
            raise SettingsError(f"{result.path}: {error}", hint=error.hint) from error
    values = {
        marker.measure: np.concatenate(
            [result.table.column(marker.measure).to_numpy(np.float64) for result in results]
        )
        for marker in known
    }
    thresholds, methods, notes = decided(known, (), values)
    together = f", in the cells of {len(results):,} slides together"
    methods = tuple(
        method + together * (marker.threshold == "auto")
        for method, marker in zip(methods, known, strict=True)
    )
    return thresholds, methods, [*_unlike(results), *map(Notice, notes)]


def _unlike(results: Sequence[Result]) -> Iterator[Notice]:
    """That slides were counted by different models or protocols."""
    for section in ("model", "protocol"):
        names = {visible(str(result.section(section).get("name"))) for result in results}
        if len(names) > 1:
            said = f"the slides were counted by different {section}s ({', '.join(sorted(names))})"
            yield Notice(f"{said}: one threshold may not hold for all")
