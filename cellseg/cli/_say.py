"""How commands print: here alone, so that no file's content steers a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cellseg.errors import hinted
from cellseg.text import visible_lines

if TYPE_CHECKING:
    from rich.console import Console


def option(field: str) -> str:
    """What the command line calls a field of an error's or a notice's hint.

    >>> option("min_area")
    '--min-area'
    """
    return f"--{field.replace('_', '-')}"


def say(text: str, *, err: bool = False, console: Console | None = None) -> None:
    """Print lines, with the options of a hint; control characters are shown and do not act."""
    shown = visible_lines(hinted(text, option))
    if console is None:
        click.echo(shown, err=err)
    else:
        console.print(shown, markup=False, highlight=False)


def tell(notice: str) -> None:
    """Print a notice to the error stream."""
    say(notice, err=True)
