"""What a GPU brings: tiles through the network, a count, its memory, and training steps.

    python benchmarks/gpu.py [--device cuda] [--side 8192] [--steps 100]

Tiles of real tissue (that of ``benchmarks/speed.py``) go through the network alone, and torch's
profiler tells where their time goes. A slide of it is counted with torch: in each precision, with
the batch that is chosen by the free memory and with others; a warm count of a small part goes
before. Then a training goes on its cells. Tables go to stdout as they are made.
See ``benchmarks/gpu.md``.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from speed import MPP, tissue_field, write_slides

from cellseg.counting.request import CountRequest
from cellseg.events import CountResult
from cellseg.network.detect import load_detector
from cellseg.network.torch_inference import best_precision, pick_device
from cellseg.run import run
from cellseg.train.request import Progress
from cellseg.train.run import TrainRequest, train

STAGES = ("read", "normalise", "quality", "wait for input", "detect", "paste", "measure", "write")
"""Sums over threads."""


def peak_gb(device: torch.device) -> float:
    """The most that torch held since the last call, GB; NaN where it does not say."""
    if device.type != "cuda":
        return float("nan")
    held = torch.cuda.max_memory_allocated(device) / 1e9
    torch.cuda.reset_peak_memory_stats(device)
    return held


def looks(field: NDArray[np.uint8], device: torch.device, size: int) -> Iterator[tuple[str, ...]]:
    """Rows: the look, cells, seconds. The last look's profile is printed after them.

    New tiles hold other numbers of cells than the first ones, so that shapes may be new as well.
    """
    start = time.perf_counter()
    detector = load_detector(device=str(device), inference="torch")
    yield "loading", "", f"{time.perf_counter() - start:.2f}"
    whole = np.pad(field, ((0, size), (0, size), (0, 0)), "symmetric").astype(np.float32) / 255
    steps = range(0, min(field.shape[:2]) // 2, 64)
    tiles = [whole[at : at + size, at : at + size] for at in steps]
    some = max(1, min(4, len(tiles) // 3))
    first, later = tiles[:some], tiles[some : 2 * some]
    looked = (
        ("first", first),
        ("the same", first),
        ("new tiles", later),
        ("new, alone", later[:1]),
    )
    with torch.profiler.profile() as profile:
        for name, images in looked:
            start = time.perf_counter()
            found = detector.detect(images, fill=1.0)
            cells = sum(len(one.instances) for one in found)
            yield name, f"{cells:,}", f"{time.perf_counter() - start:.2f}"
    for by in dict.fromkeys(("self_cpu_time_total", f"self_{device.type}_time_total")):
        click.echo(profile.key_averages().table(sort_by=by, row_limit=12, max_name_column_width=40))


def counted(request: CountRequest) -> CountResult:
    """The end of a count."""
    *_, last = run(request)
    assert isinstance(last, CountResult)
    return last


def counts(
    folder: Path, device: torch.device, side: int, batches: tuple[int, ...]
) -> Iterator[tuple[str, ...]]:
    """Rows: precision, batch, cells, seconds, mm² a minute, peak memory, seconds by stage."""
    field = tissue_field(None, MPP)
    (folder / "warm").mkdir()
    warm = write_slides(folder / "warm", field, 1024)[0]
    slide = write_slides(folder, field, side)[0]
    half = best_precision(device)
    for precision in dict.fromkeys((half, "float32")):
        for batch in (None, *batches) if precision == half else (None,):
            home = f"{precision}-{batch}"
            request = CountRequest(
                image=slide, output=folder / home, protocol="he_20x",
                prefilter=False, device=str(device), inference="torch", precision=precision,
                batch=batch, export=("cells.coco.json",),
            )  # fmt: skip
            counted(replace(request, image=warm, output=warm.parent / home))
            peak_gb(device)
            found = counted(request)
            seconds = found.result.section("seconds")
            yield (
                precision,
                "chosen" if batch is None else f"{batch}",
                f"{found.summary.cells:,}",
                f"{seconds['total']:.1f}",
                f"{60 * (side * MPP / 1000) ** 2 / seconds['total']:.1f}",
                f"{peak_gb(device):.2f}",
                *(f"{seconds[stage]:.1f}" for stage in STAGES),
            )


def trained(
    folder: Path, device: torch.device, steps: int, batches: tuple[int, ...]
) -> Iterator[tuple[str, ...]]:
    """Rows: crops a step, crops a second, peak memory. The first tenth of the steps is left out."""
    (data,) = folder.glob("float32-None/tissue*/cells.coco.json")
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
        yield f"{batch}", f"{batch / took:.1f}", f"{peak_gb(device):.2f}"


def table(heads: str, rows: Iterator[tuple[str, ...]]) -> None:
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
@click.option("--batches", default="1,4,16", show_default=True, help="Tiles, and crops, at once.")
def main(device: str, side: int, steps: int, batches: str) -> None:
    """Count, train, print."""
    where, sizes = pick_device(device), tuple(int(size) for size in batches.split(","))
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else str(where)
    click.echo(f"{name}, torch {torch.__version__}, a slide of {side:,}² px at {MPP:g} µm/px\n")
    table("look, cells, seconds", looks(tissue_field(None, MPP), where, min(side, 1024)))
    with tempfile.TemporaryDirectory() as folder:
        heads = "precision, tiles at once, cells, seconds, mm² a minute, peak GB"
        table(", ".join((heads, *STAGES)), counts(Path(folder), where, side, sizes))
        table("crops a step, crops a second, peak GB", trained(Path(folder), where, steps, sizes))


if __name__ == "__main__":
    main()
