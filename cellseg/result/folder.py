"""A run's way into its result folder."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cellseg.annotations.region import Regions
from cellseg.errors import ExistingResultError, InputError, OutputError, output_errors
from cellseg.geometry import Frame
from cellseg.result import publish
from cellseg.result.change import Change, FolderLock
from cellseg.result.files import is_writable, plain, write_json
from cellseg.result.journal import JOURNAL_NAME, Journal
from cellseg.result.labels import write_labels, write_quality
from cellseg.result.result import Result, is_ours, load_result
from cellseg.result.table import table_writer
from cellseg.storage import Location, has_same_content, is_another
from cellseg.table import REGION, Column


@dataclass(frozen=True, eq=False, kw_only=True)
class Findings:
    """What a finished run knows beside its cells.

    ``facts`` become ``found`` of ``run.json``: what no later change alters, such as the tissue's
    area. The ``record`` goes there too: versions, weights, settings, tiles, limits, time per stage.
    """

    frame: Frame
    columns: Sequence[Column]  # The contract of measured.parquet, in order.
    class_names: Sequence[str]  # By the model, by index.
    object_name: str
    image_name: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    record: Mapping[str, object] = field(default_factory=dict)
    tissue: Mapping[str, object] | None = None  # GeoJSON; None: no tissue.geojson.
    regions: Regions | None = None  # That were counted in, as drawn; None: no regions.geojson.
    quality: NDArray[np.uint8] | None = None  # (R, C), of :func:`cellseg.stain.quality.judged`.
    is_complete: bool = True  # False where tiles failed.


class ResultFolder(AbstractContextManager["ResultFolder"]):
    """A run's way into its result folder; use :meth:`open`, and ``with``.

    The ``journal`` keeps finished tiles and final cells until they are a result. The folder is
    ``already_complete`` if it holds a finished result of the same key, without failed tiles, that
    nobody changed since.
    """

    def __init__(
        self, path: Path, key: object, lock: FolderLock, image: Location | None, overwrite: bool
    ) -> None:
        text = json.dumps(plain(key), sort_keys=True, ensure_ascii=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.path, self._key, self._lock = path, digest, lock
        if publish.is_ready(path):
            publish.publish(path)
        self.already_complete = _is_done(path, digest, key, image, overwrite=overwrite)
        if self.already_complete and not lock.is_held:
            return  # it is read-only, and nothing has to be written
        self._staging = publish.fresh_staging(path)
        self.journal = Journal(path / JOURNAL_NAME, digest, image, self._held)

    @classmethod
    def open(
        cls, path: str | Path, *, key: object, image: Location | None = None, overwrite: bool = True
    ) -> Self:
        """Make the folder and those above it, or go on in it.

        ``key`` is everything that determines the result, slide, settings and weights, as JSON has
        it. A result of another key, or one that was changed since, may be replaced with
        ``overwrite``; else it is an ExistingResultError. An OutputError if it cannot be written,
        holds other people's files or an unfinished run of another slide than ``image``, or another
        run is writing.
        """
        folder = Path(path)
        with output_errors(folder, sqlite3.Error):
            if folder.exists() and not folder.is_dir():
                raise OutputError(f"{folder}: is a file, expected a folder for the result")
            folder.mkdir(parents=True, exist_ok=True)
            if not is_ours(folder) and any(folder.iterdir()):
                raise OutputError(f"{folder}: exists and is no result folder of cellseg")
            lock = FolderLock(folder)
            try:
                return cls(folder, key, lock, image, overwrite)
            except BaseException:
                with suppress(OSError):
                    publish.remove_staging(folder)
                _let_go(folder, lock)
                raise

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Words what the disk says; a folder that is gone explains any error of it."""
        try:
            with output_errors(self.path, sqlite3.Error):
                yield
        except Exception:
            self._lock.check()
            raise
        self._lock.check()

    def finish(self, findings: Findings, complete: Callable[[Change], None]) -> Result:
        """Write everything, put it in place, drop the journal and close the folder.

        ``complete`` gets the change with what was found, and adds what follows from it. An
        OutputError if the disk refuses: finished tiles stay in the journal, an older result in
        place.
        """
        with self._held():
            change = self._stage(findings)
            complete(change)
            self._lock.check()  # before anything half could look whole
            result = change.commit()
            # Of tiles that did not decode another try may know more; the others are kept for it.
            self.journal.close(keep=not findings.is_complete)
        self.close()
        return result

    def _stage(self, findings: Findings) -> Change:
        """What was found: masks, the measured table, tissue and regions, the record."""
        token = uuid.uuid4().hex
        self._write_measured(findings)
        blocks = self.journal.blocks(findings.frame)
        write_labels(self._staging / publish.LABELS, blocks, findings.frame, token=token)
        if findings.tissue is not None:
            write_json(self._staging / publish.TISSUE, findings.tissue)
        if findings.regions is not None:
            write_json(self._staging / publish.REGIONS, findings.regions.as_geojson())
        if findings.quality is not None:
            write_quality(self._staging / publish.QUALITY, findings.quality)
        found = {
            "columns": [{"name": c.name, "dtype": c.dtype} for c in findings.columns],
            "class_names": list(findings.class_names),
        }
        own: dict[str, object] = {
            "format": publish.FORMAT,
            "format_version": publish.FORMAT_VERSION,
            "complete": findings.is_complete,
            "object": findings.object_name,
            **found,
            "found": {**findings.facts, **found},
            "frame": vars(findings.frame),
            "exports": [],
            "files": {},
            "key": self._key,
            "result": token,
        }
        # First as well, for the order in which people read them.
        return Change(self.path, {**own, **findings.record, **own}, findings.frame, fresh=True)

    def _write_measured(self, findings: Findings) -> None:
        """``measured.parquet``, the cells in the order of their labels."""
        names = np.array([*findings.class_names], dtype=object)
        with table_writer(self._staging / publish.MEASURED, findings.columns) as add:
            for classes, found in self.journal.batches():
                values: dict[str, Any] = {
                    **found,
                    "class": names[classes],
                    "image": [findings.image_name] * len(classes),
                    "object": [findings.object_name] * len(classes),
                }
                if findings.regions is not None:
                    places = values["centroid_y_px"], values["centroid_x_px"]
                    values[REGION] = findings.regions.names_at(*places)
                add(values)

    def close(self) -> None:
        """Let go of the folder; finished tiles stay in the journal. A second time does nothing."""
        if self._lock.is_held:
            with suppress(OSError):
                publish.remove_staging(self.path)
            with suppress(OSError, sqlite3.Error):
                # A run that was killed between its last two steps left the journal of a result
                # that is whole.
                self.journal.close(keep=self.journal.is_written or not self.already_complete)
        elif not self.already_complete:
            self.journal.abandon()
        _let_go(self.path, self._lock)


