"""Pages: one file without a network, with its style; every text in it is escaped."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from cellseg import __version__
from cellseg.text import visible


def render_page(template: Path, *, title: str, pictures: str = "data:", **content: object) -> str:
    """A whole page, from a template that extends ``frame.html``.

    Nothing is fetched, and no script runs but the page's own: the browser is told so, whatever
    a name in it may hold. All texts are escaped, and control characters do not act. ``pictures``
    says where pictures may come from, as a content security policy does.
    """
    home = Path(__file__).parent
    style, script = ((home / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    page = environment(home, template.parent).get_template(template.name)
    return page.render(
        title=title,
        pictures=pictures,
        generator=f"cellseg {__version__}",
        style=Markup(style),
        script=Markup(script),
        digest=b64encode(sha256(script.encode()).digest()).decode(),
        **content,
    )


def environment(*folders: Path) -> Environment:
    """Templates of some folders, whose texts are escaped and whose control characters are shown."""
    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        finalize=lambda v: visible(v) if isinstance(v, str) and not isinstance(v, Markup) else v,
        trim_blocks=True,
        lstrip_blocks=True,
    )
