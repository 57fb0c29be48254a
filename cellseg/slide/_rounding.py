"""Floats back to a slide's own dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def round_to(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Floats in another dtype: rounded and clipped for integers, as they are for floats."""
    if dtype.kind == "f":
        return values.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    rounded: NDArray[Any] = np.clip(np.rint(values), limits.min, limits.max)
    if dtype.itemsize == 8:
        # 2**63 - 1 is no float: what reaches it would wrap around.
        top = rounded >= float(limits.max)
        return np.where(top, limits.max, np.where(top, 0, rounded).astype(dtype))
    whole: NDArray[Any] = rounded.astype(dtype)
    return whole
