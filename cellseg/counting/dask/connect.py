"""The way to a cluster: the user's, by its address, or one started here for a while."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from cellseg.counting.dask.address import CONNECT_SECONDS, EXPECTED, reached
from cellseg.errors import CellsegError, SettingsError, line_of
from cellseg.network.detect import gpu_count

log = logging.getLogger(__name__)

WORKER_BYTES = 3_000_000_000
"""What a worker without a GPU is reckoned to need: torch, the model, a tile, its chunks."""


@contextmanager
def connected(scheduler: str | None) -> Iterator[Any]:
    """A Dask client; a cluster that was started for it ends with it.

    Parameters
    ----------
    scheduler : str or None
        Address such as ``tcp://10.0.0.5:8786``, or the file that ``dask scheduler
        --scheduler-file`` wrote; None: workers on this machine.

    Raises
    ------
    SettingsError
        If nothing answers there.
    """
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        if scheduler is None:
            cluster = _started()
            stack.callback(_close, cluster)
            client = _client(cluster, "the local cluster")
        else:
            client = _client(reached(scheduler), f"--scheduler {scheduler}")
        stack.callback(_close, client)
        yield client


def _client(target: Any, name: str) -> Any:  # noqa: ANN401
    from distributed import Client

    try:
        return Client(target, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise SettingsError(
            f"{name}: no Dask scheduler answers there within {CONNECT_SECONDS} s; {EXPECTED}"
        ) from error
    except Exception as error:
        raise SettingsError(f"{name}: cannot be connected to ({line_of(error)})") from error


def _started() -> Any:  # noqa: ANN401
    try:
        return _local_cluster()
    except CellsegError:
        raise
    except Exception as error:
        raise CellsegError(
            f"no workers could be started on this machine ({line_of(error)})"
        ) from error


def _local_cluster() -> Any:  # noqa: ANN401
    """A worker a GPU; without one, a worker of one thread a core, as far as memory goes."""
    from distributed import Nanny, Scheduler, SpecCluster

    gpus = gpu_count()
    keys: dict[str, Any] = {"security": _security(), "protocol": "tls"}
    silent = None if _wants_logs() else logging.CRITICAL
    shared: dict[str, Any] = {
        **keys,
        "host": "127.0.0.1",
        "memory_limit": None,
        "silence_logs": silent,
        # Ctrl-C goes to all of the terminal's processes; this one ends the workers in order.
        "preload": ["cellseg.counting.dask.uninterrupted"],
    }
    workers: dict[int, dict[str, Any]] = {}
    for number in range(gpus or _cpu_workers()):
        # Two threads a GPU: one reads while the other's tiles are in the network.
        options = {**shared, "nthreads": 2 if gpus else 1}
        if gpus:
            options["env"] = {"CUDA_VISIBLE_DEVICES": _visible(number)}
        workers[number] = {"cls": Nanny, "options": options}
    return SpecCluster(
        workers=workers,
        scheduler={
            "cls": Scheduler,
            "options": {
                "host": "127.0.0.1",
                "port": 0,
                "dashboard": False,
                "dashboard_address": "127.0.0.1:0",
                **keys,
            },
        },
        security=keys["security"],
        silence_logs=silent or False,
        name="cellseg",
    )


def _visible(number: int) -> str:
    """The name of this process's GPU, by its number among those that it may use."""
    allowed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return allowed[number] if number < len(allowed) else str(number)


def _cpu_workers() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        memory = 8 * WORKER_BYTES
    return max(1, min(cores or 1, memory // WORKER_BYTES))


def _security() -> Any:  # noqa: ANN401
    """Keys for this cluster alone: without them anyone on the machine could run code in it."""
    from distributed import Security

    try:
        return Security.temporary()
    except ImportError as error:
        raise SettingsError(
            f"--engine dask without --scheduler needs a package that is not installed ({error}); "
            'pip install ".[cluster]"'
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask's log lines are for those who asked for logs; what goes wrong is said in one line."""
    import distributed

    levels = {
        logger: logger.level
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger)
        and name.partition(".")[0] == distributed.__name__
        and (logger.level or name == distributed.__name__)
    }
    if _wants_logs():
        levels = {}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _wants_logs() -> bool:
    return log.isEnabledFor(logging.INFO)


def _close(thing: Any) -> None:  # noqa: ANN401
    with suppress(Exception):
        thing.close(timeout=CONNECT_SECONDS)
