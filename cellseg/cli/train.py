"""``cellseg train``: a model from your own annotations."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cellseg.cli._options import PIXEL_SIZE, Number, annotated_argument, images_option
from cellseg.cli._say import say
from cellseg.errors import Notice

if TYPE_CHECKING:
    from cellseg.train import run

USELESS_F1 = 0.2
"""Models below this on the validation images are not recommended."""

LINE_SECONDS = 30.0
"""Without a terminal: at least so long between lines about losses."""


@click.command(
    epilog="""\b
Examples:
  cellseg train cells.json --minutes 120 --mpp 0.25
  cellseg train cells.json --init imagenet --output my-model"""
)
@annotated_argument
@click.option(
    "--val",
    "validation",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="COCO JSON to validate on; else a tenth of the images is held back.",
)
@images_option
@click.option(
    "--init",
    default="default",
    show_default=True,
    metavar="default|coco|imagenet|none|FILE",
    help="What to start from: the shipped model, torchvision's COCO weights (fetched once, "
    "170 MB), ImageNet's (of the extra 'train'), random weights, or a model file.",
)
@click.option(
    "-o",
    "--output",
    default="trained",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the model; an unfinished training found there goes on.",
)
@click.option("--minutes", type=Number(0.0), help="How long to train; 60 without --steps.")
@click.option("--steps", type=int, help="How many steps to train.")
@click.option("--batch", default=4, show_default=True, help="Crops a step.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps")
@click.option(
    "--resume/--restart",
    default=None,
    help="Insist on going on with the training in the output folder, or begin anew.",
)
@click.option(
    "--keep-checkpoint",
    is_flag=True,
    help="Keep a finished training's checkpoint, so that a larger --minutes prolongs it.",
)
@click.option(
    "--object",
    type=click.Choice(["nucleus", "cell"]),
    default="nucleus",
    show_default=True,
    help="What the masks outline.",
)
@click.option("--name", help="The model's name.")
@click.option("--mpp", type=PIXEL_SIZE, help="µm per pixel of images that do not say theirs.")
@click.option("--licence", default="not stated", help="Licence of the data, for the model card.")
def train(
    minutes: float | None,
    steps: int | None,
    keep_checkpoint: bool,
    **settings: Any,  # noqa: ANN401 - fields of TrainRequest
) -> None:
    """Train a model on DATA: COCO JSON files with polygons or masks.

    Exports of CVAT, LabelMe's converters and Roboflow are read as they are. Ctrl-C keeps what
    is done; the same command goes on.
    """
    # Here and not above: torch takes seconds to load.
    from cellseg.train import checkpoint, run

    minutes = 60.0 if minutes is None and steps is None else minutes
    request = run.TrainRequest(minutes=minutes, steps=steps, **settings)
    console = Console(highlight=False, soft_wrap=True)
    with _Printer(console) as printer:
        done = run.train(request, report=printer)
    is_useful = _finish(done)
    if is_useful and not keep_checkpoint:
        checkpoint.forget(request.output)


def _finish(done: run.Trained) -> bool:
    """Say what came of it, and whether it is of use."""
    scores = done.card.scores
    if scores:
        say(
            f"validation: mask AP {scores['mask_ap']:.3f}, AP50 {scores['mask_ap50']:.3f}, "
            f"F1 {scores['f1']:.3f}"
        )
    say(f"model: {done.model}")
    if scores and scores["f1"] < USELESS_F1:
        say(
            "it finds next to nothing of what is annotated, so do not count with it: train longer "
            "(--minutes), start from --init default, or look whether the masks fit the images"
        )
        return False
    say(f"use it: cellseg count SLIDE --model {done.model}")
    if done.card.mpp is None:
        say(
            f"pixel size unknown: it expects {done.card.object} diameters of about "
            f"{done.card.diameter_px:.0f} px (--mpp tells the pixel size of your images)"
        )
    else:
        say(f"it expects {done.card.mpp:.3g} µm per pixel")
    return True


class _Printer:
    """A progress bar on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = Progress(
            TextColumn("step {task.fields[step]}"),
            BarColumn(),
            TextColumn("{task.percentage:.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[losses]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.task = self.bar.add_task("train", total=1.0, step=0, losses="")
        self.said = -LINE_SECONDS

    def __enter__(self) -> _Printer:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def __call__(self, event: run.Event) -> None:
        """Show one event."""
        from cellseg.train import run

        if isinstance(event, Notice):
            say(event, console=self.console)
        elif isinstance(event, run.Validated):
            say(
                f"step {event.step}: validation mask AP {event.scores.mask_ap:.3f}, "
                f"F1 {event.scores.f1:.3f}" + (" (best so far)" if event.best else ""),
                console=self.console,
            )
        else:
            self._progress(event)

    def _progress(self, event: run.Progress) -> None:
        losses = " ".join(
            f"{name.removeprefix('loss_')} {value:.3f}" for name, value in event.losses.items()
        )
        self.bar.update(self.task, completed=event.share, step=event.step, losses=losses)
        now = time.monotonic()
        if not self.console.is_terminal and now - self.said >= LINE_SECONDS:
            self.said = now
            say(
                f"step {event.step}, {event.minutes:.1f} min, {100 * event.share:.0f} %: {losses}",
                console=self.console,
            )
