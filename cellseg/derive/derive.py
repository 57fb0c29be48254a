"""From what was found and what people decided to everything else, in one pass.

    edits → expand → spatial → classes → nearest of each class → summary → files

Edits make another ``measured.parquet`` (:mod:`cellseg.derive.corrections`); the steps after them
are here. A step whose part of the recipe did not change takes its columns from
``derived.parquet``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.annotations.region import Regions
from cellseg.derive.classes import NEEDED, Classification, decided, indices_nearby, known_markers
from cellseg.derive.clicks import made_of, to_look_at
from cellseg.derive.expand import expanded
from cellseg.derive.places import find_hot_spot, looked_at, marked, spatial_record
from cellseg.derive.recipe import Recipe, near_within
from cellseg.derive.threshold import METHODS
from cellseg.errors import InputError, Notice, SettingsError
from cellseg.geometry import Frame
from cellseg.palette import OTHER
from cellseg.protocol import CountProtocol
from cellseg.result import Change, Result, table_writer
from cellseg.result.files import write_json
from cellseg.result.publish import CELLS, DERIVED, HISTOGRAM, RECIPE, TABLE, edited_name
from cellseg.result.table import rounded
from cellseg.slide import Slide
from cellseg.table import REGION, Column
from cellseg.table.around import around_columns
from cellseg.table.doubts import Expected, doubts, recorded, unsure
from cellseg.table.hotspot import HOT
from cellseg.table.neighbours import Neighbours, neighbourhood, to_classes
from cellseg.table.summary import Summary, summarised
from cellseg.table.taught import UNSURE, TaughtClasses, looks

BY_HAND = "by_hand"
"""A column of a corrected result's ``measured.parquet``: a person gave the cell's class."""


def derive(
    change: Change, recipe: Recipe, *, slide: Slide | None = None, is_lenient: bool = False
) -> list[Notice]:
    """Make the columns, ``cells.csv``, the cells around nuclei and the record's totals.

    The change is of a result whose ``measured.parquet`` and masks stand; the slide is for
    intensities in cells around nuclei. The recipe is kept beside the result, thresholds in numbers.
    What a person should know is returned.

    With ``is_lenient`` cells keep the model's class where no class by measurement can be given.
    They grow by distance where the channel that shows them cannot be read.

    A SettingsError if a distance does not fit, a measurement is not there, or no threshold can be
    proposed; an InputError if the result is damaged.
    """
    made = _Derivation(change, recipe.checked(change.result.frame))
    made.expand(slide, is_lenient=is_lenient)
    near = made.measure_places()
    try:
        made.classify()
    except SettingsError as error:
        if not is_lenient:
            raise
        made.notes.append(Notice(f"{error}; cells keep the model's class", hint=error.hint))
        none = {"markers": (), "methods": (), "taught": None}
        made.recipe = made.recipe.model_copy(update=none)
        made.classify()
    if near is not None:
        made.measure_nearest(near)
    made.find_hot_spot(is_lenient=is_lenient)
    made.measure_chamber()
    made.write()
    made.sum_up()
    return made.notes


def refuse_early(
    recipe: Recipe,
    frame: Frame,
    columns: Sequence[Column],
    channels: Sequence[str],
    protocol: CountProtocol,
) -> None:
    """Refuse a distance or a measurement, by a SettingsError, before anything is measured.

    ``columns`` are those of the count, ``channels`` those of the slide.
    """
    recipe.checked(frame)
    found = [*columns]
    if recipe.expand is not None or recipe.cells_from is not None:
        measured = channels if protocol.intensity else ()
        found += around_columns(measured, stain=protocol.stain, has_mpp=frame.mpp is not None)
    if recipe.spatial:
        found += Neighbours(frame.mpp, near_within(recipe.within, frame.mpp)).columns
    known_markers(recipe.markers, {column.name: column.dtype for column in found})


class _Derivation:
    """The columns so far, and what is said of them."""

    def __init__(self, change: Change, recipe: Recipe) -> None:
        self.change, self.run, self.recipe = change, change.run, recipe
        self.result = change.result
        self.measured, self.facts = self.result.measured, self.result.section("found")
        is_new = not self.result.file(RECIPE).exists()
        self.before = Recipe.model_validate({}) if is_new else Recipe.of(self.result)
        self.added: list[Column] = []
        self.values: dict[str, NDArray[Any]] = {}
        self.notes: list[Notice] = []
        self.classification: Classification | None = None
        self.nearby: list[list[float] | None] = []
        names = ("class", *NEEDED, REGION, "score", "touches_border", "stitched")
        self.base = self.measured.load([name for name in names if name in self.measured])
        if missing := {"class", "area_px"} - {*self.base}:
            raise InputError(f"{self.result.path}: its table has no column {min(missing)}")
        self.types = self.base["class"].to_numpy(dtype=object)

    @property
    def places(self) -> NDArray[np.float64]:
        """Centroids, (y, x), level-0 pixels, (N, 2)."""
        return self.base[["centroid_y_px", "centroid_x_px"]].to_numpy(np.float64)

    @property
    def classes(self) -> NDArray[np.object_]:
        """Each cell's class: by measurement, else by the model or a person."""
        return self.values.get("class", self.types)

    @property
    def classed(self) -> pd.DataFrame:
        """The cells with these classes."""
        return self.base.assign(**{"class": self.classes})

    def _add(self, columns: Sequence[Column], values: Mapping[str, Any] | pd.DataFrame) -> None:
        self.added += columns
        for column in columns:
            found = np.asarray(values[column.name])
            self.values[column.name] = rounded(found) if column.dtype == "float64" else found

    def _keep(self, names: Sequence[str]) -> bool:
        """Take a step's columns from the last derivation; False where it had not all of them."""
        table = self.result.table
        if not names or any(name not in table for name in names):
            return False
        known = {column.name: column for column in table.columns}
        self._add([known[name] for name in names], table.load(names))
        return True

    def expand(self, slide: Slide | None, *, is_lenient: bool) -> None:
        """Grow nuclei into cells."""
        asked = (self.recipe.expand, self.recipe.cells_from)
        record = self.result.section("expansion")
        if asked == (None, None):
            self.run.pop("expansion", None)
            self.change.remove(CELLS)
            return
        measures = slide is not None and self.result.section("protocol").get("intensity")
        before = (self.before.expand, self.before.cells_from)
        is_same = asked == before and (bool(record.get("measured")) or not measures)
        if not (is_same and self._keep(record.get("columns", ()))):
            columns, values, self.run["expansion"] = expanded(
                self.change, self.recipe, slide, is_lenient=is_lenient
            )
            self._add(columns, values)
            self.notes += self.run["expansion"]["notes"]

    def measure_places(self) -> Neighbours | None:
        """Where cells lie, whatever their classes; None where nobody asked."""
        if not self.recipe.spatial:
            self.run.pop("spatial", None)
            return None
        mpp = self.result.frame.mpp
        near = Neighbours(mpp, near_within(self.recipe.within, mpp))
        is_same = self.before.spatial and self.before.within == self.recipe.within
        if not (is_same and self._keep([column.name for column in near.columns])):
            self._add(near.columns, neighbourhood(self.places, looked_at(self.result)[0], near))
        return near

    def measure_nearest(self, near: Neighbours) -> None:
        """The nearest cell of each class."""
        near = replace(near, classes=tuple(self.run["class_names"]))
        columns = [column for column in near.columns if column.name in near.by_class.values()]
        self._add(columns, to_classes(self.places, self.classes, near))
        self.run["spatial"] = spatial_record(near, looked_at(self.result)[1], self.values)
        self.notes += self.run["spatial"]["notes"]

    def classify(self) -> None:
        """Give classes by measurement, or by what a person taught, or none."""
        for part in ("taught", "class_colours"):
            self.run.pop(part, None)
        if not self.recipe.markers:
            self.run.pop("classification", None)
            self.change.remove(HISTOGRAM)
            self.run["class_names"] = list(self.facts["class_names"])
            if self.recipe.taught is not None:
                self.recognise(self.recipe.taught)
            return
        by_class = {*self.result.section("spatial").get("by_class", ())}
        for marker in self.recipe.markers:
            if marker.measure in by_class:
                raise SettingsError(
                    f"{marker.measure} follows from the classes: it cannot give them"
                )
        dtypes = self.measured.dtypes | {column.name: column.dtype for column in self.added}
        for marker in self.recipe.markers:
            if marker in self.before.markers and marker.measure not in dtypes:
                gone = [note for note in self.notes if note.hint == "image"]
                said = f"the classes are by {marker.measure}, which this would take away"
                raise SettingsError(
                    "; ".join([*gone, f"{said}: classify anew, or take them back"]),
                    hint=",".join([*(note.hint for note in gone), "undo"]),
                )
        markers = known_markers(self.recipe.markers, dtypes)
        wanted = {marker.measure for marker in markers}
        found = self.measured.load([name for name in dtypes if name in wanted - {*self.values}])
        values = {
            name: np.asarray(self.values.get(name, found.get(name)), np.float64) for name in wanted
        }
        asked = self.recipe
        markers, methods, notes = decided(markers, self.recipe.methods, values)
        new = [Notice(note) for note in notes]
        if asked.markers == self.before.markers and (made := Classification.of(self.run)):
            notes = [n for n in made.notes if any(method in n for method in METHODS)] + notes
        self.recipe = self.recipe.model_copy(update={"markers": markers, "methods": methods})
        model = [str(name) for name in self.facts.get("types", self.facts["class_names"])]
        made = Classification(
            markers=markers,
            methods=methods,
            types=tuple(model),
            plain=self.result.object_name if len(model) > 1 else model[0],
            notes=tuple(notes),
        )
        by_hand = None
        if BY_HAND in self.measured:
            by_hand = self.measured.column(BY_HAND).to_numpy(np.bool_)
        classes = made.classes(values, self.types, by_hand)
        others = [str(name) for name in pd.unique(classes) if name not in made.names]
        self.classification = made = made.model_copy(update={"unmeasured": tuple(others)})
        self.values["class"] = classes
        scored = made.codes(classes) >= 0
        self.nearby = [indices_nearby(marker, values[marker.measure][scored]) for marker in markers]
        self.run["class_names"] = made.names
        self.run["classification"] = made.model_dump(mode="json")
        self.notes += new

    def recognise(self, taught: TaughtClasses) -> None:
        """Give the classes that a person taught; one that a person gave to a cell stays."""
        wanted = to_look_at(
            self.result, {**self.measured.dtypes, **self.values}, taught.measurements
        )
        own = {name: self.values[name] for name in wanted if name in self.values}
        cells = self.measured.load([name for name in wanted if name not in own]).assign(**own)
        found = taught.probabilities(looks(cells, taught.measurements))
        codes = taught.codes(found, np.arange(1, len(cells) + 1), self.result.token)
        classes = np.array(taught.names, object)[codes]
        if BY_HAND in self.measured:
            classes = np.where(self.measured.column(BY_HAND), self.types, classes)
        self.values["class"] = classes
        self.run["class_names"] = [*dict.fromkeys([*taught.names, *pd.unique(classes)])]
        self.run["class_colours"] = {**taught.colours, UNSURE: OTHER}
        self.run["taught"] = {
            "scores": taught.scores(),
            "confusion": taught.confusions.sum(0),
            "counts": taught.counts(found),
            "unsure": taught.unsure,
        }
        here = made_of(self.result)
        if other := {k: v for k, v in taught.made_of.items() if v != here.get(k)}:
            said = ", ".join(f"{kind} {name}, not {here.get(kind)}" for kind, name in other.items())
            self.notes.append(Notice(f"the classes were taught on {said}: look whether they fit"))

    def find_hot_spot(self, *, is_lenient: bool) -> None:
        """The hot spot; where there can be none, only who asks for it now is refused."""
        self.run.pop("hotspot", None)
        if (asked := self.recipe.hotspot) is None:
            return
        try:
            self.run["hotspot"] = find_hot_spot(
                self.result, asked, self.classed, self.classification, self.types
            )
        except SettingsError as error:
            if not is_lenient and asked != self.before.hotspot:
                raise
            self.notes.append(Notice(str(error), hint=error.hint))

    def measure_chamber(self) -> None:
        """Cells per mL of a counting chamber."""
        self.run.pop("chamber", None)
        if (chamber := self.recipe.chamber) is not None:
            frame, regions = self.result.frame, self.result.regions()
            union = None if regions is None else regions.on(frame.height, frame.width).union
            cells = self.measured.load(("bbox_y1_px", "bbox_x1_px"))
            # A threshold on top of the model's types leaves living cells living.
            types = self.types if self.classification else self.classes
            cells = cells.assign(**{"class": self.classes, "type": types})
            self.run["chamber"] = chamber.counted(cells, frame, counted_in=union)
            self.notes.append(Notice(self.run["chamber"]["said"]))

    def write(self) -> None:
        """``derived.parquet``, ``cells.csv`` and ``recipe.json``."""
        own = [c for c in self.result.columns_found if c.name in self.values]
        if columns := [*own, *self.added]:
            with table_writer(self.change.path(DERIVED), columns) as add:
                add(self.values)
        else:
            self.change.remove(DERIVED)
        contract = [c for c in self.result.columns_found if c.name != BY_HAND]
        self.run["columns"] = [
            {"name": column.name, "dtype": column.dtype} for column in [*contract, *self.added]
        ]
        if kept := edited_name(self.change.folder):
            self.notes.append(Notice(f"{TABLE} is made anew; the edited one: {kept}"))
        self.change.result.table.write_csv(self.change.path(TABLE))
        write_json(self.change.path(RECIPE), self.recipe.model_dump(mode="json"))

    def sum_up(self) -> None:
        """The record's totals, and what speaks against them."""
        facts = self.facts
        summary = summed_up(
            self.result,
            self.classed,
            self.run["class_names"],
            self.classification,
            self.types,
            facts.get("interval"),
            regions=marked(self.change.result),
        )
        if spot := self.run.get("hotspot"):
            if summary.labelling and not spot["asked"]["of"]:
                # Blocks of the whole slide are too large for it.
                scored = summary.labelling[0]["regions"].get(HOT, {})
                scored["index_interval"] = spot["index_interval"]
            self.notes.append(Notice(spot["said"]))
        if self.nearby:
            pairs = zip(summary.labelling, self.nearby, strict=True)
            labelling = tuple({**marker, "index_nearby": near} for marker, near in pairs)
            summary = replace(summary, labelling=labelling)
        if taught := self.run.get("taught"):
            summary = replace(summary, corrected_per_class=taught["counts"])
        suspect: list[str] = [*facts.get("doubts", ())]
        expected = recorded(Expected, self.run, "expected_sizes")
        if expected is not None and facts.get("is_doubted", True):
            suspect += doubts(summary, self.base, expected)
            if (least := self.result.section("protocol").get("score")) is not None:
                suspect += unsure(self.base["score"].to_numpy(np.float64), float(least))
        self.run["summary"] = {**facts.get("counted", {}), **summary.as_dict()}
        self.run["doubts"] = suspect
        self.run["warnings"] = [*facts.get("warnings", ()), *suspect]


