"""Train the default model: the data, the schedule, and nothing that is not said here.

    python tools/train_default.py DATA --output FOLDER --minutes 720 [--device cuda]

DATA holds the sets' folders, each with ``train.json``; those that are not there are left out and
named. A training found in the output folder goes on; interrupted, it saves. ``--minutes`` is the
length of the whole schedule, over all parts. It leaves ``default.safetensors`` for
``cellseg/weights/``, whose checksum stands in ``cellseg/network/weights.py``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import click
import torch
from crop_changes import crop_of_any_stain

from cellseg.errors import Notice
from cellseg.network.modelfile import DataCard
from cellseg.network.weights import read_model, save_model
from cellseg.train import run
from cellseg.train.prepare import name_of

SETS = {
    "dsb2018": ("CC0-1.0", "2018 Data Science Bowl, stage1_train, lopuhin's mask fixes"),
    "tnbc": ("CC-BY-4.0", "Naylor, Laé, Reyal, Walter 2018, Zenodo 1175282"),
    "nucls": ("CC0-1.0", "NuCLS, Amgad et al. 2022"),
    "nuinsseg": ("CC-BY-4.0", "Mahbod et al. 2024, doi 10.1038/s41597-024-03117-2"),
    "nucls_mixed": ("CC0-1.0", "NuCLS, Amgad et al. 2022; boxes for some nuclei"),
    "ihc_synth": ("CC-BY-4.0 and CC0-1.0", "made from dsb2018, tnbc, nucls and nuinsseg"),
    "bbbc039": ("CC0-1.0", "BBBC039v1, Caicedo et al. 2019, Broad Bioimage Benchmark Collection"),
    "brca_m2c_outlined": ("BSD-3-Clause", "centres of BRCA-M2C, Abousamra et al. 2021, outlined"),
}
"""Licence and attribution; the last one's outlines are made by tools/outline_centres.py."""


def without_tiny(path: Path, folder: Path) -> Path:
    """A set's JSON in which debris (``tiny``) is to be ignored; the set's own where it has none."""
    data = json.loads(path.read_text())
    debris = [row for row in data["annotations"] if row.get("tiny")]
    if not debris:
        return path
    for row in debris:
        row["iscrowd"] = 1
    for image in data["images"]:
        image["file_name"] = Path(image["file_name"]).name
    copy = folder / "sets" / path.parent.name / path.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(json.dumps(data))
    if not (link := copy.parent / "images").exists():
        link.symlink_to((path.parent / "images").resolve())
    return copy


def reporter() -> run.Report:
    """Prints notices and validations, and the losses once a minute."""
    last = time.monotonic()

    def report(event: run.Event) -> None:
        nonlocal last
        if isinstance(event, Notice):
            click.echo(event)
        elif isinstance(event, run.Validated):
            click.echo(f"step {event.step}, {event.minutes:.1f} min: {event.scores}")
        elif time.monotonic() - last > 60:
            last = time.monotonic()
            losses = ", ".join(f"{key} {value:.3f}" for key, value in event.losses.items())
            click.echo(f"step {event.step}, {event.minutes:.1f} min: {losses}")

    return report


def licensed(cards: Sequence[DataCard]) -> tuple[DataCard, ...]:
    """Cards of sets with their licences and attributions."""
    return tuple(
        one.model_copy(update={"licence": SETS[one.name][0], "attribution": SETS[one.name][1]})
        for one in cards
    )


@click.command()
@click.argument("data", nargs=-1, type=click.Path(exists=True, path_type=Path), required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@click.option("--minutes", type=float, required=True)
@click.option("--init", default="imagenet", show_default=True)
@click.option("--name", default="cellseg-nuclei-15", show_default=True)
@click.option("--batch", default=4, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option("--validations", default=4, show_default=True)
@click.option("--device", default="auto", show_default=True)
def main(
    data: tuple[Path, ...],
    output: Path,
    minutes: float,
    init: str,
    name: str,
    batch: int,
    workers: int,
    validations: int,
    device: str,
) -> None:
    """Train on the sets below DATA (one folder or several)."""
    if device == "cpu":
        torch.set_num_threads(1)
    found = [root / each / "train.json" for root in data for each in SETS]
    files = tuple(without_tiny(path, output) for path in found if path.is_file())
    missing = set(SETS) - {name_of(path) for path in files}
    if missing:
        click.echo(f"not there: {', '.join(sorted(missing))}")
    request = run.TrainRequest(
        data=files,
        output=output,
        init=init,
        minutes=minutes,
        batch=batch,
        workers=workers,
        validations=validations,
        patience=validations,
        held_share=0.04,
        device=device,
        name=name,
    )
    state, card = read_model(run.train(request, report=reporter(), augment=crop_of_any_stain).model)
    # The shipped protocols hold its score and sizes.
    card = card.model_copy(
        update={"data": licensed(card.data), "settings": {}, "licence": "BSD-3-Clause"}
    )
    save_model(output / "default.safetensors", state, card, quantise=True)
    click.echo(output / "default.safetensors")


if __name__ == "__main__":
    main()
