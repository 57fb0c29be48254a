"""What a button does may go wrong: napari says so, in one line."""

from __future__ import annotations

import logging
from collections.abc import Callable

from napari.utils.notifications import show_error, show_warning

from cellseg.errors import CellsegError, unexpected_text
from cellseg.text import visible_lines

logger = logging.getLogger(__name__)


def attempt(action: Callable[[], object], *_: object) -> None:
    """Do it, or say why not; what a Qt signal adds is left out."""
    try:
        action()
    except Exception as error:
        tell(error)


def tell(error: Exception) -> None:
    """In napari's corner; what nobody foresaw goes into the log as well."""
    if isinstance(error, CellsegError):
        show_warning(visible_lines(str(error)))
    else:
        logger.error("unexpected", exc_info=error)
        show_error(visible_lines(unexpected_text(error)))
