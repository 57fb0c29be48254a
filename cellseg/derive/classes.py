"""Classes by measurement: thresholds give them, and scores say how many cells are positive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cellseg.annotations.region import SEPARATOR
from cellseg.derive.auto import propose
from cellseg.derive.interval import spatial_blocks
from cellseg.derive.markers import classify, measurement
from cellseg.derive.markers import named as marker_name
from cellseg.derive.scores import labelling
from cellseg.errors import SettingsError
from cellseg.protocol import MOST_MARKERS, Marker
from cellseg.result.files import validated
from cellseg.table import REGION

NEEDED = ("centroid_y_px", "centroid_x_px", "area_px")
"""Columns that scores need beside the measurements themselves."""

GIVEN = "given"
"""The method of a threshold that a person gave."""


class Classification(BaseModel):
    """How cells got their classes, as ``classification`` of ``run.json`` says it.

    Attributes
    ----------
    markers : tuple of Marker
        Thresholds in numbers.
    methods : tuple of str
        How each marker's thresholds came about.
    types : tuple of str
        Classes by the model, which those by measurement refine.
    plain : str
        The type that is not named in a cell's class: what the model outlines.
    unmeasured : tuple of str
        Classes of cells without a value, and classes that a person gave.
    notes : tuple of str
        What a person should know.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    markers: tuple[Marker, ...] = Field(min_length=1, max_length=MOST_MARKERS)
    methods: tuple[str, ...]
    types: tuple[str, ...]
    plain: str
    unmeasured: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> Classification | None:
        """The record of a finished run; None where cells have no classes by measurement.

        Raises
        ------
        InputError
            If the record is damaged.
        """
        if (found := run.get("classification")) is None:
            return None
        return validated(cls, found, "run.json: its classification")

    @property
    def codes(self) -> tuple[str, ...]:
        """Names of the classes by measurement."""
        return classify({marker.measure: [] for marker in self.markers}, self.markers).names

    @property
    def names(self) -> list[str]:
        """Every class that the table may hold, type by type."""
        return [*(self.name(one, code) for one in self.types for code in self.codes),
                *self.unmeasured]  # fmt: skip

    def name(self, one: str, code: str) -> str:
        """A type and a class by measurement as one class."""
        return code if one == self.plain else f"{one}: {code}"

    def type_of(self, name: str) -> str:
        """The model's type of a class; a class that a person gave is a type of its own."""
        known = {self.name(one, code): one for one in self.types for code in self.codes}
        return known.get(name, name)

    def classes(
        self,
        values: Mapping[str, Any],
        types: NDArray[np.object_],
        by_hand: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.object_]:
        """Classes of cells by their measurements.

        Parameters
        ----------
        values : mapping of array_like, (N,)
            By the marker's measurement.
        types : ndarray of str, (N,)
            Classes by the model, or by a person.
        by_hand : ndarray of bool, (N,), optional
            Cells whose class a person gave: it stays.
        """
        found = classify({m.measure: values[m.measure] for m in self.markers}, self.markers)
        classed = np.asarray(found.codes) >= 0
        if by_hand is not None:
            classed &= ~by_hand
        names = types.copy()
        for one in np.unique(types[classed].astype(str)):
            mine = classed & (types == one)
            codes = np.array([self.name(str(one), code) for code in found.names], dtype=object)
            names[mine] = codes[found.codes[mine]]
        return names

    def scores(
        self, table: pd.DataFrame, types: NDArray[np.object_], mpp: float | None
    ) -> list[dict[str, Any]]:
        """For each marker, how many cells are positive: of all, by type, by region.

        Parameters
        ----------
        table : DataFrame, (N, …)
            ``class``, :data:`NEEDED`, and :data:`REGION` where there is one.
        types : ndarray of str, (N,)
            Classes by the model.
        mpp : float or None
            µm per pixel at level 0.

        Returns
        -------
        list of dict
            Ready for JSON; a marker each.
        """
        places = table[["centroid_y_px", "centroid_x_px"]].to_numpy(np.float64)
        usual = float(np.sqrt(np.median(table["area_px"]) * 4 / np.pi)) if len(table) else 0.0
        blocks = spatial_blocks(places, mpp=mpp, usual_px=usual)
        found = self._codes(table["class"])
        groups = self._groups(table, types)
        scored = []
        for number, marker in enumerate(self.markers):
            grades, most = self._grades(found, number)
            whole, parts = labelling(grades, most, blocks, groups)
            limits = np.atleast_1d(np.asarray(marker.threshold, np.float64)).tolist()
            scored.append(
                {
                    "name": marker_name(marker),
                    "measure": marker.measure,
                    "thresholds": limits,
                    "method": self.methods[number],
                    **whole.as_dict(),
                    "unmeasured": int((grades < 0).sum()),
                    "blocks": blocks.number,
                    "block_um" if mpp else "block_px": round(blocks.side_px * (mpp or 1), 1),
                    **{
                        kind: {
                            name: parts[kind, name].as_dict() for of, name in parts if of == kind
                        }
                        for kind in ("types", "regions")
                    },
                }
            )
        return scored

    def _codes(self, classes: pd.Series[Any]) -> NDArray[np.int64]:
        """Place of each cell's class by measurement; -1 for others, as a person may give."""
        places = {
            self.name(one, code): place
            for one in self.types
            for place, code in enumerate(self.codes)
        }
        return np.asarray(classes.map(places).fillna(-1), dtype=np.int64)

    def _grades(self, codes: NDArray[np.int64], number: int) -> tuple[NDArray[np.int64], int]:
        shape = [4 if isinstance(marker.threshold, tuple) else 2 for marker in self.markers]
        grades = np.array(list(product(*map(range, shape))), np.int64)[:, number]
        return np.where(codes < 0, np.int64(-1), grades[codes]).astype(np.int64), shape[number]

    def _groups(
        self, table: pd.DataFrame, types: NDArray[np.object_]
    ) -> dict[tuple[str, str], NDArray[np.bool_]]:
        found: dict[tuple[str, str], NDArray[np.bool_]] = {}
        if len(self.types) > 1:
            for name in pd.unique(types):
                found["types", str(name)] = (types == name).astype(np.bool_)
        if REGION in table:
            held = table[REGION].reset_index(drop=True).str.split(SEPARATOR).explode()
            for name in held[held != ""].unique():
                found["regions", str(name)] = (held == name).groupby(level=0).any().to_numpy()
        return found


