"""What commands share: how lines are printed, options, and what their texts become.

Text is printed here alone, so that no file's content steers a terminal.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from sys import maxsize
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from cellseg.errors import (
    CellsegError,
    InputError,
    SettingsError,
    hinted,
    input_errors,
    output_errors,
)
from cellseg.storage import Location, as_location, is_there
from cellseg.text import visible_lines

if TYPE_CHECKING:
    from rich.console import Console

    from cellseg.protocol import Marker
    from cellseg.table.hotspot import HotSpot


def collect_rarely() -> None:
    """Look for garbage after 50,000 new objects, and not after 700 or 2,000.

    Loading libraries makes objects that stay: looking through them took a tenth of a short run.
    """
    gc.set_threshold(50_000, 10, 10)


def option(field: str) -> str:
    """What the running command calls a field of an error's or a notice's hint; empty for nothing.

    >>> option("min_area")
    '--min-area'
    """
    named, running = f"--{field.replace('_', '-')}", click.get_current_context(silent=True)
    there = running is None or any(named in one.opts for one in running.command.params)
    return named if there else ""


def say(text: str, *, err: bool = False, console: Console | None = None) -> None:
    """Print lines, with the options of a hint; control characters are shown and do not act."""
    shown = visible_lines(hinted(text, option))
    if console is None:
        click.echo(shown, err=err)
    else:
        console.print(shown, markup=False, highlight=False)


def tell(notice: str) -> None:
    """Print a notice to the error stream."""
    say(notice, err=True)


class Number(click.FloatRange):
    """A number with a decimal point; a comma is explained."""

    name = "NUMBER"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:  # noqa: ANN401 - click's
        if isinstance(value, str) and "," in value:
            self.fail(f"{value!r} has a comma: write decimals with a point, as 0.25", param, ctx)
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number", param, ctx)
        return number


class TextParam(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """What a function makes of a text; where it raises a ValueError, ``expected`` is told."""

    def __init__(self, name: str, read: Callable[[str], object], expected: str = "") -> None:
        self.name, self.read, self.expected = name, read, expected

    def get_metavar(self, *_: Any, **__: Any) -> str:  # noqa: ANN401 - of several clicks
        return self.name

    def convert(self, value: Any, param: Any, ctx: Any) -> object:  # noqa: ANN401 - click's
        try:
            return self.read(value)
        except CellsegError:
            raise
        except ValueError:
            self.fail(f"{value!r}: expected {self.expected}", param, ctx)


def _limits(text: str) -> Literal["auto"] | tuple[float, ...]:
    if text == "auto":
        return "auto"
    found = tuple(float(part) for part in text.split(","))
    if len(found) not in (1, 3) or not all(map(math.isfinite, found)):
        raise ValueError(found)
    return found


def _spot(text: str) -> HotSpot:
    """``0.5`` (mm²), ``500`` (cells), with a class after a colon."""
    from pydantic import ValidationError

    from cellseg.table.hotspot import HotSpot

    size, _, of = text.partition(":")
    size = size.strip()
    number = size.removesuffix("mm2").removesuffix("cells").strip()
    is_cells = size.endswith("cells") or (size.isdecimal() and int(size) >= MOST_SPOT_MM2)
    try:
        return HotSpot.model_validate({"cells" if is_cells else "mm2": number, "of": of})
    except ValidationError as error:
        said = f"{text!r}: {error.errors()[0]['msg']}; expected mm², as 0.5, or cells, as 500"
        raise click.BadParameter(said) from None


def _place(text: str, *, is_output: bool = False) -> Location:
    place = as_location(text)
    if not isinstance(place, Path):
        return place
    # Of a name that is too long, of a folder that is closed.
    with output_errors(place) if is_output else input_errors(place):
        is_file = place.exists() and not place.is_dir()
    if is_output and is_file:
        raise click.BadParameter(f"{text!r} is a file, expected a folder")
    return place


def _result(text: str) -> Path:
    place = _place(text)
    if not isinstance(place, Path):
        raise InputError(f"{place}: is behind a URL; copy the result folder to a disk first")
    return place


def _times(text: str) -> int | range:
    """``3``, ``all``, or ``0-9``, both ends included."""
    first, dash, last = text.partition("-")
    if text == "all":
        return range(maxsize)
    if not first.isdecimal() or (dash and not (last.isdecimal() and int(first) <= int(last))):
        raise ValueError(text)
    return range(int(first), int(last) + 1) if dash else int(first)


def _depth(text: str) -> float:
    """A chamber's depth, µm, by its name or as it is."""
    from cellseg.table.chamber import DEPTHS_UM

    if text.lower() in DEPTHS_UM:
        return DEPTHS_UM[text.lower()]
    try:
        return DEPTH.convert(text.removesuffix("µm"), None, None)
    except click.BadParameter as error:
        known = f"expected {', '.join(DEPTHS_UM)}, or a depth in µm"
        raise click.BadParameter(f"{known}: {error.message}") from None


