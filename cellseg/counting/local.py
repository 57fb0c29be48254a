"""Where tiles are mapped: in this process, with reading ahead of the network.

An engine turns tiles into results; it knows nothing of cells, merging or files. Another
engine (a cluster's) takes its place by offering :meth:`LocalEngine.map`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from cellseg.geometry import Tile
from cellseg.network.timer import Timer

Read = TypeVar("Read")
Found = TypeVar("Found")

_LOOK_SECONDS = 0.2
"""How often a waiting thread looks whether it is still wanted."""


@dataclass(frozen=True, eq=False)
class Mapped(Generic[Found]):
    """One tile's result.

    Attributes
    ----------
    found : object or None
        What the network gave; None where reading failed.
    error : Exception or None
        Why reading failed.
    """

    tile: Tile
    found: Found | None
    error: Exception | None = None


class LocalEngine(Generic[Read, Found]):
    """Threads read ahead, others run the network, the caller has what is done.

    Whatever the caller does with a tile's result (merge, measure, write) goes on beside the
    network: torch gives the interpreter away while it computes.

    Parameters
    ----------
    batch : int
        Tiles that go through the network together.
    readers : int
        Reading threads.
    networks : int
        Batches in the network at once, each in a thread of its own; ``detect`` must bear it.
    expected : tuple of exception types
        Errors of reading that fail the tile and not the run.
    """

    def __init__(
        self,
        *,
        batch: int = 1,
        readers: int = 2,
        networks: int = 1,
        expected: tuple[type[Exception], ...] = (),
    ) -> None:
        if batch < 1 or readers < 1 or networks < 1:
            raise ValueError(
                f"expected at least 1, got batch={batch}, readers={readers}, networks={networks}"
            )
        self.batch, self.readers, self.networks = batch, readers, networks
        self.expected = expected
        self._timer = Timer()
        self._start = self._end = time.perf_counter()

    @property
    def seconds(self) -> dict[str, float]:
        """Mean of the network's threads: in the network, and waiting for its input."""
        took = self._timer.seconds
        detect = took.get("detect", 0.0) / self.networks
        # Not for want of input: while nobody took what was done.
        wait = self._end - self._start - detect - took.get("blocked", 0.0)
        return {"wait for input": max(0.0, wait), "detect": detect}

    def map(
        self,
        tiles: Iterable[Tile],
        read: Callable[[Tile], Read],
        detect: Callable[[list[Read]], list[Found]],
    ) -> Generator[Mapped[Found], None, None]:
        """Yield each tile's result, in the order of ``tiles`` but for failed ones.

        Closed before its end, it waits for the batches under way and gives them up. Whatever
        ``detect`` raises is raised here.
        """
        done: queue.Queue[Mapped[Found] | _End] = queue.Queue(2 * self.batch)
        unwanted = threading.Event()

        def put(item: Mapped[Found] | _End) -> None:
            with self._timer.stage("blocked"):
                while not unwanted.is_set():
                    with suppress(queue.Full):
                        done.put(item, timeout=_LOOK_SECONDS)
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

        thread = threading.Thread(target=work, name="cellseg-engine", daemon=True)
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
    ) -> Generator[Mapped[Found], None, None]:
        under_way: deque[tuple[list[Tile], Future[list[Found]]]] = deque()
        with ThreadPoolExecutor(self.networks, thread_name_prefix="cellseg-network") as pool:

            def timed(values: list[Read]) -> list[Found]:
                with self._timer.stage("detect"):
                    found = detect(values)
                self._end = time.perf_counter()
                return found

            try:
                with closing(self._batches(tiles, read)) as batches:
                    for batch, failed in batches:
                        yield from failed
                        if batch:
                            # What was read is let go of with the network's last look at it.
                            future = pool.submit(timed, [value for _, value in batch])
                            under_way.append(([tile for tile, _ in batch], future))
                        # One more than the threads, so that none waits for its next.
                        while len(under_way) > self.networks:
                            yield from _unpacked(*under_way.popleft())
                while under_way:
                    yield from _unpacked(*under_way.popleft())
            finally:
                for _, future in under_way:
                    future.cancel()

    def _batches(
        self, tiles: Iterable[Tile], read: Callable[[Tile], Read]
    ) -> Generator[tuple[_Batch[Read], list[Mapped[Found]]], None, None]:
        """Tiles that were read, ``batch`` at a time, and those that could not be."""
        source = iter(tiles)
        waiting: deque[tuple[Tile, Future[Read]]] = deque()
        with ThreadPoolExecutor(self.readers, thread_name_prefix="cellseg-read") as pool:
            try:
                for tile in islice(source, self.batch + self.readers):
                    waiting.append((tile, pool.submit(read, tile)))
                while waiting:
                    ready: _Batch[Read] = []
                    failed: list[Mapped[Found]] = []
                    # Failed ones count: their errors hold on to what was read before they failed.
                    while waiting and len(ready) + len(failed) < self.batch:
                        tile, future = waiting.popleft()
                        for following in islice(source, 1):
                            waiting.append((following, pool.submit(read, following)))
                        try:
                            ready.append((tile, future.result()))
                        except self.expected as error:
                            failed.append(Mapped(tile, None, error))
                    yield ready, failed
            finally:
                for _, future in waiting:
                    future.cancel()


_Batch = list[tuple[Tile, Read]]


@dataclass(frozen=True)
class _End:
    """No more tiles come."""

    error: BaseException | None


def _unpacked(
    tiles: list[Tile], future: Future[list[Found]]
) -> Generator[Mapped[Found], None, None]:
    for tile, found in zip(tiles, future.result(), strict=True):
        yield Mapped(tile, found)
