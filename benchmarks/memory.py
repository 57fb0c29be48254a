"""Peak memory of counting a small and a large slide: it must not grow with the slide.

    python benchmarks/memory.py [--small 5000] [--large 20000] [--folder SLIDES]

Writes two slides of separate discs, counts each in a process of its own with a threshold in
the network's place (the protocol and all settings as they come), and compares. Fails where the
large slide takes 300 MB more than the small one, or where a count is not the truth.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

from cellseg.synthetic import LargeScene, write_large

LIMIT_MB = 300.0
PEAK_BYTES = 1 if sys.platform == "darwin" else 1024
"""Unit of ``ru_maxrss``."""


@dataclass(frozen=True)
class Figures:
    """One slide's run."""

    side: int
    truth: int
    counted: int
    peak_mb: float
    seconds: float
    stages: dict[str, float]

    @property
    def line(self) -> str:
        return (
            f"{self.side:>7,}² px  truth {self.truth:>9,}  counted {self.counted:>9,}"
            f"  off {self.counted - self.truth:>+5,}  peak {self.peak_mb:>8,.0f} MB"
            f"  {self.seconds:>8,.1f} s  {self.counted / self.seconds:>8,.0f} cells/s"
        )


def count_one(slide: Path) -> None:
    """In the child: count, print one line of JSON."""
    # Imported here: a parent without torch stays smaller than any child. (Linux hands the
    # peak of the process that starts another down to it.)
    from cellseg.pipeline import CountResult, run
    from cellseg.plan import CountRequest
    from cellseg.threshold import ThresholdDetector

    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=slide.parent) as folder:
        request = CountRequest(image=slide, output=Path(folder))
        for event in run(request, detector=ThresholdDetector()):
            if isinstance(event, CountResult):
                seconds = time.perf_counter() - started
                record = json.loads((event.cells.folder / "run.json").read_text())
                counted = len(event.cells)
    click.echo(
        json.dumps(
            {
                "counted": counted,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_BYTES / 1e6,
                "seconds": seconds,
                "stages": record["seconds"],
            }
        )
    )


def measured(folder: Path, side: int) -> Figures:
    """Write a slide where it is not there yet, and count it in a fresh process."""
    scene = LargeScene(side)
    slide = folder / f"discs-{side}.tif"
    if not slide.exists():
        unfinished = slide.with_suffix(".part")
        write_large(unfinished, scene)
        unfinished.replace(slide)
    command = [sys.executable, __file__, "--one", str(slide)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode:
        raise click.ClickException(f"counting {slide} ended with {finished.returncode}")
    found = json.loads(finished.stdout.splitlines()[-1])
    return Figures(side=side, truth=scene.cells**2, **found)


def compared(folder: Path, small: int, large: int) -> list[str]:
    """Print the table; what is wrong."""
    figures = []
    for side in (small, large):
        figures.append(measured(folder, side))
        click.echo(figures[-1].line)
    more = figures[1].peak_mb - figures[0].peak_mb
    click.echo(f"the large slide takes {more:+,.0f} MB (limit {LIMIT_MB:,.0f} MB)")
    for one in figures:
        stages = ", ".join(f"{name} {took:.1f} s" for name, took in one.stages.items())
        click.echo(f"{one.side:>7,}² px  {stages}")
    faults = [
        f"{one.side:,}² px: counted {one.counted:,}, expected {one.truth:,}"
        for one in figures
        if one.counted != one.truth
    ]
    return faults + ([f"{more:,.0f} MB more for the large slide"] if more > LIMIT_MB else [])


@click.command()
@click.option("--small", default=5_000, show_default=True, help="Side of the small slide, px.")
@click.option("--large", default=20_000, show_default=True, help="Side of the large slide, px.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keeps the slides for the next time; a temporary folder otherwise.",
)
@click.option("--one", type=click.Path(exists=True, path_type=Path), hidden=True)
def main(small: int, large: int, folder: Path | None, one: Path | None) -> None:
    """Compare the peak memory of counting a small and a large slide."""
    if one is not None:
        count_one(one)
        return
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        faults = compared(folder, small, large)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            faults = compared(Path(temporary), small, large)
    if faults:
        raise click.ClickException("; ".join(faults))


if __name__ == "__main__":
    main()
