"""What each address below the token answers: the page's files, tiles, cells, counts."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from threading import BoundedSemaphore, Lock

import numpy as np

from cellseg.errors import CellsegError
from cellseg.geometry import Box
from cellseg.result import load_result
from cellseg.result.files import plain
from cellseg.result.publish import QUALITY
from cellseg.serve.shown import OpenResult, version_of
from cellseg.storage import Location
from cellseg.text import visible

logger = logging.getLogger(__name__)

PAGE = {
    "viewer.html": "html", "viewer.css": "css", "viewer.js": "javascript",
    "openseadragon.min.js": "javascript",
}  # fmt: skip
"""The page's own files and what they are; the first one has the empty address."""

MOST_OPEN = 4
"""Results that stay open; the one that was looked at longest ago is closed for another."""

_TILE = re.compile(r"(slide|nuclei|cells)/(\d{1,2})/(\d{1,7})/(\d{1,7})", re.ASCII)
_SHOWN = re.compile(r"[0-9a-f]{1,64}")
_NUMBER = re.compile(r"-?\d{1,9}(?:\.\d{1,6})?", re.ASCII)

Query = Mapping[str, str]


@dataclass(frozen=True)
class Reply:
    """An answer: its body, its content type, its status."""

    body: bytes
    kind: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK

    @classmethod
    def refused(cls, status: HTTPStatus, text: str = "") -> Reply:
        """An error in one line."""
        said = visible(text or status.phrase)
        return cls(f"{said}\n".encode("utf-8", "replace"), status=status)

    @classmethod
    def of(cls, content: object) -> Reply:
        """JSON."""
        text = json.dumps(plain(content), ensure_ascii=True, allow_nan=False)
        return cls(text.encode("ascii"), "application/json")


