"""Classes by measurement: thresholds give them, and scores say how many cells are positive."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from cellseg.annotations.region import SEPARATOR
from cellseg.derive.scores import labelling, spatial_blocks
from cellseg.derive.threshold import propose
from cellseg.errors import Notice, SettingsError
from cellseg.protocol import MOST_MARKERS, Marker
from cellseg.result import Result
from cellseg.result.files import validated
from cellseg.table import REGION
from cellseg.text import visible

NEEDED = ("centroid_y_px", "centroid_x_px", "area_px")
"""Columns that scores need beside the measurements themselves."""

NEARBY = (0.8, 1.25)
"""Times a threshold: the indices there say how much hangs on the threshold itself."""

NEAR_MISS, MOST_NAMED = 0.8, 8
"""Likeness from which another name is taken for the one that was meant."""

UNMEASURED = -1
"""Code of a cell without a value: it keeps the class that the model gave it."""

GIVEN = "given"
"""The method of a threshold that a person gave."""

_POSITIVE, _GRADED = ("negative", "positive"), ("negative", "1+", "2+", "3+")
_SIGNS = {"negative": "-", "positive": "+"}
_AFFIXES = re.compile("^((nucleus|cytoplasm|cell)_)?(intensity_(mean|std|min|max)_)?|(_od)?_mean$")


def classify(
    table: Mapping[str, ArrayLike] | pd.DataFrame, markers: Sequence[Marker]
) -> tuple[NDArray[np.int16], tuple[str, ...]]:
    """Give each cell a class by markers whose thresholds are numbers.

    ``table`` holds each marker's ``measure``, (N,). Returned are codes, int16, (N,), and the names
    of :func:`classes_of`. A code is a place in the names; -1 where a measurement is missing.
    """
    values = [np.asarray(table[marker.measure], np.float64) for marker in markers]
    # A value at the threshold is positive.
    each = [
        np.searchsorted(limits_of(m), v, side="right") for m, v in zip(markers, values, strict=True)
    ]
    found = np.ravel_multi_index(each, [len(_words(marker)) for marker in markers])
    is_measured = np.isfinite(values).all(axis=0)
    return np.where(is_measured, found, UNMEASURED).astype(np.int16), classes_of(markers)


def classes_of(markers: Sequence[Marker]) -> tuple[str, ...]:
    """Names of the classes that markers give.

    One marker gives ``negative`` and ``positive``, or ``negative``, ``1+``, ``2+``, ``3+``; several
    give combinations, as ``CD3+ CD8-`` or ``CD3 2+ CD8-``.
    """
    if len(markers) == 1:
        return _words(markers[0])
    parts = [
        [f"{named(marker)}{_SIGNS.get(word, f' {word}')}" for word in _words(marker)]
        for marker in markers
    ]
    return tuple(" ".join(combination) for combination in product(*parts))


def named(marker: Marker) -> str:
    """What a marker is called: as given, else by its measurement.

    >>> named(Marker(measure="intensity_mean_cd3", threshold=400))
    'cd3'
    >>> named(Marker(measure="dab_od_mean", threshold=0.2))
    'DAB'
    """
    short = _AFFIXES.sub("", marker.measure) or marker.measure
    return marker.name or ("DAB" if short == "dab" else short)


def measurement(name: str, dtypes: Mapping[str, str]) -> str:
    """The column that a measurement's name means, in which ``nucleus_`` may be left out or added.

    The SettingsError for another name says which measurements there are.
    """
    numbers = [
        column
        for column, dtype in dtypes.items()
        if dtype.startswith(("float", "int"))
        and not column.startswith(("label", "centroid_", "bbox_"))
    ]
    for candidate in (name, name.removeprefix("nucleus_"), f"nucleus_{name}"):
        if candidate in numbers:
            return candidate
    # What someone most probably looks for comes first, and a person can read the line.
    numbers.sort(key=lambda column: not column.endswith("_od_mean") and "_mean_" not in column)
    why = "holds no measured numbers" if name in dtypes else "is no measurement of this result"
    part = name.partition("_")[0]
    if part in ("cell", "cytoplasm") and not any(one.startswith(f"{part}_") for one in numbers):
        said = f"{name!r} {why}: what begins with {part}_ is measured once nuclei were expanded"
        raise SettingsError(said, hint="expand")
    known = {column.lower(): column for column in numbers}
    close = get_close_matches(name.lower(), known, 1, NEAR_MISS)
    if near := close or [column for column in known if name.lower() in column]:
        raise SettingsError(f"{name!r} {why}; is {known[near[0]]} meant?")
    more = ""
    if "dab" in name.lower() and not any("dab_od" in column for column in numbers):
        more = "; DAB is measured by the protocol ihc"
    there = ", ".join(numbers[:MOST_NAMED]) + ", …" * (len(numbers) > MOST_NAMED)
    raise SettingsError(f"{name!r} {why}{more}; there are: {there}")


def known_markers(markers: Sequence[Marker], dtypes: Mapping[str, str]) -> tuple[Marker, ...]:
    """Markers whose ``measure`` is a column's full name; see :func:`measurement`."""
    return tuple(
        marker.model_copy(update={"measure": measurement(marker.measure, dtypes)})
        for marker in markers
    )