def markers_of(settings: dict[str, Any]) -> list[Marker]:
    """Markers from ``measures``, ``thresholds`` and ``names``, which are removed from the settings.

    A SettingsError if they do not fit together.
    """
    from pydantic import ValidationError

    from cellseg.protocol import MOST_MARKERS, Marker

    measures, thresholds, names = (settings.pop(n) for n in ("measures", "thresholds", "names"))
    if len(measures) != len(thresholds):
        raise SettingsError(
            f"{len(measures)} --measure and {len(thresholds)} --threshold: each needs the other"
        )
    if names and len(names) != len(measures):
        raise SettingsError(f"{len(names)} --name for {len(measures)} --measure: name all or none")
    if len(measures) > MOST_MARKERS:
        raise SettingsError(f"at most {MOST_MARKERS} markers together, got {len(measures)}")
    found = []
    for measure, limits, name in zip_longest(measures, thresholds, names, fillvalue=""):
        threshold = limits[0] if len(limits) == 1 else limits
        wanted = {"measure": measure, "threshold": threshold, "name": name}
        try:
            found.append(Marker.model_validate(wanted))
        except ValidationError as error:
            raise SettingsError(f"--threshold: {error.errors()[0]['msg']}") from error
    return found


DEPTH = Number(1.0, 10_000.0)
MOST_SPOT_MM2 = 50  # A whole number from here on is a number of cells, not mm².
PIXEL_SIZE = Number(0.001, 100.0)  # µm per pixel of any microscope.
PLACE = TextParam("PATH|URL", _place)  # A path, or a URL such as ``s3://bucket/slide.svs``.
OUTPUT = TextParam("PATH|URL", lambda text: _place(text, is_output=True))
"""A place that is no file."""

RESULT = TextParam("RESULT", _result)  # A result folder on a disk.
PATH, FILE = click.Path(path_type=Path), click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)

_SCORE = Number(0.01, 1.0)
_PLANE = TextParam(
    "N|max|mean",
    lambda text: text if text in ("max", "mean") else int(text),
    "a number from 0, max or mean",
)
_LIMITS = TextParam(
    "N|N,N,N|auto", _limits, "a number, three with commas between them (0.2,0.4,0.6), or auto"
)
DATA = click.Path(exists=True, dir_okay=False, path_type=Path)
_IMAGES = click.Path(exists=True, file_okay=False, path_type=Path)
_SCALARS = click.Choice(["auto", "float32", "bfloat16", "float16"])

