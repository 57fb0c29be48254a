"""Reading a finished result folder, and adding exports to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ValidationError

from cellseg.annotations.region import Region, Regions
from cellseg.annotations.region_file import read_regions
from cellseg.errors import InputError, OutputError
from cellseg.geometry import Frame
from cellseg.result import publish
from cellseg.result.files import output_errors, read_json, replacing, write_json
from cellseg.result.inventory import entry_of, folder_entry, sizes_below
from cellseg.result.journal import BESIDE, JOURNAL_NAME, is_journal
from cellseg.result.labels import LabelLevel, label_token, open_labels
from cellseg.result.lock import LOCK_NAME, FolderLock
from cellseg.result.rows import Rows
from cellseg.result.table import read_table
from cellseg.slide.formats import image_name, well_of
from cellseg.slide.limits import MAX_SIDE_PX
from cellseg.text import visible

ADDED = ("expansion", "spatial")
"""What can be added to a finished count's table: the cells around the nuclei, where cells lie."""


class _Column(BaseModel):
    name: str
    dtype: str


class _Expansion(BaseModel):
    columns: list[str]
    notes: list[str]


class _InRegion(BaseModel):
    tissue_mm2: float | None


class _Summary(BaseModel):
    cells_interval: tuple[int, int] | None = None
    skipped_share: float | None = None
    tissue_mm2: float | None = None
    regions: list[_InRegion] = []


class _Record(BaseModel):
    """What of ``run.json`` is used without another look at it."""

    columns: list[_Column]
    summary: _Summary = _Summary()
    class_names: list[str] = []
    stale: list[str] | None = None
    expansion: _Expansion | None = None


@dataclass(frozen=True, eq=False)
class Result:
    """A finished result folder.

    Attributes
    ----------
    run : dict
        What ``run.json`` says.
    """

    path: Path
    _: KW_ONLY
    run: dict[str, Any] = field(repr=False)
    frame: Frame

    @property
    def is_complete(self) -> bool:
        """False where tiles failed."""
        return self.run.get("complete") is True

    @property
    def image_name(self) -> str:
        """Of the slide's file, as a table shows it; empty where ``run.json`` does not say it."""
        path = self._image
        return "" if path is None else visible(image_name(path))

    @property
    def well(self) -> str:
        """Of the plate whose field the slide is, such as ``B03``; empty of any other."""
        path = self._image
        return "" if path is None else visible(well_of(path))

    @property
    def _image(self) -> Path | None:
        path = self.section("image").get("path")
        return Path(path) if isinstance(path, str) else None

    def section(self, name: str) -> dict[str, Any]:
        """A part of ``run.json``; empty where there is none."""
        found = self.run.get(name)
        return found if isinstance(found, dict) else {}

    def changed(self, *, table_only: bool = False) -> str | None:
        """What is not as it was published, by its name; None where all is.

        The table and the pictures are read for it; of the label image, names and sizes of the
        chunks are compared.
        """
        if (self.path / publish.FETCHED).is_file() or "files" not in self.run:
            return None  # compared where it lies; or counted before checksums were kept
        return publish.changed(self.path, self.run, table_only=table_only)

    def check_table(self) -> None:
        """Say that somebody edited the table.

        Raises
        ------
        InputError
            If it was: its rows may no longer be those of the masks.
        """
        if (name := self.changed(table_only=True)) is not None:
            raise InputError(
                f"{self.path}: its {name} was changed since it was counted, so that rows and "
                "masks do not belong together; --overwrite counts it again"
            )

    @property
    def table_path(self) -> Path:
        return self.path / publish.TABLE

    @property
    def labels_path(self) -> Path:
        return self.path / publish.LABELS

    @property
    def run_path(self) -> Path:
        return self.path / publish.RUN

    @property
    def overview_path(self) -> Path | None:
        """None where the run drew none."""
        path = self.path / publish.OVERVIEW
        return path if path.is_file() else None

    def tissue(self) -> Region | None:
        """The tissue that was looked at; None where nobody looked for it.

        Raises
        ------
        InputError
            If the file is damaged.
        """
        path = self.path / publish.TISSUE
        return read_regions(path).each[0] if path.is_file() else None

    def regions(self) -> Regions | None:
        """The regions that were counted in, as drawn; None of a whole slide.

        Raises
        ------
        InputError
            If the file is damaged.
        """
        path = self.path / publish.REGIONS
        return read_regions(path) if path.is_file() else None

    def table(self) -> pd.DataFrame:
        """The cells, one row each, in the order of their labels, with the contract's types."""
        return read_table(self.table_path, self._columns)

    def rows(self) -> Rows:
        """The same row by row, for tables that are too long to be read at once."""
        return Rows(self.table_path, self._columns)

    @property
    def _columns(self) -> list[tuple[str, str]]:
        return [(str(c["name"]), str(c["dtype"])) for c in self.run["columns"]]

    def added(self, *kinds: str) -> list[str]:
        """Names of the columns that were added to those of the count, in order.

        Parameters
        ----------
        *kinds : str
            Of :data:`ADDED`; all of them otherwise.
        """
        there = [str(column["name"]) for column in self.run["columns"]]
        named = [self.section(kind).get("columns") for kind in kinds or ADDED]
        return [
            name for names in named if isinstance(names, list) for name in there if name in names
        ]

    @property
    def found_columns(self) -> list[dict[str, Any]]:
        """The table's columns but for :meth:`added` ones."""
        added = {*self.added()}
        return [column for column in self.run["columns"] if column["name"] not in added]

    def labels(self, of: Literal["nuclei", "cells"] = "nuclei") -> list[LabelLevel]:
        """Levels of a label image, uint32 (Y, X), finest first, nothing decoded yet.

        Parameters
        ----------
        of : {'nuclei', 'cells'}
            What the model outlines; or, of an expanded result, the cells around the nuclei, with
            the same labels.

        Raises
        ------
        InputError
            If there is no such image, or it does not belong to the result.
        """
        if of == "nuclei":
            return open_labels(self.labels_path)
        path = self.path / publish.CELLS
        if label_token(path) != self.run.get("result"):
            raise InputError(
                f"{self.path}: has no {publish.CELLS}; `cellseg expand` makes it around the nuclei"
            )
        return open_labels(path)

    def has_export(self, name: str) -> bool:
        """Whether a file was added, and is as large as it was then."""
        path, entry = self.path / name, publish.files_of(self.run).get(name)
        if name not in publish.exports_of(self.run) or not isinstance(entry, dict):
            return False
        if path.is_dir():
            return folder_entry(sizes_below(path)) == entry
        return path.is_file() and path.stat().st_size == entry.get("bytes")

    def export(self, name: str, write: Callable[[Path], None]) -> Path:
        """Add a file or a folder, whole or not at all, and list it in ``run.json``.

        Parameters
        ----------
        name : str
            A bare file name; or ``outlines.png`` or ``overview.png``, drawn anew.
        write : callable
            Writes to the temporary path that it is given.

        Raises
        ------
        OutputError
            If the name leads out of the folder or is one of the result's own, if a run is
            writing here, or if the disk refuses.
        """
        own = name in (publish.OUTLINES, publish.OVERVIEW)
        if not own and not publish.is_export_name(name):
            raise OutputError(f"{self.path}: an export cannot be called {name!r}")
        path = self.path / name
        with output_errors(path):
            lock = FolderLock(self.path)
            try:
                with replacing(path) as temporary:
                    write(temporary)
                run = read_json(self.run_path)
                names = sorted({*publish.exports_of(run), *(() if own else (name,))})
                files = {**publish.files_of(run), name: entry_of(path)}
                # What is made now shows the classes of now.
                old = [other for other in run.get("stale") or () if other != name]
                changes = {"exports": names, "files": files, "stale": old}
                write_json(self.run_path, {**run, **changes})
            finally:
                lock.release()
        return path


