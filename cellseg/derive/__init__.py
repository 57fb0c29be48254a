"""Everything that follows from a result's cells and what people decided about them.

Here belong the recipe, the one function that derives columns and totals from it, classes by
thresholds, and corrections by hand. Nothing here draws, counts or asks a network.
"""

from cellseg.derive.auto import Proposal, propose
from cellseg.derive.classes import Classification
from cellseg.derive.derive import derive, will_have
from cellseg.derive.histogram import Histogram, histogram
from cellseg.derive.interval import Blocks, share_interval, spatial_blocks
from cellseg.derive.markers import Classes, classify, grades, measurement, named
from cellseg.derive.recipe import Recipe
from cellseg.derive.scores import Labelling, allred, h_score, labelling

__all__ = [
    "Blocks",
    "Classes",
    "Classification",
    "Histogram",
    "Labelling",
    "Proposal",
    "Recipe",
    "allred",
    "classify",
    "derive",
    "grades",
    "h_score",
    "histogram",
    "labelling",
    "measurement",
    "named",
    "propose",
    "share_interval",
    "spatial_blocks",
    "will_have",
]