def _is_done(
    folder: Path, digest: str, key: object, image: Location | None, *, overwrite: bool
) -> bool:
    """Whether nothing is left to do; refuses to replace a result that may not be replaced."""
    try:
        result = load_result(folder)
        is_same = result.run.get("key") == digest
        # A table that somebody edited is theirs; it follows from the other files.
        checked = [name for name in publish.CHECKED if name != publish.TABLE]
        file = publish.changed(folder, result.run, names=checked) if is_same else None
    except InputError as error:
        parts = (publish.RUN, publish.MEASURED, publish.LABELS)
        if overwrite or not all(os.path.lexists(folder / name) for name in parts):
            return False  # somebody took a part away: nothing is left to lose
        why = str(error).removeprefix(f"{folder}: ")
        raise _existing(f"a result that cannot be read ({why})", folder) from error
    match result.run.get("image"):
        case {"path": str(other)} if image is not None and is_another(other, image):
            if overwrite and has_same_content(other, image):
                return False
            raise OutputError(f"{folder}: holds the result of {other}", hint="output")
    if not is_same:
        why = "a count with other settings, or of another version of the slide or of cellseg"
        if changes := _other_settings(plain(key), result):
            why = f"a count with other settings ({', '.join(changes)})"
    elif file is not None:
        why = f"a count whose {file} was changed or removed since"
    else:
        lost = not os.path.lexists(folder / publish.TABLE)
        if result.is_complete and lost and is_writable(folder):
            result.table.write_csv(folder / publish.TABLE)
        return result.is_complete
    if overwrite:
        return False
    raise _existing(why, folder)


def _other_settings(key: object, result: Result) -> list[str]:
    """What a run's key has other than an earlier result: the protocol, the model, single values."""
    match key:
        case {"plan": {"model": model, "protocol": dict(now), **plan}}:
            before, settings = result.section("protocol"), result.section("settings")
            # What the earlier one lacks came with a later version: nobody set it.
            other = {k: (before[k], v) for k, v in now.items() if k in before and before[k] != v}
            asked = {name: (settings.get(name), plan.get(name)) for name in _ASKED}
            asked["mpp"] = result.section("pixel_size").get("mpp"), plan.get("mpp")
            asked["regions"] = settings.get("regions"), plan.get("regions") and publish.REGIONS
            if now.get("prefilter"):
                asked["prefilter"] = settings.get("prefilter"), plan.get("prefilter")
            if any(asked[name][0] != asked[name][1] for name in ("z", "t", "series", "mpp")):
                other = {}  # of another picture protocol and model may be other ones by themselves
            elif "name" in other:
                return ["protocol was {}, now {}".format(*other["name"])]
            elif result.section("model").get("checksum") != model:
                return ["another model"]
            return [
                f"{name} was {_told(old)}, now {_told(new)}"
                for name, (old, new) in (asked | other).items()
                if old != new and name != "about" and not isinstance(new or old, dict | list)
            ]
    return []


_ASKED = ("z", "t", "series", "precision", "inference", "skip_bad")


def _told(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not set" if value is None else str(value)


def _existing(why: str, folder: Path) -> ExistingResultError:
    corrected = " and corrections of it" * (folder / publish.CORRECTIONS).is_file()
    return ExistingResultError(f"{why}{corrected}", place=folder)


def _let_go(folder: Path, lock: FolderLock) -> None:
    lock.release()
    with suppress(OSError):
        folder.rmdir()  # only where nothing was kept
