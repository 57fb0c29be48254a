"""A finished result, opened: its record, its table, its masks, its slide."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cellseg.annotations.geojson import read_regions
from cellseg.annotations.region import Region, Regions
from cellseg.errors import STAGING, InputError, Notice, OutputError, input_errors, line_of
from cellseg.geometry import Box, Frame, LazyArray
from cellseg.palette import RGB, colours
from cellseg.result import publish
from cellseg.result.files import own_file, read_json, validated
from cellseg.result.journal import JOURNAL_FILES, JOURNAL_NAME
from cellseg.result.labels import label_token, open_labels, read_quality
from cellseg.result.table import Table
from cellseg.slide import Slide, open_slide
from cellseg.slide.formats import has_ending, image_name, well_of
from cellseg.slide.limits import MAX_SIDE_PX
from cellseg.stain.normalise import Normaliser
from cellseg.storage import Location, content_mark, is_there
from cellseg.table import Column
from cellseg.table.summary import Summary
from cellseg.text import visible


@dataclass(frozen=True, eq=False)
class Result:
    """A finished result folder: ``run`` is what ``run.json`` says.

    ``roots`` are where files are looked for, in this order: what waits to be published comes first.
    """

    path: Path
    _: KW_ONLY
    run: dict[str, Any] = field(repr=False)
    frame: Frame
    roots: tuple[Path, ...] = ()

    def file(self, name: str) -> Path:
        """Where one of the result's files is; it need not exist. See :func:`own_file`."""
        return own_file(self._root(name), name)

    def _root(self, name: str) -> Path:
        roots = self.roots or (self.path,)
        return next((root for root in roots if os.path.lexists(root / name)), roots[-1])

    @property
    def is_complete(self) -> bool:
        """False where tiles failed."""
        return self.run.get("complete") is True

    @property
    def token(self) -> str:
        """Names this count; a new count of the slide has another."""
        return str(self.run.get("result", ""))

    @property
    def object_name(self) -> str:
        """What was counted: ``nucleus`` or ``cell``."""
        return str(self.run.get("object", "cell"))

    @property
    def class_names(self) -> list[str]:
        """Every class that the table may hold, in order."""
        return [str(name) for name in self.run.get("class_names", ())]

    def colours(self, names: Sequence[str]) -> list[RGB]:
        """A colour for each of these classes, as every picture of the result has them."""
        given = self.section("class_colours")
        usual = iter(colours([name for name in names if name not in given], self.stain))
        return [tuple(given[name]) if name in given else next(usual) for name in names]

    @property
    def stain(self) -> str:
        """``he``, ``ihc``, ``fluorescence`` or ``brightfield``, as the protocol says."""
        return str(self.section("protocol").get("stain", "brightfield"))

    @property
    def image_name(self) -> str:
        """Of the slide's file, as a table shows it; empty where ``run.json`` does not say it.

        With the time point, where one was asked for.
        """
        point = "" if self.time_point is None else f", t {self.time_point}"
        return self.file_name + point if self._image else ""

    @property
    def file_name(self) -> str:
        """Of the slide, as the column ``image`` holds it; empty where nothing says it."""
        return visible(image_name(self._image)) if self._image else ""

    @property
    def time_point(self) -> int | None:
        """The time point that was asked for, from 0."""
        found = self.section("settings").get("t")
        return found if isinstance(found, int) else None

    @property
    def well(self) -> str:
        """Of the plate whose field the slide is, such as ``B03``; empty of any other."""
        return visible(well_of(self._image)) if self._image else ""

    @property
    def _image(self) -> Path | None:
        path = self.section("image").get("path")
        return Path(path) if isinstance(path, str) else None

    @cached_property
    def summary(self) -> Summary:
        """The slide's totals; an InputError where ``run.json`` does not hold them."""
        try:
            return Summary.from_dict(self.run["summary"])
        except (LookupError, ValueError) as error:
            why = f"does not hold the totals: {line_of(error)}"
            raise InputError(f"{self.path / publish.RUN}: {why}") from error

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why the count may be wrong, one line each."""
        return tuple(self.run.get("doubts", ()))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know of the count, one line each, with its hint."""
        hints = self.section("found").get("hints", {})
        return tuple(Notice(one, hint=hints.get(one, "")) for one in self.run.get("warnings", ()))

    def has_export(self, name: str) -> bool:
        """Whether an export was added, and is what it was then."""
        is_there = name in publish.exports_of(self.run)
        return is_there and publish.changed(self.path, self.run, names=[name]) is None

    def section(self, name: str) -> dict[str, Any]:
        """A part of ``run.json``; empty where there is none."""
        found = self.run.get(name)
        return found if isinstance(found, dict) else {}

    def check_table(self) -> None:
        """Refuse a result whose measurements or masks were changed; nothing reads ``cells.csv``."""
        names = (publish.MEASURED, publish.LABELS, publish.DERIVED)
        if (name := publish.changed(self.path, self.run, names=names)) is not None:
            said = f"its {name} was changed since it was counted"
            raise InputError(f"{self.path}: {said}; {publish.AGAIN}", hint="overwrite")

    def check_current(self) -> None:
        """Refuse, with an OutputError, to go on where the slide was counted again meanwhile."""
        try:
            current = read_json(self.path / publish.RUN).get("result")
        except InputError as error:
            raise OutputError(f"{self.path}: the result is not there any more: {error}") from error
        if current != self.token:
            raise OutputError(
                f"{self.path}: the slide was counted again meanwhile; open the new result"
            )

    @cached_property
    def table(self) -> Table:
        """The cells, one row each, in the order of their labels."""
        paths = [self.file(publish.MEASURED)]
        if publish.DERIVED in publish.files_of(self.run):
            paths.append(self.file(publish.DERIVED))
        return Table(self.columns, paths)

    @cached_property
    def measured(self) -> Table:
        """The cells as they were found: what counting measured, classes by the model."""
        return Table(self.columns_found, [self.file(publish.MEASURED)])

    @property
    def columns(self) -> list[Column]:
        """The table's columns, in order."""
        return _columns(self.run)

    @property
    def columns_found(self) -> list[Column]:
        """Columns of :attr:`measured`, in order."""
        return _columns(self.section("found"))

    def labels(self, of: Literal["nuclei", "cells"] = "nuclei") -> list[LazyArray]:
        """Levels of a label image, uint32 (Y, X), finest first, nothing decoded yet.

        Of what the model outlines; or, of an expanded result, of the cells around the nuclei, with
        the same labels. An InputError if there is no such image.
        """
        name = publish.LABELS if of == "nuclei" else publish.CELLS
        root = self._root(name)
        if of == "cells" and not (self.is_expanded and label_token(root, name) == self.token):
            raise InputError(f"{self.path}: has no {name}; its nuclei were not expanded into cells")
        levels = open_labels(root, name)
        if levels[0].shape != (self.frame.lattice_height, self.frame.lattice_width):
            raise InputError(f"{self.path}: its masks are not as large as {publish.RUN} says")
        return levels

    @property
    def is_expanded(self) -> bool:
        """Whether nuclei were grown into cells."""
        return bool(self.section("expansion"))

    def tissue(self) -> Region | None:
        """The tissue that was looked at; None where nobody looked for it."""
        found = self._drawn(publish.TISSUE)
        return None if found is None else found.each[0]

    def quality(self) -> NDArray[np.uint8] | None:
        """What is wrong where, (R, C): codes of :func:`cellseg.stain.quality.judged`.

        A pixel is a unit of 64 lattice px. None where there is no such file.
        """
        path = self.file(publish.QUALITY)
        return read_quality(path, self.frame) if path.exists() else None

    def regions(self) -> Regions | None:
        """The regions that were counted in, as drawn; None of a whole slide."""
        return self._drawn(publish.REGIONS)

    def _drawn(self, name: str) -> Regions | None:
        path = self.file(name)
        return read_regions(path) if path.exists() else None

    def find_slide(self) -> Path:
        """Where the slide is: as recorded, or as it lies to the folder when both were moved."""
        # No URL is opened because a file says so.
        text = str(self.section("image").get("path", ""))
        recorded, beside = Path(text), self.path.absolute().parent
        above = (beside, *beside.parents[:2])
        moved = [one.joinpath(*recorded.parts[-number:]) for number in (3, 2) for one in above]
        for path in (recorded, beside / recorded, *moved, beside / recorded.name):
            if recorded.name and is_there(path):
                return path
        raise InputError(
            f"{text}: the slide of {self.path.name} is not there any more", hint="image"
        )

    @property
    def slide_options(self) -> dict[str, Any]:
        """How the run opened its slide: arguments of :func:`cellseg.open_slide`."""
        settings = self.section("settings")
        kept = {key: settings[key] for key in ("z", "t", "series") if settings.get(key) is not None}
        return kept | ({} if self.frame.mpp is None else {"mpp": self.frame.mpp})

    def slide(self, image: Location | None = None) -> Slide:
        """The slide, opened as the run opened it; close it, or use it in ``with``.

        It is looked for unless ``image`` says where it is by now. An InputError if it is gone, or
        is another one by now: of another size, or a file of the same format with other content.
        """
        place, counted = image or self.find_slide(), self.section("image")
        slide = open_slide(place, **self.slide_options)
        marks = {content_mark(place), counted.get("content")} - {"", None}
        is_converted = place.suffix != Path(str(counted.get("path"))).suffix
        is_same = len(marks) < 2 or is_converted
        if not is_same or (slide.height, slide.width) != (self.frame.height, self.frame.width):
            slide.close()
            said = f"{slide.path}: is not the slide that {self.path.name} was counted on"
            raise InputError(f"{said}; name that one, or count this one", hint="image")
        return slide

    def ground(self, slide: Slide) -> Ground:
        """The slide on the run's intensity scale, with all of the brown dye."""
        try:
            settings = self.run["settings"]
            if (count := len(settings["channels"])) not in (1, 3):
                raise ValueError(f"{count} channels")
            is_dark = self.stain == "fluorescence"
            return Ground(
                slide=slide,
                channels=tuple(slide.channels.index(name) for name in settings["channels"]),
                normaliser=Normaliser(
                    float(settings["intensity_low"]),
                    float(settings["intensity_high"]),
                    "fluorescence" if is_dark else "transmitted",
                ),
                title=visible(image_name(slide.path)),
            )
        except (LookupError, TypeError, ValueError) as error:
            raise InputError(
                f"run.json does not say how {slide.path.name} was shown: {error}"
            ) from error


