"""As much of an array's interface as napari asks for of a pyramid's level."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


class ArrayLike(ABC):
    """Pixels that are read when they are asked for.

    Attributes
    ----------
    shape, chunks : tuple of int
        napari rounds what it asks for to chunks.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]

    @abstractmethod
    def __getitem__(self, key: Any) -> NDArray[Any]:  # noqa: ANN401 - numpy's
        """Basic indexing, as of an ndarray."""

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __array__(
        self, dtype: np.dtype[Any] | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        return np.asarray(self[...], dtype)

    def __deepcopy__(self, memo: object) -> Self:
        """Napari's Duplicate copies a layer's data; this is only a way to read it."""
        return self
