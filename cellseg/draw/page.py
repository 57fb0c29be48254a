"""What all pages share: one file without a network, its style, tables, escaped texts."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from importlib.resources import files

from cellseg import __version__
from cellseg.text import visible

GENERATOR = f"cellseg {__version__}"


def document(title: str, body: Sequence[str], *, pictures: str = "data:") -> str:
    """A whole page.

    Nothing is fetched, and no script runs but the page's own: the browser is told so, whatever
    a name in it may hold.

    Parameters
    ----------
    title : str
        Plain text.
    body : sequence of str
        HTML.
    pictures : str
        Where pictures may come from, as a content security policy says it.
    """
    style, script = (
        files("cellseg.draw").joinpath(name).read_text(encoding="utf-8")
        for name in ("page.css", "page.js")
    )
    digest = b64encode(sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src {pictures}; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        '<head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        f'<meta name="generator" content="{GENERATOR}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{safe(title)}</title>",
        f"<style>{style}</style></head>",
        "<body>",
        *body,
        f"<script>{script}</script>",
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def safe(text: str) -> str:
    """A name in a page: no markup, no control characters."""
    return escape(visible(text))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain table of HTML texts, the first column its rows' names."""
    cells = "".join(f"<th scope='col'>{name}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{v}</td>" for v in row) + "</tr>" for row in rows)
    return (
        f"<div class='wide' tabindex='0'><table><thead><tr>{cells}</tr></thead>"
        f"<tbody>{lines}</tbody></table></div>"
    )


@dataclass(frozen=True)
class Cell:
    """A cell of a table that can be sorted.

    Attributes
    ----------
    shown : str
        HTML.
    value : str, float or None
        By which rows are sorted; None stays at the end.
    """

    shown: str
    value: str | float | None


def sortable(caption: str, head: Sequence[tuple[str, bool]], rows: Sequence[Sequence[Cell]]) -> str:
    """A table with a button in each column's head.

    Parameters
    ----------
    caption : str
        Plain text.
    head : sequence of (str, bool)
        A column's name, plain text, and whether it holds numbers.
    rows : sequence of sequence of Cell
        The first of each is the row's name.
    """
    heads = "".join(
        f"<th scope='col' data-kind='{'number' if number else 'text'}'"
        f"{'' if number else ' class=text'}><button type='button'>{_head(name)}</button></th>"
        for name, number in head
    )
    lines = []
    for row in rows:
        cells = "".join(
            _cell(cell, number, first=not place)
            for place, (cell, (_, number)) in enumerate(zip(row, head, strict=True))
        )
        lines.append(f"<tr>{cells}</tr>")
    return (
        f"<div class='wide' tabindex='0' role='region' aria-label='{safe(caption)}'>"
        f"<table class='sortable'><caption class='muted'>{safe(caption)}</caption>"
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _head(name: str) -> str:
    """A column's name, which may break after an underscore."""
    return safe(name).replace("_", "_<wbr>")


def _cell(cell: Cell, number: bool, *, first: bool) -> str:
    value = "" if cell.value is None else safe(str(cell.value))
    data = f" data-value='{value}'"
    if first:
        return f"<th scope='row'{data}>{cell.shown}</th>"
    return f"<td{data}{'' if number else ' class=text'}>{cell.shown}</td>"
