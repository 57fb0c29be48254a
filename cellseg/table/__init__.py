"""Measuring: masks and pixels become a table; this package owns its columns and their units.

Inside a run all geometry lies on the lattice of model pixels; level-0 pixels and µm are made
here, once. The columns are documented for people in ``docs/cells-csv.md``.
"""

from cellseg.table._columns import REGION, Column, Scale, channel_slugs, columns
from cellseg.table._table import measure

__all__ = ["REGION", "Column", "Scale", "channel_slugs", "columns", "measure"]