def _columns(record: dict[str, Any]) -> list[Column]:
    return [Column(str(c["name"]), "", str(c["dtype"]), "") for c in record.get("columns", ())]


def load_result(folder: str | Path) -> Result:
    """Open a finished result; an InputError if the folder is none, or its run is not finished."""
    path = Path(folder)
    with input_errors(path):
        return _loaded(path)


def _loaded(path: Path) -> Result:
    if not path.is_dir():
        kind = "is an image, not a result: count it first" if has_ending(path) else "is no folder"
        raise InputError(f"{path}: {kind if path.exists() else 'no such folder'}")
    unfinished = "run the same count again to finish it"
    if publish.is_ready(path):
        raise InputError(
            f"{path}: the run was stopped while it put its files in place; {unfinished}"
        )
    record = own_file(path, publish.RUN)
    if not record.exists():
        if is_ours(path):
            raise InputError(f"{path}: the run is not finished; {unfinished}")
        inside = sorted(found.name for found in path.glob("*.cellseg"))
        holds = f"; it holds {', '.join(inside[:3])}{' …' * (len(inside) > 3)}" if inside else ""
        raise InputError(f"{path}: is no result of cellseg (no {publish.RUN}){holds}")
    run = read_json(record)
    if run.get("format") != publish.FORMAT:
        raise InputError(f"{path}: {publish.RUN} is not one of cellseg's")
    if run.get("format_version") != publish.FORMAT_VERSION:
        raise InputError(f"{path}: written by another version of cellseg")
    frame = validated(publish.RunRecord, run, record).frame
    if max(frame.height, frame.width, frame.lattice_height, frame.lattice_width) > MAX_SIDE_PX:
        raise InputError(f"{record}: is damaged: its sides have at most {MAX_SIDE_PX:,} px")
    result = Result(path, run=run, frame=frame)
    if label_token(path, publish.LABELS) != result.token:
        raise InputError(f"{path}: {publish.LABELS} is missing or belongs to another run")
    parts = (publish.MEASURED, *{publish.DERIVED} & publish.files_of(run).keys())
    lost = [name for name in parts if not result.file(name).is_file()]
    if lost and not (path / publish.FETCHED).is_file():
        raise InputError(f"{path}: {lost[0]} is missing; {publish.AGAIN}", hint="overwrite")
    return result


