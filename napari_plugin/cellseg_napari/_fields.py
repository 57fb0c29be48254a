"""The fields of the form that counts: one table of widgets, labels, tooltips and values."""

from __future__ import annotations

from typing import Any

from cellseg.protocol import NO_TYPES, OTHER_TISSUE, shipped_protocols
from cellseg.slide.formats import ENDINGS

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
