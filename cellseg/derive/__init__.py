"""Everything that follows from a result's cells and what people decided about them.

Here belong the recipe, the one function that derives columns and totals from it, classes by
thresholds, and corrections by hand. Nothing here draws, counts or asks a network.
"""

from cellseg.derive.classes import Classification
from cellseg.derive.derive import derive, refuse_early
from cellseg.derive.recipe import Recipe
from cellseg.derive.threshold import NoThresholdError

__all__ = ["Classification", "NoThresholdError", "Recipe", "derive", "refuse_early"]
