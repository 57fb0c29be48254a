"""cellseg: how many cells are on this slide, and how big are they?

The names below are loaded when they are first used, so that ``import cellseg`` does not
import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "Cells",
    "CountProtocol",
    "CountWarning",
    "Region",
    "__version__",
    "count",
    "load_detector",
    "load_result",
    "open_slide",
    "teach",
    "teach_classes",
    "teach_windows",
]

if TYPE_CHECKING:
    from cellseg.annotations.region import Region
    from cellseg.api import Cells, count, load_result
    from cellseg.derive.clicks import teach_classes
    from cellseg.errors import CountWarning
    from cellseg.network.detect import load_detector
    from cellseg.protocol import CountProtocol
    from cellseg.slide import open_slide
    from cellseg.train.teach import teach
    from cellseg.train.windows import teach_windows

_HOMES = {
    "Cells": "api",
    "CountProtocol": "protocol",
    "CountWarning": "errors",
    "Region": "annotations.region",
    "count": "api",
    "load_detector": "network.detect",
    "load_result": "api",
    "open_slide": "slide",
    "teach": "train.teach",
    "teach_classes": "derive.clicks",
    "teach_windows": "train.windows",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'cellseg' has no attribute {name!r}")
    return getattr(import_module(f"cellseg.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """What there is for people, without the rooms that were imported so far."""
    return sorted(__all__)
