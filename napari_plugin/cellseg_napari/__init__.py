"""cellseg in napari: result folders and slides as lazy layers in µm.

The names below are loaded when they are first used, so that napari's start does not pay
for them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from cellseg import __version__

__all__ = ["__version__", "add_layers", "get_reader", "read_result", "read_slide"]

if TYPE_CHECKING:
    from cellseg_napari._reader import add_layers, get_reader, read_result, read_slide


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'cellseg_napari' has no attribute {name!r}")
    return getattr(import_module("cellseg_napari._reader"), name)
