"""cellseg: how many cells are on this slide, and how big are they?

The names below are loaded when they are first used, so that ``import cellseg`` does not
import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = ["Cells", "CountProtocol", "__version__", "count", "load_detector", "open_slide"]

if TYPE_CHECKING:
    from cellseg.detect.maskrcnn import load_detector
    from cellseg.measure.summary import Cells
    from cellseg.protocol import CountProtocol
    from cellseg.run import count
    from cellseg.slide import open_slide

_HOMES = {
    "Cells": "measure.summary",
    "CountProtocol": "protocol",
    "count": "run",
    "load_detector": "detect.maskrcnn",
    "open_slide": "slide",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'cellseg' has no attribute {name!r}")
    return getattr(import_module(f"cellseg.{_HOMES[name]}"), name)
