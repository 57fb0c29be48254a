"""How large the cells are, in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

QUANTILES_PERCENT = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class AreaStatistics:
    """How large the cells are.

    Attributes
    ----------
    mean, std, minimum, maximum : float
        ``std`` with divisor n.
    quantiles : dict of int to float
        Percent to area, for :data:`QUANTILES_PERCENT`, linear between cells.
    """

    mean: float
    std: float
    minimum: float
    maximum: float
    quantiles: dict[int, float]

    @property
    def median(self) -> float:
        """Half of the cells are smaller."""
        return self.quantiles[50]

    @classmethod
    def of(cls, areas: NDArray[np.float32]) -> AreaStatistics:
        """Statistics of at least one area; sums are made in float64."""
        points = np.percentile(areas, QUANTILES_PERCENT).tolist()
        return cls(
            mean=float(areas.mean(dtype=np.float64)),
            std=float(areas.std(dtype=np.float64)),
            minimum=float(areas.min()),
            maximum=float(areas.max()),
            quantiles=dict(zip(QUANTILES_PERCENT, points, strict=True)),
        )

    def times(self, factor: float) -> AreaStatistics:
        """The statistics in another unit."""
        return AreaStatistics(
            self.mean * factor,
            self.std * factor,
            self.minimum * factor,
            self.maximum * factor,
            {percent: area * factor for percent, area in self.quantiles.items()},
        )
