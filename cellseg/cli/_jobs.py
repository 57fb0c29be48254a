"""Several images at once, each counted by a process of its own.

Nothing large is imported here: the processes load their libraries while the command loads its own.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING

from cellseg.cli._shared import collect_rarely
from cellseg.errors import NoMemoryError
from cellseg.storage import Location

if TYPE_CHECKING:
    from cellseg.counting.request import CountRequest
    from cellseg.events import Event

SMALL_BYTES = 30_000_000
"""Of a file: larger images keep all cores busy by themselves."""

LEAST_EACH = 8
"""Images a process should have: it takes over a second to start."""

JOB_BYTES = 2_000_000_000  # Memory that is there for each process.

LIBRARIES = ["cellseg.run", "cellseg.counting.record", "cellseg.network.detect", "zarr"]
"""What a process imports that counts; not OpenVINO and torch, whose threads no copy would have."""

Run = Callable[[], "Iterable[Event]"]
"""Gives the events of one image."""


def jobs_for(images: Sequence[Location], engine: str, device: str) -> int:
    """How many of these images are counted at once: of many small files as the machine bears."""
    most = len(images) // LEAST_EACH
    files = (image if isinstance(image, Path) and image.is_file() else None for image in images)
    small = (file is not None and file.stat().st_size <= SMALL_BYTES for file in files)
    if most < 2 or engine != "local" or not all(small):
        return 1
    import psutil

    from cellseg.network.detect import has_gpu
    from cellseg.network.inference import cores

    if has_gpu(device):
        return 1
    return max(1, min(most, cores(), psutil.virtual_memory().available // JOB_BYTES))


def load_libraries(jobs: int) -> None:
    """Begin to load what so many processes need, which goes on beside whatever follows."""
    from cellseg.network.inference import cores

    # The libraries of a process take as many threads as there are cores, unless they are told.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // jobs)))
    if _way() == "forkserver":
        from multiprocessing import forkserver

        forkserver.set_forkserver_preload(LIBRARIES)
        with _undisturbed():
            forkserver.ensure_running()


def _way() -> str:
    """How processes start: on Linux as copies of one that has loaded the libraries.

    Some libraries of macOS do not bear that, Windows cannot do it. The one that is copied listens
    at a socket in the folder for temporary files, whose path may have some 100 characters.
    """
    is_short = sys.platform == "linux" and len(gettempdir()) < 70
    return "forkserver" if is_short else "spawn"


@contextmanager
def at_once(requests: Sequence[CountRequest], jobs: int) -> Iterator[list[Run]]:
    """What waits for each image's events, while ``jobs`` processes count them in their order."""
    pool = ProcessPoolExecutor(jobs, mp_context=get_context(_way()), initializer=_begin)
    try:
        with _undisturbed():
            counts = [pool.submit(_counted, request) for request in requests]
        importlib.import_module("cellseg.study.folder")  # will be needed, and there is time now
        yield [partial(_events_of, count) for count in counts]
    except BaseException:
        for process in active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Start processes without being interrupted half-way; a SIGTERM acts at the end.

    They ignore Ctrl-C for good: this process hears it, and ends them.
    """
    heard: list[int] = []
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    end = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, end)
    if heard:
        raise KeyboardInterrupt


def _events_of(count: Future[Sequence[Event]]) -> Sequence[Event]:
    """The events of an image, once it is counted; its error is raised."""
    try:
        return count.result()
    except BrokenExecutor as error:
        raise NoMemoryError(
            "a process that counted was ended from outside, mostly because memory ran out; what is "
            "done is kept: count fewer images at once",
            hint="jobs",
        ) from error


def _begin() -> None:
    """Make a new process end with the one that started it, and say nothing by itself."""
    collect_rarely()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.captureWarnings(True)
    logging.getLogger().addHandler(logging.NullHandler())


def _end_with_parent() -> None:
    """Otherwise a process would go on for nobody when the command was killed."""
    if (parent := parent_process()) is not None:
        parent.join()
    os._exit(1)


def _counted(request: CountRequest) -> Sequence[Event]:
    """Count an image in a process of its own; its events but for those of single tiles."""
    from cellseg.events import TileDone
    from cellseg.run import run

    return [event for event in run(request) if not isinstance(event, TileDone)]
