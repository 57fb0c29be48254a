"""A count as a notebook shows it: picture, numbers, warnings."""

from __future__ import annotations

import re
from base64 import b64encode
from contextlib import suppress
from html import escape
from io import BytesIO
from pathlib import Path

from PIL import Image

from cellseg.result.files import readable
from cellseg.result.publish import OUTLINES
from cellseg.table.areas import AreaStatistics
from cellseg.table.summary import Summary
from cellseg.text import visible

_OPTION = re.compile(r"--([a-z][a-z-]*)(?: (?=[A-Z]{2,}))?")

PICTURE_PX = 1000
"""Longest side of the picture; the whole of it lies in the result folder."""


def page_of(summary: Summary, folder: Path, warnings: tuple[str, ...]) -> str:
    """HTML that needs nothing else; whatever came from a file is escaped.

    Parameters
    ----------
    folder : Path
        The result folder; where its picture of the outlines cannot be read, there is none.
    """
    density = summary.density_per_mm2_per_class
    header = f"<th></th><th>{_text(summary.plural)}</th>" + ("<th>per mm²</th>" if density else "")
    rows = [
        (name, count, density[name] if density else None)
        for name, count in summary.cells_per_class.items()
    ]
    if len(rows) != 1:
        rows.append(("all", summary.cells, summary.density_per_mm2))
    table = "".join(
        f"<tr><td>{_text(name)}</td><td>{count:,}</td>"
        + ("" if per_mm2 is None else f"<td>{per_mm2:,.0f}</td>")
        + "</tr>"
        for name, count, per_mm2 in rows
    )
    listed = "".join(f"<li>{_text(in_python(warning))}</li>" for warning in warnings)
    return (
        f"<div><b>{_text(str(summary))}</b>{_picture(folder / OUTLINES)}"
        f"<table><tr>{header}</tr>{table}</table>{_sizes(summary)}"
        + (f"<p>To know:</p><ul>{listed}</ul>" if listed else "")
        + f"<p>In <code>{_text(str(folder))}</code></p></div>"
    )


def _text(text: str) -> str:
    return escape(visible(readable(text)))


def _sizes(summary: Summary) -> str:
    areas, unit = (summary.area_um2, "µm²") if summary.area_um2 else (summary.area_px, "px²")
    return "" if areas is None else f"<p>{_range(areas)} {unit}</p>"


def _range(areas: AreaStatistics) -> str:
    low, median, high = (f"{areas.quantiles[percent]:,.3g}" for percent in (5, 50, 95))
    return f"Areas: median {median}, nine of ten between {low} and {high}"


def _picture(path: Path) -> str:
    """The outlines, small; nothing where there is no picture, or a damaged one."""
    with suppress(OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        with Image.open(path) as picture:
            small = picture.convert("RGB")
        small.thumbnail((PICTURE_PX, PICTURE_PX))
        packed = BytesIO()
        small.save(packed, format="JPEG", quality=85)
        source = f"data:image/jpeg;base64,{b64encode(packed.getvalue()).decode()}"
        return f'<br><img alt="outlines" style="max-width: 100%" src="{source}">'
    return ""


def in_python(text: str) -> str:
    """A message of the command line, with its options called as the arguments are.

    >>> in_python("--min-area and --mpp set it")
    'min_area= and mpp= set it'
    """
    return _OPTION.sub(lambda found: f"{found[1].replace('-', '_')}=", text)
