"""One threshold for all slides of a study."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from cellseg.derive.classes import decided, known_markers
from cellseg.errors import Notice, SettingsError
from cellseg.protocol import Marker
from cellseg.result import Result
from cellseg.run import change
from cellseg.text import visible


def classify_all(
    results: Sequence[Result],
    markers: Sequence[Marker],
    *,
    on_notice: Callable[[Notice], None],
    **decisions: object,
) -> Iterator[Result]:
    """Give the cells of all results classes by the same thresholds.

    Parameters
    ----------
    results : sequence of Result
        At least one.
    markers : sequence of Marker
        A threshold of ``auto`` is found from the cells of all results together.
    **decisions
        Further fields of the recipe; see :func:`cellseg.run.change`.

    Yields
    ------
    Result
        Each anew; those before an error stay classified.

    Raises
    ------
    SettingsError
        If a result has no such measurement, or no threshold can be proposed. No result changes
        then.
    InputError, OutputError
        As of :func:`cellseg.run.change`.
    """
    known = tuple(markers)
    for result in results:
        try:
            known = known_markers(markers, result.table.dtypes)
        except SettingsError as error:
            raise SettingsError(f"{result.path}: {error}", hint=error.hint) from error
    for what, names in _settings(results).items():
        if len(names) > 1:
            said = f"the slides were counted by different {what} ({', '.join(sorted(names))})"
            on_notice(Notice(f"{said}: one threshold may not hold for all"))
    values = {
        marker.measure: np.concatenate(
            [result.table.column(marker.measure).to_numpy(np.float64) for result in results]
        )
        for marker in known
    }
    thresholds, methods, notes = decided(known, (), values)
    if len(results) > 1:
        together = f", in the cells of {len(results):,} slides together"
        methods = tuple(
            method + together * (marker.threshold == "auto")
            for method, marker in zip(methods, known, strict=True)
        )
        for note in notes:
            on_notice(Notice(f"all slides: {note}"))
    for result in results:
        decisions |= {"markers": thresholds, "methods": methods}
        yield change(result.path, on_notice=on_notice, **decisions)


def _settings(results: Sequence[Result]) -> dict[str, set[str]]:
    """Names of the models and of the protocols that counted the slides."""
    return {
        what: {visible(str(result.section(section).get("name"))) for result in results}
        for what, section in (("models", "model"), ("protocols", "protocol"))
    }