def decided(
    markers: Sequence[Marker], methods: Sequence[str], values: Mapping[str, NDArray[np.float64]]
) -> tuple[tuple[Marker, ...], tuple[str, ...], list[str]]:
    """Markers with their thresholds in numbers, how these came about, and what to know of them.

    A threshold of ``auto`` is found from the histogram of the measurement's ``values``, (N,).
    ``methods`` are those of markers that were decided before; there may be none.
    """
    names = {named(marker) for marker in markers}
    if len(names) < len(markers):
        raise SettingsError(f"two markers have one name, {sorted(names)}: name them apart")
    made, how, notes = [], [], []
    for number, marker in enumerate(markers):
        method = methods[number] if number < len(methods) else GIVEN
        if marker.threshold == "auto":
            found = propose(values[marker.measure], marker.measure)
            method = found.method
            marker = marker.model_copy(update={"threshold": found.threshold})
            notes.append(
                f"{named(marker)}: threshold {found.threshold:g}, {method}; the means are "
                f"{found.means[0]:.3g} and {found.means[1]:.3g}"
            )
        notes += _beyond(marker, values[marker.measure])
        made.append(marker)
        how.append(method)
    return tuple(made), tuple(how), notes


def _beyond(marker: Marker, values: NDArray[np.float64]) -> Iterator[str]:
    """Thresholds that separate nothing, and cells without a value: said, and counted."""
    known = values[np.isfinite(values)]
    if known.size < values.size:
        yield (
            f"{values.size - known.size:,} of {values.size:,} cells have no {marker.measure}: "
            "they keep the class that the model gave them"
        )
    for limit in limits_of(marker):
        if known.size and not known.min() < limit <= known.max():
            side = "above all" if limit > known.max() else "below all"
            yield (
                f"the threshold {limit:g} lies {side} of the {known.size:,} values of "
                f"{marker.measure} ({known.min():.4g} … {known.max():.4g})"
            )


def indices_nearby(marker: Marker, values: NDArray[np.float64]) -> list[float] | None:
    """Labelling indices, 0 … 1, at :data:`NEARBY` times a marker's lowest threshold.

    None without values, and for a threshold that is not above 0.
    """
    known, threshold = values[np.isfinite(values)], limits_of(marker)[0]
    if not known.size or threshold <= 0:
        return None
    return [float((known >= times * threshold).mean()) for times in NEARBY]


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
    unlike = []
    for section in ("model", "protocol"):
        names = {visible(str(result.section(section).get("name"))) for result in results}
        if len(names) > 1:
            said = f"the slides were counted by different {section}s ({', '.join(sorted(names))})"
            unlike.append(Notice(f"{said}: one threshold may not hold for all"))
    return thresholds, methods, [*unlike, *map(Notice, notes)]


