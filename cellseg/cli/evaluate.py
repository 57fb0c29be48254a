"""``cellseg evaluate``: how good the counts and outlines are on annotated images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cellseg.cli._options import (
    PIXEL_SIZE,
    Number,
    annotated_argument,
    images_option,
    precision_option,
)
from cellseg.cli._say import say
from cellseg.errors import CellsegError, Notice, SettingsError
from cellseg.text import number, percent, visible

if TYPE_CHECKING:
    from cellseg.judge.calibration import Calibrated
    from cellseg.judge.centres import CentreEvaluation
    from cellseg.judge.evaluate import Evaluation
    from cellseg.judge.judged import Scores


@click.command(
    epilog="""\b
Examples:
  cellseg evaluate val.json --report report
  cellseg evaluate val.json --model trained/trained.safetensors --json
  cellseg evaluate mine.json --protocol he --calibrate mine.yaml
  cellseg evaluate centres.csv --mpp 0.5 --within 3"""
)
@annotated_argument
@images_option
@click.option("--model", default="default", show_default=True, metavar="default|FILE")
@click.option("--protocol", metavar="NAME|FILE", help="Chosen from each image otherwise.")
@click.option("--score", type=Number(0.01, 1.0), help="Score threshold in place of the protocol's.")
@click.option("--mpp", type=PIXEL_SIZE, help="µm per pixel of images that do not say theirs.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps")
@precision_option
@click.option("--no-prefilter", is_flag=True, help="Look everywhere, not only at tissue.")
@click.option(
    "--report",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for a page with plots and the worst images.",
)
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
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
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

    request = EvaluateRequest(data=data, prefilter=not no_prefilter, **settings)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    tables = {path.suffix.lower() == ".csv" for path in data}
    if tables == {True}:
        if report or calibrate:
            raise SettingsError("--report and --calibrate want outlines (COCO JSON), not centres")
        from cellseg.judge.centres import WITHIN_UM, evaluate_centres

        events = evaluate_centres(request, WITHIN_UM if within is None else within)
        centres: CentreEvaluation = _drained(events, console)
        if as_json:
            say(json.dumps(centres.as_dict()))
        else:
            _print_centres(centres)
        return
    if len(tables) > 1 or within is not None:
        raise SettingsError("--within is for centres (CSV), which stand alone")
    evaluation: Evaluation = _drained(run_evaluation(request), console)
    if report is not None:
        from cellseg.judge.report import write_report

        page = write_report(evaluation, report)
        say(f"report: {page}", console=console)
    if calibrate is not None:
        found, chosen = evaluation.calibrated()
        save_protocol(found, calibrate)
        say(_calibrated(chosen, evaluation.images[0].score, calibrate), console=console)
    if as_json:
        say(json.dumps(evaluation.as_dict()))
    else:
        _print(evaluation)


def _calibrated(chosen: Calibrated, before: float, path: Path) -> str:
    low, high = chosen.interval
    return (
        f"score {chosen.score:g} (was {before:g}): count error {chosen.bias:+.1%} on these images, "
        f"{chosen.held_out_bias:+.1%} with each image held out; "
        f"95 % of true / counted {low:.2f} … {high:.2f}\n"
        f"protocol: {path} (use it: cellseg count SLIDE --protocol {path})"
    )


def _drained(events: Iterator[Any], console: Console) -> Any:  # noqa: ANN401
    """The last event, an evaluation; those before it move a bar."""
    from cellseg.judge.evaluate import ImageDone

    bar = Progress(
        TextColumn("images"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    task = bar.add_task("images", total=None)
    with bar:
        for event in events:
            if isinstance(event, Notice):
                say(event, console=console)
            elif isinstance(event, ImageDone):
                bar.update(task, completed=event.done, total=event.total)
            else:
                return event
    raise CellsegError("the evaluation ended without a result")


def _print_centres(evaluation: CentreEvaluation) -> None:
    scores, classes = evaluation.scores, evaluation.classes
    rows: dict[str, tuple[int, int, float, list[int]]] = {
        "all": (scores.truth, scores.found, scores.f1, [])
    }
    found = zip(
        scores.class_truth, scores.class_found, scores.class_f1, scores.confusion, strict=True
    )
    rows |= {
        name: (int(truth), int(count), float(f1), confused.tolist())
        for name, (truth, count, f1, confused) in zip(classes, found, strict=True)
    }
    heads = ["annotated", "counted", "bias", "F1", *(f"found as {name}" for name in classes)]
    cells = {
        name: [
            f"{truth:,}",
            f"{count:,}",
            f"{count / truth - 1:+.1%}" if truth else "–",
            f"{f1:.3f}",
            *map(str, confused),
        ]
        for name, (truth, count, f1, confused) in rows.items()
    }
    title = f"centres within {evaluation.within_px:g} px"
    _print_table(title, [*heads, *(["no class"] if classes else [])], cells)
    mean = f"; mean F1 of the classes {scores.class_f1.mean():.3f}" if classes else ""
    say(f"{scores.images} images, error per image {scores.error:.1%}{mean}")


def _print(evaluation: Evaluation) -> None:
    tables = evaluation.tables()
    for title, columns in ((f"{evaluation.model.object} counts", COUNTS), (OUTLINES, SCORES)):
        cells = {name: [told(one) for told in columns.values()] for name, one in tables.items()}
        _print_table(title, list(columns), cells)


def _print_table(title: str, heads: Sequence[str], rows: Mapping[str, Sequence[str]]) -> None:
    """A table of numbers, each row under its name."""
    table = Table("", title=title, title_justify="left")
    for head in heads:
        table.add_column(escape(visible(head)), justify="right")
    for name, cells in rows.items():
        table.add_row(escape(visible(name)), *cells)
    Console(highlight=False, width=None if Console().is_terminal else 140).print(table)


COUNTS: dict[str, Callable[[Scores], str]] = {
    "images": lambda one: f"{one.count.images:,}",
    "annotated": lambda one: f"{one.count.truth:,}",
    "counted": lambda one: f"{one.count.found:,}",
    "bias": lambda one: percent(one.count.bias, sign=True),
    "95 %": lambda one: " … ".join(percent(end, sign=True) for end in one.count.bias_interval),
    "per image": lambda one: percent(one.count.mean_relative),
    "median": lambda one: percent(one.count.median_relative),
}
OUTLINES = "outlines and sizes"
SCORES: dict[str, Callable[[Scores], str]] = {
    "F1@.5": lambda one: number(one.f1[0.5]),
    "F1@.75": lambda one: number(one.f1[0.75]),
    "accuracy@.5": lambda one: number(one.accuracy[0.5]),
    "PQ": lambda one: number(one.panoptic_quality),
    "AJI": lambda one: number(one.aji),
    "mask AP": lambda one: number(one.mask_ap),
    "box AP": lambda one: number(one.box_ap),
    "area bias": lambda one: percent(one.area_bias, sign=True),
}
"""Heading to what stands below it."""
