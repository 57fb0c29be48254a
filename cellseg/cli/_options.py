"""Options and arguments of commands, and what their texts become."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from cellseg.errors import CellsegError, InputError, OutputError
from cellseg.storage import Location, as_location, is_there

if TYPE_CHECKING:
    from cellseg.table.hotspot import HotSpot


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
    """What a function makes of a text; ``expected`` is told where it raises a ValueError."""

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


Limits = Literal["auto"] | tuple[float, ...]

MOST_TIMES, DEPTH = 100_000, Number(1.0, 10_000.0)
MOST_SPOT_MM2 = 50  # A whole number from here on is a number of cells, not mm².


def _limits(text: str) -> Limits:
    if text == "auto":
        return "auto"
    found = tuple(float(part) for part in text.split(","))
    if len(found) not in (1, 3):
        raise ValueError(found)
    return found


def _plane(text: str) -> int | str:
    return text if text in ("max", "mean") else int(text)


def _times(text: str) -> int | range:
    """``3``, ``all``, or ``0-9``, both ends included."""
    first, dash, last = text.partition("-")
    if text == "all":
        return range(MOST_TIMES)
    if not first.isdecimal() or (dash and not (last.isdecimal() and int(first) <= int(last))):
        raise ValueError(text)
    return range(int(first), min(int(last) + 1, MOST_TIMES)) if dash else int(first)


def _spot(text: str) -> HotSpot:
    """``0.5`` (mm²), ``500`` (cells), with a class after a colon."""
    from pydantic import ValidationError

    from cellseg.table.hotspot import HotSpot

    size, _, of = text.partition(":")
    number = size.strip().removesuffix("mm2").removesuffix("cells")
    is_cells = number.isdecimal() and (size.endswith("cells") or int(number) >= MOST_SPOT_MM2)
    try:
        return HotSpot.model_validate({"cells" if is_cells else "mm2": number, "of": of})
    except ValidationError as error:
        said = f"{text!r}: {error.errors()[0]['msg']}; expected mm², as 0.5, or cells, as 500"
        raise click.BadParameter(said) from None


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


def _place(text: str, *, is_output: bool = False) -> Location:
    place = as_location(text)
    if not isinstance(place, Path):
        return place
    try:
        is_file = place.exists() and not place.is_dir()
    except OSError as error:  # a name that is too long, a folder that is closed
        kind = OutputError if is_output else InputError
        said = "cannot be written" if is_output else "cannot be read"
        raise kind(f"{place}: {said}: {error.strerror or error}") from error
    if is_output and is_file:
        raise click.BadParameter(f"{text!r} is a file, expected a folder")
    return place


def _result(text: str) -> Path:
    place = _place(text)
    if not isinstance(place, Path):
        raise InputError(f"{place}: is behind a URL; copy the result folder to a disk first")
    return place


PLACE = TextParam("PATH|URL", _place)  # A path, or a URL such as ``s3://bucket/slide.svs``.
RESULT = TextParam("RESULT", _result)  # A result folder on a disk.
result_argument = click.argument("path", metavar="RESULT", type=RESULT)
PATH, FILE = click.Path(path_type=Path), click.Path(path_type=Path, dir_okay=False)
DATA = click.Path(exists=True, dir_okay=False, path_type=Path)

_KINDS: dict[str, Any] = {
    "PATH": PATH,
    "FILE": FILE,
    "DIR": click.Path(path_type=Path, file_okay=False),
    "PATH|URL": PLACE,
    "DIR|URL": TextParam("DIR|URL", lambda text: _place(text, is_output=True)),
    "NUMBER": Number(),
    "N": int,
    "N|N,N,N|auto": TextParam("", _limits, "one number, three with commas between, or auto"),
    "N|max|mean": TextParam("", _plane, "a number from 0, max or mean"),
    "N|FIRST-LAST|all": TextParam("", _times, "3, 0-9 or all"),
    "MM2|CELLS[:CLASS]": TextParam("", _spot),
    "NAME|DEPTH": TextParam("", _depth),
}
"""What is read as something else than text, by how it is shown in the help."""

_FIELDS = {
    "class": "kind",
    "diameter": "diameter_px",
    "json": "as_json",
    "learn": "learn_from",
    "tile": "tile_px",
    "types": "cell_types",
    "val": "validation",
}
"""Arguments that are not called as their options."""

_SHARED = """
--mpp NUMBER              µm per pixel, where the file does not say or is wrong.
--channel NUMBER|NAME     Channel to look at, as cellseg info lists them.
--z N|max|mean            Plane (from 0) or projection; the middle plane otherwise.
--series N                Image (from 0) of several. [default: 0]
--image PATH|URL          Where the slide is by now, if it was moved.
--images DIR              Folder of the images, where it is not the JSON's.
--protocol NAME|FILE      he, ihc, fluorescence, blood_smear, …, or a YAML file; else by the image.
--model default|cells|FILE  A shipped model (default: the protocol's), or one made by 'cellseg
                          train'. [default: default]
--score NUMBER            Count cells from this score on; the protocol's otherwise.
--no-prefilter            Look everywhere, not only where tissue is.
--measure COLUMN...       A measurement of cells.csv; several give combinations, each with its
                          --threshold.
--threshold N|N,N,N|auto...  Cells at or above it are positive; three give 1+, 2+, 3+; auto proposes
                          one.
--name TEXT...            What each marker is called in classes of several.
--hotspot MM2|CELLS[:CLASS]  Also the place where most positive cells (or cells of CLASS) lie
                          together: 0.5 for 0.5 mm², 500 for 500 cells.
--parquet                 Also cells.parquet: the cells of all images.
--json                    Print JSON, and nothing else on stdout.
--device auto|cpu|cuda|mps  Where the network runs. [default: auto]
--precision [auto|float32|bfloat16|float16]  Of the network; auto: half where the device is faster
                          with it. [default: auto]
--inference [auto|torch|openvino]  What computes the network; auto: the fastest that was checked for
                          the model. [default: auto]
"""
_BOUNDS: dict[str, Any] = {
    "mpp": Number(0.001, 100.0),
    "score": Number(0.01, 1.0),
    "series": click.IntRange(min=0),
}

_Command = TypeVar("_Command", bound=Callable[..., Any])


class HeadedOption(click.Option):
    """An option under a heading of the help."""

    def __init__(self, *given: Any, heading: str, **about: Any) -> None:  # noqa: ANN401
        super().__init__(*given, **about)
        self.heading = heading


class HeadedCommand(click.Command):
    """A command whose help lists its options under their headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        told: dict[str, list[tuple[str, str]]] = {}
        for one in self.get_params(ctx):
            if isinstance(one, click.Option) and (record := one.get_help_record(ctx)):
                told.setdefault(getattr(one, "heading", "Other options"), []).append(record)
        for heading, records in told.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def options(text: str, **kinds: Any) -> Callable[[_Command], _Command]:  # noqa: ANN401 - of click
    """Options of a command, from a text that reads as their help.

    An option is a line: its names, what it takes, and after two spaces what it is for; lines that
    are indented go on. One that takes nothing is a flag, ``[a|b]`` takes one of these, and
    ``...`` may be given several times. Names without a text are options of several commands. A
    line that ends with a colon is a heading.

    Parameters
    ----------
    kinds : click.ParamType
        By argument: how it is read, where that does not follow from what it takes.
    """

    def add(command: _Command) -> _Command:
        for heading, names, said in reversed([*_rows(text)]):
            command = _option(heading, names, said, _BOUNDS | kinds)(command)
        return command

    return add


def _rows(text: str) -> Iterator[tuple[str, str, str]]:
    """Heading, names with what it takes, and help of each option of a text."""
    heading = "Options"
    for row in re.split(r"\n(?=\S)", dedent(text).strip()):
        names, _, said = re.sub(r"\n\s+", " ", row).partition("  ")
        if names.endswith(":"):
            heading = names[:-1]
        elif said:
            yield heading, names, said.strip()
        else:
            yield from ((heading, *_TOLD[name]) for name in names.split())


def _option(
    heading: str, left: str, said: str, kinds: dict[str, Any]
) -> Callable[[_Command], _Command]:
    names = [word.rstrip(",") for word in left.split() if word.startswith("-")]
    takes = " ".join(word for word in left.split() if not word.startswith("-"))
    shown, field = takes.removesuffix("..."), names[-1].lstrip("-").replace("-", "_")
    field = _FIELDS.get(field, field)
    about: dict[str, Any] = {"multiple": shown != takes, "required": said.endswith(" [required]")}
    said, _, default = said.removesuffix(" [required]").partition(" [default: ")
    if default:
        about |= {"default": default.rstrip("]"), "show_default": True}
    if not shown:
        about["is_flag"] = True
    elif shown.startswith("["):
        about["type"] = click.Choice(shown[1:-1].split("|"))
    else:
        kind = kinds.get(field, _KINDS.get(shown.partition(".")[0]))
        about |= {"type": kind, "metavar": shown, "nargs": shown.count(" ") + 1}
    return click.option(*names, field, cls=HeadedOption, heading=heading, help=said, **about)


_TOLD = {names.split()[0]: (names, said) for _, names, said in _rows(_SHARED)}


def refuse_missing(image: Location) -> None:
    """Say so before anything is loaded; what lies behind a URL is asked when it is opened."""
    if isinstance(image, Path) and not is_there(image):
        raise InputError(f"{image}: no such file; check the path")
