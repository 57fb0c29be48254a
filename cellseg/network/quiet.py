"""OpenVINO, which tells nobody that it is used.

Imported as it is, it sends an event to Google Analytics each time, from a process of its own, and
leaves a folder ``intel`` in the user's home. Without the package that sends it takes a stub.
"""

import sys

_SENDER = "openvino_telemetry"

_there = _SENDER in sys.modules
sys.modules.setdefault(_SENDER, None)  # type: ignore[arg-type]  # what an import then refuses
try:
    import openvino as ov
    from openvino import Node
    from openvino import opset13 as ops
finally:
    if not _there:
        del sys.modules[_SENDER]

__all__ = ["Node", "ops", "ov"]
