"""Label images as they are shown: filtered, or with a value for each cell instead."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cellseg.results.corrections import PatchedLevel


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


class _Level:
    """As much of an array's interface as napari asks for."""

    ndim = 2
    dtype: np.dtype[Any]

    def __init__(self, level: PatchedLevel, shown: CellFilter) -> None:
        self._level, self._shown = level, shown
        self.shape, self.chunks, self.size = level.shape, level.chunks, level.size

    def __array__(
        self, dtype: np.dtype[Any] | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        return np.asarray(self[...], dtype)

    def __getitem__(self, key: object) -> NDArray[Any]:
        raise NotImplementedError

    def __deepcopy__(self, memo: object) -> Self:
        """Napari's Duplicate copies a layer's data; this is only a way to read it."""
        return self


class ShownLabels(_Level):
    """Labels, hidden ones left out."""

    dtype = np.dtype(np.uint32)

    def __getitem__(self, key: object) -> NDArray[np.uint32]:
        return self._shown.apply(np.asarray(self._level[key]))


class ShownValues(_Level):
    """A number for each pixel of a cell, float32; NaN, and so transparent, elsewhere."""

    dtype = np.dtype(np.float32)

    def __init__(self, level: PatchedLevel, shown: CellFilter, values: NDArray[np.float32]) -> None:
        super().__init__(level, shown)
        self._values = values

    def __getitem__(self, key: object) -> NDArray[np.float32]:
        labels = self._shown.apply(np.asarray(self._level[key]))
        known = np.minimum(labels, len(self._values) - 1)
        inside = (labels > 0) & (labels < len(self._values))
        return np.where(inside, self._values[known], np.float32(np.nan))


class Halved:
    """Every second pixel of a level that has no coarser one.

    napari takes a list of one level for one array with another axis.
    """

    ndim = 2

    def __init__(self, level: _Level) -> None:
        self._level = level
        self.dtype = level.dtype
        self.shape = tuple(-(-side // 2) for side in level.shape)
        self.chunks, self.size = self.shape, self.shape[0] * self.shape[1]

    def __array__(
        self, dtype: np.dtype[Any] | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        return np.asarray(self[...], dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:  # noqa: ANN401 - numpy's
        return np.asarray(np.asarray(self._level)[::2, ::2][key])
