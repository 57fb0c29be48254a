"""How good counts, outlines and sizes are, against annotations; reads Instances only."""

from cellseg.metrics.average_precision import AveragePrecision, Field, average_precision
from cellseg.metrics.counting import CountError, bootstrap, count_error
from cellseg.metrics.matching import Matches, Overlaps, match
from cellseg.metrics.segmentation import IOUS, Segmentation
from cellseg.metrics.sizes import SizeError, size_error

__all__ = [
    "IOUS",
    "AveragePrecision",
    "CountError",
    "Field",
    "Matches",
    "Overlaps",
    "Segmentation",
    "SizeError",
    "average_precision",
    "bootstrap",
    "count_error",
    "match",
    "size_error",
]
