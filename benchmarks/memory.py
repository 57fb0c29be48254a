"""Peak memory and time of counting slides of several sizes.

    python benchmarks/memory.py [--sides 5000,20000] [--spacing 60] [--folder SLIDES] [--plot OUT]
    python benchmarks/memory.py --sides 10000,31600,100000 --spacing 100 --plot scaling.png

Writes slides of separate discs, counts each in a process of its own with a threshold in the
network's place (the protocol and all settings as they come), and compares. Memory must not grow
with the slide, and time no faster than it: fails where the largest slide takes 300 MB more than the
smallest or more than 2 GB, or where a count is not the truth.
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
from large import LargeScene, write_large

LIMIT_MB, MOST_MB = 300.0, 2000.0
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
    from synthetic.threshold import ThresholdDetector

    from cellseg.counting.request import CountRequest
    from cellseg.run import CountResult, run

    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=slide.parent) as folder:
        request = CountRequest(image=slide, output=Path(folder))
        for event in run(request, detector=ThresholdDetector()):
            if isinstance(event, CountResult):
                seconds = time.perf_counter() - started
                record = json.loads((event.folder / "run.json").read_text())
                counted = event.summary.cells
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


def measured(folder: Path, scene: LargeScene) -> Figures:
    """Write a slide where it is not there yet, and count it in a fresh process."""
    slide = folder / f"discs-{scene.side_px}-{scene.spacing_px}.tif"
    if not slide.exists():
        unfinished = slide.with_suffix(".part")
        write_large(unfinished, scene)
        unfinished.replace(slide)
    command = [sys.executable, __file__, "--one", str(slide)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode:
        raise click.ClickException(f"counting {slide} ended with {finished.returncode}")
    found = json.loads(finished.stdout.splitlines()[-1])
    return Figures(side=scene.side_px, truth=scene.cells**2, **found)


def compared(folder: Path, scenes: list[LargeScene], plot: Path | None) -> list[str]:
    """Print the table; what is wrong."""
    figures = []
    for scene in scenes:
        figures.append(measured(folder, scene))
        click.echo(figures[-1].line)
    more = figures[-1].peak_mb - figures[0].peak_mb
    click.echo(f"the largest slide takes {more:+,.0f} MB (limit {LIMIT_MB:,.0f} MB)")
    for one in figures:
        stages = ", ".join(f"{name} {took:.1f} s" for name, took in one.stages.items())
        click.echo(f"{one.side:>7,}² px  {stages}")
    if plot is not None:
        draw(figures, plot)
    faults = [
        f"{one.side:,}² px: counted {one.counted:,}, expected {one.truth:,}"
        for one in figures
        if one.counted != one.truth
    ]
    faults += [
        f"{one.side:,}² px: {one.peak_mb:,.0f} MB" for one in figures if one.peak_mb > MOST_MB
    ]
    return faults + ([f"{more:,.0f} MB more for the largest"] if more > LIMIT_MB else [])


def draw(figures: list[Figures], path: Path) -> None:
    """Time and memory against the slide's pixels, both axes logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    time_axes, memory_axes = figure.subplots(1, 2)
    pixels = [one.side**2 for one in figures]
    seconds = [one.seconds for one in figures]
    time_axes.loglog(pixels, seconds, "o-", label="counted")
    linear = [seconds[-1] * count / pixels[-1] for count in pixels]
    time_axes.loglog(pixels, linear, ":", color="grey", label="linear through the largest")
    time_axes.set(xlabel="pixels of the slide", ylabel="seconds")
    time_axes.legend()
    memory_axes.semilogx(pixels, [one.peak_mb for one in figures], "o-")
    memory_axes.set(xlabel="pixels of the slide", ylabel="peak memory, MB", ylim=(0, MOST_MB))
    figure.savefig(path, dpi=120)


@click.command()
@click.option("--sides", default="5000,20000", show_default=True, help="Of the slides, px.")
@click.option("--spacing", default=60, show_default=True, help="Between two discs, px.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keeps the slides for the next time; a temporary folder otherwise.",
)
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--one", type=click.Path(exists=True, path_type=Path), hidden=True)
def main(
    sides: str, spacing: int, folder: Path | None, plot: Path | None, one: Path | None
) -> None:
    """Compare memory and time of counting slides of several sizes."""
    if one is not None:
        count_one(one)
        return
    scenes = [LargeScene(int(side), spacing_px=spacing) for side in sides.split(",")]
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        faults = compared(folder, scenes, plot)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            faults = compared(Path(temporary), scenes, plot)
    if faults:
        raise click.ClickException("; ".join(faults))


if __name__ == "__main__":
    main()
