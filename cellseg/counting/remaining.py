"""How long a run will still take: a moving rate over the tissue that was looked at."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from typing import Generic, TypeVar

Tile = TypeVar("Tile", bound=Hashable)

RECENT, FEWEST = 64, 8
"""Tiles to go by: the last so many, and at least so many."""

STEADY = 1.25
"""The newer half of them may be slower or faster than all by this factor, no more."""

_REST_SECONDS = 2.0
"""Whoever takes longer with an event has paused the run."""


class Remaining(Generic[Tile]):
    """Estimates the seconds that a run still takes.

    Parameters
    ----------
    areas : mapping
        Tissue of every tile that has not come yet, in any one unit.
    clock : callable
        Seconds, from any start.
    """

    def __init__(
        self, areas: Mapping[Tile, float], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock, self._areas = clock, dict(areas)
        self._left = sum(self._areas.values())
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT)
        self._last = clock()

    def replayed(self, tile: Tile) -> None:
        """A tile of an earlier run, which says nothing about speed."""
        self._left -= self._areas.pop(tile)
        self._last = self._clock()

    def done(self, tile: Tile) -> None:
        """A tile has come, just now."""
        area, now = self._areas.pop(tile), self._clock()
        self._left -= area
        self._recent.append((now - self._last, area))
        self._last = now

    def goes_on(self) -> None:
        """Whoever looks at the events asks for the next one: if late, the run was paused."""
        now = self._clock()
        if now - self._last > _REST_SECONDS:
            self._last = now

    def seconds(self) -> float | None:
        """Seconds to the end; None while there is too little to go by, or no steady rate."""
        if len(self._recent) < FEWEST:
            return None
        every, newer = list(self._recent), list(self._recent)[-len(self._recent) // 2 :]
        whole, late = (sum(t for t, _ in part) / sum(a for _, a in part) for part in (every, newer))
        if not whole / STEADY <= late <= whole * STEADY:
            return None
        return max(0.0, self._left) * whole


def in_words(seconds: float) -> str:
    """``about 12 min left``: as exact as an estimate can be."""
    if seconds < 60:
        return "less than a minute left"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"about {minutes} min left"
    hours, minutes = divmod(round(minutes / 10) * 10 if minutes < 600 else minutes, 60)
    if hours < 10 and minutes:
        return f"about {hours} h {minutes} min left"
    hours += minutes >= 30
    return f"about {hours} h left" if hours < 48 else f"about {round(hours / 24)} days left"
