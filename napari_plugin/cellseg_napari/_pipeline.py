"""The pipeline, and with it torch, loaded when a count starts and not before."""

from __future__ import annotations

import sys
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

_lock = Lock()


def pipeline() -> ModuleType:
    """:mod:`cellseg.pipeline.run`.

    torchvision pulls in triton, and triton brings an LLVM of its own. Where OpenGL is drawn by
    Mesa, its LLVM is in the process by then, and loading the second one crashes it. cellseg
    compiles nothing, so triton is kept out while torch is imported; who wants it later gets it.
    """
    with _lock:
        if "cellseg.pipeline.run" in sys.modules:
            return sys.modules["cellseg.pipeline.run"]
        kept_out = "triton" not in sys.modules
        if kept_out:
            sys.modules["triton"] = None  # type: ignore[assignment]
        try:
            return import_module("cellseg.pipeline.run")
        finally:
            if kept_out:
                sys.modules.pop("triton", None)