def decided(
    markers: Sequence[Marker],
    methods: Sequence[str],
    values: Mapping[str, NDArray[np.float64]],
) -> tuple[tuple[Marker, ...], tuple[str, ...], list[str]]:
    """Markers with their thresholds in numbers, how these came about, and what to know of them.

    Parameters
    ----------
    markers : sequence of Marker
        ``measure`` is a column's name; a threshold of ``auto`` is found from the histogram.
    methods : sequence of str
        Of markers that were decided before; may be empty.
    values : mapping of ndarray, (N,)
        By the marker's measurement.

    Raises
    ------
    SettingsError
        If no threshold can be proposed, or two markers have one name.
    """
    names = {marker_name(marker) for marker in markers}
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
                f"{marker_name(marker)}: threshold {found.threshold:g}, {method}; the means are "
                f"{found.means[0]:.3g} and {found.means[1]:.3g}"
            )
        notes += _beyond(marker, values[marker.measure])
        made.append(marker)
        how.append(method)
    return tuple(made), tuple(how), notes


def known_markers(markers: Sequence[Marker], dtypes: Mapping[str, str]) -> tuple[Marker, ...]:
    """Markers whose ``measure`` is a column's full name.

    Parameters
    ----------
    dtypes : mapping of str
        The columns that can be measured by.

    Raises
    ------
    SettingsError
        If there is no such measurement.
    """
    return tuple(
        marker.model_copy(update={"measure": measurement(marker.measure, dtypes)})
        for marker in markers
    )


def _beyond(marker: Marker, values: NDArray[np.float64]) -> Iterator[str]:
    """Thresholds that separate nothing, and cells without a value: said, and counted."""
    known = values[np.isfinite(values)]
    if known.size < values.size:
        yield (
            f"{values.size - known.size:,} of {values.size:,} cells have no {marker.measure}: "
            "they keep the class that the model gave them"
        )
    for limit in np.atleast_1d(np.asarray(marker.threshold, np.float64)).tolist():
        if known.size and not known.min() < limit <= known.max():
            side = "above all" if limit > known.max() else "below all"
            yield (
                f"the threshold {limit:g} lies {side} of the {known.size:,} values of "
                f"{marker.measure} ({known.min():.4g} … {known.max():.4g})"
            )
