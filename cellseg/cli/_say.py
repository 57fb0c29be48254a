"""The one place where the command line prints text, so that no file's content steers a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cellseg.text import visible_lines

if TYPE_CHECKING:
    from rich.console import Console


def say(text: str, *, err: bool = False, console: Console | None = None) -> None:
    """Print lines; control characters in them are shown and do not act."""
    shown = visible_lines(text)
    if console is None:
        click.echo(shown, err=err)
    else:
        console.print(shown, markup=False, highlight=False)
