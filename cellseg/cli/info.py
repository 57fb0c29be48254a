"""`cellseg info`: what a file is, before anything is counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from cellseg.cli._shared import PLACE, say, shared
from cellseg.errors import CellsegError, InputError, PartialResultError
from cellseg.storage import Location


@click.command()
@click.argument("files", nargs=-1, required=True, type=PLACE, metavar="FILE...")
@shared("json mpp z t series")
def info(files: tuple[Location, ...], *, as_json: bool, **options: Any) -> None:  # noqa: ANN401
    """Say what an image is: size, channels, pixel size, pyramid, and what to watch for."""
    from cellseg.slide import open_slide

    said: list[dict[str, object]] = []
    failed: list[CellsegError] = []
    for number, file in enumerate(files):
        try:
            with open_slide(file, **options) as slide:
                said.append(slide.describe())
        except CellsegError as error:
            failed.append(error)
            said.append({"path": str(file), "error": str(error)})
            if not as_json and len(files) > 1:
                say(f"Error: {error}", err=True)
            continue
        if not as_json:
            rows = [f"  {label:<12}{text}" for label, text in _rows(said[-1])]
            notes = [f"  ! {note}" for note in slide.notes]
            say("\n".join(["", str(file), *rows, *notes][number == 0 :]))
    if as_json:
        say(json.dumps(said, indent=2, ensure_ascii=False))
    if failed:
        if len(files) == 1:
            raise failed[0]
        text = f"{len(failed)} of {len(files)} files could not be read"
        raise InputError(text) if len(failed) == len(files) else PartialResultError(text)


def _rows(described: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What :meth:`Slide.describe` returns, in words."""
    from cellseg.slide import numbered

    sides = described["width_px"], described["height_px"]
    height, width = described["chunk_px"]
    chunks = f"{'tiles' if described['tiled'] else 'strips'} of {width:,} × {height:,} px"
    chunks = "in one piece" if (width, height) == sides else chunks
    yield "format", ", ".join(filter(None, (described["format"], described["compression"], chunks)))
    size, mpp = f"{sides[0]:,} × {sides[1]:,} px (width × height)", described["mpp"]
    if mpp is None:
        yield "size", size
        yield "pixel size", "unknown: areas will be in pixels; pass --mpp to get µm²"
    else:
        width_mm, height_mm = (side * mpp / 1000 for side in sides)
        yield "size", f"{size}, {width_mm:.3g} × {height_mm:.3g} mm"
        yield "pixel size", f"{mpp:.4g} µm ({described['mpp_source']})"
    names = tuple(described["channels"])
    names = names if len(names) == 1 or described["rgb"] else numbered(names)
    yield "channels", f"{', '.join(names)} ({described['dtype']})"
    if len(levels := described["levels"]) > 1:
        steps = ", ".join(f"{level['downsample']:.4g}" for level in levels)
        yield "levels", f"{len(levels)}, downsampled by {steps}"
    for label, count in (("z planes", described["size_z"]), ("time points", described["size_t"])):
        if count > 1:
            yield label, str(count)
    pictures = described["pictures"]
    if (images := described["series"] - len(pictures)) > 1:
        yield "series", f"{images}, choose with --series"
    if pictures:
        named = ", ".join(f"{name} (--series {number})" for number, name in pictures.items())
        yield "beside it", named
