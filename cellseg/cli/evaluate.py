"""``cellseg evaluate``: how good the counts and outlines are on annotated images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cellseg.cli._shared import FOLDER, Number, say, shared
from cellseg.errors import Notice, SettingsError
from cellseg.text import visible

if TYPE_CHECKING:
    from cellseg.judge.centres import CentreEvaluation
    from cellseg.judge.evaluate import Evaluation

OUTLINES = ("F1@.5", "@.75", "accuracy@.5", "PQ", "AJI", "mask AP", "box AP", "area bias")
"""Columns that fit a terminal; the page has more."""


@click.command(
    epilog="""\b
Examples:
  cellseg evaluate val.json --report report
  cellseg evaluate val.json --model trained/trained.safetensors --json
  cellseg evaluate mine.json --protocol he --calibrate mine.yaml
  cellseg evaluate centres.csv --mpp 0.5 --within 3"""
)
@shared("data images model protocol score mpp device precision inference no_prefilter")
@click.option("--report", type=FOLDER, help="Folder for a page with plots and the worst images.")
@click.option(
    "--calibrate",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.yaml",
    help="Choose the score that makes the pooled count unbiased; write a protocol with it.",
)
@click.option(
    "--within",
    type=Number(0.0, min_open=True),
    help="For centres: how far apart, µm, is the same cell.  [default: 3]",
)
@shared("json")
def evaluate(
    data: tuple[Path, ...],
    no_prefilter: bool,
    report: Path | None,
    calibrate: Path | None,
    within: float | None,
    as_json: bool,
    **settings: Any,  # noqa: ANN401 - fields of EvaluateRequest
) -> None:
    """Count the annotated images of DATA (COCO JSON files, or CSV tables of centres) and compare.

    Every image goes through the whole of `cellseg count`. Counts, F1, accuracy, panoptic
    quality, AJI, COCO AP and the error of sizes are printed for all images and for each set,
    modality and class. Of centres (columns image, x, y, class): counts, F1 and, where the model
    tells them apart, classes.
    """
    # Here and not above: torch takes seconds to load.
    from cellseg.judge.evaluate import EvaluateRequest
    from cellseg.judge.evaluate import evaluate as run_evaluation
    from cellseg.protocol import save_protocol

    request = EvaluateRequest(
        data=data, prefilter=not no_prefilter, calibrate=calibrate is not None, **settings
    )
    tables = {path.suffix.lower() == ".csv" for path in data}
    if tables == {True}:
        if report or calibrate:
            raise SettingsError("--report and --calibrate want outlines (COCO JSON), not centres")
        from cellseg.judge.centres import WITHIN_UM, evaluate_centres

        found = _drained(evaluate_centres(request, WITHIN_UM if within is None else within))
    elif len(tables) > 1 or within is not None:
        raise SettingsError("--within is for centres (CSV), which stand alone")
    else:
        found = _drained(run_evaluation(request))
    if report is not None:
        from cellseg.judge.report import write_report

        say(f"report: {write_report(found, report)}", err=True)
    if calibrate is not None:
        protocol, chosen = found.calibrated()
        save_protocol(protocol, calibrate)
        before, (low, high) = found.images[0].score, chosen.interval
        say(
            f"score {chosen.score:g} (was {before:g}): count error {chosen.bias:+.1%} on these "
            f"images, {chosen.held_out_bias:+.1%} with each image held out; "
            f"95 % of true / counted {low:.2f} … {high:.2f}\n"
            f"protocol: {calibrate} (use it: cellseg count SLIDE --protocol {calibrate})",
            err=True,
        )
    if as_json:
        say(json.dumps(found.as_dict()))
    elif tables == {True}:
        _print_centres(found)
    else:
        _print(found)


def _drained(events: Iterator[Any]) -> Any:  # noqa: ANN401
    """The last event, an evaluation; those before it move a bar."""
    from cellseg.cli._images import Reporter
    from cellseg.judge.evaluate import ImageDone

    with Reporter() as reporter:
        for event in events:
            if isinstance(event, Notice):
                reporter.say(event)
            elif isinstance(event, ImageDone):
                line = f"{event.done:,}/{event.total:,} images"
                reporter.update(event.done / event.total, "counting", line, line)
    return event


def _print_centres(evaluation: CentreEvaluation) -> None:
    found, classes = evaluation.as_dict(), evaluation.classes
    heads = ["annotated", "counted", "bias", "F1", *(f"found as {name}" for name in classes)]
    of_class: dict[str, Any] = {"all": {**found, "found_as": {}}, **found["classes"]}
    rows = [
        (
            name,
            f"{one['annotated']:,}",
            f"{one['counted']:,}",
            "–" if one["bias"] is None else f"{one['bias']:+.1%}",
            "–" if one["f1"] is None else f"{one['f1']:.3f}",
            *map(str, one["found_as"].values()),
        )
        for name, one in of_class.items()
    ]
    title = f"centres within {evaluation.within_px:g} px"
    _print_table(title, [*heads, *(["no class"] if classes else [])], rows)
    mean, error = found["mean_class_f1"], found["error_per_image"]
    said = f"; mean F1 of the classes {mean:.3f}" if mean is not None else ""
    shown = "–" if error is None else f"{error:.1%}"
    say(f"{found['images']} images, error per image {shown}{said}")


def _print(evaluation: Evaluation) -> None:
    from cellseg.judge.judged import told_counts, told_outlines

    tables = evaluation.tables()
    counts = [(name, *told_counts(one).values()) for name, one in tables.items()]
    _print_table(f"{evaluation.model.object} counts", [*told_counts(tables["all"])], counts)
    shown = {name: told_outlines(one) for name, one in tables.items()}
    rows = [(name, *(one[head] for head in OUTLINES)) for name, one in shown.items()]
    _print_table("outlines and sizes", OUTLINES, rows)


def _print_table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table("", title=title, title_justify="left")
    for head in heads:
        table.add_column(escape(visible(head)), justify="right")
    for name, *cells in rows:
        table.add_row(escape(visible(name)), *cells)
    Console(highlight=False, width=None if Console().is_terminal else 140).print(table)
