"""What each address below the token answers: the page's files, tiles, cells, counts."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from threading import BoundedSemaphore, Lock

import numpy as np

from cellseg.errors import CellsegError, InputError
from cellseg.geometry import Box
from cellseg.result.files import plain
from cellseg.result.publish import CORRECTIONS
from cellseg.result.result import Result, load_result
from cellseg.serve._shown import Of, Shown
from cellseg.slide import ChunkCache
from cellseg.storage import Location
from cellseg.text import visible

logger = logging.getLogger(__name__)

PAGE = {
    "": ("viewer.html", "text/html; charset=utf-8"),
    "viewer.css": ("viewer.css", "text/css; charset=utf-8"),
    "viewer.js": ("viewer.js", "text/javascript; charset=utf-8"),
    "openseadragon.min.js": ("openseadragon.min.js", "text/javascript; charset=utf-8"),
}
"""The page's own files: address, name in the package, type."""

CACHE_BYTES = 64_000_000
"""Of finished tiles."""

MOST_OPEN = 4
"""Results that stay open; the one that was looked at longest ago is closed for another."""

_TILE = re.compile(r"(slide|nuclei|cells)/(\d{1,2})/(\d{1,7})/(\d{1,7})", re.ASCII)
_SHOWN = re.compile(r"[0-9a-f]{1,64}")
_NUMBER = re.compile(r"-?\d{1,9}(?:\.\d{1,6})?", re.ASCII)

