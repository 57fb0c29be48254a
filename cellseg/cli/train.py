"""``cellseg train``: a model from your own annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cellseg.cli._shared import DATA, FOLDER, Number, say, shared
from cellseg.errors import Notice

if TYPE_CHECKING:
    from cellseg.cli._progress import Reporter
    from cellseg.train import run

USELESS_F1 = 0.2  # Models below this on the validation images are not recommended.
LINE_SECONDS = 30.0  # Without a terminal: at least so long between lines about losses.


@click.command(
    epilog="""\b
Examples:
  cellseg train cells.json --minutes 120 --mpp 0.25
  cellseg train cells.json --init imagenet --output my-model"""
)
@shared("data")
@click.option(
    "--val",
    "validation",
    type=DATA,
    help="COCO JSON to validate on; else a tenth of the images is held back.",
)
@shared("images")
@click.option(
    "--init",
    default="default",
    show_default=True,
    metavar="default|cells|coco|imagenet|none|FILE",
    help="What to start from: a shipped model, torchvision's COCO weights (fetched once, "
    "170 MB), ImageNet's (of the extra 'train'), random weights, or a model file.",
)
@click.option(
    "-o",
    "--output",
    default="trained",
    show_default=True,
    type=FOLDER,
    help="Folder of the model; an unfinished training found there goes on.",
)
@click.option("--minutes", type=Number(0.0), help="How long to train; 60 without --steps.")
@click.option("--steps", type=int, help="How many steps to train.")
@click.option("--batch", default=4, show_default=True, help="Crops a step.")
@shared("device")
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
@shared("mpp")
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
    from cellseg.cli._progress import Reporter
    from cellseg.train import checkpoint, run

    minutes = 60.0 if minutes is None and steps is None else minutes
    request = run.TrainRequest(minutes=minutes, steps=steps, **settings)
    with Reporter(err=False, quiet_s=LINE_SECONDS) as reporter:
        done = run.train(request, report=lambda event: _show(reporter, event))
    is_useful = _finish(done)
    if is_useful and not keep_checkpoint:
        checkpoint.forget(request.output)


def _finish(done: run.Trained) -> bool:
    """Say what came of it, and whether it is of use."""
    scores, card = done.card.scores, done.card
    if scores:
        said = {"mask AP": "mask_ap", "AP50": "mask_ap50", "F1": "f1"}
        shown = ", ".join(f"{title} {scores[name]:.3f}" for title, name in said.items())
        say(f"validation: {shown}")
    say(f"model: {done.model}")
    if scores and scores["f1"] < USELESS_F1:
        say(
            "it finds next to nothing of what is annotated, so do not count with it: train longer "
            "(--minutes), start from --init default, or look whether the masks fit the images"
        )
        return False
    say(f"use it: cellseg count SLIDE --model {done.model}")
    if card.mpp is None:
        say(
            f"pixel size unknown: it expects {card.object} diameters of about "
            f"{card.diameter_px:.0f} px (--mpp tells the pixel size of your images)"
        )
    else:
        say(f"it expects {card.mpp:.3g} µm per pixel")
    return True


def _show(reporter: Reporter, event: run.Event) -> None:
    from cellseg.train import run

    if isinstance(event, Notice):
        reporter.say(event)
    elif isinstance(event, run.Validated):
        found, best = event.scores, " (best so far)" if event.best else ""
        reporter.say(
            f"step {event.step}: validation mask AP {found.mask_ap:.3f}, F1 {found.f1:.3f}{best}"
        )
    else:
        losses = [f"{name.removeprefix('loss_')} {one:.3f}" for name, one in event.losses.items()]
        said, step = " ".join(losses), f"step {event.step}"
        line = f"{step}, {event.minutes:.1f} min, {100 * event.share:.0f} %: {said}"
        reporter.update(event.share, step, said, line)
