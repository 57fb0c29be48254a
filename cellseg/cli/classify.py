"""``cellseg classify``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from cellseg.cli._shared import RESULT, TextParam, hotspot_option, say, shared, tell
from cellseg.errors import PartialResultError, SettingsError
from cellseg.storage import Location

if TYPE_CHECKING:
    from cellseg.protocol import Marker
    from cellseg.result import Result
    from cellseg.table.hotspot import HotSpot

Limits = Literal["auto"] | tuple[float, ...]


def _limits(text: str) -> Limits:
    if text == "auto":
        return "auto"
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        said = f"{text!r} is no threshold: expected a number, three, or auto"
        raise click.BadParameter(said) from None
    if len(found) not in (1, 3):
        raise click.BadParameter(
            f"{text!r} has {len(found)} numbers, expected one, or three with commas between "
            "them (decimals have a point)"
        )
    return found


@click.command(
    epilog="""\b
Examples:
  cellseg classify slide.cellseg --measure dab_od_mean --threshold 0.2
  cellseg classify slide.cellseg --measure dab_od_mean --threshold 0.15,0.3,0.45
  cellseg classify results/ --measure dab_od_mean --threshold auto
  cellseg classify slide.cellseg --name CD3 --measure intensity_mean_cd3 --threshold 400 \\
                                 --name CD8 --measure intensity_mean_cd8 --threshold 250"""
)
@click.argument("paths", nargs=-1, required=True, metavar="RESULT...", type=RESULT)
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
    type=TextParam("N|N,N,N|auto", _limits),
    help="Cells at or above it are positive; three give 1+, 2+, 3+; auto proposes one.",
)
@click.option(
    "--name", "names", multiple=True, help="What each marker is called in classes of several."
)
@hotspot_option
@shared("image json")
def classify(
    paths: Sequence[Path],
    measures: Sequence[str],
    thresholds: Sequence[Limits],
    names: Sequence[str],
    hotspot: HotSpot | None,
    image: Location | None,
    as_json: bool,
) -> None:
    """Part cells into positive and negative, by thresholds on what was measured.

    Neither the network nor the slide's pixels are needed. The classes go into cells.csv, run.json,
    histogram.png and the pictures; exports that were made are made again. RESULT may be a folder
    of results: all slides get the same threshold, auto from all their cells together, and
    summary.csv and report.html are made anew.
    """
    # Imported late: it takes seconds, and --help needs none of it.
    from cellseg.cli._images import write_study_files
    from cellseg.run import change
    from cellseg.study.folder import load_study
    from cellseg.study.images import RESULT as ENDING
    from cellseg.study.summary import with_failures
    from cellseg.study.thresholds import common_thresholds

    markers = tuple(_markers(measures, thresholds, names))
    more: dict[str, Any] = {} if hotspot is None else {"hotspot": hotspot}
    if len(paths) == 1 and (paths[0].suffix.lower() == ENDING or not paths[0].is_dir()):
        result = change(paths[0], image=image, on_notice=tell, markers=markers, **more)
        say(_json(result) if as_json else str(result.summary))
        if not as_json:
            say(f"look: {paths[0] / 'histogram.png'}, {paths[0] / 'outlines.png'}")
        return
    if image is not None:
        raise SettingsError("--image belongs to one result")
    studies = [load_study(path) for path in paths]
    unread = [line for study in studies for line in study.unread]
    results = [result for study in studies for result in study.results]
    markers, methods, notices = common_thresholds(results, markers)
    for notice in notices:
        tell(f"all slides: {notice}")
    done = []
    for one in results:
        result = change(one.path, on_notice=tell, markers=markers, methods=methods, **more)
        done.append(result)
        if not as_json:
            say(f"{result.image_name}: {result.summary}")
    if as_json:
        say(f"[{', '.join(map(_json, done))}]")
    for path in paths:
        if path.suffix.lower() != ENDING:
            write_study_files(with_failures(load_study(path)), report=True, parquet=False)
    if unread:
        raise PartialResultError(f"{len(unread)} of the results could not be read")


def _json(result: Result) -> str:
    kept = ("cells_per_class", "labelling")
    found = {name: result.run["summary"][name] for name in kept}
    return json.dumps({"image": result.image_name, **found}, indent=2)


def _markers(
    measures: Sequence[str], thresholds: Sequence[Limits], names: Sequence[str]
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