class Viewer:
    """Finished results, by their numbers, each once; an InputError if a folder holds none.

    A result that changes on the disk is opened anew. Requests name in ``v`` the version that they
    ask about; one for an earlier version is told so (status 410), and the page loads it anew.

    ``image`` is where the slide of the only result is by now. ``on_region`` gets a line for each
    region that was drawn and kept; without it none may be drawn.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        image: Location | None = None,
        on_region: Callable[[str], None] | None = None,
    ) -> None:
        self._on_region, self.is_editable = on_region, on_region is not None
        each = {folder.resolve(): folder for folder in folders}.values()
        self._paths = [load_result(folder).path for folder in each]
        # Whatever is no longer kept is closed once no request reads it.
        self._open = lru_cache(MOST_OPEN)(lambda path, _: OpenResult(path, image))
        self._lock = Lock()
        # Tiles are made by as many threads as there are cores, whatever a browser asks for.
        self._makers = BoundedSemaphore(os.cpu_count() or 1)
        home = files("cellseg.serve") / "page"
        self._page = {
            name.removesuffix("viewer.html"): Reply(
                home.joinpath(name).read_bytes(), f"text/{kind}; charset=utf-8"
            )
            for name, kind in PAGE.items()
        }

    def close(self) -> None:
        self._open.cache_clear()

    def read_ahead(self) -> None:
        """Open the first result while a browser starts, with the table where outlines need it."""
        with suppress(CellsegError):
            path = self._paths[0]
            self._opened(path, version_of(path)).of_label()

    def answer(self, place: str, query: Query) -> Reply:
        """Answer a request; ``place`` is the address below the token, and nothing is unquoted."""
        if place in self._page:
            return self._page[place]
        if place == "results":
            return Reply.of([visible(path.name) for path in self._paths])
        return self._asked(place, query, self._of_result)

    def keep(self, place: str, query: Query, content: bytes) -> Reply:
        """Keep the regions that a page sent, and say their totals."""

        def kept(one: OpenResult, rest: str, query: Query) -> Reply:
            if rest != "regions" or self._on_region is None:
                return Reply.refused(HTTPStatus.NOT_FOUND)
            found = one.keep_regions(content, query.get("tag", ""))
            for total in found["totals"]:
                self._on_region(f"{one.result.path.name}: {total['said']}")
            return Reply.of(found)

        return self._asked(place, query, kept)

    def _asked(
        self, place: str, query: Query, reply: Callable[[OpenResult, str, Query], Reply]
    ) -> Reply:
        """The reply of the result that an address names, of the version that the page knows."""
        head, _, rest = place.partition("/")
        if not re.fullmatch("[0-9]{1,6}", head) or int(head) >= len(self._paths):
            return Reply.refused(HTTPStatus.NOT_FOUND)
        path = self._paths[int(head)]
        version = version_of(path)
        gone = Reply.refused(HTTPStatus.GONE, "the result was changed; it is loaded anew")
        if query.get("v", version) != version:
            return gone
        try:
            found = reply(self._opened(path, version), rest, query)
        except CellsegError as error:
            found = Reply.refused(HTTPStatus.CONFLICT, str(error))
        except (KeyError, ValueError):
            logger.info("while answering", exc_info=True)
            found = Reply.refused(HTTPStatus.BAD_REQUEST)
        except Exception:
            logger.exception("while answering")
            found = Reply.refused(HTTPStatus.INTERNAL_SERVER_ERROR)
        # What was read meanwhile, or could not be read, may be of another count.
        return found if version_of(path) == version else gone

    def _of_result(self, one: OpenResult, rest: str, query: Query) -> Reply:
        if found := _TILE.fullmatch(rest):
            kind, *numbers = found.groups()
            return self._tile(one, kind, *map(int, numbers), query=query)
        if rest == "regions":
            return Reply.of({**one.regions(), "edit": self.is_editable})
        if rest == "quality" and one.quality is not None:
            return Reply(one.result.file(QUALITY).read_bytes(), "image/png")
        if rest in _ASKED:
            return Reply.of(_ASKED[rest](one, query))
        return Reply.refused(HTTPStatus.NOT_FOUND)

    def _tile(
        self, one: OpenResult, kind: str, halvings: int, row: int, column: int, *, query: Query
    ) -> Reply:
        box = one.box_of(halvings, row, column)
        if box is None or (kind == "slide" and one.ground is None):
            return Reply.refused(HTTPStatus.NOT_FOUND)
        asked = "" if kind == "slide" else query.get("shown", "")

        def make() -> bytes:
            with self._makers:
                if kind == "slide":
                    return one.slide_tile(box, halvings)
                bits = int(asked, 16)
                shown = np.array([bits >> n & 1 for n in range(len(one.names))], np.bool_)
                return one.mask_tile(box, halvings, shown, of=kind)

        if kind != "slide":
            if not _SHOWN.fullmatch(asked):
                raise ValueError("expected the classes as bits of a number")
            one.of_label()  # waited for outside of the few that may work at once
        key = (kind, halvings, row, column, asked)
        tile = one.tiles.get(key, lambda: np.frombuffer(make(), np.uint8))
        return Reply(tile.tobytes(), "image/jpeg" if kind == "slide" else "image/png")

    def _opened(self, path: Path, version: str) -> OpenResult:
        """A result, opened where it is not, or where it is another one by now."""
        with self._lock:
            return self._open(path, version)


def _at(one: OpenResult, query: Query) -> object:
    y, x = _numbers(query, "y", "x")
    return one.cell_at(y, x, query.get("of", "nuclei"))


def _box(one: OpenResult, query: Query) -> object:
    y0, x0, y1, x1 = map(round, _numbers(query, "y0", "x0", "y1", "x1"))
    if y1 < y0 or x1 < x0:
        raise ValueError("expected y0 <= y1 and x0 <= x1")
    return one.counts_in(Box(y0, x0, y1, x1))


def _numbers(query: Query, *names: str) -> list[float]:
    texts = [query[name] for name in names]
    if not all(map(_NUMBER.fullmatch, texts)):
        raise ValueError("expected numbers")
    return [float(text) for text in texts]


_ASKED: dict[str, Callable[[OpenResult, Query], object]] = {
    "version": lambda one, _: {"version": one.version, "token": one.result.token},
    "about": lambda one, _: one.about(),
    "counts": lambda one, _: one.counts(),
    "drawn.geojson": lambda one, _: one.regions()["geojson"],
    "at": _at,
    "box": _box,
}
"""What is told of a result, by the address below its number."""
