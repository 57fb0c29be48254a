"""Counting: what is asked, what is decided, and the stages from tiles to settled, measured cells.

The stages are a generator that owns no folder, no progress bar and no network storage; ``record``
drains it into a result folder. Here belong plan, tiles, merging and where tiles are mapped: in
this process or on a Dask cluster. What follows from found cells belongs in :mod:`cellseg.derive`.
"""
