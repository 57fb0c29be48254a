"""Keys for what is done again and again; none that napari itself uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QShortcut, QWidget

from cellseg_napari._attempt import attempt

KEYS = {
    "Next": ("N", "the next cell of the table"),
    "Previous": ("Shift+N", "the one before"),
    "Delete": ("Shift+D", "delete the selected cells"),
    "Merge": ("Shift+M", "make one cell of them"),
    "Split": ("Shift+S", "cut the selected cell"),
    "Paint": ("Shift+B", "paint a cell, and take over what was painted"),
    "Set class": ("Shift+C", "give the selected cells the class that stands in the box"),
    "Undo": ("Ctrl+Z", "take the last correction back, or the last threshold"),
    "Redo": ("Ctrl+Shift+Z", "make it again"),
}
"""Of each action: its key, and what it does."""


def add_shortcuts(panel: QWidget, actions: Mapping[str, Callable[[], object]]) -> str:
    """Keys that work anywhere in the window, as long as the panel is there; lists them."""
    for name, (key, _) in KEYS.items():
        shortcut = QShortcut(QKeySequence(key), panel)
        shortcut.activated.connect(partial(attempt, actions[name]))
    return "\n".join(f"{key}: {what}" for key, what in KEYS.values())
