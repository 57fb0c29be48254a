"""Corrections of a finished count: what a person deletes, adds, splits, merges, renames.

The automatic result is never touched. Edits are kept in ``corrections.json`` beside it, one by
one, as they are made; saved, they leave a second result, ``NAME.corrected.cellseg``, and
:func:`export_training` turns both into data for ``cellseg train``.
"""

from cellseg.results.corrections._edit import Change, Edit, EditedCell
from cellseg.results.corrections._log import LOG_NAME
from cellseg.results.corrections._pyramid import PatchedLevel, PatchedPyramid
from cellseg.results.corrections._save import corrected_path
from cellseg.results.corrections._session import Corrections
from cellseg.results.corrections._slide import find_slide, open_result_slide, opening
from cellseg.results.corrections._training import export_training

__all__ = [
    "LOG_NAME",
    "Change",
    "Corrections",
    "Edit",
    "EditedCell",
    "PatchedLevel",
    "PatchedPyramid",
    "corrected_path",
    "export_training",
    "find_slide",
    "open_result_slide",
    "opening",
]