def summed_up(
    result: Result,
    table: pd.DataFrame,
    class_names: Sequence[str],
    classification: Classification | None,
    types: NDArray[np.object_],
    interval: Any = None,  # noqa: ANN401 - as run.json has it
    *,
    regions: Regions | None = None,
) -> Summary:
    """The totals of a result's cells, with scores where there is a classification.

    The table has ``class`` and what scores need; ``touches_border`` and ``stitched`` where they
    are known. ``types`` are the classes by the model, (N,). Regions, cut at the slide's edges, have
    totals of their own; those that were counted in otherwise.
    """
    frame, facts = result.frame, result.section("found")
    if regions is not None:
        held = regions.names_at(table["centroid_y_px"], table["centroid_x_px"])
        table = table.assign(**{REGION: held})
    elif (counted := result.regions()) is not None:
        regions = counted.on(frame.height, frame.width)
    try:
        summary = summarised(
            table,
            class_names,
            object=result.object_name,
            mpp=frame.mpp,
            regions=regions,
            tissue_mm2=facts.get("tissue_mm2"),
            skipped_share=facts.get("skipped_share"),
            interval=interval,
            tissue_mm2_in_regions=facts.get("tissue_mm2_in_regions"),
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"{result.path}: run.json is damaged: {error}") from error
    if classification is None:
        return summary
    return replace(summary, labelling=tuple(classification.scores(table, types, frame.mpp)))


def totals_in(result: Result, regions: Regions) -> Summary:
    """Totals of a finished result with regions that were drawn on it, from its table alone."""
    given = Classification.of(result.run)
    wanted = ("class", *NEEDED, "touches_border", "stitched")
    try:
        table = result.table.load([name for name in wanted if name in result.table])
        types = result.measured.column("class").to_numpy(dtype=object)
        return summed_up(result, table, result.class_names, given, types, regions=regions)
    except (LookupError, ValueError) as error:
        raise InputError(f"{result.path}: its table is damaged: {error!r}") from error
