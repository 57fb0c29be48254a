"""What a button does may go wrong: napari says so, in one line."""

from __future__ import annotations

import logging
from collections.abc import Callable

from napari.utils.notifications import show_error, show_warning

from cellseg.errors import CellsegError, unexpected_text
from cellseg_napari._words import in_fields

logger = logging.getLogger(__name__)


def attempt(action: Callable[[], object], *_: object) -> None:
    """Do it, or say why not; what a Qt signal adds is left out."""
    try:
        action()
    except Exception as error:
        tell(error)


def tell(error: Exception) -> str:
    """In napari's corner; what nobody foresaw goes into the log as well. Returns what was said."""
    if isinstance(error, CellsegError):
        said = in_fields(error)
        show_warning(said)
    else:
        logger.error("unexpected", exc_info=error)
        said = in_fields(unexpected_text(error))
        show_error(said)
    return said
