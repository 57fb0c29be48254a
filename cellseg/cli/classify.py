"""``cellseg classify``."""

from __future__ import annotations

import json
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from cellseg.cli._options import moved_option, result_argument
from cellseg.cli._say import say, tell
from cellseg.errors import SettingsError
from cellseg.storage import Location

if TYPE_CHECKING:
    from cellseg.protocol import Marker


class Threshold(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """``auto``, a number, or three with commas between them."""

    name = "N|N,N,N|auto"

    def convert(
        self,
        value: Any,  # noqa: ANN401
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Literal["auto"] | tuple[float, ...]:
        """Turn the option's text into thresholds."""
        if value == "auto":
            return "auto"
        try:
            found = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no threshold: expected a number, three, or auto", param, ctx)
        if len(found) not in (1, 3):
            self.fail(
                f"{value!r} has {len(found)} numbers, expected one, or three with commas between "
                "them (decimals have a point)",
                param,
                ctx,
            )
        return found


@click.command(
    epilog="""\b
Examples:
  cellseg classify slide.cellseg --measure dab_od_mean --threshold 0.2
  cellseg classify slide.cellseg --measure dab_od_mean --threshold 0.15,0.3,0.45
  cellseg classify slide.cellseg --measure dab_od_mean --threshold auto
  cellseg classify slide.cellseg --name CD3 --measure intensity_mean_cd3 --threshold 400 \\
                                 --name CD8 --measure intensity_mean_cd8 --threshold 250"""
)
@result_argument
@click.option(
    "--measure",
    "measures",
    multiple=True,
    required=True,
    metavar="COLUMN",
    help="A measurement of cells.csv; several give combinations, each with its --threshold.",
)
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    required=True,
    type=Threshold(),
    help="Cells at or above it are positive; three give 1+, 2+, 3+; auto proposes one.",
)
@click.option(
    "--name", "names", multiple=True, help="What each marker is called in classes of several."
)
@moved_option
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def classify(
    path: Path,
    measures: tuple[str, ...],
    thresholds: tuple[Literal["auto"] | tuple[float, ...], ...],
    names: tuple[str, ...],
    image: Location | None,
    as_json: bool,
) -> None:
    """Part a result's cells into positive and negative, by thresholds on what was measured.

    Neither the network nor the slide's pixels are needed. The classes go into cells.csv, run.json,
    histogram.png and the pictures; exports that were made are made again.
    """
    # Imported late: it takes seconds, and --help needs none of it.
    from cellseg.run import change

    markers = tuple(_markers(measures, thresholds, names))
    result = change(path, image=image, on_notice=tell, markers=markers)
    if as_json:
        summary = result.run["summary"]
        say(
            json.dumps({name: summary[name] for name in ("cells_per_class", "labelling")}, indent=2)
        )
        return
    say(str(result.summary))
    say(f"look: {path / 'histogram.png'}, {path / 'outlines.png'}")


def _markers(
    measures: tuple[str, ...],
    thresholds: tuple[Literal["auto"] | tuple[float, ...], ...],
    names: tuple[str, ...],
) -> list[Marker]:
    from pydantic import ValidationError

    from cellseg.protocol import MOST_MARKERS, Marker

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
        settings = {"measure": measure, "threshold": threshold, "name": name}
        try:
            found.append(Marker.model_validate(settings))
        except ValidationError as error:
            raise SettingsError(f"--threshold: {error.errors()[0]['msg']}") from error
    return found
