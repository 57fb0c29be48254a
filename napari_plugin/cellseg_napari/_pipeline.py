"""The pipeline for a window: loaded when a count starts, resting or stopped between two tiles."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from threading import Event as Flag
from threading import Lock
from typing import TYPE_CHECKING

from cellseg.counting.request import CountRequest

if TYPE_CHECKING:
    from types import ModuleType

    from cellseg.events import Event
    from cellseg.network.detector import Detector

_lock = Lock()


def pipeline() -> ModuleType:
    """:mod:`cellseg.run`, and with it torch.

    torchvision pulls in triton, and triton brings an LLVM of its own. Where OpenGL is drawn by
    Mesa, its LLVM is in the process by then, and loading the second one crashes it. cellseg
    compiles nothing, so triton is kept out while torch is imported; who wants it later gets it.
    """
    with _lock:
        if "cellseg.run" in sys.modules:
            return sys.modules["cellseg.run"]
        kept_out = "triton" not in sys.modules
        if kept_out:
            sys.modules["triton"] = None  # type: ignore[assignment]
        try:
            return import_module("cellseg.run")
        finally:
            if kept_out:
                sys.modules.pop("triton", None)


class Counting:
    """A run that can rest or be stopped between two tiles; the journal keeps what is done.

    Parameters
    ----------
    detector : Detector, optional
        Takes the place of the network.
    """

    def __init__(self, request: CountRequest, detector: Detector | None = None) -> None:
        self.request = request
        self._detector = detector
        self._stop, self._may_go_on = Flag(), Flag()
        self._may_go_on.set()

    @property
    def is_paused(self) -> bool:
        """Whether it rests, or will after the tile that is under way."""
        return not self._may_go_on.is_set()

    def pause(self) -> None:
        """Rest after the tile that is under way, until :meth:`go_on` or :meth:`stop`."""
        self._may_go_on.clear()

    def go_on(self) -> None:
        """Rest no more."""
        self._may_go_on.set()

    @property
    def is_stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stop.is_set()

    def stop(self) -> None:
        """End after the tile that is under way."""
        self._stop.set()
        self._may_go_on.set()

    def events(self) -> Iterator[Event]:
        """The pipeline's own events, to the end or until it is stopped."""
        events = pipeline().run(self.request, detector=self._detector)
        try:
            for event in events:
                yield event
                self._may_go_on.wait()
                if self.is_stopped:
                    return
        finally:
            events.close()