_SHARED = {
    "result": click.argument("path", metavar="RESULT", type=RESULT),
    "results": click.argument("paths", nargs=-1, required=True, metavar="RESULT...", type=RESULT),
    "data": click.argument("data", nargs=-1, required=True, type=DATA),
    "images": click.option(
        "--images", type=_IMAGES, help="Folder of the images, where it is not the JSON's."
    ),
    "image": click.option(
        "--image", type=PLACE, help="Where the slide is by now, if it was moved."
    ),
    "protocol": click.option(
        "--protocol",
        metavar="NAME|FILE",
        help="he, ihc, fluorescence, blood_smear, …, or a YAML file; else by the image.",
    ),
    "model": click.option(
        "--model",
        default="default",
        show_default=True,
        metavar="default|cells|ihc|FILE",
        help="A shipped model (default: the protocol's), or one made by 'cellseg train'.",
    ),
    "score": click.option(
        "--score", type=_SCORE, help="Count cells from this score on; the protocol's otherwise."
    ),
    "mpp": click.option(
        "--mpp", type=PIXEL_SIZE, help="µm per pixel, where the file does not say or is wrong."
    ),
    "channel": click.option(
        "--channel", metavar="NUMBER|NAME", help="Channel to look at, as cellseg info lists them."
    ),
    "z": click.option(
        "--z", type=_PLANE, help="Plane (from 0) or projection; the middle plane otherwise."
    ),
    "t": click.option(
        "--t", type=click.IntRange(min=0), help="Time point (from 0); the first otherwise."
    ),
    "series": click.option(
        "--series", type=click.IntRange(min=0), default=0, help="Image (from 0) of several."
    ),
    "device": click.option(
        "--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps"
    ),
    "precision": click.option(
        "--precision",
        type=_SCALARS,
        default="auto",
        show_default=True,
        help="Of the network; auto: 8 bits if the model was checked in them, else half where "
        "hardware is made for it.",
    ),
    "inference": click.option(
        "--inference",
        type=click.Choice(["auto", "torch", "openvino"]),
        default="auto",
        show_default=True,
        help="What computes the network; auto: the fastest that was checked for the model.",
    ),
    "measure": click.option(
        "--measure",
        "measures",
        multiple=True,
        metavar="COLUMN",
        help="A measurement of cells.csv; several give combinations, each with its --threshold.",
    ),
    "threshold": click.option(
        "--threshold",
        "thresholds",
        multiple=True,
        type=_LIMITS,
        help="Cells at or above it are positive; three give 1+, 2+, 3+; auto proposes one.",
    ),
    "name": click.option(
        "--name", "names", multiple=True, help="What each marker is called in classes of several."
    ),
    "hotspot": click.option(
        "--hotspot",
        type=TextParam("MM2|CELLS[:CLASS]", _spot),
        help="Also the place where most positive cells (or cells of CLASS) lie together: 0.5 for "
        "0.5 mm², 500 for 500 cells. Fewer than 50 cells are written 30cells.",
    ),
    "times": click.option(
        "--t",
        type=TextParam("N|FIRST-LAST|all", _times, "3, 0-9 or all"),
        help="Time point (from 0), or several, each counted for itself; the first otherwise.",
    ),
    "chamber": click.option(
        "--chamber",
        type=TextParam("NAME|DEPTH", _depth),
        help="A counting chamber (neubauer, fuchs-rosenthal, … or its depth in µm): tell cells "
        "per mL.",
    ),
    "dilution": click.option(
        "--dilution",
        type=Number(1.0),
        help="To how many parts a part of the sample in the chamber was diluted; 2: one to one.",
    ),
    "no_prefilter": click.option(
        "--no-prefilter", is_flag=True, help="Look everywhere, not only where tissue is."
    ),
    "parquet": click.option(
        "--parquet", is_flag=True, help="Also cells.parquet: the cells of all images."
    ),
    "json": click.option(
        "--json", "as_json", is_flag=True, help="Print JSON, and nothing else on stdout."
    ),
}

_Command = TypeVar("_Command", bound=Callable[..., Any])


def shared(names: str) -> Callable[[_Command], _Command]:
    """Arguments and options of several commands, by their names, in this order."""

    def add(command: _Command) -> _Command:
        for name in reversed(names.split()):
            command = _SHARED[name](command)
        return command

    return add


def refuse_missing(image: Location) -> None:
    """Say so before anything is loaded; what lies behind a URL is asked when it is opened."""
    if isinstance(image, Path) and not is_there(image):
        raise InputError(f"{image}: no such file; check the path")
