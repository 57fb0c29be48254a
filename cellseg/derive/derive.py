"""From what was found and what people decided to everything else, in one pass.

    edits → expand → spatial → classes → nearest of each class → summary → files

Edits make another ``measured.parquet`` (:mod:`cellseg.derive.corrections`); the steps after them
are here. A step whose part of the recipe did not change takes its columns from
``derived.parquet``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.derive.classes import NEEDED, Classification, decided, known_markers
from cellseg.derive.expand import Columns, expanded
from cellseg.derive.recipe import Recipe, near_within
from cellseg.derive.spatial import around_each, record_of, to_each_class
from cellseg.errors import InputError, Notice, SettingsError
from cellseg.protocol import Stain
from cellseg.result import Change, Result, TableWriter
from cellseg.result.files import write_json
from cellseg.result.publish import CELLS, DERIVED, HISTOGRAM, RECIPE, TABLE
from cellseg.result.table import rounded
from cellseg.slide import Slide
from cellseg.table import REGION, Column, Scale
from cellseg.table.around import around_columns
from cellseg.table.doubts import Expected, doubts
from cellseg.table.neighbours import Neighbours
from cellseg.table.summary import Summary, SummaryBuilder

BY_HAND = "by_hand"
"""A column of a corrected result's ``measured.parquet``: a person gave the cell's class."""


def derive(
    change: Change, recipe: Recipe, *, slide: Slide | None = None, is_lenient: bool = False
) -> list[Notice]:
    """Make the columns, ``cells.csv``, the cells around nuclei and the record's totals.

    Parameters
    ----------
    change : Change
        Of a result whose ``measured.parquet`` and masks stand.
    recipe : Recipe
        Is kept beside the result, thresholds in numbers.
    slide : Slide, optional
        For intensities in cells around nuclei.
    is_lenient : bool
        Cells keep the model's class where classes by measurement cannot be given.

    Returns
    -------
    list of Notice
        What a person should know.

    Raises
    ------
    SettingsError
        If a distance does not fit the slide, a measurement is not there, or no threshold can be
        proposed.
    InputError
        If the result is damaged.
    """
    return _Derivation(change, recipe.checked(change.result.frame), slide).made(is_lenient)


def will_have(
    columns: list[Column],
    recipe: Recipe,
    *,
    channels: tuple[str, ...],
    stain: Stain,
    mpp: float | None,
) -> dict[str, str]:
    """Columns that thresholds can be put on, name to dtype, before anything is measured.

    Parameters
    ----------
    columns : list of Column
        Of the count.
    channels : tuple of str
        Whose intensities are measured.
    """
    found = list(columns)
    if recipe.expand is not None:
        found += around_columns(channels, stain=stain, has_mpp=mpp is not None)
    if recipe.spatial:
        found += Neighbours(mpp, near_within(recipe.within, mpp)).columns
    return {column.name: column.dtype for column in found}


@dataclass(eq=False)
class _Derivation:
    """One pass over the steps."""

    change: Change
    recipe: Recipe
    slide: Slide | None
    added: list[Column] = field(default_factory=list)
    values: Columns = field(default_factory=dict)
    notes: list[Notice] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.result: Result = self.change.result
        self.run = self.change.run
        self.facts: dict[str, Any] = self.result.section("found")
        self.measured = self.result.measured
        is_new = not self.result.file(RECIPE).is_file()
        self.before = Recipe() if is_new else Recipe.of(self.result)
        self.by_hand = (
            self.measured.column(BY_HAND).to_numpy(np.bool_) if BY_HAND in self.measured else None
        )

    def made(self, is_lenient: bool) -> list[Notice]:
        base = self.measured.load(self._needed())
        for name in ("class", "area_px"):
            if name not in base:
                raise InputError(f"{self.result.path}: its table has no column {name}")
        self.types = base["class"].to_numpy(dtype=object)
        self._expand()
        near = self._near(base)
        try:
            classification = self._classes(base)
        except SettingsError as error:
            if not is_lenient:
                raise
            self.notes.append(Notice(f"{error}; cells keep the model's class", hint=error.hint))
            self.recipe = self.recipe.model_copy(update={"markers": (), "methods": ()})
            classification = self._no_classes()
        if near is not None:
            near = replace(near, classes=tuple(self.run["class_names"]))
            self._nearest_of_each(base, near)
        self._write()
        self._sum_up(base, classification)
        return self.notes

    def _needed(self) -> list[str]:
        names = ("class", *NEEDED, REGION, "touches_border", "stitched")
        return [name for name in names if name in self.measured]

    def _kept(self, section: str) -> bool:
        """Take a step's columns from the last derivation; False where there are none."""
        names = self.result.section(section).get("columns")
        if not names or any(name not in self.result.table for name in names):
            return False
        known = {column.name: column for column in self.result.columns}
        self._add([known[name] for name in names], self.result.table.load(names))
        return True

    def _add(self, columns: list[Column], values: Mapping[str, Any]) -> None:
        self.added += columns
        for column in columns:
            found = np.asarray(values[column.name])
            self.values[column.name] = rounded(found) if column.dtype == "float64" else found

    def _expand(self) -> None:
        by, record = self.recipe.expand, self.result.section("expansion")
        if by is None:
            self.run.pop("expansion", None)
            self.change.remove(CELLS)
            return
        measures = self.slide is not None and self.result.section("protocol").get("intensity")
        is_same = by == self.before.expand and (bool(record.get("measured")) or not measures)
        if is_same and self._kept("expansion"):
            return
        columns, values, self.run["expansion"] = expanded(self.change, by, self.slide)
        self._add(columns, values)
        self.notes += self.run["expansion"]["notes"]

    def _near(self, base: pd.DataFrame) -> Neighbours | None:
        if not self.recipe.spatial:
            self.run.pop("spatial", None)
            return None
        mpp = self.result.frame.mpp
        near = Neighbours(mpp, near_within(self.recipe.within, mpp))
        names = [column.name for column in near.columns]
        is_same = self.before.spatial and self.before.within == self.recipe.within
        if is_same and all(name in self.result.table for name in names):
            self._add(list(near.columns), self.result.table.load(names))
        else:
            self._add(list(near.columns), around_each(self.result, _places(base), near))
        return near

    def _nearest_of_each(self, base: pd.DataFrame, near: Neighbours) -> None:
        columns = [column for column in near.columns if column.name in near.by_class.values()]
        self._add(columns, to_each_class(_places(base), self._class_column(), near))
        self.run["spatial"] = record_of(self.result, near, list(near.columns), self.values)
        self.notes += self.run["spatial"]["notes"]

    def _class_column(self) -> NDArray[np.object_]:
        return np.asarray(self.values.get("class", self.types), dtype=object)

    def _no_classes(self) -> None:
        self.run.pop("classification", None)
        self.change.remove(HISTOGRAM)
        self.run["class_names"] = list(self.facts["class_names"])

    def _classes(self, base: pd.DataFrame) -> Classification | None:
        if not self.recipe.markers:
            return self._no_classes()
        dtypes = self.measured.dtypes | {column.name: column.dtype for column in self.added}
        by_class = {*self.result.section("spatial").get("by_class", ())}
        for marker in self.recipe.markers:
            if marker.measure in by_class:
                raise SettingsError(
                    f"{marker.measure} follows from the classes: it cannot give them"
                )
        markers = known_markers(self.recipe.markers, dtypes)
        wanted = [m.measure for m in markers if m.measure not in self.values]
        found = self.measured.load(wanted)
        values = {
            marker.measure: np.asarray(
                found[marker.measure] if marker.measure in found else self.values[marker.measure],
                np.float64,
            )
            for marker in markers
        }
        markers, methods, notes = decided(markers, self.recipe.methods, values)
        self.recipe = self.recipe.model_copy(update={"markers": markers, "methods": methods})
        model = [str(name) for name in self.facts.get("types", self.facts["class_names"])]
        made = Classification(
            markers=markers,
            methods=methods,
            types=tuple(model),
            plain=self.result.object_name if len(model) > 1 else model[0],
            notes=tuple(notes),
        )
        classes = made.classes(values, self.types, self.by_hand)
        others = pd.unique(classes[~pd.Series(classes).isin(made.names).to_numpy()])
        made = made.model_copy(update={"unmeasured": tuple(map(str, others))})
        self.values["class"] = classes
        self.run["class_names"] = made.names
        self.run["classification"] = made.model_dump(mode="json")
        self.notes += [Notice(note) for note in notes]
        return made

    def _write(self) -> None:
        """``derived.parquet``, ``cells.csv`` and ``recipe.json``."""
        own = [c for c in self.result.columns_found if c.name in self.values]
        if columns := [*own, *self.added]:
            with TableWriter(self.change.path(DERIVED), columns) as writer:
                writer.add(self.values)
        else:
            self.change.remove(DERIVED)
        contract = [c for c in self.result.columns_found if c.name != BY_HAND]
        self.run["columns"] = [
            {"name": column.name, "dtype": column.dtype} for column in [*contract, *self.added]
        ]
        self.change.result.table.write_csv(self.change.path(TABLE))
        write_json(self.change.path(RECIPE), self.recipe.model_dump(mode="json"))

    def _sum_up(self, base: pd.DataFrame, classification: Classification | None) -> None:
        frame, facts = self.result.frame, self.facts
        regions = self.result.regions()
        builder = SummaryBuilder(
            self.run["class_names"],
            object=self.result.object_name,
            scale=Scale(frame.downsample, frame.mpp),
            regions=None if regions is None else regions.on(frame.height, frame.width),
        )
        table = base.assign(**{"class": self._class_column()})
        for name in ("touches_border", "stitched"):
            if name not in table:
                table[name] = False
        builder.add(table)
        try:
            summary = builder.build(
                tissue_mm2=facts.get("tissue_mm2"),
                skipped_share=facts.get("skipped_share"),
                interval=facts.get("interval"),
                tissue_mm2_in_regions=facts.get("tissue_mm2_in_regions"),
            )
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.result.path}: run.json is damaged: {error}") from error
        if classification is not None:
            scores = classification.scores(table, self.types, frame.mpp)
            summary = replace(summary, labelling=tuple(scores))
        suspect = self._doubts(summary, builder)
        self.run["summary"] = {**facts.get("counted", {}), **summary.as_dict()}
        self.run["doubts"] = suspect
        self.run["warnings"] = [*facts.get("warnings", ()), *suspect]

    def _doubts(self, summary: Summary, builder: SummaryBuilder) -> list[str]:
        expected = Expected.of(self.run)
        if expected is None or not self.facts.get("is_doubted", True):
            return []
        return list(doubts(summary, builder.most_common_area_px(), expected))


def _places(base: pd.DataFrame) -> NDArray[np.float64]:
    """Centroids, (y, x), level-0 pixels, (N, 2)."""
    return base[["centroid_y_px", "centroid_x_px"]].to_numpy(np.float64)
