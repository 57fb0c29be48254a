"""Work in a thread, its results in the window's own thread.

napari's ``thread_worker`` gives up a generator without closing it when its window goes, and keeps
a RuntimeError (torch raises no other) to itself. A run holds a lock and a journal, so here the
thread belongs to Python, closes what it iterates over, and a timer of the widget fetches what
came. If the widget goes, so does the timer, and nothing reaches for a deleted widget.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Generic, TypeVar

from qtpy.QtCore import QObject, QTimer

T = TypeVar("T")

POLL_MS = 30
WAITING = 256
"""Events that may wait for a busy window before the thread waits for it."""

BUSY_SECONDS = 0.05
"""After which the window has its turn, whatever else waits."""

_PUT_SECONDS = 0.2


class Background(Generic[T]):
    """Iterates in a thread, hands each item to the window's thread.

    Parameters
    ----------
    owner : QObject
        Once it is deleted, nothing more is handed over.
    items : iterator
        A generator: closed in its own thread, whatever happens.
    each : callable
        Gets each item.
    ended : callable
        Called once at the end, with the exception that ended it, or None.
    """

    def __init__(
        self,
        owner: QObject,
        items: Iterator[T],
        *,
        each: Callable[[T], object],
        ended: Callable[[Exception | None], object],
    ) -> None:
        self._items, self._each, self._ended = items, each, ended
        self._queue: queue.Queue[tuple[bool, Any]] = queue.Queue(WAITING)
        self._gone = threading.Event()
        self._thread = threading.Thread(target=self._work, name="cellseg")
        self._timer = QTimer(owner)
        self._timer.setInterval(POLL_MS)
        self._timer.timeout.connect(self._fetch)
        owner.destroyed.connect(self._gone.set)

    def start(self) -> None:
        """Begin."""
        self._timer.start()
        self._thread.start()

    def _work(self) -> None:
        error: Exception | None = None
        try:
            with closing(self._items) as items:  # type: ignore[type-var]
                for item in items:
                    self._put((False, item))
                    if self._gone.is_set():
                        return
        except Exception as caught:
            error = caught
        self._put((True, error))

    def _put(self, what: tuple[bool, Any]) -> None:
        while not self._gone.is_set():
            try:
                self._queue.put(what, timeout=_PUT_SECONDS)
            except queue.Full:
                continue
            return

    def _fetch(self) -> None:
        """What came since; the timer does not call again while it works."""
        begun = time.monotonic()
        while time.monotonic() - begun < BUSY_SECONDS:
            try:
                is_end, item = self._queue.get_nowait()
            except queue.Empty:
                return
            if is_end:
                self._timer.stop()
                self._ended(item)
                return
            self._each(item)


def in_background(
    owner: QObject,
    work: Callable[[], T],
    *,
    done: Callable[[T], object],
    failed: Callable[[Exception], object],
) -> Background[T]:
    """One function in a thread: ``done`` gets what it returns, ``failed`` what it raises."""

    def once() -> Iterator[T]:
        yield work()

    def ended(error: Exception | None) -> None:
        if error is not None:
            failed(error)

    job = Background(owner, once(), each=done, ended=ended)
    job.start()
    return job
