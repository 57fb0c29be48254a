"""`cellseg info`: what a file is, before anything is counted."""

from __future__ import annotations

import json
from typing import Any, Literal

import click

from cellseg.cli._options import PIXEL_SIZE, Place, Plane
from cellseg.cli._say import say
from cellseg.errors import CellsegError, InputError, PartialResultError
from cellseg.storage import Location


@click.command()
@click.argument("files", nargs=-1, required=True, type=Place(), metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, one entry a file.")
@click.option("--mpp", type=PIXEL_SIZE, help="µm per pixel, instead of what the file says.")
@click.option("--z", type=Plane(), help="Plane from 0, or max or mean over all planes.")
@click.option("--t", type=int, help="Time point, from 0.")
@click.option("--series", type=int, default=0, help="Which image of a file with several.")
def info(
    files: tuple[Location, ...],
    *,
    as_json: bool,
    mpp: float | None,
    z: int | Literal["max", "mean"] | None,
    t: int | None,
    series: int,
) -> None:
    """Say what an image is: size, channels, pixel size, pyramid, and what to watch for."""
    from cellseg.slide import open_slide

    said: list[dict[str, object]] = []
    failed: list[CellsegError] = []
    for number, file in enumerate(files):
        try:
            with open_slide(file, mpp=mpp, z=z, t=t, series=series) as slide:
                described = slide.describe()
        except CellsegError as error:
            failed.append(error)
            described = {"path": str(file), "error": str(error)}
            if not as_json and len(files) > 1:
                say(f"Error: {error}", err=True)
        said.append(described)
        if not as_json and "error" not in described:
            say(("\n" if number else "") + for_people(described))
    if as_json:
        say(json.dumps(said, indent=2, ensure_ascii=False))
    if failed:
        if len(files) == 1:
            raise failed[0]
        text = f"{len(failed)} of {len(files)} files could not be read"
        raise InputError(text) if len(failed) == len(files) else PartialResultError(text)


def for_people(described: dict[str, Any]) -> str:
    """What `Slide.describe` returns, as a few lines of text.

    Parameters
    ----------
    described : dict
        One entry.
    """
    lines = [str(described["path"])]
    for label, text in _rows(described):
        lines.append(f"  {label:<12}{text}")
    lines += [f"  ! {note}" for note in described["notes"]]
    return "\n".join(lines)


def _rows(described: dict[str, Any]) -> list[tuple[str, str]]:
    height, width = described["chunk_px"]
    chunks = f"{'tiles' if described['tiled'] else 'strips'} of {width:,} × {height:,} px"
    if (height, width) == (described["height_px"], described["width_px"]):
        chunks = "in one piece"
    rows = [
        (
            "format",
            ", ".join(filter(None, (described["format"], described["compression"], chunks))),
        ),
        ("size", _size(described)),
        ("pixel size", _pixel_size(described)),
        ("channels", f"{', '.join(_channels(described))} ({described['dtype']})"),
    ]
    if len(described["levels"]) > 1:
        steps = ", ".join(f"{level['downsample']:.4g}" for level in described["levels"])
        rows.append(("levels", f"{len(described['levels'])}, downsampled by {steps}"))
    planes = {"z planes": described["size_z"], "time points": described["size_t"]}
    rows += [(label, str(count)) for label, count in planes.items() if count > 1]
    pictures = described["pictures"]
    if (images := described["series"] - len(pictures)) > 1:
        rows.append(("series", f"{images}, choose with --series"))
    if pictures:
        named = ", ".join(f"{name} (--series {number})" for number, name in pictures.items())
        rows.append(("beside it", named))
    return rows


def _channels(described: dict[str, Any]) -> tuple[str, ...]:
    from cellseg.slide import numbered

    names: tuple[str, ...] = tuple(described["channels"])
    return names if len(names) == 1 or described["rgb"] else numbered(names)


def _size(described: dict[str, Any]) -> str:
    text = f"{described['width_px']:,} × {described['height_px']:,} px (width × height)"
    if described["mpp"] is None:
        return text
    width, height = (
        described[side] * described["mpp"] / 1000 for side in ("width_px", "height_px")
    )
    return f"{text}, {width:.3g} × {height:.3g} mm"


def _pixel_size(described: dict[str, Any]) -> str:
    if described["mpp"] is None:
        return "unknown: areas will be in pixels; pass --mpp to get µm²"
    return f"{described['mpp']:.4g} µm ({described['mpp_source']})"
