"""Names that come from files, and figures, where people see them: a terminal, page, spreadsheet."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Controls (C0, C1), line and paragraph separators, what turns the direction of text, and bytes
of a file name that are no UTF-8."""

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_GUARDED = re.compile(r"'+[=+\-@\t\r\n]")


def visible(text: str) -> str:
    r"""Text whose control characters are shown as such and no longer act.

    They become escapes as in JSON, so that a JSON text stays one with the same content.

    >>> visible("DAPI\x1b[2J")
    'DAPI\\u001b[2J'
    """
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def visible_lines(text: str) -> str:
    """Visible text of several lines, whose ends stay."""
    return "\n".join(visible(line) for line in text.split("\n"))


def as_cell(text: str) -> str:
    """Text for a cell of a table that no spreadsheet takes for a formula.

    An apostrophe is put before what begins with ``=``, ``+``, ``-``, ``@``, a tab or a line's end
    (`OWASP, CSV injection`); :func:`from_cell` takes it away again.

    >>> as_cell("=1+1"), as_cell("tumour")
    ("'=1+1", 'tumour')
    """
    return f"'{text}" if _FORMULA.match(text) else text


def from_cell(text: str) -> str:
    """What :func:`as_cell` was given.

    >>> from_cell("'=1+1"), from_cell("'quoted'")
    ('=1+1', "'quoted'")
    """
    return text[1:] if _GUARDED.match(text) else text


def shortened(text: str, length: int) -> str:
    """Text of at most ``length`` characters; what is too long is cut in the middle.

    >>> shortened("screen_A01_s1", 9)
    'scre…1_s1'
    """
    kept = length - 1
    return text if len(text) <= length else f"{text[: kept - kept // 2]}…{text[-(kept // 2) :]}"


def percent(value: float, *, sign: bool = False) -> str:
    """In per cent for a person; a dash where there is no figure."""
    if math.isnan(value):
        return "–"
    return f"{100 * value:+.1f} %" if sign else f"{100 * value:.1f} %"


def number(value: float) -> str:
    """With three digits; a dash where there is no figure."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def time_left(seconds: float) -> str:
    """A run's remaining time in words, as exact as an estimate can be.

    >>> time_left(700), time_left(5000)
    ('about 12 min left', 'about 1 h 23 min left')
    """
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute left"
    hours, minutes = divmod(minutes, 60)
    return f"about {f'{hours} h ' if hours else ''}{minutes} min left"


PLAIN_SCHEMES = frozenset((
    "abfs", "abfss", "adl", "az", "file", "gcs", "gs", "local", "memory", "oci", "oss", "s3", "s3a",
))  # fmt: skip
"""URLs without users: in them "@", "?" and "#" belong to the name."""

_URL = re.compile(r"[A-Za-z][\w+.-]*(?:::[\w+.-]+)*://[^\s'\"<>()\[\]]+")


def without_secrets(url: str) -> str:
    """A URL, chained by ``::`` or not, without user, password, query and fragment."""
    parts = []
    for part in url.split("::"):
        scheme, found, rest = part.partition("://")
        if found and scheme not in PLAIN_SCHEMES:
            host, slash, path = rest.partition("?")[0].partition("#")[0].partition("/")
            part = f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
        parts.append(part)
    return "::".join(parts)


def scrubbed(text: str) -> str:
    """A message of another library, its URLs without what may be a secret."""
    return _URL.sub(lambda found: without_secrets(found[0]), text)


def people_table(path: str | Path) -> pd.DataFrame:
    """A CSV that a person made, its values as text; a ValueError if it is none.

    Spreadsheets of some languages write semicolons between values, and decimal commas.
    """
    import pandas as pd  # late: names and figures need none

    with Path(path).open(encoding="utf-8-sig") as stream:
        first = stream.readline()
    sep = ";" if first.count(";") > first.count(",") else ","
    table = pd.read_csv(path, sep=sep, dtype=str, keep_default_na=False, encoding="utf-8-sig",
                        index_col=False)  # fmt: skip
    if sep == ";":
        for name in {"x", "y", "label"} & {*table}:
            table[name] = table[name].str.replace(",", ".")
    return table
