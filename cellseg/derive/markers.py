"""From thresholds on measurements to classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg.errors import SettingsError
from cellseg.protocol import Marker

UNMEASURED = -1
"""Code of a cell without a value: it keeps the class that the model gave it."""

_POSITIVE, _GRADED = ("negative", "positive"), ("negative", "1+", "2+", "3+")
_SIGNS = {"negative": "-", "positive": "+"}
_AFFIXES = re.compile("^((nucleus|cytoplasm|cell)_)?(intensity_(mean|std|min|max)_)?|(_od)?_mean$")


@dataclass(frozen=True, eq=False)
class Classes:
    """A class for each cell.

    Attributes
    ----------
    codes : ndarray, int16, (N,)
        Places in ``names``; -1 where a measurement is missing.
    names : tuple of str
    """

    codes: NDArray[np.int16]
    names: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Cells of each class, those without one left out."""
        found = np.bincount(self.codes[self.codes >= 0], minlength=len(self.names))
        return dict(zip(self.names, found.tolist(), strict=True))


def classify(table: Mapping[str, ArrayLike], markers: Sequence[Marker]) -> Classes:
    """Give each cell a class.

    Parameters
    ----------
    table : DataFrame, or mapping of names to array_like, (N,)
        Holds each marker's ``measure``.
    markers : sequence of Marker
        Thresholds in numbers. One marker gives ``negative`` and ``positive``, or ``negative``,
        ``1+``, ``2+``, ``3+``; several give combinations, as ``CD3+ CD8-``.

    Returns
    -------
    Classes

    Raises
    ------
    KeyError
        If a measurement is missing.
    """
    if not markers:
        raise ValueError("expected at least one marker")
    codes = np.zeros(len(np.asarray(table[markers[0].measure])), np.int16)
    missing = np.zeros(len(codes), np.bool_)
    for marker in markers:
        one = grades(table[marker.measure], marker)
        missing |= one == UNMEASURED
        codes = codes * np.int16(len(_words(marker))) + one
    codes[missing] = UNMEASURED
    if len(markers) == 1:
        return Classes(codes, _words(markers[0]))
    parts = [[_sign(named(marker), word) for word in _words(marker)] for marker in markers]
    return Classes(codes, tuple(" ".join(combination) for combination in product(*parts)))


def grades(values: ArrayLike, marker: Marker) -> NDArray[np.int16]:
    """0 for negative, 1 for positive, or 0 … 3; -1 where a value is NaN or infinite."""
    if marker.threshold == "auto":
        raise ValueError("expected a threshold in numbers, got 'auto'")
    numbers = np.asarray(values, dtype=np.float64)
    # A value at the threshold is positive.
    found = np.searchsorted(np.atleast_1d(marker.threshold), numbers, side="right")
    return np.where(np.isfinite(numbers), found, UNMEASURED).astype(np.int16)


def named(marker: Marker) -> str:
    """What a marker is called: as given, else by its measurement.

    >>> named(Marker(measure="intensity_mean_cd3", threshold=400))
    'cd3'
    >>> named(Marker(measure="dab_od_mean", threshold=0.2))
    'DAB'
    """
    short = _AFFIXES.sub("", marker.measure) or marker.measure
    return marker.name or ("DAB" if short == "dab" else short)


def measurement(name: str, columns: Mapping[str, str] | Sequence[tuple[str, str]]) -> str:
    """The column that a measurement's name means.

    Parameters
    ----------
    name : str
        As in ``cells.csv``; ``nucleus_`` before it may be left out, or added.
    columns : mapping, or sequence of (str, str)
        Names and dtypes of the table.

    Raises
    ------
    SettingsError
        If there is none, or it holds no numbers; names those there are.
    """
    dtypes: dict[str, Any] = dict(columns)
    numbers = [
        column
        for column, dtype in dtypes.items()
        if str(dtype).startswith(("float", "int"))
        and not column.startswith(("label", "centroid_", "bbox_"))
    ]
    for candidate in (name, name.removeprefix("nucleus_"), f"nucleus_{name}"):
        if candidate in numbers:
            return candidate
    # What someone most probably looks for comes first, and a person can read the line.
    numbers.sort(key=lambda column: not column.endswith("_od_mean") and "_mean_" not in column)
    why = "holds no measured numbers" if name in dtypes else "is no measurement of this result"
    hint = "; DAB is measured by the protocol ihc" if "dab" in name.lower() else ""
    raise SettingsError(f"{name!r} {why}{hint}; there are: {', '.join(numbers)}")


def _words(marker: Marker) -> tuple[str, ...]:
    return _GRADED if isinstance(marker.threshold, tuple) else _POSITIVE


def _sign(name: str, word: str) -> str:
    """``CD3+``, ``CD3-`` or ``CD3 2+``."""
    return f"{name}{_SIGNS[word]}" if word in _SIGNS else f"{name} {word}"
