"""Where tiles are mapped: in this process, with reading ahead of the network.

An engine turns tiles into results; it knows nothing of cells, merging or files. Another
engine (a cluster's) takes its place by offering :meth:`Engine.map`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, TypeVar

from cellseg.geometry import Tile

Read = TypeVar("Read")
Found = TypeVar("Found")


@dataclass(frozen=True, eq=False)
class Mapped(Generic[Read, Found]):
    """One tile's result.

    Attributes
    ----------
    tile : Tile
    read : object
        What reading gave; kept so that measuring need not read again.
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
    """Seconds that the run waited for input and for the network."""

    wait: float = 0.0
    detect: float = 0.0


class Engine(Protocol[Read, Found]):
    """Anything that maps tiles."""

    def map(
        self,
        tiles: Iterable[Tile],
        read: Callable[[Tile], Read],
        detect: Callable[[list[Read]], list[Found]],
    ) -> Iterator[Mapped[Read, Found]]:
        """Yield each tile's result, in any order."""
        ...


class LocalEngine(Generic[Read, Found]):
    """Threads read ahead while the calling thread runs the network.

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

    def map(
        self,
        tiles: Iterable[Tile],
        read: Callable[[Tile], Read],
        detect: Callable[[list[Read]], list[Found]],
    ) -> Iterator[Mapped[Read, Found]]:
        """Yield each tile's result, in the order of ``tiles`` but for failed ones."""
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
