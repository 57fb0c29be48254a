"""Options that several commands share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, cast

import click

from cellseg.errors import InputError, OutputError
from cellseg.storage import Location, as_location


class GroupedCommand(click.Command):
    """A command whose help lists its options under headings.

    Parameters
    ----------
    groups : dict
        Heading to the names of parameters, with spaces between them.
    """

    def __init__(self, *given: Any, groups: dict[str, str], **settings: Any) -> None:  # noqa: ANN401
        super().__init__(*given, **settings)
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those of no group last."""
        told = {one.name: one.get_help_record(ctx) for one in self.get_params(ctx)}
        for heading, names in self.groups.items():
            with formatter.section(heading):
                formatter.write_dl([record for name in names.split() if (record := told.pop(name))])
        with formatter.section("Other options"):
            formatter.write_dl([record for record in told.values() if record])


class Number(click.FloatRange):
    """A number with a decimal point; a comma is explained."""

    def convert(
        self,
        value: Any,  # noqa: ANN401
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Turn the option's text into a number."""
        if isinstance(value, str) and "," in value:
            self.fail(f"{value!r} has a comma: write decimals with a point, as 0.25", param, ctx)
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number", param, ctx)
        return number


PIXEL_SIZE = Number(0.001, 100.0)
"""µm per pixel of any microscope."""


class Plane(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A z plane: a number from 0, ``max`` or ``mean``."""

    name = "PLANE"

    def convert(
        self,
        value: Any,  # noqa: ANN401
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int | Literal["max", "mean"]:
        """Turn the option's text into a plane."""
        if isinstance(value, int):
            return value
        if value in ("max", "mean"):
            return cast("Literal['max', 'mean']", value)
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is no plane: expected a number from 0, max or mean", param, ctx)


class Place(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A path, or a URL such as ``s3://bucket/slide.svs``."""

    name = "PATH|URL"

    def __init__(self, *, folder: bool = False) -> None:
        self.folder = folder

    def convert(
        self,
        value: Any,  # noqa: ANN401
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Location:
        """Turn the argument's text into a place."""
        place = as_location(value)
        if not isinstance(place, Path):
            return place
        try:
            is_file = place.exists() and not place.is_dir()
        except OSError as error:  # a name that is too long, a folder that is closed
            kind = OutputError if self.folder else InputError
            said = "cannot be written" if self.folder else "cannot be read"
            raise kind(f"{place}: {said}: {error.strerror or error}") from error
        if self.folder and is_file:
            self.fail(f"{value!r} is a file, expected a folder", param, ctx)
        return place


class ResultPath(Place):
    """A result folder; it must lie on a disk."""

    def convert(
        self,
        value: Any,  # noqa: ANN401
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Path:
        """Turn the argument's text into a path."""
        place = super().convert(value, param, ctx)
        if not isinstance(place, Path):
            raise InputError(f"{place}: is behind a URL; copy the result folder to a disk first")
        return place


result_argument = click.argument("path", metavar="RESULT", type=ResultPath())

moved_option = click.option(
    "--image", type=Place(), help="Where the slide is by now, if it was moved."
)

annotated_argument = click.argument(
    "data",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)

images_option = click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the images, where it is not the JSON's.",
)

precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Of the network; auto: half where the device is faster with it.",
)


def refuse_missing(image: Location) -> None:
    """Say so before anything is loaded; what lies behind a URL is asked when it is opened.

    Raises
    ------
    InputError
    """
    if isinstance(image, Path) and not image.exists():
        raise InputError(f"{image}: no such file; check the path")
