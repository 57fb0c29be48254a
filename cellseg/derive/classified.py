"""Classes by measurement of a finished count: their record in ``run.json``, and their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cellseg.annotations.region import SEPARATOR
from cellseg.derive.interval import spatial_blocks
from cellseg.derive.markers import classify
from cellseg.derive.markers import named as marker_name
from cellseg.derive.scores import labelling
from cellseg.errors import InputError
from cellseg.protocol import MOST_MARKERS, Marker
from cellseg.table import REGION

NEEDED = ("class", "centroid_y_px", "centroid_x_px", "area_px")
"""Columns beside the measurements themselves."""


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
        Classes of cells without a value.
    earlier : dict of str to str
        Types of classes that were given before: corrections may be older than the thresholds.
    notes : tuple of str
        What a person should know.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    markers: tuple[Marker, ...] = Field(min_length=1, max_length=MOST_MARKERS)
    methods: tuple[str, ...]
    types: tuple[str, ...]
    plain: str
    unmeasured: tuple[str, ...] = ()
    earlier: dict[str, str] = {}
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> Classification | None:
        """Of a finished run; None where cells have no classes by measurement.

        Raises
        ------
        InputError
            If the record is damaged.
        """
        if (found := run.get("classification")) is None:
            return None
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"]))
            raise InputError(
                f"run.json: its classification is damaged: {where}: {fault['msg']}"
            ) from error

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

    def type_of(self, names: Sequence[str]) -> dict[str, str]:
        """Each class's type; a class that a person gave is a type of its own."""
        known = {self.name(one, code): one for one in self.types for code in self.codes}
        return {name: known.get(name, self.earlier.get(name, name)) for name in names}

    def classes(self, table: pd.DataFrame, types: Sequence[str]) -> list[str]:
        """Classes of cells by their measurements.

        Parameters
        ----------
        table : DataFrame, (N, …)
        types : sequence of str, (N,)
        """
        found = classify({m.measure: table[m.measure] for m in self.markers}, self.markers)
        return [
            one if code < 0 else self.name(one, found.names[code])
            for one, code in zip(types, found.codes.tolist(), strict=True)
        ]

    def scores(self, table: pd.DataFrame, mpp: float | None) -> list[dict[str, Any]]:
        """For each marker, how many cells are positive: of all, by type, by region.

        Parameters
        ----------
        table : DataFrame
            :data:`NEEDED`, and :data:`REGION` where there is one.
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
        groups = self._groups(table)
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

    def _groups(self, table: pd.DataFrame) -> dict[tuple[str, str], NDArray[np.bool_]]:
        kinds: dict[str, pd.Series[Any]] = {}
        if len(self.types) > 1:
            types = self.type_of([str(name) for name in table["class"].unique()])
            kinds["types"] = table["class"].map(types)
        found = {
            (kind, str(name)): (column == name).to_numpy(np.bool_)
            for kind, column in kinds.items()
            for name in column.unique()
            if name != ""
        }
        if REGION in table:
            held = table[REGION].reset_index(drop=True).str.split(SEPARATOR).explode()
            for name in held[held != ""].unique():
                found["regions", str(name)] = (held == name).groupby(level=0).any().to_numpy()
        return found
