"""``cellseg classify``: thresholds, and classes that were learned from clicks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cellseg.cli._shared import FILE, Number, markers_of, say, shared, tell
from cellseg.cli.results import refuse, renew, studies_of, tell_of
from cellseg.errors import SettingsError
from cellseg.storage import Location

if TYPE_CHECKING:
    from cellseg.protocol import Marker
    from cellseg.result import Result
    from cellseg.table.hotspot import HotSpot
    from cellseg.table.taught import TaughtClasses


@click.command(
    epilog="""\b
Examples:
  cellseg classify slide.cellseg --measure dab_od_mean --threshold 0.2
  cellseg classify slide.cellseg --measure dab_od_mean --threshold 0.15,0.3,0.45
  cellseg classify results/ --measure dab_od_mean --threshold auto
  cellseg classify slide.cellseg --name CD3 --measure intensity_mean_cd3 --threshold 400 \\
                                 --name CD8 --measure intensity_mean_cd8 --threshold 250
  cellseg classify slide.cellseg --clicks clicks.csv -o classes.json
  cellseg classify results/ --taught classes.json --unsure 0.5"""
)
@shared("results measure threshold name")
@click.option(
    "--clicks",
    type=FILE,
    help="Learn classes from these cells: a CSV of class, and label or y and x (and result).",
)
@click.option(
    "--taught", type=FILE, help="Classes that were learned before; --clicks adds to them."
)
@click.option("-o", "--output", type=FILE, help="The file that gets these classes.")
@click.option(
    "--unsure",
    type=Number(0.0, 0.99),
    help="Cells that belong to no class with this probability become 'unsure'; 0: none do.",
)
@click.option("--undo", is_flag=True, help="Back to the classes of the model.")
@shared("hotspot image json")
def classify(
    paths: Sequence[Path],
    undo: bool,
    hotspot: HotSpot | None,
    image: Location | None,
    as_json: bool,
    **lesson: Any,  # noqa: ANN401 - of markers_of, and of _taught
) -> None:
    """Sort cells by thresholds, or like cells that you clicked.

    Neither the network nor the slide's pixels are needed. The classes go into cells.csv, run.json,
    histogram.png and the pictures; exports that were made are made again. RESULT may be a folder
    of results: all slides get the same threshold, auto from all their cells together, or the same
    taught classes, and summary.csv and report.html are made anew.
    """
    from cellseg.derive.classes import common_thresholds
    from cellseg.run import change

    markers = tuple(markers_of(lesson))
    given = {name for name, value in lesson.items() if value is not None}
    teaches = bool(given & {"clicks", "taught"})
    if (bool(markers), teaches, undo).count(True) != 1 or (given and not teaches):
        raise click.UsageError("say one of --measure; --clicks or --taught; --undo")
    studies = studies_of(paths, image)
    is_one = not studies
    results = [result for study in studies for result in study.results]
    decided: dict[str, Any] = {"markers": markers}
    if teaches:
        decided = {"taught": _taught([one.path for one in results] or paths, **lesson)}
        if not as_json:
            for name, (clicks, precision, recall) in decided["taught"].scores().items():
                say(f"{name}: {clicks} clicks, precision {precision:.2f}, recall {recall:.2f}")
    more: dict[str, Any] = {} if hotspot is None else {"hotspot": hotspot}
    if markers and not is_one:
        results = _measured(results, markers)
        markers, methods, notices = common_thresholds(results, markers)
        decided = {"markers": markers, "methods": methods}
        for notice in notices:
            tell(f"all slides: {notice}")
    done = []
    for path in paths if is_one else [result.path for result in results]:
        told = tell_of(path, studies)
        result = change(path, image=image, on_notice=told, is_lenient=not is_one, **decided, **more)
        kept = ("cells_per_class", "corrected_per_class", "labelling")
        found = {"image": result.image_name, **{name: result.run["summary"][name] for name in kept}}
        taught = {"taught": learned} if (learned := result.section("taught")) else {}
        done.append(json.dumps(found | taught, indent=2))
        if not as_json:
            say(str(result.summary) if is_one else f"{result.image_name}: {result.summary}")
    if as_json:
        say(done[0] if is_one else f"[{', '.join(done)}]")
    elif is_one:
        pictures = [paths[0] / name for name in ("histogram.png", "outlines.png")]
        say(f"look: {', '.join(str(one) for one in pictures if one.exists())}")
    renew(paths, studies)
    refuse(line for study in studies for line in study.unread)


def _measured(results: Sequence[Result], markers: Sequence[Marker]) -> list[Result]:
    """Those that have what is asked for; all where none has, so that the error says why."""
    from cellseg.derive.classes import known_markers

    found = []
    for result in results:
        with suppress(SettingsError):
            known_markers(markers, result.table.dtypes)
            found.append(result)
    for result in results if found else ():
        if result not in found:
            tell(f"{result.image_name}: has no such measurement, and is left as it is")
    return found or list(results)


def _taught(
    paths: Sequence[Path],
    clicks: Path | None,
    taught: Path | None,
    unsure: float | None,
    output: Path | None,
) -> TaughtClasses:
    """The classes of a file, of clicks, or of both."""
    from cellseg.derive.clicks import read_classes, teach_classes, to_look_at, write_classes
    from cellseg.result import load_result

    known = None if taught is None else read_classes(taught)
    if clicks is not None:
        known = teach_classes(paths, clicks, more=known, unsure=unsure)
    elif known is not None and unsure is not None:
        known = known.model_copy(update={"unsure": unsure})
    assert known is not None  # one of both was given
    for one in map(load_result, paths):  # before any of them is changed
        to_look_at(one, one.table.names, known.measurements)
    if output is not None:
        write_classes(known, output)
    return known
