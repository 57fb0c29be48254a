"""How good counts, outlines and sizes are, against annotations; reads Instances only."""

from cellseg.judge.average_precision import AveragePrecision, Field, average_precision
from cellseg.judge.counting import CountError, bootstrap, count_error
from cellseg.judge.matching import Matches, Overlaps, match
from cellseg.judge.segmentation import IOUS, Segmentation
from cellseg.judge.sizes import SizeError, size_error

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