def load_result(folder: str | Path) -> Result:
    """Open a finished result.

    Raises
    ------
    InputError
        If the folder is no result, or its run is not finished.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InputError(
            f"{path}: no such folder" if not path.exists() else f"{path}: is no folder"
        )
    unfinished = "run the same `cellseg count` again to finish it"
    if publish.is_ready(path):
        raise InputError(
            f"{path}: the run was stopped while it put its files in place; {unfinished}"
        )
    if not (path / publish.RUN).is_file():
        if is_ours(path):
            raise InputError(f"{path}: the run is not finished; {unfinished}")
        inside = sorted(found.name for found in path.glob("*.cellseg"))
        hint = f"; it holds {', '.join(inside[:3])}{' …' * (len(inside) > 3)}" if inside else ""
        raise InputError(f"{path}: is no result of cellseg (no {publish.RUN}){hint}")
    run = read_json(path / publish.RUN)
    if run.get("format") != publish.FORMAT:
        raise InputError(f"{path}: {publish.RUN} is not one of cellseg's")
    if run.get("format_version") != publish.FORMAT_VERSION:
        raise InputError(f"{path}: written by another version of cellseg")
    if label_token(path / publish.LABELS) != run.get("result"):
        raise InputError(f"{path}: {publish.LABELS} is missing or belongs to another run")
    # Of a result behind a URL only the record is fetched to begin with, without any pixels.
    whole = not (path / publish.FETCHED).is_file()
    if whole and not (path / publish.TABLE).is_file():
        raise InputError(f"{path}: {publish.TABLE} is missing")
    try:
        frame = Frame(**run["frame"])
        if max(frame.height, frame.width, frame.lattice_height, frame.lattice_width) > MAX_SIDE_PX:
            raise ValueError(f"expected sides of at most {MAX_SIDE_PX:,} px, got {frame}")
        _Record.model_validate(run)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise InputError(f"{path / publish.RUN}: is damaged: {where}: {fault['msg']}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path / publish.RUN}: is damaged: {error}") from error
    return Result(path, run=run, frame=frame)


def is_ours(folder: Path) -> bool:
    """Whether a folder is a result, finished or not."""
    return (
        (folder / LOCK_NAME).is_file()
        or is_journal(folder / JOURNAL_NAME)
        or publish.published(folder) is not None
        or publish.is_ready(folder)
        or _holds_scraps(folder)
    )


def _holds_scraps(folder: Path) -> bool:
    """Whether there is nothing but what a run leaves whose folder was removed under it."""
    names = {entry.name for entry in folder.iterdir()}
    beside = {f"{JOURNAL_NAME}{suffix}" for suffix in BESIDE}
    return bool(names) and names <= {publish.STAGING, *beside}
