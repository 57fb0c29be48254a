"""Does the tile size change the cells? Counts real tissue at several and matches the cells.

    python benchmarks/seams.py IMAGE... [--tiles 256,512,1024] [--mpp M] [--model FILE]

Every image goes through the whole of ``cellseg count`` once a tile size. The label images lie
on one lattice; cells of two runs are matched one-to-one, best pairs first, where their masks
overlap with an IoU of 0.5 or more. Pooled over all images the counts may differ by 0.3 %, and
1 % of the cells may lack a partner.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from cellseg.counting.request import CountRequest
from cellseg.errors import CellsegError
from cellseg.network.detector import Detector
from cellseg.result.result import Result, load_result
from cellseg.run import CountResult, run

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from synthetic.threshold import ThresholdDetector

COUNT_LIMIT = 0.003
UNMATCHED_LIMIT = 0.01
IOU = 0.5
BAND_PX = 1024


@dataclass
class Pair:
    """Two tile sizes, pooled over images."""

    cells: int = 0
    matched: int = 0

    def add(self, first: int, second: int, matched: int) -> None:
        self.cells += first + second
        self.matched += 2 * matched

    @property
    def unmatched(self) -> float:
        return (self.cells - self.matched) / max(1, self.cells)


@dataclass
class Pool:
    """All images so far."""

    counts: Counter[int] = field(default_factory=Counter)
    pairs: dict[tuple[int, int], Pair] = field(default_factory=dict)

    @property
    def spread(self) -> float:
        """Largest difference between two tile sizes' counts, relative to the smaller."""
        low, high = min(self.counts.values()), max(self.counts.values())
        return (high - low) / max(1, low)

    @property
    def unmatched(self) -> float:
        return max(pair.unmatched for pair in self.pairs.values())


def bands(result: Result) -> Iterator[NDArray[np.int64]]:
    """The label image in bands, so that it may be larger than the memory."""
    level = result.labels()[0]
    for y in range(0, level.shape[0], BAND_PX):
        yield np.asarray(level[y : y + BAND_PX]).astype(np.int64)


