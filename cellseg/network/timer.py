"""Where the time goes: seconds by stage."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Lap = Callable[[str], None]
"""Called at the end of each stage of a network with its name."""


def no_lap(name: str) -> None:
    """A lap where no time is measured."""


class Timer:
    """Adds up seconds by stage; any thread may."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, stage: str, seconds: float) -> None:
        with self._lock:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def laps(self) -> Lap:
        """Measure from one call to the next."""
        last = time.perf_counter()

        def lap(name: str) -> None:
            nonlocal last
            now = time.perf_counter()
            self.add(name, now - last)
            last = now

        return lap

    def take(self) -> dict[str, float]:
        """Seconds by stage since the last call."""
        with self._lock:
            found, self._seconds = self._seconds, {}
        return found

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by stage so far."""
        with self._lock:
            return dict(self._seconds)
