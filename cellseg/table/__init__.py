"""Tables: the columns, their units, and how each follows from masks, pixels or other columns.

Inside a run all geometry lies on the lattice of model pixels; level-0 pixels and µm are made
here, once, and ``docs/cells-csv.md`` documents the columns for people. Here belong functions from
arrays to columns and totals; reading slides belongs to ``slide``, and files to ``result``.
"""

from cellseg.table._table import REGION, Column, channel_slugs, columns, dab_density, measure

__all__ = ["REGION", "Column", "channel_slugs", "columns", "dab_density", "measure"]
