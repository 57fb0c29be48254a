"""The task that travels: a name, so that a scheduler that looks at it need not load torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cellseg


def run_tiles(
    version: str, digest: str, body: bytes, places: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    """Read and detect a batch, on a worker.

    Parameters
    ----------
    version : str
        Of cellseg, where the run was started.
    digest, body
        The recipe, packed.
    places : sequence of (int, int)
        (row, column) of the tiles.

    Returns
    -------
    dict
        A :class:`cellseg.counting.dask.recipe.Answer`.
    """
    if version != cellseg.__version__:
        text = (
            f"has cellseg {cellseg.__version__}, the run was started with {version}; "
            "install the same on every machine"
        )
        return {"worker": worker_name(), "refused": ("SettingsError", text)}
    from cellseg.counting.dask.worker import answer

    return {"worker": worker_name(), **answer(digest, body, places)}


def worker_name() -> str:
    """The address of the worker that this task runs on."""
    from distributed import get_worker

    try:
        return str(get_worker().address)
    except ValueError:
        return "?"
