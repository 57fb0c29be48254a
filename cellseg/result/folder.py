"""A run's way into its result folder."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.counting.report import Report
from cellseg.draw import write_png
from cellseg.draw.outlined import Masks, draw_outlines
from cellseg.draw.overview import write_overview
from cellseg.errors import ExistingResultError, InputError, OutputError
from cellseg.instances import Instances
from cellseg.result import publish
from cellseg.result.cellstore import Batch
from cellseg.result.files import output_errors, plain, replacing, write_json
from cellseg.result.journal import JOURNAL_NAME, FinishedTile, Journal, TileStatus
from cellseg.result.labels import open_labels, write_labels
from cellseg.result.lock import LOCK_NAME, FolderLock
from cellseg.result.result import Result, is_ours, load_result
from cellseg.result.table import write_table
from cellseg.storage import Location, is_another

log = logging.getLogger(__name__)


class ResultFolder:
    """A run's way into its result folder; use :meth:`open`, and ``with``.

    Attributes
    ----------
    resumed : bool
        Whether the journal holds tiles of an earlier, unfinished run of the same key.
    started_afresh_because : str or None
        Why an earlier run's tiles were thrown away.
    already_complete : bool
        Whether the folder holds a finished result of the same key, every tile in it is good, and
        nothing in it was changed since.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        lock: FolderLock,
        *,
        image: Location | None = None,
        sound: Callable[[FinishedTile], None] | None = None,
        overwrite: bool = True,
    ) -> None:
        self.path = path
        self._key = key
        self._lock = lock
        if publish.is_ready(path):
            publish.publish(path)
        self.already_complete = _is_done(path, key, image, overwrite=overwrite)
        self._staging = publish.fresh_staging(path)
        self._journal = Journal(path / JOURNAL_NAME, key, image, sound)
        self._worked = False
        self.resumed = self._journal.resumed
        self.started_afresh_because = self._journal.discarded_because

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        key: str | Mapping[str, object],
        image: Location | None = None,
        sound: Callable[[FinishedTile], None] | None = None,
        overwrite: bool = True,
    ) -> Self:
        """Make the folder, or go on in it.

        Parameters
        ----------
        path : str or Path
            Folders above it are made too.
        key : str or mapping
            Everything that determines the result: slide, settings, weights; or a hash of it.
        image : Path or RemotePath, optional
            The slide: an unfinished run of another one is not thrown away.
        sound : callable, optional
            Raises ValueError for a finished tile that cannot be this run's.
        overwrite : bool
            A result of another key, or one that was changed since, may be replaced.

        Raises
        ------
        ExistingResultError
            If there is such a result, and it may not be replaced.
        OutputError
            If it cannot be written, holds other people's files or another slide's unfinished
            run, or another run is writing.
        """
        folder = Path(path)
        with output_errors(folder):
            if folder.exists() and not folder.is_dir():
                raise OutputError(f"{folder}: is a file, expected a folder for the result")
            folder.mkdir(parents=True, exist_ok=True)
            if not is_ours(folder) and any(folder.iterdir()):
                raise OutputError(f"{folder}: exists and is no result folder of cellseg")
            lock = FolderLock(folder)
            try:
                return cls(
                    folder, _digest(key), lock, image=image, sound=sound, overwrite=overwrite
                )
            except BaseException:
                with suppress(OSError):
                    publish.remove_staging(folder)
                _let_go(folder, lock)
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tile_done(
        self,
        row: int,
        column: int,
        instances: Instances,
        *,
        status: TileStatus = "done",
        info: Mapping[str, object] | None = None,
        cells: Iterable[tuple[pd.DataFrame, Instances]] = (),
    ) -> None:
        """Keep a finished tile, so that a later run need not compute it.

        Parameters
        ----------
        row, column : int
            Place in the grid.
        instances : Instances
            On the slide's lattice; empty where the tile failed.
        status : {'done', 'failed'}
            Failed tiles could not be decoded.
        info : mapping, optional
            Whatever the caller wants back, JSON-ready.
        cells : iterable of (DataFrame, Instances)
            Those that became final with it, as :meth:`add_cells` takes them: all of it is kept,
            or nothing.
        """
        self._worked = True
        tile = FinishedTile(row, column, status, dict(info or {}), instances)
        with self._writing(), self._journal.together():
            self._journal.add(tile)
            for table, settled in cells:
                self._add(table, settled)

    def tiles(self) -> Iterator[FinishedTile]:
        """Finished tiles in the order of arrival, one in memory at a time."""
        return self._journal.tiles()

    def recall(
        self, instances: Instances, columns: Sequence[str]
    ) -> dict[int, NDArray[np.float64]]:
        """What an earlier run measured of cells: see :meth:`CellStore.recall`.

        Those that this run does not ask for are not in the result.
        """
        with self._writing(), self._journal.together():
            return self._journal.cells.recall(instances, tuple(columns))

    def forget_tiles(self) -> None:
        """Finished tiles are not this run's: nothing of them is kept."""
        with self._writing():
            self._journal.forget()
        self._worked = True

    def add_cells(self, table: pd.DataFrame, instances: Instances) -> None:
        """Keep cells that are final, in any order.

        Parameters
        ----------
        table : DataFrame
            One row an instance. ``label`` and text are not taken from here.
        instances : Instances
            On the slide's lattice.
        """
        with self._writing(), self._journal.together():
            self._add(table, instances)

    def _add(self, table: pd.DataFrame, instances: Instances) -> None:
        numbers = table.select_dtypes(["number", "bool"]).drop(columns="label", errors="ignore")
        self._journal.cells.add(numbers, instances)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """The disk's errors as one line; that the folder is gone explains any of them.

        Raises
        ------
        OutputError
        """
        try:
            with output_errors(self.path):
                yield
        except Exception:
            self._lock.check()
            raise
        self._lock.check()

    def finish(
        self, report: Report, *, on_progress: Callable[[float], None] | None = None
    ) -> Result:
        """Write everything, put it in place, drop the journal and close the folder.

        Parameters
        ----------
        report : Report
            What the run knows beside its cells.
        on_progress : callable, optional
            Gets the share that is done, 0 … 1.

        Raises
        ------
        OutputError
            If the disk refuses. Finished tiles stay in the journal, an older result in place.
        """
        token = uuid.uuid4().hex
        with self._writing():
            self._stage(report, token, on_progress or (lambda share: None))
            self._lock.check()  # before anything half could look whole
            outdated = publish.exports_of(publish.published(self.path))
            publish.mark_ready(self.path, token, outdated=outdated)
            publish.publish(self.path)
            # Of tiles that did not decode another try may know more; the others are kept for it.
            self._journal.close(keep=not report.complete)
        self.close()
        return load_result(self.path)

    def _stage(self, report: Report, token: str, on_progress: Callable[[float], None]) -> None:
        cells = self._journal.cells
        counts = _Counts(report)

        def watched() -> Iterator[Batch]:
            for batch in cells.batches():
                counts.add(batch)
                yield batch
                on_progress(0.4 * float(batch.labels[-1]) / cells.count)

        write_table(
            self._staging / publish.TABLE,
            watched(),
            report.columns,
            measured=cells.columns or (),
            class_names=report.class_names,
            texts={"image": report.image_name, "object": report.object_name},
            regions=report.regions,
        )
        write_labels(
            self._staging / publish.LABELS,
            cells,
            report.frame,
            token=token,
            on_progress=lambda share: on_progress(0.4 + 0.5 * share),
        )
        if report.overview is not None:
            with replacing(self._staging / publish.OVERVIEW) as temporary:
                write_overview(
                    temporary, report.overview, counts.image, report.regions, counts.by_class
                )
        if report.tissue is not None:
            write_json(self._staging / publish.TISSUE, report.tissue)
        if report.regions is not None:
            write_json(self._staging / publish.REGIONS, report.regions.as_geojson())
        on_progress(0.92)
        if report.ground is not None:
            self._outline(report)
        on_progress(0.95)
        write_json(self._staging / publish.RUN, self._describe(report, token, cells.count))

    def _outline(self, report: Report) -> None:
        """``outlines.png``; none where the slide does not decode any more."""
        assert report.ground is not None
        masks = Masks(
            frame=report.frame,
            levels=open_labels(self._staging / publish.LABELS),
            table=self._staging / publish.TABLE,
            class_names=report.class_names,
            object_name=report.object_name,
            regions=report.regions,
        )
        try:
            picture = draw_outlines(report.ground, masks)
        except InputError as error:
            log.warning("%s: no %s: %s", self.path, publish.OUTLINES, error)
            return
        with replacing(self._staging / publish.OUTLINES) as temporary:
            write_png(picture, temporary)

    def _describe(self, report: Report, token: str, rows: int) -> dict[str, object]:
        given = report.provenance() if callable(report.provenance) else report.provenance
        own: dict[str, object] = {
            "format": publish.FORMAT,
            "format_version": publish.FORMAT_VERSION,
            "complete": report.complete,
            "object": report.object_name,
            "class_names": list(report.class_names),
            "frame": vars(report.frame),
            "columns": [{"name": c.name, "dtype": c.dtype} for c in report.columns],
            "exports": [],
            "files": publish.inventory(self._staging, rows=rows),
            "key": self._key,
            "result": token,
        }
        return {**own, **given, **own}

    def close(self) -> None:
        """Let go of the folder; finished tiles stay in the journal. A second time does nothing."""
        if not self._lock.is_held:
            self._journal.abandon()
            self._lock.release()
            _forget_removed(self.path)
            return
        with suppress(OSError):
            publish.remove_staging(self.path)
        with suppress(OSError, sqlite3.Error):
            # A run that was killed between its last two steps left the journal of a result
            # that is whole.
            self._journal.close(keep=self._worked or not self.already_complete)
        _let_go(self.path, self._lock)


