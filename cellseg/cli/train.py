"""Commands that make models: ``train``, ``teach``, and ``annotations`` to train on."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cellseg.cli._shared import DATA, FILE, FOLDER, PATH, Number, say, shared
from cellseg.errors import Notice

if TYPE_CHECKING:
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
    metavar="default|cells|ihc|coco|imagenet|none|FILE",
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
    from cellseg.cli._images import Reporter
    from cellseg.train import checkpoint, run

    minutes = 60.0 if minutes is None and steps is None else minutes
    request = run.TrainRequest(minutes=minutes, steps=steps, **settings)
    reporter = Reporter(err=False, quiet_s=LINE_SECONDS)

    def show(event: run.Event) -> None:
        if isinstance(event, Notice):
            reporter.say(event)
        elif isinstance(event, run.Validated):
            found, best = event.scores, " (best so far)" if event.best else ""
            said = f"mask AP {found.mask_ap:.3f}, F1 {found.f1:.3f}{best}"
            reporter.say(f"step {event.step}: validation {said}")
        else:
            losses = [f"{name.removeprefix('loss_')} {x:.3f}" for name, x in event.losses.items()]
            said, step = " ".join(losses), f"step {event.step}"
            line = f"{step}, {event.minutes:.1f} min, {100 * event.share:.0f} %: {said}"
            reporter.update(event.share, step, said, line)

    with reporter:
        done = run.train(request, report=show)
    if _finish(done) and not keep_checkpoint:
        checkpoint.forget(request.output)


def _finish(done: "run.Trained") -> bool:
    """Say what came of it; returns whether it is of use."""
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
    count clearly better than before.
    """
    learned = [part.strip() for part in done.split(",") if part.strip()]
    if windows is not None and (learned or settings["learn_from"]):
        raise click.UsageError("say either --windows N, or what to learn from: --done, --learn")
    # Here and not above: torch takes seconds to load.
    from cellseg.train.windows import teach_windows

    if windows is not None:
        found = teach_windows(path, windows, output=output)
        for one in found:
            say(f"window {one.name}: {'done' if one.done else one.reason}")
        if (new := sum(not one.done for one in found)) < windows:
            say(f"{new} of {windows} windows: no more fit side by side where cells are", err=True)
        say(f"windows: {output or path / 'windows.geojson'}")
        return
    if output is None:
        raise click.UsageError("say --windows N, or with -o where the taught model goes")
    from cellseg.cli._images import Reporter
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
        say("the old heads stay, nothing is written: the new ones are not clearly better")
        return
    say(f"taught model: {told.model}; it counts from score {told.score:g} on")
    say(f"use it: cellseg count SLIDE --model {shlex.quote(str(told.model))}")


@click.group(no_args_is_help=True)
def annotations() -> None:
    """Turn outlines from QuPath or ImageJ into training data."""


@annotations.command(
    epilog="""\b
Examples:
  cellseg annotations convert slide.geojson --image slide.svs -o training/cells.json
  cellseg annotations convert RoiSet.zip --image field.tif -o training/cells.json
  cellseg annotations convert drawn/*.geojson --image slides/ -o training/cells.json
  cellseg train training/cells.json"""
)
@click.argument("inputs", nargs=-1, required=True, type=PATH, metavar="FILE...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=FILE,
    metavar="FILE.json",
    help="The training data; its pictures go into a folder images/ beside it.",
)
@click.option(
    "--image",
    "images",
    multiple=True,
    type=PATH,
    metavar="SLIDE|FOLDER",
    help="The slide that was drawn on: once for each FILE, in the same order; or a folder, in "
    "which slides are called as the FILEs are. Without it they lie beside the FILEs.",
)
@shared("mpp channel")
@click.option(
    "--class",
    "kind",
    default="cell",
    show_default=True,
    metavar="NAME",
    help="What objects without a class are called.",
)
@click.option(
    "--whole-cells",
    is_flag=True,
    help="Of QuPath's cells take the cell's outline; otherwise its nucleus's.",
)
@click.option("--overwrite", is_flag=True, help="Replace FILE.json if it is there already.")
def convert(**settings: Any) -> None:  # noqa: ANN401 - fields of ConvertRequest
    """Turn FILEs of outlines into training data for cellseg train.

    FILE is a GeoJSON that QuPath exported (.geojson, .geojson.gz) or what ImageJ's ROI manager
    saved (.zip, .roi).

    Outline every cell, or mark where you outlined every cell: in QuPath as annotations of class
    Region*, in ImageJ as ROIs whose name begins with Region*. Each region is then cut out and
    learned from alone. What lies in annotations of class Ignore* is neither learned as a cell nor
    as background.
    """
    # Imported late: what reads slides takes a second to load, and --help needs none of it.
    from cellseg.train.convert import ConvertRequest, convert

    made = convert(ConvertRequest(**settings))
    for note in made.notes:
        say(note, err=True)
    say(f"{made.output}: {made.objects:,} objects on {made.pictures:,} pictures")
