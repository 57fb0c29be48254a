"""``cellseg teach``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from cellseg.cli._shared import FILE, PATH, Number, say, shared


@click.command(
    epilog="""\b
Examples:
  cellseg teach slide.cellseg --windows 10        where to correct, in napari
  cellseg teach slide.cellseg -o mine.safetensors  from the windows marked done there
  cellseg teach slide.cellseg --done 1,2,3,5 -o mine.safetensors
  cellseg teach slide.cellseg --learn corrected/annotations.json -o mine.safetensors
  cellseg count other.svs --model mine.safetensors"""
)
@shared("result")
@click.option("--windows", type=int, metavar="N", help="Write the N windows worth correcting most.")
@click.option(
    "--learn",
    "learn_from",
    type=PATH,
    help="Learn from these: GeoJSON of windows (else the result's windows.geojson), or COCO JSON "
    "or a folder of training data, of which every image counts as done.",
)
@click.option(
    "--done",
    metavar="NAMES|all",
    default="",
    help="Windows that are corrected: what is not outlined in them is background. Otherwise those "
    "marked done in napari, or of the class 'done'.",
)
@click.option("-o", "--output", type=FILE, help="The file of windows, or of the taught model.")
@click.option(
    "-m",
    "--minutes",
    type=Number(0.0),
    default=3.0,
    show_default=True,
    help="How long learning may take.",
)
@click.option("--object", type=click.Choice(["nucleus", "cell"]), help="What the outlines are of.")
def teach(
    path: Path, windows: int | None, done: str, output: Path | None,
    **settings: Any,  # noqa: ANN401 - arguments of cellseg.teach
) -> None:  # fmt: skip
    """Teach a result's model by a few corrected windows, in minutes.

    With --windows it says where to look. Otherwise the model's heads learn from the windows that
    are done. Each window is left out in turn to judge them, and a file is written only if they
    count better than before.
    """
    learned = [part.strip() for part in done.split(",") if part.strip()]
    if windows is not None and (learned or settings["learn_from"]):
        raise click.UsageError("say either --windows N, or what to learn from: --done, --learn")
    # Here and not above: torch takes seconds to load.
    from cellseg.train.windows import teach_windows

    if windows is not None:
        for one in teach_windows(path, windows, output=output):
            say(f"window {one.name}: {'done' if one.done else one.reason}")
        say(f"windows: {output or path / 'windows.geojson'}")
        return
    if output is None:
        raise click.UsageError("say --windows N, or with -o where the taught model goes")
    from cellseg.cli._progress import Reporter
    from cellseg.train.teach import teach as learn

    with Reporter() as reporter:
        told = learn(
            path,
            output,
            done=learned,
            report=lambda share: reporter.update(share, "learning", "", f"learning, {share:.0%}"),
            **settings,
        )
    say(f"{told.windows} windows with {told.cells} cells; in those that were left out:")
    for when, score in (("before", told.before), ("after ", told.after)):
        say(
            f"{when}: error of the count {score.error:.1%} ± {score.error_spread:.1%}, "
            f"F1 {score.f1:.3f} ± {score.f1_spread:.3f}"
        )
    if told.model is None:
        say("the old heads stay, nothing is written: the new ones are no better")
        return
    say(f"taught model: {told.model}; it counts from score {told.score:g} on")
    say(f"use it: cellseg count SLIDE --model {shlex.quote(str(told.model))}")
