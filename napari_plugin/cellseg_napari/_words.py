"""Words for people: the form's fields and their widgets, what keys do, names for columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from cellseg.errors import hinted
from cellseg.protocol import NO_TYPES, OTHER_TISSUE, shipped_protocols
from cellseg.slide.formats import ENDINGS
from cellseg.text import visible, visible_lines

WHOLE, VIEW, DRAWN = "the whole slide", "the current view", "drawn shapes"

SUFFIXES = f"Slides ({' '.join(f'*{ending}' for ending in ENDINGS)})"

# fmt: off
WIDGETS: dict[str, tuple[str, str, str, Any, dict[str, Any]]] = {
    "layer": ("ComboBox", "image", "A layer to count; of several channels, the one that "
              "shows nuclei", None, {"nothing": "-----"}),
    "file": ("FileEdit", "or a file", "A slide that is not open yet; takes the place of the layer",
             None, {"mode": "r", "filter": SUFFIXES}),
    "protocol": ("ComboBox", "protocol", "The assay: scale, score and size limits that "
                 "belong to it", None,
                 {"nothing": "chosen from the image", "choices": shipped_protocols()}),
    "mpp": ("FloatSpinBox", "µm per pixel", "Pixel size at full resolution", 0.0,
            {"nothing": "as the file says", "max": 100, "step": 0.05}),
    "diameter_px": ("FloatSpinBox", "diameter, px", "Where the pixel size is unknown: how many "
                    "pixels a usual nucleus measures across", 0.0,
                    {"nothing": "unknown", "max": 10_000, "step": 1}),
    "z": ("ComboBox", "z plane", "Of a stack: one plane (from 0), or all of them as their "
          "maximum or mean", None, {"nothing": "as shown"}),
    "cells_from": ("ComboBox", "cells from", "Also outline whole cells: nuclei grow over "
                   "this channel, cytoplasm or membranes, to the cell's edge", None,
                   {"nothing": "none: nuclei alone"}),
    "where": ("ComboBox", "region", "Everything, what is in sight, or what you drew in a "
              "shapes layer", WHOLE, {"choices": [WHOLE, VIEW, DRAWN]}),
    "shapes": ("ComboBox", "shapes", "The layer with the rectangles, ellipses or polygons", None,
               {"nothing": "-----"}),
    "output": ("FileEdit", "results in", "Folder for the result; if left empty, beside the "
               "slide, or in a temporary folder where the layer has no file", None, {"mode": "d"}),
    "overwrite": ("CheckBox", "overwrite", "Replace a result of other settings, and "
                  "corrections of it; otherwise it is kept, and the count refused", False, {}),
    "more": ("CheckBox", "more settings", "Model, score, size limits, device", False, {}),
    "model": ("FileEdit", "model", "A model file that you trained; the shipped model if "
              "left empty", None, {"mode": "r", "filter": "Models (*.safetensors)"}),
    "score": ("FloatSpinBox", "score", "Confidence that a cell needs, 0 … 1: lower finds "
              "more cells, and more that are none", 0.0,
              {"nothing": "the protocol's", "max": 1, "step": 0.05}),
    "min_area": ("FloatSpinBox", "smallest area", "In µm², or in px² without pixel size: "
                 "smaller ones are left out", 0.0,
                 {"nothing": "the protocol's", "max": 1e6, "step": 5}),
    "max_area": ("FloatSpinBox", "largest area", "In µm², or in px² without pixel size: "
                 "larger ones are left out", 0.0,
                 {"nothing": "the protocol's", "max": 1e6, "step": 5}),
    "prefilter": ("CheckBox", "tissue only", "Skip what a first look takes for "
                  "background", True, {}),
    "skip_bad": ("CheckBox", "sound tissue only", "Leave out tissue that is out of focus, folded, "
                 "marked by a pen or under air bubbles", False, {}),
    "cell_types": ("ComboBox", "cell types", "H&E: sort nuclei by type, in the tissue that "
                   "the types were learned from or in another", None,
                   {"nothing": "the protocol's", "choices": ["breast", OTHER_TISSUE, NO_TYPES]}),
    "device": ("ComboBox", "device", "Where the network runs", "auto",
               {"choices": ["auto", "cpu", "cuda", "mps"]}),
}
"""Of each field, in the panel's order: magicgui widget, label, tooltip, value, options.

