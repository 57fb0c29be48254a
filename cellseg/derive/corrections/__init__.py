"""Corrections of a finished count: what a person deletes, adds, splits, merges, renames.

The automatic result is never touched. Edits are kept in ``corrections.json`` beside it, one by
one, as they are made; saved, they leave a second result, ``NAME.corrected.cellseg``, and
:func:`export_training` turns both into data for ``cellseg train``.
"""

from cellseg.derive.corrections._edit import CellChange, Edit, EditedCell
from cellseg.derive.corrections._log import LOG_NAME
from cellseg.derive.corrections._pyramid import PatchedLevel, PatchedPyramid
from cellseg.derive.corrections._save import corrected_path
from cellseg.derive.corrections._session import Corrections
from cellseg.derive.corrections._training import export_training

__all__ = [
    "LOG_NAME",
    "CellChange",
    "Corrections",
    "Edit",
    "EditedCell",
    "PatchedLevel",
    "PatchedPyramid",
    "corrected_path",
    "export_training",
]
