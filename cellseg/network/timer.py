"""Where the time goes: seconds by stage."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Lap = Callable[[str], None]


def no_lap(name: str) -> None:
    """Take the place of :class:`Laps` where no time is measured."""


class Timer:
    """Adds up seconds by stage; any thread may."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, stage: str, seconds: float) -> None:
        """Count seconds that a stage took."""
        with self._lock:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

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


class Laps:
    """Called at the end of each stage of a network with its name.

    Parameters
    ----------
    timer : Timer
        Gets the seconds; on a GPU only with ``wait``, for otherwise a stage shows no more than how
        long it took to ask for it.
    wait : bool
        Wait for a GPU at each call: stages then no longer overlap.
    """

    def __init__(self, timer: Timer, device: torch.device, *, wait: bool = False) -> None:
        self._timer, self._device = timer, device
        self._on_gpu, self._wait = device.type == "cuda", wait
        self._last = time.perf_counter()

    def __call__(self, name: str) -> None:
        if self._on_gpu and not self._wait:
            return
        if self._on_gpu:
            import torch

            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self._timer.add(name, now - self._last)
        self._last = now
