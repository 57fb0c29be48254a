"""Write a large slide of discs with constant memory: python benchmarks/make_slide.py OUT.tif.

Prints what lies on it as one line of JSON.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import click
from large import LargeScene, write_large


@click.command()
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--side", default=20_000, show_default=True, help="Height and width, px.")
@click.option("--mpp", default=0.25, show_default=True, help="µm per pixel, for the tags.")
@click.option("--grey", is_flag=True, help="Bright discs on a dark ground, one channel.")
@click.option("--spacing", default=60, show_default=True, help="Side of the grid's cells, px.")
@click.option("--seed", default=0, show_default=True)
def main(out: Path, side: int, mpp: float, grey: bool, spacing: int, seed: int) -> None:
    """Write a slide of discs at known places to OUT."""
    started = time.perf_counter()
    try:
        scene = LargeScene(side, mpp=mpp, rgb=not grey, spacing_px=spacing, seed=seed)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    truth = write_large(out, scene)
    seconds = round(time.perf_counter() - started, 1)
    report = {"path": str(out), "side_px": side, **dataclasses.asdict(truth), "seconds": seconds}
    click.echo(json.dumps({**report, "bytes": out.stat().st_size}))


if __name__ == "__main__":
    main()
