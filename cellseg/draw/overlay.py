"""A finished count as a picture: its cells outlined on its slide, anywhere, without napari."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cellseg.draw import write_png
from cellseg.draw.outlined import draw_outlines, masks_of
from cellseg.draw.pictures import titled
from cellseg.errors import OutputError, SettingsError
from cellseg.geometry import Box
from cellseg.result import Result, add_file
from cellseg.storage import Location


def overlay(
    result: Result,
    *,
    box: tuple[int, int, int, int] | None = None,
    image: Location | None = None,
    output: Path | None = None,
    cells: bool = False,
) -> Path:
    """Draw a result's outlines, and say where the picture is.

    Parameters
    ----------
    box : (int, int, int, int), optional
        y0, x0, y1, x1, level-0 pixels, half-open; otherwise what ``outlines.png`` shows: the
        whole field, or crops of a larger slide.
    image : Path or RemotePath, optional
        Where the slide is by now, if it was moved.
    output : Path, optional
        A PNG file, overwritten; otherwise one in the result folder, listed in its ``run.json``.
    cells : bool
        Outline the cells that grew around the nuclei, of an expanded result.

    Raises
    ------
    SettingsError
        If there is no such box on the slide, or ``output`` is no name of a picture.
    InputError
        If the slide was moved, is another one, or cannot be read there; if the table was changed.
    OutputError
        If the picture cannot be written.
    """
    result.check_table()
    place = None if box is None else _box(box, result)
    if output is not None and output.suffix.lower() != ".png":
        raise SettingsError(f"{output}: expected a name that ends in .png")
    image = image or result.find_slide()
    if output is not None and output.absolute() == image.absolute():
        raise SettingsError(f"{output}: is the slide itself; take another name")
    with result.slide(image) as slide:
        ground = titled(result.ground(slide), result)
        if cells:
            ground = replace(ground, title=f"{ground.title}, grown into cells")
        picture = draw_outlines(ground, masks_of(result, cells=cells), place)

    def write(path: Path) -> None:
        write_png(picture, path)

    if output is None:
        return add_file(result, _name(place, cells=cells), write)
    try:
        write(output)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror or error}") from error
    return output


def _box(corners: tuple[int, int, int, int], result: Result) -> Box:
    y0, x0, y1, x1 = corners
    said = f"box {y0} {x0} {y1} {x1}"
    if y1 <= y0 or x1 <= x0:
        raise SettingsError(f"{said}: is empty; expected Y0 X0 Y1 X1 with Y0 < Y1 and X0 < X1")
    frame = result.frame
    if y0 < 0 or x0 < 0 or y1 > frame.height or x1 > frame.width:
        raise SettingsError(
            f"{said}: reaches beyond the slide, which is "
            f"0 0 {frame.height} {frame.width} (Y0 X0 Y1 X1, level-0 pixels)"
        )
    return Box(y0, x0, y1, x1)


def _name(box: Box | None, *, cells: bool) -> str:
    stem = "cells" if cells else "outlines"
    if box is None:
        return f"{stem}.png"
    return f"{stem}-{box.y0}-{box.x0}-{box.y1}-{box.x1}.png"
