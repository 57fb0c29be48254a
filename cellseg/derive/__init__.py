"""Classes from measurements: positive and negative, grades, combinations of markers, and scores.

Everything here works on columns of the table; nothing reads a slide or a result.
"""

from cellseg.derive.auto import Proposal, propose
from cellseg.derive.histogram import Histogram, histogram
from cellseg.derive.interval import Blocks, share_interval, spatial_blocks
from cellseg.derive.markers import Classes, classify, grades, measurement, named
from cellseg.derive.scores import Labelling, allred, h_score, labelling

__all__ = [
    "Blocks",
    "Classes",
    "Histogram",
    "Labelling",
    "Proposal",
    "allred",
    "classify",
    "grades",
    "h_score",
    "histogram",
    "labelling",
    "measurement",
    "named",
    "propose",
    "share_interval",
    "spatial_blocks",
]