Those after ``more`` are shown with it; ``nothing`` is what a field says that is left open. But for
what ``request_of`` asks for, they have the names of :class:`cellseg.counting.request.CountRequest`.
"""
# fmt: on


_HINTS = {
    "layer": "channel",
    "diameter_px": "diameter",
    "where": "region",
    "prefilter": "no_prefilter",
    "cell_types": "types",
}
"""Fields that a hint calls by another name."""

FIELDS = {"threshold": "threshold"} | {
    _HINTS.get(name, name): label for name, (_, label, *_others) in WIDGETS.items()
}
"""What the panels call the fields of a hint."""


def in_fields(told: object) -> str:
    """The text of an error or a notice, safe to show, with the panel's fields that change it.

    >>> in_fields(Notice("the pixel size is unknown", hint="mpp"))
    'the pixel size is unknown (“µm per pixel”)'
    """
    return visible_lines(hinted(told, lambda name: f"“{FIELDS[name]}”" if name in FIELDS else ""))


def warn(told: object) -> None:
    """Show an error, or what else is not as it should be, in napari's corner."""
    from napari.utils.notifications import show_warning  # late: a test may listen

    show_warning(in_fields(told))


ACTIONS = {
    "Next": ("N", "the next cell of the table"),
    "Previous": ("Shift+N", "the one before"),
    "Delete": ("Shift+D", "delete the selected cells"),
    "Merge": ("Shift+M", "make one cell of the selected ones (shift-click selects more)"),
    "Split": (
        "Shift+S",
        "cut the selected cell in two, or along a line in the shapes chosen above",
    ),
    "Paint": ("Shift+B", "paint a cell, or change the selected one's outline, with napari's brush"),
    "Undo": ("Ctrl+Z", "take the last correction back"),
    "Redo": ("Ctrl+Shift+Z", "make it again"),
    "Measure again": (
        "",
        "measure the cells that you changed (area, shape, intensities), and only those, and tell "
        "the totals; the network does not look again",
    ),
    "Save": (
        "",
        "write the corrected cells into a folder of their own, beside the automatic result",
    ),
    "Training data": ("", "write what was corrected as COCO JSON to train a model with"),
    "Set class": ("Shift+C", "give the selected cells the class that stands in the box"),
}
"""Of each action: its key, which napari itself does not use, or none; and what it does."""

_UNITS = {"px": "px", "um": "µm", "um2": "µm²", "deg": "°"}


def measurement(column: str) -> str:
    """A column's name as a person reads it, with its unit.

    >>> measurement("area_um2"), measurement("cytoplasm_dab_od_mean")
    ('area (µm²)', 'cytoplasm dab od mean')
    """
    stem, _, end = column.rpartition("_")
    unit = "px²" if column.endswith("area_px") else _UNITS.get(end)
    return f"{stem.replace('_', ' ')} ({unit})" if unit else column.replace("_", " ")


def menu(columns: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Measurements to choose from: (shown, column), area first, each in one unit.

    ``columns`` are names and dtypes; lengths in pixels are left out where µm are known.
    """
    names = [
        name
        for name, dtype in columns
        if dtype.startswith(("float", "int")) and not name.startswith(("label", "bbox_"))
    ]
    return [(measurement(name), name) for name in by_interest(names) if not _twin(name, names)]


def _twin(name: str, names: Sequence[str]) -> bool:
    """Whether a length in pixels is there in µm, too."""
    stem = name.removesuffix("_px")
    return stem != name and any(f"{stem}_{unit}" in names for unit in ("um", "um2"))


def by_interest(columns: Sequence[str]) -> list[str]:
    """Columns as the table shows them: area, class, score, intensities, other ones, places."""
    first = ("area_um2", "area_px", "class", "score", "label")

    def rank(name: str) -> int:
        if name.startswith(("centroid_", "bbox_", "object")) or _twin(name, columns):
            return 9
        if name in first:
            return first.index(name)
        return 7 if "intensity_" in name or "_od_" in name else 8

    return sorted(columns, key=rank)


def legend(names: Iterable[str], colours: Iterable[tuple[int, int, int]]) -> str:
    """A square of its colour beside each class's name, as HTML."""
    return "  ".join(
        f'<span style="color:rgb{colour}">■</span> {escape(visible(name), quote=False)}'
        for name, colour in zip(names, colours, strict=True)
    )
