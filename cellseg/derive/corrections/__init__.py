"""Corrections of a finished count: cells that a person deletes, adds, splits, merges, renames.

The automatic result is never touched. Edits are kept in ``corrections.json`` beside it, one by
one, as they are made; saved, they leave a second result, ``NAME.corrected.cellseg``, and
:func:`export_training` turns both into training data.
"""

from cellseg.derive.corrections.cells import PatchedLevel, PatchedPyramid
from cellseg.derive.corrections.edit import Edit
from cellseg.derive.corrections.session import Corrections
from cellseg.derive.corrections.write import export_training

__all__ = ["Corrections", "Edit", "PatchedLevel", "PatchedPyramid", "export_training"]
