"""Where tiles are mapped: in this process, with reading ahead of the network.

An engine turns tiles into results; it knows nothing of cells, merging or files. Another
engine (a cluster's) takes its place by offering :meth:`LocalEngine.map`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from cellseg.geometry import Tile
from cellseg.network.timer import Timer

Read = TypeVar("Read")
Found = TypeVar("Found")

_LOOK_SECONDS = 0.2
"""How often a wait ends for a moment: on Windows nothing interrupts one without an end."""

_AHEAD = 2
"""Batches under way beside those in the network: one that is read, one that is ready or done."""


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
        self.batch, self.readers, self.networks = batch, readers, networks
        self.expected = expected
        self._timer = Timer()

    @property
    def seconds(self) -> dict[str, float]:
        """Mean of the network's threads: in the network, and waiting for its input."""
        return {stage: took / self.networks for stage, took in self._timer.seconds.items()}

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
        source = iter(tiles)
        under_way: deque[Future[list[Mapped[Found]]]] = deque()
        network = ThreadPoolExecutor(self.networks, thread_name_prefix="cellseg-network")
        reading = ThreadPoolExecutor(self.readers, thread_name_prefix="cellseg-read")

        def go_on() -> None:
            if some := list(islice(source, self.batch)):
                reads = deque((tile, reading.submit(read, tile)) for tile in some)
                under_way.append(network.submit(self._batch, reads, detect))

        try:
            for _ in range(self.networks + _AHEAD):
                go_on()
            while under_way:
                while not wait([under_way[0]], _LOOK_SECONDS).done:
                    pass
                results = under_way.popleft().result()
                go_on()
                yield from results
        finally:
            reading.shutdown(cancel_futures=True)
            network.shutdown(cancel_futures=True)

    def _batch(
        self,
        reads: deque[tuple[Tile, Future[Read]]],
        detect: Callable[[list[Read]], list[Found]],
    ) -> list[Mapped[Found]]:
        """Results of tiles that are being read; what was read is let go of with its look at it."""
        ready: list[Tile] = []
        values: list[Read] = []
        failed: list[Mapped[Found]] = []
        with self._timer.stage("wait for input"):
            while reads:
                tile, future = reads.popleft()
                try:
                    values.append(future.result())
                    ready.append(tile)
                except self.expected as error:
                    failed.append(Mapped(tile, None, error))
        with self._timer.stage("detect"):
            found = detect(values) if values else []
        return [*failed, *(Mapped(*pair) for pair in zip(ready, found, strict=True))]