def tallied(keys: list[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct keys and how often each occurs, from one array of (keys, counts) a band."""
    if not keys:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    both = np.concatenate(keys, axis=1)
    found, place = np.unique(both[0], return_inverse=True)
    totals = np.zeros(len(found), np.int64)
    np.add.at(totals, place, both[1])
    return found, totals


def matched_cells(first: Result, second: Result) -> int:
    """One-to-one matches between two label images of one lattice."""
    shift = np.int64(2**32)
    pairs: list[NDArray[np.int64]] = []
    sizes: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
    for one, other in zip(bands(first), bands(second), strict=True):
        if one.shape != other.shape:
            raise click.ClickException(f"lattices differ: {one.shape} and {other.shape}")
        both = (one > 0) & (other > 0)
        pairs.append(np.stack(np.unique(one[both] * shift + other[both], return_counts=True)))
        for labels, into in zip((one, other), sizes, strict=True):
            into.append(np.stack(np.unique(labels[labels > 0], return_counts=True)))
    keys, shared = tallied(pairs)
    own = [tallied(into) for into in sizes]
    ends = np.stack([keys // shift, keys % shift])
    areas = [
        totals[np.searchsorted(found, side)]
        for (found, totals), side in zip(own, ends, strict=True)
    ]
    iou = shared / (areas[0] + areas[1] - shared)
    used: tuple[set[int], set[int]] = (set(), set())
    for index in np.argsort(-iou, kind="stable"):
        if iou[index] < IOU:
            break
        a, b = (int(side[index]) for side in ends)
        if a not in used[0] and b not in used[1]:
            used[0].add(a)
            used[1].add(b)
    return len(used[0])


def counted(request: CountRequest, detector: Detector | None) -> CountResult:
    for event in run(request, detector=detector):
        if isinstance(event, CountResult):
            return event
    raise click.ClickException(f"{request.image}: the run ended without a result")


def tile_sizes(text: str) -> list[int]:
    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise click.UsageError(f"--tiles: expected numbers like 256,512, got {text}") from error
    if len(sizes) < 2:
        raise click.UsageError(f"--tiles: expected at least two sizes, got {text}")
    return sizes


def compare_image(
    base: CountRequest,
    sizes: list[int],
    pool: Pool,
    detector: Detector | None,
) -> int:
    """Count one image at every tile size, add it to the pool; its tiles at the smallest."""
    results: dict[int, Result] = {}
    tiles: dict[int, int] = {}
    click.echo(str(base.image))
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            request = CountRequest(
                **{**vars(base), "output": Path(folder), "tile_px": size, "folder_name": str(size)}
            )
            event = counted(request, detector)
            results[size] = load_result(event.folder)
            tiles[size] = event.result.run["tiles"]["all"]
            pool.counts[size] += event.summary.cells
            own = json.loads((event.folder / "run.json").read_text())["summary"]
            merged = ", ".join(
                f"{name} {own[f'merge_{name}']:,}"
                for name in ("received", "duplicates", "parts_dropped", "stitched", "half_lost")
            )
            click.echo(
                f"  tile {size:>5} px  tiles {tiles[size]:>5,}  cells {event.summary.cells:>8,}"
                f"  {event.seconds:>7,.1f} s  ({merged})"
            )
            if event.tiles_failed:
                raise click.ClickException(f"{base.image}: {event.tiles_failed} tiles failed")
        counts = {size: result.run["summary"]["cells"] for size, result in results.items()}
        for first, second in combinations(sizes, 2):
            matched = matched_cells(results[first], results[second])
            pool.pairs.setdefault((first, second), Pair()).add(
                counts[first], counts[second], matched
            )
            click.echo(
                f"  {first} and {second} px: {matched:,} matched, without a partner "
                f"{counts[first] - matched:,} and {counts[second] - matched:,}"
            )
    return tiles[sizes[0]]


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--tiles", default="256,512,1024", show_default=True, help="Sides, model pixels.")
@click.option("--mpp", type=float, help="µm per pixel, where the file does not say.")
@click.option("--model", default="default", show_default=True)
@click.option("--protocol", help="Chosen from each image otherwise.")
@click.option("--score", type=float)
@click.option("--device", default="auto", show_default=True)
@click.option("--stand-in", is_flag=True, help="A threshold in the network's place.")
def main(
    images: tuple[Path, ...],
    tiles: str,
    mpp: float | None,
    model: str,
    protocol: str | None,
    score: float | None,
    device: str,
    stand_in: bool,
) -> None:
    """Count IMAGES at several tile sizes and match the cells."""
    sizes = tile_sizes(tiles)
    detector: Detector | None = ThresholdDetector() if stand_in else None
    pool = Pool()
    most = 0
    for image in images:
        base = CountRequest(
            image=image, mpp=mpp, model=model, protocol=protocol, score=score, device=device
        )
        try:
            most = max(most, compare_image(base, sizes, pool, detector))
        except CellsegError as error:
            raise click.ClickException(str(error)) from error
    report(pool, most)


def report(pool: Pool, most: int) -> None:
    """Print the pooled figures; fails beyond the limits."""
    counts = ", ".join(f"{size} px {count:,}" for size, count in sorted(pool.counts.items()))
    click.echo(f"cells by tile: {counts}")
    for (first, second), pair in pool.pairs.items():
        click.echo(f"without a partner, {first} and {second} px: {100 * pair.unmatched:.2f} %")
    click.echo(f"largest difference in counts: {100 * pool.spread:.2f} % (limit 0.3 %)")
    click.echo(f"most without a partner: {100 * pool.unmatched:.2f} % (limit 1 %)")
    faults = []
    if most < 2:
        faults.append("no image is larger than one tile: nothing was tested")
    if not any(pool.counts.values()):
        faults.append("no cells were found: nothing was tested")
    if pool.spread > COUNT_LIMIT:
        faults.append("the counts differ too much")
    if pool.unmatched > UNMATCHED_LIMIT:
        faults.append("too many cells lack a partner")
    if faults:
        raise click.ClickException("; ".join(faults))


if __name__ == "__main__":
    main()