class Classification(BaseModel):
    """How cells got their classes, as ``classification`` of ``run.json`` says it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    # Thresholds in numbers.
    markers: tuple[Marker, ...] = Field(min_length=1, max_length=MOST_MARKERS)
    methods: tuple[str, ...]  # How each marker's thresholds came about.
    types: tuple[str, ...]  # Classes by the model, which those by measurement refine.
    plain: str  # The type that is not named in a cell's class: what the model outlines.
    unmeasured: tuple[str, ...] = ()  # Classes of cells without a value, or given by a person.
    notes: tuple[str, ...] = ()  # What a person should know.

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> Classification | None:
        """The record of a finished run; None where cells have no classes by measurement."""
        found = run.get("classification")
        return None if found is None else validated(cls, found, "run.json: its classification")

    @cached_property
    def _places(self) -> dict[str, tuple[str, int]]:
        """The type, and the place of the class by measurement, of each class's name."""
        return {
            code if one == self.plain else f"{one}: {code}": (one, place)
            for one in self.types
            for place, code in enumerate(classes_of(self.markers))
        }

    @property
    def names(self) -> list[str]:
        """Every class that the table may hold, type by type."""
        return [*self._places, *self.unmeasured]

    def codes(self, classes: NDArray[np.object_]) -> NDArray[np.int64]:
        """Place of each cell's class among those by measurement; -1 of one that a person gave."""
        found, names = pd.factorize(classes)
        places = [self._places.get(name, (name, UNMEASURED))[1] for name in names]
        return np.array([*places, UNMEASURED], np.int64)[found]

    def grades(self, classes: NDArray[np.object_], number: int = 0) -> NDArray[np.int64]:
        """Grade of each cell by a marker, 0 for negative; -1 of one that a person gave."""
        codes, shape = self.codes(classes), [len(_words(marker)) for marker in self.markers]
        found = np.unravel_index(np.maximum(codes, 0), shape)[number]
        return np.where(codes == UNMEASURED, UNMEASURED, found)

    def type_of(self, name: str) -> str:
        """The model's type of a class; a class that a person gave is a type of its own."""
        return self._places.get(name, (name, UNMEASURED))[0]

    def classes(
        self,
        values: Mapping[str, Any] | pd.DataFrame,
        types: NDArray[np.object_],
        by_hand: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.object_]:
        """Classes of cells by their measurements, a column of ``values`` each, (N,).

        ``types`` are their classes by the model, or by a person; those ``by_hand`` stay.
        """
        codes, words = classify(values, self.markers)
        classed = codes != UNMEASURED
        if by_hand is not None:
            classed &= ~by_hand
        names = types.copy()
        for one in pd.unique(types[classed]):
            mine = classed & (types == one)
            of_type = [code if one == self.plain else f"{one}: {code}" for code in words]
            names[mine] = np.array(of_type, dtype=object)[codes[mine]]
        return names

    def scores(
        self, table: pd.DataFrame, types: NDArray[np.object_], mpp: float | None
    ) -> list[dict[str, Any]]:
        """For each marker, how many cells are positive: of all, by type, by region; for JSON.

        The table has ``class``, :data:`NEEDED`, and :data:`REGION` where there is one; ``types``
        are the classes by the model, (N,).
        """
        centres = table[["centroid_y_px", "centroid_x_px"]].to_numpy(np.float64)
        blocks = spatial_blocks(centres, table["area_px"].to_numpy(), mpp=mpp)
        classes, groups = table["class"].to_numpy(dtype=object), self._groups(table, types)
        scored = []
        for number, marker in enumerate(self.markers):
            found, words = self.grades(classes, number), len(_words(marker))
            parts: dict[str, dict[str, Any]] = {"types": {}, "regions": {}}
            for (kind, name), inside in groups.items():
                held = np.where(inside, found, UNMEASURED)
                parts[kind][name] = labelling(held, words, blocks)
            scored.append(
                {
                    "name": named(marker),
                    "measure": marker.measure,
                    "thresholds": limits_of(marker),
                    "method": self.methods[number],
                    **labelling(found, words, blocks),
                    "unmeasured": int((found == UNMEASURED).sum()),
                    "blocks": blocks.number,
                    "block_um" if mpp else "block_px": round(blocks.side_px * (mpp or 1), 1),
                    **parts,
                }
            )
        return scored

    def _groups(
        self, table: pd.DataFrame, types: NDArray[np.object_]
    ) -> dict[tuple[str, str], NDArray[np.bool_]]:
        """Cells of each type, and of each region."""
        found: dict[tuple[str, str], NDArray[np.bool_]] = {}
        if len(self.types) > 1:
            for name in pd.unique(types):
                found["types", str(name)] = (types == name).astype(np.bool_)
        if REGION in table:
            held = table[REGION].reset_index(drop=True).astype(str).str.split(SEPARATOR).explode()
            for name in held[held != ""].unique():
                found["regions", str(name)] = (held == name).groupby(level=0).any().to_numpy()
        return found


def limits_of(marker: Marker) -> list[float]:
    """Its one or three thresholds, which are numbers, ascending."""
    limits: list[float] = np.atleast_1d(np.asarray(marker.threshold, np.float64)).tolist()
    return limits


def _words(marker: Marker) -> tuple[str, ...]:
    return _GRADED if isinstance(marker.threshold, tuple) else _POSITIVE