def _is_done(folder: Path, key: str, image: Location | None, *, overwrite: bool) -> bool:
    """Whether nothing is left to do.

    Raises
    ------
    ExistingResultError
        Where a result would be replaced that may not be.
    OutputError
        Where it is of another slide with the same name.
    """
    try:
        there = load_result(folder)
    except InputError:
        return False
    match there.run.get("image"):
        case {"path": str(other)} if image is not None and is_another(other, image):
            raise OutputError(f"{folder}: holds the result of {other}; take another --output")
    if there.run.get("key") != key:
        why = "a count with other settings, or of another version of the slide or of cellseg"
    elif (name := there.changed()) is not None:
        why = f"a count whose {name} was changed since"
    else:
        return there.is_complete
    if overwrite:
        return False
    corrected = (folder / publish.CORRECTIONS).is_file()
    raise ExistingResultError(why, place=folder, has_corrections=corrected)


def _let_go(folder: Path, lock: FolderLock) -> None:
    lock.release()
    with suppress(OSError):
        folder.rmdir()  # only where nothing was kept


def _forget_removed(folder: Path) -> None:
    """Take away what was made anew, piece by piece, after someone removed the folder."""
    if (folder / LOCK_NAME).exists():
        return  # it is another run's by now
    with suppress(OSError):
        publish.remove_staging(folder)
        folder.rmdir()


class _Counts:
    """Cells per overview pixel, gathered while the table is written."""

    def __init__(self, report: Report) -> None:
        overview = report.overview
        shape = (1, 1) if overview is None else overview.image.shape[:2]
        self.image: NDArray[np.float64] = np.zeros(shape, dtype=np.float64)
        several = report.class_names if len(report.class_names) > 1 else ()
        self.by_class = {name: np.zeros_like(self.image) for name in several}
        self._factor = report.frame.downsample / (1 if overview is None else overview.downsample)

    def add(self, batch: Batch) -> None:
        at = ((batch.centroids + 0.5) * self._factor).astype(np.int64)
        limit = np.array(self.image.shape) - 1
        y, x = np.clip(at, 0, limit).T
        np.add.at(self.image, (y, x), 1.0)
        for number, counts in enumerate(self.by_class.values()):
            of_class = batch.classes == number
            np.add.at(counts, (y[of_class], x[of_class]), 1.0)


def _digest(key: str | Mapping[str, object]) -> str:
    if isinstance(key, str):
        return key
    text = json.dumps(plain(key), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
