"""How many images of one's own a fine-tuning needs.

    python benchmarks/finetune.py TRAIN.json VAL.json [--images 0,5,10,20,30] [--minutes 45]
        [--init default] [--object cell] [--output finetune/]

For each number of images, drawn evenly over TRAIN, a model is trained as by ``cellseg train
--init INIT --minutes MINUTES --object OBJECT`` (a split of its own, early stopping), and VAL is
counted with it through the whole of ``cellseg count``. The row "0" is the model that it starts
from. Finished rows in the output folder are not made again, an interrupted training goes on.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np

from cellseg.errors import Notice
from cellseg.judge.evaluate import EvaluateRequest, Evaluation, evaluate
from cellseg.train.run import TrainRequest, Validated, train


def subset(data: Path, count: int, folder: Path) -> Path:
    """The first ``count`` images of an even walk over the file, as a COCO file beside it."""
    found = json.loads(data.read_text(encoding="utf-8"))
    places = np.linspace(0, len(found["images"]) - 1, count).round().astype(int)
    chosen = [found["images"][place] for place in places.tolist()]
    ids = {image["id"] for image in chosen}
    found["images"] = chosen
    found["annotations"] = [one for one in found["annotations"] if one["image_id"] in ids]
    path = folder / f"{count}-images.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


def tell(event: object) -> None:
    """Notes and validations, for the log."""
    if isinstance(event, Notice):
        click.echo(f"  {event}")
    if isinstance(event, Validated):
        click.echo(f"  step {event.step}, {event.minutes:.1f} min: {event.scores}")


def row(name: str, model: str, val: Path, trained: str) -> str:
    """One line of the table."""
    # Phase contrast fits no protocol: the light that such images are trained in.
    wanted = EvaluateRequest(data=(val,), model=model, protocol="brightfield")
    *_, last = evaluate(wanted)
    assert isinstance(last, Evaluation)
    scores = last.scores()
    return (
        f"| {name} | {trained} | {scores.accuracy[0.5]:.3f} | {scores.f1[0.5]:.3f} | "
        f"{scores.f1[0.75]:.3f} | {100 * scores.count.bias:+.1f} % | "
        f"{100 * scores.count.mean_relative:.1f} % |"
    )


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.argument("val", type=click.Path(exists=True, path_type=Path))
@click.option("--images", default="0,5,10,20,30", show_default=True)
@click.option("--minutes", default=45.0, show_default=True, help="Of each training, at most.")
@click.option("--init", default="default", show_default=True, help="default, or a model file.")
@click.option("--folder", type=click.Path(path_type=Path), help="Of the images, as --images.")
@click.option("--object", "outlined", default="cell", type=click.Choice(["cell", "nucleus"]))
@click.option("--output", default="finetune", type=click.Path(path_type=Path))
def main(
    data: Path,
    val: Path,
    images: str,
    minutes: float,
    init: str,
    folder: Path | None,
    outlined: str,
    output: Path,
) -> None:
    """Train, count, print the table."""
    output.mkdir(parents=True, exist_ok=True)
    store = output / "rows.json"
    rows = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
    available = len(json.loads(data.read_text(encoding="utf-8"))["images"])
    for count in sorted({min(int(part), available) for part in images.split(",")}):
        if str(count) in rows:
            continue
        click.echo(f"{count} images")
        if count == 0:
            rows["0"] = row("0", init, val, "–")
        else:
            done = train(
                TrainRequest(
                    data=(subset(data, count, output),),
                    images=folder or data.parent,
                    output=output / str(count),
                    init=init,
                    minutes=minutes,
                    object="cell" if outlined == "cell" else "nucleus",
                    name=f"{count}-images",
                ),
                report=tell,
            )
            took = f"{done.card.training['minutes']} min, {done.card.training['device']}"
            rows[str(count)] = row(str(count), str(done.model), val, took)
        click.echo(rows[str(count)])
        store.write_text(json.dumps(rows), encoding="utf-8")
    click.echo("\n| images | training | accuracy at IoU 0.5 | F1 | F1 at 0.75 | bias | per image |")
    click.echo("|---|---|---|---|---|---|---|")
    click.echo("\n".join(rows[key] for key in sorted(rows, key=int)))


if __name__ == "__main__":
    main()
