"""Whether a scheduler answers: asked before torch is loaded, and before any client is made."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from pathlib import Path

from cellseg.errors import SettingsError

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5
"""How long a scheduler may take to answer."""

EXPECTED = "expected an address such as tcp://10.0.0.5:8786"


def check_installed() -> None:
    """Say how to get what a cluster needs.

    Raises
    ------
    SettingsError
    """
    try:
        import cloudpickle
        import distributed
    except ImportError as error:
        raise SettingsError(
            f"--engine dask needs a package that is not installed ({error}); "
            'pip install ".[cluster]"'
        ) from error
    log.debug("distributed %s, cloudpickle %s", distributed.__version__, cloudpickle.__version__)


def reached(scheduler: str) -> str:
    """The address of a scheduler that answers: a client that never got one does not end well.

    Asked in a thread of its own, as the caller's may have an event loop that runs.

    Parameters
    ----------
    scheduler : str
        Address, or the file that ``dask scheduler --scheduler-file`` wrote.

    Raises
    ------
    SettingsError
    """
    check_installed()
    address, name = _address(scheduler), f"--scheduler {scheduler}"
    found: list[object] = []

    def ask() -> None:
        try:
            found.append(asyncio.run(asyncio.wait_for(_identity(address), CONNECT_SECONDS)))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS + 1)
    answer = found[0] if found else TimeoutError()
    if isinstance(answer, ValueError):
        raise SettingsError(f"{name}: is no address of a Dask scheduler; {EXPECTED}") from answer
    if answer != "Scheduler":
        raise SettingsError(
            f"{name}: no Dask scheduler answers there within {CONNECT_SECONDS} s; {EXPECTED}"
        ) from (answer if isinstance(answer, Exception) else None)
    return address


def _address(scheduler: str) -> str:
    """The address, from the scheduler's own file where one is given.

    Raises
    ------
    SettingsError
    """
    if not scheduler.endswith(".json"):
        return scheduler
    try:
        return str(json.loads(Path(scheduler).read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise SettingsError(
            f"--scheduler {scheduler}: is no file of `dask scheduler --scheduler-file` ({error})"
        ) from error


async def _identity(address: str) -> str:
    """What answers at an address; a scheduler calls itself one."""
    from distributed import Security, rpc

    async with rpc(address, connection_args=Security().get_connection_args("client")) as there:
        return str((await there.identity())["type"])
