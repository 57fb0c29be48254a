"""How good a model is on annotated images: counts, outlines, sizes, and the score to count at.

Here belong the evaluation, its figures and its page. How found objects are matched to annotated
ones lies in :mod:`cellseg.annotations.compare`; nothing here trains or changes a model.
"""