Query = Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What goes back.

    Attributes
    ----------
    kind : str
        Its content type.
    """

    body: bytes
    kind: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK

    @classmethod
    def refused(cls, status: HTTPStatus, text: str = "") -> Answer:
        """An error in one line."""
        said = visible(text or status.phrase)
        return cls(f"{said}\n".encode("utf-8", "replace"), status=status)

    @classmethod
    def of(cls, content: object) -> Answer:
        """JSON."""
        text = json.dumps(plain(content), ensure_ascii=True, allow_nan=False)
        return cls(text.encode("ascii"), "application/json")


@dataclass(eq=False)
class _Open:
    """A result that is open, as its files were then."""

    shown: Shown
    stamp: tuple[object, ...]
    users: int = 0
    tiles: ChunkCache = field(default_factory=lambda: ChunkCache(CACHE_BYTES // MOST_OPEN))


class Viewer:
    """Finished results, by their numbers.

    Parameters
    ----------
    image : Path or RemotePath, optional
        Where the slide of the only result is by now.
    """

    def __init__(self, results: Sequence[Result], image: Location | None = None) -> None:
        self._paths = [result.path for result in results]
        self._names = [visible(result.path.name) for result in results]
        self._image = image
        self._open: dict[int, _Open] = {}
        self._lock = Lock()
        # Tiles are made by as many threads as there are cores, whatever a browser asks for.
        self._makers = BoundedSemaphore(os.cpu_count() or 1)
        self._page = {
            address: Answer(files("cellseg.serve").joinpath("page", name).read_bytes(), kind)
            for address, (name, kind) in PAGE.items()
        }

    def close(self) -> None:
        """Close all slides."""
        with self._lock:
            for one in self._open.values():
                one.shown.close()
            self._open.clear()

    def read_ahead(self) -> None:
        """Open the first result while a browser starts, with the table where outlines need it."""
        with suppress(CellsegError), self._using(0, fresh=False) as one:
            _ = one.shown.of_label

    def answer(self, place: str, query: Query) -> Answer:
        """Answer a request.

        Parameters
        ----------
        place : str
            The address below the token, as it came: nothing is unquoted.
        """
        if place in self._page:
            return self._page[place]
        if place == "results":
            return Answer.of(self._names)
        head, _, rest = place.partition("/")
        if not re.fullmatch("[0-9]{1,6}", head) or int(head) >= len(self._paths):
            return Answer.refused(HTTPStatus.NOT_FOUND)
        try:
            with self._using(int(head), fresh=rest == "about") as one:
                return self._of_result(one, rest, query)
        except CellsegError as error:
            return Answer.refused(HTTPStatus.CONFLICT, str(error))
        except Exception:
            logger.exception("while answering")
            return Answer.refused(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _of_result(self, one: _Open, rest: str, query: Query) -> Answer:
        if found := _TILE.fullmatch(rest):
            kind, *numbers = found.groups()
            return self._tile(one, kind, (int(n) for n in numbers), query)
        asked: dict[str, Callable[[_Open, Query], Answer]] = {
            "about": _about, "counts": _counts, "at": _at, "box": _box,
        }  # fmt: skip
        if rest not in asked:
            return Answer.refused(HTTPStatus.NOT_FOUND)
        try:
            return asked[rest](one, query)
        except (KeyError, ValueError):
            return Answer.refused(HTTPStatus.BAD_REQUEST)

    def _tile(self, one: _Open, kind: str, numbers: Iterator[int], query: Query) -> Answer:
        halvings, row, column = numbers
        box = one.shown.box_of(halvings, row, column)
        if box is None or (kind == "slide" and one.shown.picture is None):
            return Answer.refused(HTTPStatus.NOT_FOUND)
        asked = "" if kind == "slide" else query.get("shown", "")
        if kind != "slide" and not _SHOWN.fullmatch(asked):
            return Answer.refused(HTTPStatus.BAD_REQUEST)

        def make() -> bytes:
            with self._makers:
                if kind == "slide":
                    return one.shown.slide_tile(box, halvings)
                bits = int(asked, 16)
                shown = np.array([bits >> n & 1 for n in range(len(one.shown.names))], np.bool_)
                return one.shown.mask_tile(box, halvings, shown, of=_of(kind))

        if kind != "slide":
            _ = one.shown.of_label  # waited for outside of the few that may work at once
        key = (kind, halvings, row, column, asked)
        tile = one.tiles.get(key, lambda: np.frombuffer(make(), np.uint8))
        return Answer(tile.tobytes(), "image/jpeg" if kind == "slide" else "image/png")

    @contextmanager
    def _using(self, number: int, *, fresh: bool) -> Iterator[_Open]:
        """A result, opened where it is not; read anew by a page that is loaded anew."""
        with self._lock:
            one = self._open.pop(number, None)
            if one is None or (fresh and one.stamp != _stamp(self._paths[number])):
                if one is not None and not one.users:
                    one.shown.close()
                stamp = _stamp(self._paths[number])
                one = _Open(Shown(load_result(self._paths[number]), self._image), stamp)
            self._open[number] = one
            one.users += 1
            for old in [n for n, other in self._open.items() if not other.users]:
                if len(self._open) > MOST_OPEN:
                    self._open.pop(old).shown.close()
        try:
            yield one
        finally:
            with self._lock:
                one.users -= 1
                if not one.users and one not in self._open.values():
                    one.shown.close()


def _stamp(folder: Path) -> tuple[object, ...]:
    """What changes when a result does, or its corrections do."""
    found: list[object] = []
    for name in ("run.json", CORRECTIONS):
        try:
            stat = (folder / name).stat()
            found.append((stat.st_mtime_ns, stat.st_size))
        except OSError:
            found.append(None)
    return tuple(found)


def _about(one: _Open, query: Query) -> Answer:
    version = f"{abs(hash(one.stamp)):x}"
    return Answer.of({**one.shown.about(), "version": version})


def _counts(one: _Open, query: Query) -> Answer:
    cells = one.shown.cells
    return Answer.of({"cells": len(cells), "per_class": cells.per_class(), "unit": cells.unit})


def _at(one: _Open, query: Query) -> Answer:
    y, x = (_number(query[name]) for name in ("y", "x"))
    return Answer.of(one.shown.at(y, x, _of(query.get("of", "nuclei"))))


def _box(one: _Open, query: Query) -> Answer:
    """Cut at the slide's edges, whatever was asked for."""
    y0, x0, y1, x1 = (round(_number(query[name])) for name in ("y0", "x0", "y1", "x1"))
    frame = one.shown.result.frame
    if y1 < y0 or x1 < x0:
        raise ValueError("expected y0 <= y1 and x0 <= x1")
    inside = Box(y0, x0, y1, x1).intersection(Box(0, 0, frame.height, frame.width))
    return Answer.of(one.shown.cells.within(inside, frame.mpp))


def _of(text: str) -> Of:
    if text == "nuclei":
        return "nuclei"
    if text == "cells":
        return "cells"
    raise ValueError(f"expected nuclei or cells, got {text!r}")


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError("expected a number")
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("expected a finite number")
    return value


def read_results(folders: Sequence[Location]) -> list[Result]:
    """Open results, for their names; each once.

    Raises
    ------
    InputError
        If a folder is no finished result.
    """
    for folder in folders:
        if not isinstance(folder, Path):
            raise InputError(f"{folder}: is behind a URL; copy the result folder to a disk first")
    paths = {Path(str(folder)).resolve(): folder for folder in folders}
    return [load_result(Path(str(folder))) for folder in paths.values()]
