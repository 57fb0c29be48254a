"""What a GPU brings: tiles through the network, a count, its memory, and training steps.

    python benchmarks/gpu.py [--device cuda] [--side 8192] [--steps 100]

Tiles of real tissue (that of ``benchmarks/speed.py``) go through the network alone. A slide of it
is counted with torch in each precision, twice: the first count looks for cuDNN's algorithms. Then a
training goes on its cells. Tables go to stdout as they are made. See ``benchmarks/gpu.md``.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from speed import MPP, tissue_field, tissue_of, write_slide

from cellseg.counting.request import CountRequest
from cellseg.events import CountResult
from cellseg.network.detect import load_detector
from cellseg.network.torch_inference import best_precision, pick_device
from cellseg.run import run
from cellseg.train.request import Progress
from cellseg.train.run import TrainRequest, train

STAGES = ("read", "normalise", "quality", "wait for input", "detect", "network", "paste",
          "measure", "write")  # fmt: skip
"""Sums over threads; ``network`` is the GPU's own thread, a part of ``detect``."""


def peak_gb(device: torch.device) -> float:
    """The most that torch held since the last call, GB; NaN where it does not say."""
    if device.type != "cuda":
        return float("nan")
    held = torch.cuda.max_memory_allocated(device) / 1e9
    torch.cuda.reset_peak_memory_stats(device)
    return held


def looks(field: NDArray[np.uint8], device: torch.device, sides: list[int]) -> Iterator[list[str]]:
    """Rows: a tile's side, the look, cells, seconds.

    A new tile holds another number of cells than the first one, so that shapes may be new as well.
    """
    start = time.perf_counter()
    detector = load_detector(device=str(device), inference="torch")
    yield ["", "loading", "", f"{time.perf_counter() - start:.2f}"]
    whole = tissue_of(field, max(sides) + 512).astype(np.float32) / 255
    for side in sides:
        first, later = (whole[at : at + side, at : at + side] for at in (0, 512))
        for name, tile in (("first", first), ("the same", first), ("a new one", later)):
            start = time.perf_counter()
            cells = len(detector.detect(tile, fill=1.0).instances)
            yield [f"{side:,}", name, f"{cells:,}", f"{time.perf_counter() - start:.3f}"]


def counts(folder: Path, device: torch.device, slide: Path, side: int) -> Iterator[list[str]]:
    """Rows: precision, cells, seconds, mm² a minute, peak memory, seconds by stage."""
    for precision in dict.fromkeys((best_precision(device), "float32")):
        for turn in ("first", "second"):
            request = CountRequest(
                image=slide, output=folder / f"{precision}-{turn}", protocol="he_20x",
                prefilter=False, device=str(device), inference="torch", precision=precision,
                export=("cells.coco.json",),
            )  # fmt: skip
            peak_gb(device)
            *_, found = run(request)
            assert isinstance(found, CountResult)
            seconds = found.result.section("seconds")
            yield [
                precision,
                turn,
                f"{found.summary.cells:,}",
                f"{seconds['total']:.1f}",
                f"{60 * (side * MPP / 1000) ** 2 / seconds['total']:.1f}",
                f"{peak_gb(device):.2f}",
                *(f"{seconds.get(stage, 0):.1f}" for stage in STAGES),
            ]


def trained(
    folder: Path, device: torch.device, steps: int, batches: list[int]
) -> Iterator[list[str]]:
    """Rows: crops a step, crops a second, peak memory. The first tenth of the steps is left out."""
    (data,) = folder.glob("float32-second/tissue*/cells.coco.json")
    for batch in batches:
        times: list[float] = []

        def report(event: object, times: list[float] = times) -> None:
            if isinstance(event, Progress):
                times.append(time.perf_counter())

        peak_gb(device)
        train(
            TrainRequest(
                data=(data,), output=folder / f"train-{batch}", images=folder, init="default",
                steps=steps, batch=batch, device=str(device), validations=1, resume=False,
            ),
            report=report,
        )  # fmt: skip
        first = len(times) // 10
        took = (times[-1] - times[first]) / max(1, len(times) - 1 - first)
        yield [f"{batch}", f"{batch / took:.1f}", f"{peak_gb(device):.2f}"]


def table(heads: str, rows: Iterator[list[str]]) -> None:
    """Print rows as they come."""
    names = heads.split(", ")
    click.echo("| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|")
    for row in rows:
        click.echo("| " + " | ".join(row) + " |")
    click.echo()


@click.command()
@click.option("--device", default="cuda", show_default=True)
@click.option("--side", default=8192, show_default=True, help="Of the slide, pixels.")
@click.option("--steps", default=100, show_default=True, help="Of each training.")
@click.option("--batches", default="4,16", show_default=True, help="Crops at once.")
def main(device: str, side: int, steps: int, batches: str) -> None:
    """Count, train, print."""
    where, field = pick_device(device), tissue_field(None, MPP)
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else str(where)
    click.echo(f"{name}, torch {torch.__version__}, a slide of {side:,}² px at {MPP:g} µm/px\n")
    sides = sorted({min(side, one) for one in (512, 2432)})
    table("side of a tile px, look, cells, seconds", looks(field, where, sides))
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        slide = write_slide(folder / "tissue.tif", tissue_of(field, side))
        heads = "precision, count, cells, seconds, mm² a minute, peak GB"
        table(", ".join((heads, *STAGES)), counts(folder, where, slide, side))
        crops = [int(number) for number in batches.split(",")]
        table("crops a step, crops a second, peak GB", trained(folder, where, steps, crops))


if __name__ == "__main__":
    main()
