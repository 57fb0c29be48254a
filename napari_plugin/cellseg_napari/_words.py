"""Words for people: fields where the library speaks of options, names for columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from cellseg.errors import hinted
from cellseg.text import visible, visible_lines

FIELDS = {
    "channel": "image",
    "protocol": "protocol",
    "mpp": "µm per pixel",
    "diameter": "diameter, px",
    "region": "region",
    "output": "results in",
    "overwrite": "overwrite",
    "model": "model",
    "score": "score",
    "z": "z plane",
    "min_area": "smallest area",
    "max_area": "largest area",
    "no_prefilter": "tissue only",
    "skip_bad": "sound tissue only",
    "types": "cell types",
    "device": "device",
    "threshold": "threshold",
}
"""What the panels call the fields of a hint."""


def in_fields(told: object) -> str:
    """The text of an error or a notice, safe to show, with the panel's fields that change it.

    >>> in_fields(Notice("the pixel size is unknown", hint="mpp"))
    'the pixel size is unknown (“µm per pixel”)'
    """
    return visible_lines(hinted(told, lambda name: f"“{FIELDS[name]}”" if name in FIELDS else ""))


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
"""Of each action: its key, which napari itself does not use, and what it does."""

_UNITS = {"px": "px", "um": "µm", "um2": "µm²", "deg": "°"}

_NAMES = {
    "axis major length": "long axis",
    "axis minor length": "short axis",
    "feret diameter max": "largest diameter",
    "equivalent diameter area": "diameter of the disc of this area",
    "orientation": "angle of the long axis",
    "centroid y": "place, down",
    "centroid x": "place, across",
    "border distance": "distance to the border",
    "density_per_mm2": "density around (per mm²)",
}

_NEIGHBOURS = re.compile("neighbours_([0-9]+)(um|px)")
_PARTS = re.compile("^(nucleus|cytoplasm|cell)_")
_STAINS = {"dab": "DAB", "hematoxylin": "haematoxylin"}
_STATISTICS = {"mean": "mean", "std": "spread", "min": "lowest", "max": "highest"}


def measurement(column: str) -> str:
    """A column's name as a person reads it, with its unit.

    >>> measurement("area_um2"), measurement("cytoplasm_dab_od_mean")
    ('area (µm²)', 'DAB, optical density (cytoplasm)')
    """
    part = _PARTS.match(column)
    name = column[part.end() :] if part else column
    stem, _, end = name.rpartition("_")
    unit = _UNITS.get(end) if stem else None
    if unit is not None:
        if end == "px" and stem == "area":
            unit = "px²"
        words = stem.replace("_", " ")
        said = f"{_NAMES.get(words, words)} ({unit})"
    elif name.startswith("intensity_"):
        _, statistic, channel = name.split("_", 2)
        said = f"{channel.replace('_', ' ')}, {_STATISTICS.get(statistic, statistic)} intensity"
    elif name.endswith("_od_mean"):
        stain = name.removesuffix("_od_mean")
        said = f"{_STAINS.get(stain, stain.replace('_', ' '))}, optical density"
    elif found := _NEIGHBOURS.fullmatch(name):
        said = f"neighbours within {found[1]} {_UNITS[found[2]]}"
    else:
        said = _NAMES.get(name, name.replace("_", " "))
    return f"{said} ({part[1]})" if part else said


def menu(columns: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Measurements to choose from: (shown, column), area first, each in one unit.

    Parameters
    ----------
    columns : iterable of (str, str)
        Name and dtype, as in the table; lengths in pixels are left out where µm are known.
    """
    names = [
        name
        for name, dtype in columns
        if dtype.startswith(("float", "int")) and not name.startswith(("label", "bbox_"))
    ]
    return [(measurement(name), name) for name in by_interest(names) if not _twin(name, names)]


def _twin(name: str, names: Sequence[str]) -> bool:
    stem = name.removesuffix("_px")
    return stem != name and any(f"{stem}_{unit}" in names for unit in ("um", "um2"))


def by_interest(columns: Sequence[str]) -> list[str]:
    """Columns as the table shows them: area, class, score, intensities, other ones, places."""
    first = ("class", "score", "label")

    def rank(name: str) -> int:
        if name.startswith(("centroid_", "bbox_", "object")) or _twin(name, columns):
            return 6
        if _PARTS.sub("", name) in ("area_um2", "area_px"):
            return 0
        if name in first:
            return 1 + first.index(name)
        return 4 if "intensity_" in name or "_od_" in name else 5

    return sorted(columns, key=rank)


def legend(names: Iterable[str], colours: Iterable[tuple[int, int, int]]) -> str:
    """A square of its colour beside each class's name, as HTML."""
    return "  ".join(
        f'<span style="color:rgb{colour}">■</span> {escape(visible(name), quote=False)}'
        for name, colour in zip(names, colours, strict=True)
    )
