"""Counting: what is asked, what is decided, and the stages from tiles to settled, measured cells.

Not named ``count``: that is the function of the same name in :mod:`cellseg`.
"""
