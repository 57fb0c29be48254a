"""One module a family of formats, each with its generators by name."""

from __future__ import annotations

from ..child import Make
from . import (
    annotated,
    fields,
    microscopes,
    ome,
    protocols,
    results,
    served,
    slides,
    tiff,
    weights,
    zarr,
)

KINDS: dict[str, Make] = {
    **tiff.KINDS, **ome.KINDS, **zarr.KINDS, **fields.KINDS, **annotated.KINDS, **protocols.KINDS,
    **weights.KINDS, **results.KINDS, **microscopes.KINDS, **slides.KINDS,
    **served.KINDS,
}  # fmt: skip
"""Of each: fill a folder's ``in/`` and ``out/`` and say which command is run."""
