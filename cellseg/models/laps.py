"""Where a network's time goes, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

Lap = Callable[[str], None]


def no_lap(name: str) -> None:
    """Nobody asks."""


class Laps:
    """Called at the end of each stage with its name; adds up seconds.

    Parameters
    ----------
    wait : bool
        Wait for a GPU at each call. Without it a GPU's stages only show how long it took to
        ask for them; with it they no longer overlap.
    """

    def __init__(self, device: torch.device, *, wait: bool = False) -> None:
        self._device, self._wait = device, wait and device.type == "cuda"
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def __call__(self, name: str) -> None:
        if self._wait:
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now
