"""The engine that maps tiles over a Dask cluster.

Dask does what it is good at: it holds the queue, notices dead workers, gives their tiles to others
and says what is done. No more than some batches are under way at a time, so that neither the
cluster nor this process ever holds more than that of a slide.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import islice
from typing import Any

import cellseg
from cellseg.counting.dask.address import check_installed
from cellseg.counting.dask.connect import connected
from cellseg.counting.dask.recipe import Answer, Recipe, Sealed, refusal, unpack
from cellseg.counting.dask.task import run_tiles
from cellseg.counting.local import Mapped
from cellseg.counting.request import CountRequest
from cellseg.counting.tiles import TileSource
from cellseg.counting.work import TileFound
from cellseg.errors import CellsegError, SettingsError, unexpected_text
from cellseg.geometry import Tile
from cellseg.network.detector import Detector
from cellseg.network.timer import Timer
from cellseg.storage import fingerprint

log = logging.getLogger(__name__)

BATCH = 4
"""Tiles of one task, where a slide has enough of them."""

AHEAD = 2
"""Tasks under way for each thread of the cluster."""

PATIENCE_SECONDS = 300.0
"""How long a cluster may be without any worker."""

_WAKE_SECONDS, _LOOK_SECONDS, _COUNT_SECONDS = 0.05, 1.0, 5.0

_GOES_ON = "what is done is kept, the same command goes on"


class DaskEngine:
    """Maps tiles over the workers of a cluster.

    Parameters
    ----------
    scheduler : str or None
        Address of the user's cluster, which is left as it was; None: one on this machine.
    batch : int or None
        Tiles of one task; None: :data:`BATCH`.

    Attributes
    ----------
    timer : Timer
        Waiting for the cluster; what the workers' networks waited for input and took, all of them
        together.
    devices : set of str
        Where the workers' networks ran.
    """

    def __init__(self, scheduler: str | None, *, batch: int | None = None) -> None:
        check_installed()
        self.scheduler, self.batch = scheduler, batch or BATCH
        self.timer = Timer()
        self.devices: set[str] = set()
        self._threads, self._counted = 0, float("-inf")
        self._last_worker = time.monotonic()

    def check(self) -> None:
        """See that there is a scheduler, before any work is done.

        Raises
        ------
        SettingsError
        """
        if self.scheduler is not None:
            with connected(self.scheduler):
                pass

    def map(self, recipe: Recipe, tiles: list[Tile]) -> Generator[Mapped[TileFound], None, None]:
        """Yield each tile's result, in any order.

        Closed before its end it cancels what is under way.

        Raises
        ------
        CellsegError
            What a worker refused, or that the cluster is gone.
        """
        if not tiles:
            return
        sealed = recipe.sealed()
        with connected(self.scheduler) as client, closing(self._run(client, sealed, tiles)) as out:
            yield from out

    def _run(
        self,
        client: Any,  # noqa: ANN401
        sealed: Sealed,
        tiles: list[Tile],
    ) -> Generator[Mapped[TileFound], None, None]:
        from distributed import as_completed

        self._last_worker = time.monotonic()
        batches = self._batches(client, tiles)
        done = as_completed(loop=client.loop)
        under_way: dict[Any, list[Tile]] = {}
        try:
            while True:
                for future, batch in self._submitted(client, sealed, batches, len(under_way)):
                    under_way[future] = batch
                    done.add(future)
                if not under_way:
                    return
                future = self._next(client, done)
                answer = self._answer(client, future)
                for tile, packed in zip(under_way.pop(future), answer["tiles"], strict=True):
                    yield unpack(packed, tile)
        finally:
            _cancel(client, list(under_way))

    def _batches(self, client: Any, tiles: list[Tile]) -> Iterator[list[Tile]]:  # noqa: ANN401
        """Batches in the tiles' order; small ones where there are few tiles for many workers."""
        source = iter(tiles)
        threads = max(1, self._count(client))
        size = max(1, min(self.batch, -(-len(tiles) // (AHEAD * threads))))
        while batch := list(islice(source, size)):
            yield batch

    def _submitted(
        self,
        client: Any,  # noqa: ANN401
        sealed: Sealed,
        batches: Iterator[list[Tile]],
        under_way: int,
    ) -> Iterator[tuple[Any, list[Tile]]]:
        """As many more batches as there is room for."""
        # The recipe goes with each batch: a WorkerPlugin would change the user's whole cluster, on
        # which a worker without cellseg could then no longer start.
        for batch in islice(batches, max(0, AHEAD * max(1, self._count(client)) - under_way)):
            places = [(tile.row, tile.column) for tile in batch]
            asked = (cellseg.__version__, sealed.digest, sealed.body, places)
            yield client.submit(run_tiles, *asked, pure=False), batch

    def _count(self, client: Any) -> int:  # noqa: ANN401
        """Threads of the cluster, asked for now and then: workers come and go."""
        now = time.monotonic()
        if now - self._counted > _COUNT_SECONDS or not self._threads:
            with self._talking():
                self._threads = sum(client.nthreads().values())
            self._counted = now
        return self._threads

    def _next(self, client: Any, done: Any) -> Any:  # noqa: ANN401
        with self.timer.stage("wait for the cluster"):
            looked = time.monotonic()
            while not done.has_ready():
                time.sleep(_WAKE_SECONDS)
                if time.monotonic() - looked > _LOOK_SECONDS:
                    self._check_alive(client)
                    looked = time.monotonic()
            return next(done)

    def _check_alive(self, client: Any) -> None:  # noqa: ANN401
        """Give up where nothing can come any more."""
        now = time.monotonic()
        with self._talking():
            if client.status not in ("running", "connecting"):
                raise self._gone()
            if client.nthreads():
                self._last_worker = now
        if now - self._last_worker > PATIENCE_SECONDS:
            raise CellsegError(f"{self._name}: no worker for {PATIENCE_SECONDS:.0f} s; {_GOES_ON}")

    def _answer(self, client: Any, future: Any) -> Answer:  # noqa: ANN401
        """A batch's answer; asked for again where its worker died before it was fetched."""
        while True:
            if future.status in ("error", "cancelled"):
                raise self._failure(future)
            try:
                answer: Answer = future.result(timeout=_LOOK_SECONDS)
                break
            except TimeoutError:
                self._check_alive(client)
            except Exception as error:
                if future.status == "error":
                    continue
                raise self._gone() from error
        refused = refusal(answer)
        if refused is not None:
            raise refused
        self.devices |= {answer["device"]} - {""}
        self.timer.add("wait for input, all workers", answer["wait"])
        self.timer.add("detect", answer["detect"])
        return answer

    def _failure(self, future: Any) -> CellsegError:  # noqa: ANN401
        """What went wrong with a task, in one line."""
        from distributed import KilledWorker

        if future.status != "error":
            return self._gone()
        with self._talking():
            error = future.exception(timeout=PATIENCE_SECONDS)
        log.info("a task failed", exc_info=error)
        if isinstance(error, KilledWorker):
            return CellsegError(
                f"{self._name}: several workers died over the same tiles; have they too little "
                f"memory? {_GOES_ON}"
            )
        if isinstance(error, ImportError):
            return SettingsError(
                f"{self._name}: a worker cannot run cellseg ({error}); install "
                f"cellseg {cellseg.__version__} on every machine"
            )
        return CellsegError(f"{self._name}: on a worker: {unexpected_text(error)}")

    @property
    def _name(self) -> str:
        return self.scheduler or "the local cluster"

    def _gone(self) -> CellsegError:
        return CellsegError(f"{self._name}: the cluster is gone or was restarted; {_GOES_ON}")

    @contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except CellsegError:
            raise
        except Exception as error:
            raise self._gone() from error


class There:
    """A :class:`~cellseg.counting.stages.TileMapper` on a cluster.

    Parameters
    ----------
    detector : Detector or None
        Of the caller's own; None: workers load the request's model.

    Raises
    ------
    SettingsError
        If no scheduler answers.
    """

    def __init__(self, request: CountRequest, detector: Detector | None) -> None:
        self._request, self._detector = request, detector
        self._engine = DaskEngine(request.scheduler, batch=request.batch)
        self._engine.check()
        self.seconds: dict[str, float] = {}
        self.device = ""

    def map(
        self, source: TileSource, detector: Detector, tiles: list[Tile]
    ) -> Generator[Mapped[TileFound], None, None]:
        """See :class:`~cellseg.counting.stages.TileMapper`."""
        recipe = Recipe.of(
            self._request,
            source,
            checksum=detector.info.checksum,
            # With another version of the slide's file no worker goes on with an older one.
            version=json.dumps(fingerprint(self._request.image)),
            detector=self._detector,
        )
        with closing(self._engine.map(recipe, tiles)) as results:
            yield from results
        self.seconds = self._engine.timer.seconds
        self.device = ", ".join(sorted(self._engine.devices))


def _cancel(client: Any, futures: list[Any]) -> None:  # noqa: ANN401
    """Take back what is not done; a cluster that is gone needs none of it."""
    if futures and client.status == "running":
        with suppress(Exception):
            client.cancel(futures)
