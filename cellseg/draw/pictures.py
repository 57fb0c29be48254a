"""The pictures of a result: all of them, drawn once a command, or its outlines at any place."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cellseg.derive import Classification
from cellseg.draw.histogram import draw_histograms
from cellseg.draw.outlines import outline_sheet
from cellseg.draw.overview import overview_sheet
from cellseg.errors import CellsegError, Notice, SettingsError, output_errors
from cellseg.geometry import Box
from cellseg.protocol import Marker
from cellseg.result import Change, Result, add_file
from cellseg.result.publish import HISTOGRAM, OUTLINES, OVERVIEW
from cellseg.slide import Slide
from cellseg.storage import Location


def draw_pictures(
    change: Change,
    slide: Slide | None,
    *,
    why: CellsegError | None = None,
    asked: Sequence[Marker] = (),
) -> list[Notice]:
    """Draw all pictures of a result that is being changed.

    Without a slide there are no outlines and no overview; ``why`` tells the reason. ``asked`` are
    markers whose threshold was not found. Returned is what was left out, and why.
    """
    result = change.result
    classification = Classification.of(result.run)
    if classification is not None or asked:
        draw_histograms(result, classification, change.path(HISTOGRAM), asked=asked)
    if slide is None:
        change.remove(OUTLINES)
        change.remove(OVERVIEW)
        said = f"{OUTLINES} and {OVERVIEW} were left out: {why or 'the slide is not there'}"
        return [Notice(said, hint="image")]
    notices = []
    paths = {name: change.path(name) for name in (OUTLINES, OVERVIEW)}
    # Each in a thread of its own: numpy and libdeflate give the interpreter away.
    with ThreadPoolExecutor(len(paths)) as pool:
        drawn = {name: pool.submit(draw_picture, name, result, slide, path)
                 for name, path in paths.items()}  # fmt: skip
        for name, future in drawn.items():
            try:
                future.result()
            except CellsegError as error:
                change.remove(name)
                notices.append(Notice(f"{name} was left out: {error}"))
    return notices


def draw_picture(name: str, result: Result, slide: Slide, path: Path) -> None:
    """Draw ``outlines.png`` or ``overview.png``."""
    if name == OVERVIEW:
        overview_sheet(result, slide).write(path)
    else:
        outline_sheet(result, result.ground(slide)).write(path)


def overlay(
    result: Result,
    *,
    box: tuple[int, int, int, int] | None = None,
    image: Location | None = None,
    output: Path | None = None,
    cells: bool = False,
) -> Path:
    """Draw a result's outlines anywhere, and say where the picture is.

    ``box`` is y0, x0, y1, x1, level-0 pixels, half-open; otherwise the picture shows what
    ``outlines.png`` does. ``image`` is where the slide is by now, if it was moved. ``output`` is a
    PNG file, overwritten; otherwise it is one in the result folder, listed in its ``run.json``.
    ``cells``: outline the cells that grew around the nuclei, of an expanded result.

    A SettingsError if there is no such box on the slide, or ``output`` is no name of a picture. An
    InputError if the slide was moved, is another one or cannot be read, or the result was changed.
    An OutputError if the picture cannot be written.
    """
    result.check_table()
    place = None if box is None else _box(box, result)
    if output is not None and output.suffix.lower() != ".png":
        raise SettingsError(f"{output}: expected a name that ends in .png")
    image = image or result.find_slide()
    if output is not None and output.absolute() == image.absolute():
        raise SettingsError(f"{output}: is the slide itself; take another name")
    with result.slide(image) as slide:
        sheet = outline_sheet(result, result.ground(slide), place, cells=cells)
    if output is None:
        corners = "" if box is None else "-" + "-".join(map(str, box))
        return add_file(result, f"{'cells' if cells else 'outlines'}{corners}.png", sheet.write)
    with output_errors(output):
        sheet.write(output)
    return output


def _box(corners: tuple[int, int, int, int], result: Result) -> Box:
    y0, x0, y1, x1 = corners
    height, width = result.frame.height, result.frame.width
    if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
        raise SettingsError(
            f"box {y0} {x0} {y1} {x1}: is empty or reaches beyond the slide; expected Y0 X0 Y1 X1 "
            f"with Y0 < Y1 and X0 < X1 in 0 0 {height} {width} (level-0 pixels)"
        )
    return Box(y0, x0, y1, x1)