def is_ours(folder: Path) -> bool:
    """Whether a folder is a result, finished or not."""
    names = {entry.name for entry in folder.iterdir()}
    with suppress(InputError):  # masks are ours whatever the record says
        if publish.RUN in names and label_token(folder, publish.LABELS) is not None:
            return True
    return (
        bool(names & {publish.LOCK_NAME, JOURNAL_NAME})
        or publish.published(folder) is not None
        or publish.is_ready(folder)
        # What a run leaves whose folder was removed under it, or whose journal is damaged.
        or (bool(names) and names <= {STAGING, *JOURNAL_FILES})
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class Ground:
    """The open slide under the outlines, with the channels and the intensity scale of the run.

    ``title`` stands above pictures.
    """

    slide: Slide
    channels: tuple[int, ...]
    normaliser: Normaliser
    title: str = ""

    @property
    def is_dark(self) -> bool:
        """Whether the background is dark, as in fluorescence."""
        return self.normaliser.light == "fluorescence"

    def read(self, box: Box, pixel: float) -> NDArray[np.uint8]:
        """RGB, (H, W, 3), of a box on the lattice of ``pixel`` level-0 px a pixel."""
        raw = self.slide.read(box, downsample=pixel, channels=self.channels)
        return np.round(self.normaliser.apply(raw) * 255).astype(np.uint8)

    def overview(self) -> tuple[NDArray[np.uint8], float]:
        """The whole slide, small: RGB, (H, W, 3), and level-0 pixels along a side of its pixels.

        It has an intensity scale of its own.
        """
        pixels, downsample = self.slide.overview()
        pixels = pixels[..., list(self.channels)]
        seen = Normaliser.fit(pixels, self.normaliser.light).apply(pixels)
        return np.round(seen * 255).astype(np.uint8), downsample
