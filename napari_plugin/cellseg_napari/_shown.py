"""Label images as they are shown: filtered, or with a value for each cell instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.derive.corrections import PatchedLevel
from cellseg.draw import borders
from cellseg_napari._array_like import ArrayLike

OUTLINE_PX = 2
"""Width of outlines, pixels of the level that is shown."""


class CellFilter:
    """Which cells are shown; labels beyond its length are, and everything is without one."""

    def __init__(self) -> None:
        self.hidden: NDArray[np.bool_] | None = None

    def apply(self, labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Hidden cells become background."""
        hidden = self.hidden
        if hidden is None:
            return labels
        known = np.minimum(labels, len(hidden) - 1)
        gone = hidden[known] & (labels < len(hidden))
        return np.where(gone, np.uint32(0), labels)


class ShownLabels(ArrayLike):
    """Labels, hidden ones left out."""

    dtype = np.dtype(np.uint32)

    def __init__(self, level: PatchedLevel, shown: CellFilter) -> None:
        self._level, self._shown = level, shown
        self.shape, self.chunks = level.shape, level.chunks

    def __getitem__(self, key: object) -> NDArray[np.uint32]:
        return self._shown.apply(np.asarray(self._level[key]))


class Values:
    """A number for each cell, and whether its whole mask shows it or only its outline.

    Attributes
    ----------
    by_label : ndarray, float32
        Indexed by label; NaN, and labels beyond it, are transparent.
    """

    def __init__(self, by_label: NDArray[np.float32], *, outlines: bool = False) -> None:
        self.by_label, self.outlines = by_label, outlines


class ShownValues(ShownLabels):
    """A number for each pixel of a cell, float32; NaN elsewhere."""

    dtype = np.dtype(np.float32)

    def __init__(self, level: PatchedLevel, shown: CellFilter, values: Values) -> None:
        super().__init__(level, shown)
        self._values = values

    def __getitem__(self, key: object) -> NDArray[Any]:
        labels, values = super().__getitem__(key), self._values.by_label
        inside = (labels > 0) & (labels < len(values))
        if self._values.outlines and labels.ndim == 2:
            inside &= borders(labels, OUTLINE_PX)
        known = np.minimum(labels, len(values) - 1)
        return np.where(inside, values[known], np.float32(np.nan))


class Halved(ArrayLike):
    """Every second pixel of a level that has no coarser one."""

    def __init__(self, level: ArrayLike) -> None:
        self._level = level
        self.dtype = level.dtype
        self.shape = self.chunks = tuple(-(-side // 2) for side in level.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:  # noqa: ANN401 - numpy's
        return np.asarray(np.asarray(self._level)[::2, ::2][key])


def multiscale(levels: Sequence[ArrayLike]) -> list[ArrayLike]:
    """At least two levels: napari takes a list of one for one array with another axis."""
    return [*levels, Halved(levels[0])] if len(levels) == 1 else list(levels)
