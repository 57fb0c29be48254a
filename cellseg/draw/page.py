"""What all pages share: one file without a network, its style, tables, escaped texts."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
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
