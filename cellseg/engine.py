"""Where tiles are mapped: in this process, with reading ahead of the network.

An engine turns tiles into results; it knows nothing of cells, merging or files. Another
engine (a cluster's) takes its place by offering :meth:`Engine.map`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from cellseg.geometry import Tile

Read = TypeVar("Read")
Found = TypeVar("Found")

_LOOK_SECONDS = 0.2
"""How often a waiting thread looks whether it is still wanted."""


@dataclass(frozen=True, eq=False)
class Mapped(Generic[Read, Found]):
    """One tile's result.

    Attributes
    ----------
    tile : Tile
    read : object or None
        What reading gave, kept so that measuring need not read again; None where reading failed
        or happened elsewhere.
    found : object or None
        What the network gave; None where reading failed.
    error : Exception or None
        Why reading failed.
    """

    tile: Tile
    read: Read | None
    found: Found | None
    error: Exception | None = None


@dataclass
class Clock:
    """Seconds that the network waited for input, and that it took."""

    wait: float = 0.0
    detect: float = 0.0


class LocalEngine(Generic[Read, Found]):
    """Threads read ahead, one runs the network, the caller has what is done.

    Whatever the caller does with a tile's result (merge, measure, write) goes on beside the
    network: torch gives the interpreter away while it computes.

    Parameters
    ----------
    batch : int
        Tiles that go through the network together.
    readers : int
        Reading threads.
    expected : tuple of exception types
        Errors of reading that fail the tile and not the run.
    """

    def __init__(
        self, *, batch: int = 1, readers: int = 2, expected: tuple[type[Exception], ...] = ()
    ) -> None:
        if batch < 1 or readers < 1:
            raise ValueError(f"expected at least 1, got batch={batch}, readers={readers}")
        self.batch, self.readers, self.expected = batch, readers, expected
        self.clock = Clock()

    @property
    def stages(self) -> dict[str, float]:
        """Seconds for the record of a run."""
        return {"wait for input": self.clock.wait, "detect": self.clock.detect}

    def map(
        self,
        tiles: Iterable[Tile],
        read: Callable[[Tile], Read],
        detect: Callable[[list[Read]], list[Found]],
    ) -> Generator[Mapped[Read, Found], None, None]:
        """Yield each tile's result, in the order of ``tiles`` but for failed ones.

        Closed before its end, it waits for the batch under way and gives it up. Whatever
        ``detect`` raises is raised here.
        """
        done: queue.Queue[Mapped[Read, Found] | _End] = queue.Queue(2 * self.batch)
        unwanted = threading.Event()

        def put(item: Mapped[Read, Found] | _End) -> None:
            while not unwanted.is_set():
                try:
                    done.put(item, timeout=_LOOK_SECONDS)
                except queue.Full:
                    continue
                return

        def work() -> None:
            error: BaseException | None = None
            try:
                with closing(self._mapped(tiles, read, detect)) as results:
                    for result in results:
                        put(result)
                        if unwanted.is_set():
                            return
            except BaseException as caught:
                error = caught
            put(_End(error))

        thread = threading.Thread(target=work, name="cellseg-network", daemon=True)
        thread.start()
        try:
            while True:
                try:
                    # Not for ever: on Windows nothing interrupts a lock without an end.
                    item = done.get(timeout=_LOOK_SECONDS)
                except queue.Empty:
                    continue
                if isinstance(item, _End):
                    if item.error is not None:
                        raise item.error
                    return
                yield item
        finally:
            unwanted.set()
            thread.join()

    def _mapped(
        self,
        tiles: Iterable[Tile],
        read: Callable[[Tile], Read],
        detect: Callable[[list[Read]], list[Found]],
    ) -> Generator[Mapped[Read, Found], None, None]:
        source = iter(tiles)
        waiting: deque[tuple[Tile, Future[Read]]] = deque()
        with ThreadPoolExecutor(self.readers, thread_name_prefix="cellseg-read") as pool:
            try:
                for tile in islice(source, self.batch + self.readers):
                    waiting.append((tile, pool.submit(read, tile)))
                while waiting:
                    ready: list[tuple[Tile, Read]] = []
                    while waiting and len(ready) < self.batch:
                        tile, future = waiting.popleft()
                        for following in islice(source, 1):
                            waiting.append((following, pool.submit(read, following)))
                        value, error = self._result(future)
                        if error is not None or value is None:
                            yield Mapped(tile, None, None, error)
                        else:
                            ready.append((tile, value))
                    yield from self._detect(ready, detect)
            finally:
                for _, future in waiting:
                    future.cancel()

    def _result(self, future: Future[Read]) -> tuple[Read | None, Exception | None]:
        start = time.perf_counter()
        try:
            return future.result(), None
        except self.expected as error:
            return None, error
        finally:
            self.clock.wait += time.perf_counter() - start

    def _detect(
        self, ready: list[tuple[Tile, Read]], detect: Callable[[list[Read]], list[Found]]
    ) -> Iterator[Mapped[Read, Found]]:
        if not ready:
            return
        start = time.perf_counter()
        found = detect([value for _, value in ready])
        self.clock.detect += time.perf_counter() - start
        for (tile, value), result in zip(ready, found, strict=True):
            yield Mapped(tile, value, result)


@dataclass(frozen=True)
class _End:
    """No more tiles come."""

    error: BaseException | None
